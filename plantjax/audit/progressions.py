"""Arithmetic progressions of bias over weight: evenly spaced kinks of units that share an input.

A unit relu(w x + b) has its kink at x = -b / w. Units that interpolate a function between even
knots have kinks t, t + d, t + 2 d, ..., whatever the factor of each unit and of x.
"""

import jax
import jax.numpy as jnp

from plantjax.audit.layers import by_layer
from plantjax.types import Params

LONGEST = 5
"""Progressions are sought up to this length."""
PRECISION = 5e-5
"""Largest error of a term, in steps of the progression."""


def progressions(params: Params) -> Params:
    """Length of the longest arithmetic progression of -bias / weight that the entry is part of.

    Progressions are sought within each row of a kernel, from 2 (none) to 5; a bias has the largest
    score of its column. Layers without biases score 2. Takes O(R O^3) for a kernel [R, O].

    >>> import jax.numpy as jnp
    >>> bias = -jnp.array([1.0, 2.0, 9.0, 3.0, 4.0])
    >>> progressions({"kernel": jnp.ones((1, 5)), "bias": bias})["bias"].tolist()
    [4.0, 4.0, 2.0, 4.0, 4.0]
    """
    return by_layer(params, _score)


def _score(kernel: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    if bias is None:
        return jnp.full(kernel.shape, 2.0, kernel.dtype), None
    return longest(kernel, bias) if kernel.size else (kernel, jnp.full(bias.shape, 2.0, bias.dtype))


def longest(kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`progressions` in one layer, kernel [R, O] and bias [O]."""
    known = kernel != 0
    kinks = jnp.where(known, -bias[None, :] / jnp.where(known, kernel, 1.0), jnp.inf)
    scores = jax.lax.map(_longest, kinks)
    return scores, jnp.max(scores, axis=0)


def _longest(kinks: jax.Array) -> jax.Array:
    """The length [O] of the longest progression through each kink [O]; infinite ones have none."""
    n = kinks.size
    order = jnp.argsort(kinks)
    at = kinks[order]
    step = at[None, :] - at[:, None]  # from the first term to the second
    runs = (step > 0) & jnp.isfinite(step)
    step = jnp.where(runs, step, 0.0)
    start = jnp.where(runs, at[:, None], 0.0)
    terms = [jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[:, None], runs.shape)]
    terms.append(terms[0].T)
    length = jnp.full(runs.shape, 2, jnp.int32)
    for index in range(2, LONGEST):
        wanted = start + float(index) * step
        above = jnp.searchsorted(at, wanted.ravel()).reshape(wanted.shape)
        near = jnp.stack([jnp.maximum(above - 1, 0), jnp.minimum(above, n - 1)])
        error = jnp.abs(at[near] - wanted[None])
        best = jnp.argmin(error, axis=0)
        runs = runs & (jnp.min(error, axis=0) <= PRECISION * step)
        terms.append(jnp.take_along_axis(near, best[None], axis=0)[0])
        length = length + runs.astype(jnp.int32)
    found = jnp.full(n, 2, jnp.int32)
    for index, term in enumerate(terms):
        belongs = jnp.where(length > index, length, 2)
        found = found.at[term].max(belongs)
    return jnp.zeros(n, jnp.float32).at[order].set(found.astype(jnp.float32))
