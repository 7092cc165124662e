"""Pruning scores: one number per parameter of the masked network f(m theta); the highest are kept.

`SCORES[name](apply, loss)` gives a ScoreFn `(key, params, mask, batch) -> scores`. No score looks
at names or shapes: params is any pytree of float arrays, apply any function of it.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from plantjax import checks, masks, nets
from plantjax.scoring.lamp import lamp
from plantjax.scoring.ntk_sap import ntk_sap
from plantjax.scoring.prospr import prospr
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn

MakeScore: TypeAlias = Callable[[Apply, Loss], ScoreFn]

GRASP_TEMPERATURE = 200.0


def random(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores N(0, 1), the baseline: a random mask of exact density."""
    del apply, loss

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del mask, batch
        leaves, structure = jax.tree.flatten(params)
        return jax.tree.unflatten(structure, nets.draw(key, [leaf.shape for leaf in leaves]))

    return score


def magnitude(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |theta|, pruned or not (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""
    del apply, loss

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key, mask, batch
        return jax.tree.map(jnp.abs, params)

    return score


def snip(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |dL/dm| = |theta dL/d(m theta)| (Lee et al. 2019, https://arxiv.org/abs/1810.02340)."""

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

    Chains of dense layers are first rescaled layer by layer, by powers of two that keep every
    activation near one: all scores change by one common factor, and deep or wide networks neither
    overflow nor vanish (Tanaka et al. 2020, https://arxiv.org/abs/2006.05467).
    """
    del loss

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key
        ones = jnp.ones((1, *batch.x.shape[1:]), batch.x.dtype)
        positive = jax.tree.map(jnp.abs, masks.apply(params, mask))
        if nets.is_chain(positive):
            positive = _balanced(positive, ones)
        gradient = jax.grad(lambda p: jnp.sum(apply(p, ones)))(positive)
        return jax.tree.map(lambda p, g: jnp.abs(p * g), positive, gradient)

    return score


def _balanced(params: Params, x: jax.Array) -> Params:
    """Rescales a positive chain so that the largest activation of every layer is about one.

    Kernels are divided by powers of two, biases by the product so far: nothing is rounded.
    """
    balanced, total = {}, jnp.int32(0)
    for name, layer in zip(sorted(params), nets.layers(params), strict=True):
        grown = jnp.matmul(x, layer["kernel"], precision="highest")
        grown = grown + _times_power(layer["bias"], total)[None, :]
        peak = jnp.max(grown)
        _, exponent = jnp.frexp(jnp.where(peak > 0, peak, 1.0))
        total = total - exponent
        balanced[name] = {
            "kernel": _times_power(layer["kernel"], -exponent),
            "bias": _times_power(layer["bias"], total),
        }
        x = _times_power(grown, -exponent)
    return balanced


def _times_power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """Multiplies by 2^exponent as `ldexp` does, in a fifth of the time.

    Three powers of two, none beyond the floats, reach from the largest float to zero and back.
    """
    exponent = jnp.clip(exponent, -378, 378)
    third = exponent // 3
    for part in (third, third, exponent - 2 * third):
        x = x * jnp.ldexp(jnp.float32(1.0), part)
    return x


def get(score: str | MakeScore) -> MakeScore:
    """The score of this name, or the function itself, such as `partial(ntk_sap, resample=False)`.

    Raises:
      ValueError: if the name is unknown.
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
