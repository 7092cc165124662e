"""SynFlow: the share of all paths from inputs to outputs that go through a parameter."""

from functools import partial

import jax
import jax.numpy as jnp

from plantjax import masks, nets
from plantjax.nets import balancing, wirings
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn


def synflow(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |theta dR/dtheta|, R = sum of outputs of the network |m theta| on an all-ones input.

    Chains of dense layers and convolutions, and networks whose apply has a `wiring`, are first
    rescaled layer by layer, by powers of two that keep every activation near one. This changes all
    scores by one common factor, and avoids over- and underflow in deep or wide networks. If the
    apply has a `flow`, R uses `flow(params, x)`, in which batch norm should be the identity (Tanaka
    et al. 2020, https://arxiv.org/abs/2006.05467).

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
        wiring = wirings.of(apply, positive)
        if wiring is not None:
            balanced = balancing.balance(positive, wiring)
            if apply is not nets.apply and not hasattr(apply, "wiring"):  # a guess, so check
                follows = balancing.follows(flow, balanced, ones, wiring)
                balanced = jax.tree.map(partial(jnp.where, follows), balanced, positive)
            positive = balanced
        gradient = jax.grad(lambda p: jnp.sum(flow(p, ones)))(positive)
        return jax.tree.map(lambda p, g: jnp.abs(p * g), positive, gradient)

    return score
