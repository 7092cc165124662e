"""Detectors: data-free functions of the parameters whose highest scores suspect a planted ticket.

Each is pure, jits and vmaps, and takes any pytree. Scores do not depend on the scale of an array.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.audit.layers import by_layer
from plantjax.audit.progressions import progressions
from plantjax.types import Params

Detector: TypeAlias = Callable[[Params], Params]
"""`(params) -> scores`, a tree like params, float32; higher is more suspect."""

PARALLEL = 1e-6
"""Vectors are twins if the absolute cosine between them is above 1 minus this."""
EQUAL = 1e-6
"""Largest relative difference of duplicates."""


def large(params: Params) -> Params:
    """Magnitude, in root mean squares of the array.

    >>> import jax.numpy as jnp
    >>> large({"kernel": jnp.array([[1.0, -7.0]])})["kernel"].round(1).tolist()
    [[0.20000000298023224, 1.399999976158142]]
    """
    return jax.tree.map(lambda leaf: jnp.abs(leaf) / _rms(leaf), _floats(params))


def small(params: Params) -> Params:
    """The other tail of the magnitude: its negative."""
    return jax.tree.map(jnp.negative, large(params))


def twins(params: Params) -> Params:
    """The number of rows or columns of the kernel parallel to that of the entry, if two or longer.

    The larger count of the two; a bias counts as its column. Opposite directions are parallel.

    >>> import jax.numpy as jnp
    >>> kernel = jnp.array([[1.0, 2.0], [3.0, 1.0], [-2.0, -4.0]])
    >>> twins({"kernel": kernel})["kernel"].tolist()
    [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    """
    return by_layer(params, partial(_of_units, _twins))


def centred_twins(params: Params) -> Params:
    """The same as `twins` after the mean of each row and column is subtracted, if three or longer.

    An offset that all outputs of a unit share changes no predicted class, and hides nothing here.
    """
    return by_layer(params, partial(_of_units, _centred_twins))


def signs(params: Params) -> Params:
    """How one-sided the signs of a row or column are: |sum of n signs| / sqrt(n).

    >>> import jax.numpy as jnp
    >>> kernel = jnp.array([[1.0, 2.0, 3.0, 4.0], [1.0, -2.0, 3.0, -4.0]])
    >>> signs({"kernel": kernel})["kernel"][:, 1].round(2).tolist()
    [2.0, 0.0]
    """
    return by_layer(params, partial(_of_units, _signs))


def norms(params: Params) -> Params:
    """How far the norm of a row or column is from their geometric mean, |log(norm / mean)|."""
    return by_layer(params, partial(_of_units, _norms))


def duplicates(params: Params) -> Params:
    """The number of other entries of the array with the same magnitude, up to 1e-6 of it.

    >>> import jax.numpy as jnp
    >>> duplicates({"bias": jnp.array([0.5, -0.5, 0.3])})["bias"].tolist()
    [1.0, 1.0, 0.0]
    """

    def count(array: jax.Array) -> jax.Array:
        size = jnp.abs(array).ravel()
        order = jnp.sort(size)
        low = jnp.searchsorted(order, size * (1.0 - EQUAL), side="left")
        high = jnp.searchsorted(order, size * (1.0 + EQUAL), side="right")
        return (high - low - 1).astype(jnp.float32).reshape(array.shape)

    return jax.tree.map(count, _floats(params))


def _floats(params: Params) -> Params:
    checks.finite("params", params)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def _rms(leaf: jax.Array) -> jax.Array:
    return checks.divisor(jnp.sqrt(jnp.mean(jnp.square(leaf))))


def _of_units(
    score: Callable[[jax.Array], jax.Array], kernel: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """Scores entries by their row and column, by the larger score of the two vectors."""
    if not kernel.size:
        return kernel, None if bias is None else jnp.zeros_like(bias)
    column, row = score(kernel.T), score(kernel)
    both = jnp.maximum(row[:, None], column[None, :])
    return both, None if bias is None else column


def _twins(rows: jax.Array) -> jax.Array:
    return _parallel(rows, least=2)


def _centred_twins(rows: jax.Array) -> jax.Array:
    return _parallel(rows - jnp.mean(rows, axis=1, keepdims=True), least=3)


def _signs(rows: jax.Array) -> jax.Array:
    return jnp.abs(jnp.sum(jnp.sign(rows), axis=1)) / max(rows.shape[1], 1) ** 0.5


def _norms(rows: jax.Array) -> jax.Array:
    size = jnp.log(checks.divisor(jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))))
    return jnp.abs(size - jnp.mean(size)) if size.size else size


def _parallel(rows: jax.Array, least: int) -> jax.Array:
    """The number of other rows parallel to each [M]; 0 for rows of zeros or fewer entries."""
    if rows.shape[1] < least:
        return jnp.zeros(rows.shape[0], rows.dtype)
    norm = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1, keepdims=True))
    unit = rows / checks.divisor(norm)
    cosine = jnp.abs(jnp.matmul(unit, unit.T, precision="highest"))
    cosine = jnp.where(jnp.eye(rows.shape[0], dtype=bool), 0.0, cosine)
    return jnp.sum(cosine > 1.0 - PARALLEL, axis=1).astype(jnp.float32)


UNIT_SCORES = (_twins, _centred_twins, _signs, _norms)
"""What detectors of whole units score: `rows [M, n] -> [M]`."""

DETECTORS: dict[str, Detector] = checks.Names(
    {
        "large": large,
        "small": small,
        "twins": twins,
        "centred_twins": centred_twins,
        "progressions": progressions,
        "signs": signs,
        "norms": norms,
        "duplicates": duplicates,
    }
)
"""The registry of detectors: a new one takes one function and one entry here."""
