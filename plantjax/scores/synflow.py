"""SynFlow: the share of all paths from inputs to outputs that go through a parameter."""

import jax
import jax.numpy as jnp

from plantjax import masks
from plantjax.nets import balancing
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn


def synflow(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |theta dR/dtheta|, R = sum of outputs of the network |m theta| on an all-ones input.

    The network runs on numbers with exponents of their own (`nets.balancing`), because R is out of
    the range of floats in deep or wide networks. This changes all scores by one common factor. If
    the apply has a `flow`, R uses `flow(params, x)`, in which batch norm should be the identity
    (Tanaka et al. 2020, https://arxiv.org/abs/2006.05467).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> params = pj.nets.init(jax.random.key(0), (2, 8, 3), "he_zero_bias")
    >>> score = pj.SCORES["synflow"](pj.nets.apply, None)
    >>> batch = pj.types.Batch(jnp.ones((1, 2)), None)
    >>> scores = jax.jit(score)(jax.random.key(1), params, pj.masks.full(params), batch)
    >>> first, last = (jnp.sum(scores[name]["kernel"]) for name in params)
    >>> bool(jnp.isclose(first, last))  # every layer has the same sum
    True
    """
    del loss
    flow = getattr(apply, "flow", apply)

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key
        ones = jnp.ones((1, *batch.x.shape[1:]), batch.x.dtype)
        positive = jax.tree.map(jnp.abs, masks.apply(params, mask))
        values, gradient = balancing.value_and_grad(lambda p: jnp.sum(flow(p, ones)), positive)
        return jax.tree.map(lambda p, g: jnp.abs(p * g), values, gradient)

    return score
