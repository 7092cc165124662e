"""Gradual pruning during training, as a wrapper around any optax optimizer."""

from collections.abc import Callable
from typing import TypeAlias

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, losses, masks, nets, scores
from plantjax.masks.allocations import ALLOCATIONS
from plantjax.optim.packing import Packed
from plantjax.optim.sparse import Sparse
from plantjax.optim.views import Leaves
from plantjax.types import Batch, Key, Params, Prunable, Schedule

Method: TypeAlias = Callable[[Key, Params, Params, Params], Params]
"""`(key, params, gradient, mask) -> scores`; the highest are kept."""


def prune(
    optimizer: optax.GradientTransformation,
    *,
    density: chex.Numeric,
    end: int,
    method: str | Method = "magnitude",
    schedule: str | Schedule = "cubic",
    begin: int = 0,
    every: int = 100,
    scope: str = "global",
    key: Key | None = None,
    prunable: Prunable | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Prunes while the optimizer trains: after `end` updates the network has its density.

    Updates are counted from 1. The updates begin + every, begin + 2 every, ... and `end` first
    prune to `schedule(density, update - begin, end - begin)`, by the parameters and gradients that
    they are given, and then step. So pruned parameters are exactly zero after the update, and stay
    so. The inner optimizer sees the sparse network alone, see `keep_pruned`; where an entry is
    pruned, its entries in the inner state (moments, averages) become zero.

    Put everything inside that should see the sparse network: a chain with clipping, MultiSteps
    (whose small steps then count as updates), averages, schedule-free, `apply_if_finite`.

    Args:
      optimizer: any optax optimizer.
      density: share of the prunable parameters that is kept in the end, in (0, 1]; may be traced.
      end: number of updates after which the density is reached, at least 1 and `begin`.
      method: a name in METHODS, or `(key, params, gradient, mask) -> scores`, of trees of the
        prunable leaves by path.
      schedule: a name in `masks.SCHEDULES`, or such a function: "cubic", "linear" and "exponential"
        prune step by step, "one_shot" at `end`.
      begin: number of updates before which nothing is pruned.
      every: number of updates from one pruning to the next.
      scope: see `masks.select`, also for patterns such as "2:4"; or a name in `masks.ALLOCATIONS`,
        for its numbers per layer.
      key: random numbers of method "random", and priorities of ties; by default that of seed 0.
      prunable: predicate on leaf paths; other leaves, and those that are not floats, are kept. By
        default every leaf of floats is prunable.

    Returns:
      An optax optimizer with a SparseState; see `mask` and `density`. Its `update` needs the
      parameters, and works under jit, scan and vmap.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Zhu and Gupta 2017, section 3, https://arxiv.org/abs/1710.01878, for the cubic schedule;
    there moments of pruned weights are not mentioned.

    >>> import jax, jax.numpy as jnp, optax, plantjax as pj
    >>> params = {"w": jnp.array([3.0, -1.0, 2.0, 0.5])}
    >>> optimizer = prune(optax.sgd(0.25), density=0.5, end=4, every=2)
    >>> state, update = optimizer.init(params), jax.jit(optimizer.update)
    >>> for _ in range(4):
    ...     updates, state = update(jax.tree.map(jnp.sign, params), state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> params["w"].tolist(), float(pj.optim.density(state))
    ([2.0, 0.0, 1.0, 0.0], 0.5)
    """
    checks.density(density)
    checks.integer("begin", begin, 0)
    checks.integer("end", end, max(begin, 1))
    checks.integer("every", every, 1)
    if scope not in ALLOCATIONS:
        masks.check_scope("scope", scope)
    if scope == "oracle":
        raise ValueError("scope must not be oracle, since prune gets no counts per layer.")
    if not callable(method):
        checks.choice("method", method, METHODS)
    score_fn: Method = method if callable(method) else METHODS[method]
    kept_after = masks.schedules.get(schedule)
    key = jax.random.key(0) if key is None else key
    span = max(end - begin, 1)

    def due(step: jax.Array) -> jax.Array:
        number = step + 1 - begin
        regular = (number > 0) & (number % every == 0) & (step + 1 < end)
        return regular | (step + 1 == end)

    def change(step: jax.Array, params: Leaves, gradient: Leaves, mask: Leaves) -> Leaves:
        score_key, select_key = jax.random.split(jax.random.fold_in(key, step))
        shown = [
            {path: leaf.astype(jnp.float32) for path, leaf in tree.items()}
            for tree in (params, gradient)
        ]
        values = score_fn(score_key, shown[0], shown[1], mask)
        now = jnp.where(step + 1 == end, span, step + 1 - begin)
        kept = kept_after(density, now, span)
        counts = ALLOCATIONS[scope](params, kept) if scope in ALLOCATIONS else None
        where = scope if counts is None else "oracle"
        return masks.select(select_key, values, kept, where, mask, counts)

    def start(params: Params, packed: Packed) -> Leaves:
        return packed.unpack()

    return Sparse(optimizer, start, prunable, due, change).transformation()


def magnitude(key: Key, params: Params, gradient: Params, mask: Params) -> Params:
    """The size |theta| of a parameter."""
    del key, gradient, mask
    return jax.tree.map(jnp.abs, params)


def saliency(key: Key, params: Params, gradient: Params, mask: Params) -> Params:
    """The first-order effect on the loss |theta dL/dtheta| (Molchanov et al. 2017).

    Source: https://arxiv.org/abs/1611.06440; SNIP (https://arxiv.org/abs/1810.02340) is the same at
    initialisation.
    """
    del key, mask
    return jax.tree.map(lambda p, g: jnp.abs(p * g), params, gradient)


def random(key: Key, params: Params, gradient: Params, mask: Params) -> Params:
    """Random numbers."""
    del gradient, mask
    return draws.normal(key, params)


def lamp(key: Key, params: Params, gradient: Params, mask: Params) -> Params:
    """Squares relative to those of the larger weights of a layer, see `scores.lamp`."""
    del gradient
    score_fn = scores.lamp(nets.apply, losses.mean_squared_error)  # it uses neither, nor a batch
    return score_fn(
        key, params, mask, Batch(jnp.zeros((1, 1), jnp.float32), jnp.zeros((1, 1), jnp.float32))
    )


METHODS: dict[str, Method] = {
    "magnitude": magnitude,
    "saliency": saliency,
    "random": random,
    "lamp": lamp,
}
"""The scores by which `prune` prunes."""
