"""LAMP: squared magnitudes, normalised within their layer so that layers are comparable."""

import jax
import jax.numpy as jnp

from plantjax import checks, masks
from plantjax.masks import groups
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn


def lamp(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores w_i^2 / sum over w_j^2 >= w_i^2 of w_j^2, kernel and bias of a layer together.

    The largest weight of every layer scores 1, so no layer loses its last weight while another one
    has two left (Lee et al. 2021, eq. 3, https://arxiv.org/abs/2010.07611, where a layer is only
    its kernel). Weights of equal size have equal scores; w are those of the masked network.

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> params = {"layer_00": {"kernel": jnp.array([[1.0, 2.0]])}}
    >>> score = pj.SCORES["lamp"](None, None)
    >>> print(score(jax.random.key(0), params, pj.masks.full(params), None)["layer_00"]["kernel"])
    [[0.2 1. ]]
    """
    del apply, loss

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key, batch
        vectors, unravel = groups.ravel_layers(masks.apply(params, mask))
        return unravel([_scores(vector) for vector in vectors])

    return score


def _scores(weights: jax.Array) -> jax.Array:
    sizes = jnp.abs(weights)
    peak = jnp.max(sizes)  # normalise first: squares of tiny weights would underflow
    squares = jnp.square(sizes / checks.divisor(peak))
    ordered = jnp.sort(squares, descending=True)
    sums = jnp.cumsum(ordered)
    last = jnp.searchsorted(-ordered, -squares, side="right") - 1  # the last of equal size
    total = sums[last]
    return squares / checks.divisor(total)
