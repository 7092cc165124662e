"""Dynamic sparse training as an optax transformation: drop the smallest weights, grow others.

The mask is part of the optimizer's state. It takes dense gradients, of a network whose pruned
parameters are zero, and keeps them at zero.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, layerwise, masks, ranking
from plantjax.types import Key, Mask, Params

GROWTHS = ("random", "gradient")
"""Where weights grow: anywhere (SET), or where the dense gradient is largest (RigL)."""


class RewiringState(NamedTuple):
    """Steps done, the key of the next random choice, the mask, the state of the inner optimizer."""

    step: jax.Array
    key: Key
    mask: Mask
    inner: optax.OptState


def rewire(
    inner: optax.GradientTransformation,
    key: Key,
    mask: Mask,
    *,
    grow: str,
    steps: int,
    every: int = 100,
    stop: float = 0.75,
    fraction: float = 0.3,
) -> optax.GradientTransformation:
    """Trains the kept parameters by `inner`; every so many steps, moves some of them elsewhere.

    In step t = every, 2 every, ... < stop * steps, every layer drops the share
    fraction / 2 (1 + cos(pi t / (stop steps))) of its kept parameters, those of the smallest |w|,
    and grows as many of those that are then not kept. Grown ones start at zero, with a fresh state
    of the inner optimizer; one that is dropped and grown at once goes on as it was. No gradient
    step is made then. A layer is the arrays of one parent path.

    Args:
      inner: any optax optimizer whose state has the structure of the parameters in it.
      key: consumed.
      mask: where training starts; the parameters are zero elsewhere.
      grow: one of GROWTHS.
      steps: of the whole training.
      every: steps between two changes of the mask.
      stop: the share of the training after which the mask stays, in [0, 1].
      fraction: share of a layer that is dropped at first, in [0, 1].

    Returns:
      An optax transformation with a RewiringState; every layer keeps its number of parameters.

    Raises:
      ValueError: if grow is unknown or a number out of range.

    Source: RigL, Evci et al. 2020, https://arxiv.org/abs/1911.11134; SET, Mocanu et al. 2018,
    https://arxiv.org/abs/1707.04780, which drops a constant share after each epoch, the smallest
    positive and the largest negative weights: here it has the schedule of RigL, as in that paper.
    """
    checks.choice("grow", grow, GROWTHS)
    checks.integer("steps", steps, 0)
    checks.integer("every", every, 1)
    checks.interval("stop", stop, 0.0, 1.0)
    checks.interval("fraction", fraction, 0.0, 1.0)
    end = max(stop * steps, 1.0)
    last = math.ceil(stop * steps)

    def init(params: Params) -> RewiringState:
        return RewiringState(jnp.int32(0), key, mask, inner.init(params))

    def train(
        gradient: Params, state: RewiringState, params: Params
    ) -> tuple[Params, Mask, optax.OptState]:
        updates, after = inner.update(masks.apply(gradient, state.mask), state.inner, params)
        return masks.apply(updates, state.mask), state.mask, after

    def change(
        gradient: Params, state: RewiringState, params: Params
    ) -> tuple[Params, Mask, optax.OptState]:
        share = fraction / 2 * (1.0 + jnp.cos(math.pi * state.step.astype(jnp.float32) / end))
        wanted = gradient if grow == "gradient" else jax.tree.map(jnp.zeros_like, gradient)
        moved = _move(jax.random.fold_in(state.key, state.step), params, state.mask, wanted, share)
        after = optax.tree_map_params(
            inner, lambda s, m: jnp.where(m, s, jnp.zeros_like(s)), state.inner, moved
        )
        updates = jax.tree.map(lambda p, m: jnp.where(m, jnp.zeros_like(p), -p), params, moved)
        return updates, moved, after

    def update(
        gradient: Params, state: RewiringState, params: Params | None = None
    ) -> tuple[Params, RewiringState]:
        due = (state.step > 0) & (state.step % every == 0) & (state.step < last)
        updates, kept, after = jax.lax.cond(due, change, train, gradient, state, params)
        return updates, RewiringState(state.step + 1, state.key, kept, after)

    return optax.GradientTransformation(init, update)


def _move(key: Key, params: Params, mask: Mask, wanted: Params, share: chex.Numeric) -> Mask:
    """Drops a share of every layer, the smallest |params|, and grows the largest |wanted|."""
    drop_key, grow_key = jax.random.split(key)
    kept, unravel = layerwise.ravel(mask)
    sizes, wishes = (layerwise.ravel(jax.tree.map(jnp.abs, tree))[0] for tree in (params, wanted))
    counts = jnp.stack([jnp.sum(vector, dtype=jnp.int32) for vector in kept])
    dropped = jnp.floor(share * counts.astype(jnp.float32)).astype(jnp.int32)
    stay, _ = ranking.top(drop_key, sizes, counts - dropped, kept)
    grown, _ = ranking.top(grow_key, wishes, dropped, [~vector for vector in stay])
    return unravel([a | b for a, b in zip(stay, grown, strict=True)])
