"""Pruning scores: one number per parameter of the masked network f(m theta); the highest are kept.

`SCORES[name](apply, loss)` gives a ScoreFn `(key, params, mask, batch) -> scores`. No score looks
at names or shapes: params is any pytree of float arrays, apply any function of it.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp

from plantjax import balancing, checks, masks, nets, wirings
from plantjax.scoring.lamp import lamp
from plantjax.scoring.ntk_sap import ntk_sap
from plantjax.scoring.prospr import prospr
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn

MakeScore: TypeAlias = Callable[[Apply, Loss], ScoreFn]

GRASP_TEMPERATURE = 200.0


def random(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores N(0, 1), the baseline: a random mask of exact density.

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> score = pj.SCORES["random"](None, None)
    >>> params = {"w": jnp.ones((2, 3))}
    >>> score(jax.random.key(0), params, pj.masks.full(params), None)["w"].shape
    (2, 3)
    """
    del apply, loss

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del mask, batch
        leaves, structure = jax.tree.flatten(params)
        return jax.tree.unflatten(structure, nets.draw(key, [leaf.shape for leaf in leaves]))

    return score


def magnitude(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |theta|, pruned or not (Han et al. 2015, https://arxiv.org/abs/1506.02626).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> score = pj.SCORES["magnitude"](None, None)
    >>> params = {"w": jnp.array([-2.0, 1.0])}
    >>> score(jax.random.key(0), params, pj.masks.full(params), None)["w"].tolist()
    [2.0, 1.0]
    """
    del apply, loss

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key, mask, batch
        return jax.tree.map(jnp.abs, params)

    return score


def snip(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |dL/dm| = |theta dL/d(m theta)| (Lee et al. 2019, https://arxiv.org/abs/1810.02340).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> def apply(params, x):
    ...     return x @ params["w"]
    >>> params, mask = {"w": jnp.array([[1.0], [-2.0]])}, {"w": jnp.ones((2, 1), bool)}
    >>> batch = pj.types.Batch(jnp.array([[3.0, 1.0]]), jnp.zeros((1, 1)))
    >>> score = pj.SCORES["snip"](apply, lambda outputs, y: jnp.sum(outputs - y))
    >>> score(jax.random.key(0), params, mask, batch)["w"].tolist()
    [[3.0], [2.0]]
    """

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key
        masked = masks.apply(params, mask)
        gradient = jax.grad(lambda p: loss(apply(p, batch.x), batch.y))(masked)
        return jax.tree.map(lambda p, g: jnp.abs(p * g), params, gradient)

    return score


def grasp(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores theta (H g): what keeping a parameter adds to the gradient's norm.

    H and g belong to the loss of the outputs divided by 200 and to the kept parameters; H g is one
    Hessian-vector product (Wang et al. 2020, eq. 8, https://arxiv.org/abs/2002.07376).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> def apply(params, x):
    ...     return x @ params["w"]
    >>> params, mask = {"w": jnp.array([[1.0], [-2.0]])}, {"w": jnp.ones((2, 1), bool)}
    >>> batch = pj.types.Batch(jnp.array([[3.0, 1.0]]), jnp.zeros((1, 1)))
    >>> score = pj.SCORES["grasp"](apply, lambda outputs, y: jnp.sum(jnp.square(outputs - y)))
    >>> values = score(jax.random.key(0), params, mask, batch)["w"]  # theta x 4 f |x|^2 / 200^4
    >>> (1e8 * values).round(3).tolist()
    [[7.5], [-5.0]]
    """

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key

        def tempered(p: Params) -> jax.Array:
            outputs = apply(masks.apply(p, mask), batch.x)
            return loss(outputs / GRASP_TEMPERATURE, batch.y)

        gradient = jax.grad(tempered)
        _, product = jax.jvp(gradient, (params,), (gradient(params),))
        return jax.tree.map(jnp.multiply, params, product)

    return score


def synflow(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |theta dR/dtheta|, R = sum of outputs of the network |m theta| on an all-ones input.

    Chains of dense layers and convolutions, and networks whose apply has a `wiring`, are first
    rescaled layer by layer, by powers of two that keep every activation near one: all scores change
    by one common factor, and deep or wide networks neither overflow nor vanish. If the apply has a
    `flow`, R is that of `flow(params, x)`: batch norm is to be the identity there (Tanaka et al.
    2020, https://arxiv.org/abs/2006.05467).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> params = pj.nets.init(jax.random.key(0), (2, 8, 3), "he_zero_bias")
    >>> score = pj.SCORES["synflow"](pj.nets.apply, None)
    >>> batch = pj.types.Batch(jnp.ones((1, 2)), None)
    >>> scores = score(jax.random.key(1), params, pj.masks.full(params), batch)
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
            if apply is not nets.apply and not hasattr(apply, "wiring"):  # a guess: try it
                follows = balancing.follows(flow, balanced, ones, wiring)
                balanced = jax.tree.map(partial(jnp.where, follows), balanced, positive)
            positive = balanced
        gradient = jax.grad(lambda p: jnp.sum(flow(p, ones)))(positive)
        return jax.tree.map(lambda p, g: jnp.abs(p * g), positive, gradient)

    return score


def get(score: str | MakeScore) -> MakeScore:
    """The score of this name, or the function itself, such as `partial(ntk_sap, resample=False)`.

    Raises:
      ValueError: if the name is unknown.

    >>> import plantjax as pj
    >>> get("snip") is pj.SCORES["snip"]
    True
    """
    if callable(score):
        return score
    checks.choice("score", score, SCORES)
    return SCORES[score]


SCORES: dict[str, MakeScore] = {
    "random": random,
    "magnitude": magnitude,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "lamp": lamp,
    "ntk_sap": ntk_sap,
    "prospr": prospr,
}
"""The registry of scores: a new one takes one function and one entry here."""

PAPER_SCORES = ("random", "magnitude", "snip", "grasp", "synflow")
"""The scores that the paper compares."""
