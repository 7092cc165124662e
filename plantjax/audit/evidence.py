"""Evidence of all detectors together, against the same mother with its entries in random order.

Permuting the entries of an array keeps their values and destroys how they belong together. So for
every score we know how often it is reached by chance, whatever the initialisation, and need neither
data nor thresholds. What depends on single values alone, such as magnitude, gives no evidence.
"""

import jax
import jax.numpy as jnp

from plantjax import checks, draws
from plantjax.audit.detectors import UNIT_SCORES, equals
from plantjax.audit.layers import by_layer
from plantjax.audit.progressions import longest
from plantjax.types import Key, Params

DEVIATIONS = 2.0
"""Standard deviations that are subtracted from a logarithm of two counts."""


def evidence(key: Key, params: Params) -> Params:
    """The sum over detectors of how much more often a score is reached than by chance.

    Let O rows (columns, or entries, whatever a detector looks at) of an array score at least as
    high as this one, and N after its entries are permuted. The evidence is
    log((O + 1) / (N + 1)) minus two of its standard deviations, if that is positive. An entry has
    its own evidence and the larger one of its row and column.

    Args:
      key: consumed.
      params: any pytree of float arrays.

    Returns:
      A tree like params, float32, at least 0.

    Raises:
      ValueError: if a parameter is not a finite float.

    >>> import jax, plantjax as pj
    >>> mother = pj.nets.init(jax.random.key(0), (2, 80, 4))
    >>> planted = pj.plant(jax.random.key(1), pj.targets.circle(depth=3), mother)
    >>> found = pj.audit.evidence(jax.random.key(2), planted.params)["layer_01"]["kernel"]
    >>> bool((found[planted.mask["layer_01"]["kernel"]] > 1.0).all())
    True
    """
    checks.finite("params", params)
    keys = iter(jax.random.split(key, 1 + len(jax.tree.leaves(params))))

    def layer(kernel: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        shuffled = draws.permuted(next(keys), (kernel, bias))
        return _of_layer((kernel, bias), shuffled)

    return by_layer(params, layer)


def _of_layer(
    real: tuple[jax.Array, jax.Array | None], by_chance: tuple[jax.Array, jax.Array | None]
) -> tuple[jax.Array, jax.Array | None]:
    kernel, bias = real
    total = _surplus(equals(kernel), equals(by_chance[0]))
    of_bias = None
    if bias is not None and by_chance[1] is not None:
        of_bias = _surplus(equals(bias), equals(by_chance[1]))
    if not kernel.size:
        return total, of_bias
    row, column = (
        jax.vmap(_surplus)(_units(matrix), _units(other))
        for matrix, other in ((kernel, by_chance[0]), (kernel.T, by_chance[0].T))
    )  # [detectors, R] and [detectors, O]
    total = total + jnp.sum(jnp.maximum(row[:, :, None], column[:, None, :]), axis=0)
    of_bias = None if of_bias is None else of_bias + jnp.sum(column, axis=0)
    (weights, biases), (others, other_biases) = longest(*real), longest(*by_chance)
    total = total + _surplus(weights, others)
    if of_bias is not None and biases is not None and other_biases is not None:
        of_bias = of_bias + _surplus(biases, other_biases)
    return total, of_bias


def _units(rows: jax.Array) -> jax.Array:
    return jnp.stack([score(rows) for score in UNIT_SCORES])


def _surplus(scores: jax.Array, by_chance: jax.Array) -> jax.Array:
    """log((O + 1) / (N + 1)) minus its standard deviations, at least 0, for each score."""
    counts = []
    for reached in (scores, by_chance):
        below = jnp.searchsorted(jnp.sort(reached.ravel()), scores.ravel(), side="left")
        counts.append((scores.size - below + 1).astype(jnp.float32))
    observed, expected = counts
    spread = jnp.sqrt(1.0 / observed + 1.0 / expected)
    surplus = jnp.log(observed / expected) - DEVIATIONS * spread
    return jnp.maximum(surplus, 0.0).reshape(scores.shape)
