"""Dynamic sparse training (SET, RigL): drops the smallest weights during training, grows others.

`rewire` is an optax transformation whose state holds the mask. It takes dense gradients of a
network whose pruned parameters are zero, and keeps them at zero.
"""

import math
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets, scores, training
from plantjax.finders import common
from plantjax.masks import groups, topk
from plantjax.masks.allocations import ALLOCATIONS
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Prunable, Task

GROWTHS = ("random", "gradient")
"""Where weights grow: at random (SET), or where the dense gradient is largest (RigL)."""


@common.on_floats
def sparse_training(
    task: Task,
    *,
    grow: str,
    apply: Apply = nets.apply,
    allocation: str = "erk",
    search_epochs: int = 10,
    batch_size: int = 32,
    search_learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    every: int = 100,
    stop: float = 0.75,
    fraction: float = 0.3,
    prunable: Prunable | None = None,
) -> Finder:
    """Trains a sparse network whose mask changes during training, for weak tickets only.

    At every change, in step t of T, each layer drops the share fraction / 2 (1 + cos(pi t / (stop
    T))) of its kept parameters, those of the smallest |w|, and grows as many others: at random
    (SET), or where the dense gradient is largest (RigL).

    The first mask is random with the layer counts of the allocation, and `rewire` changes it.
    Pruned parameters may come back at zero, so the mask is not a ticket of the mother as it stands.
    Weak training continues from the trained parameters.

    Args:
      task: defines the loss.
      grow: one of `GROWTHS`: "random" is SET, "gradient" RigL.
      apply: `(params, x) -> outputs`.
      allocation: a name in `allocations.ALLOCATIONS`; sets the counts of all layers throughout.
      search_epochs: number of passes over the data E.
      batch_size: samples per step.
      search_learning_rate: learning rate of Adam.
      optimizer: optax optimizer to use instead.
      every: as in `rewire`.
      stop: as in `rewire`.
      fraction: as in `rewire`.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A Finder. `Found.params` are the trained parameters, zero where pruned. `Found.info` holds
      "losses", the mean loss of each epoch [E], and "kept_of_start", the share of the first mask
      that is still kept.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: SET, Mocanu et al. 2018, https://arxiv.org/abs/1707.04780; RigL, Evci et al. 2020,
    https://arxiv.org/abs/1911.11134; see `rewire`.
    """
    checks.choice("allocation", allocation, ALLOCATIONS)
    common.check_options(
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    inner = optimizer or optax.adam(search_learning_rate)
    prunable = common.prunable_of(apply, prunable)
    rewired = partial(
        rewire, inner, grow=grow, every=every, stop=stop, fraction=fraction, prunable=prunable
    )
    rewired(jax.random.key(0), None, steps=0)  # checks the options
    score_fn = scores.get("random")(apply, task.loss)

    def objective(
        params: Params, carry: None, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, None]:
        del step
        return task.loss(apply(params, batch.x), batch.y), carry

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, prunable=prunable, batch_size=batch_size)
        keys = jax.random.split(key, 4)
        values = score_fn(keys[0], params, masks.full(params), data)
        counts = ALLOCATIONS[allocation](params, density, prunable)
        start = masks.select(keys[1], values, density, "oracle", counts=counts, prunable=prunable)
        steps = search_epochs * (data.x.shape[0] // batch_size)
        trained, _, losses, state = training.minimize(
            keys[2],
            masks.apply(params, start),
            None,
            data,
            objective,
            optimizer=rewired(keys[3], start, steps=steps),
            epochs=search_epochs,
            batch_size=batch_size,
        )
        left = masks.overlap(start, state.mask, prunable) / masks.count(start, prunable)
        return Found(state.mask, trained, {"losses": losses, "kept_of_start": left})

    return Finder(search, scope="oracle", kind="trained")


class RewiringState(NamedTuple):
    """Number of steps done, the key (folded with the step), the mask, the inner optimizer state."""

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
    prunable: Prunable | None = None,
) -> optax.GradientTransformation:
    """Trains the kept parameters with `inner`, and moves some of them at regular steps.

    In the steps t = every, 2 every, ... < stop * steps, each layer drops the share
    fraction / 2 (1 + cos(pi t / (stop steps))) of its kept parameters, those of the smallest |w|,
    and grows as many of the parameters that are then pruned. Grown parameters start at zero with a
    fresh state of the inner optimizer. A parameter that is dropped and grown in the same step stays
    as it was. These steps make no gradient step. A layer is the arrays of one parent path.

    Args:
      inner: an optax optimizer whose state contains trees like the parameters.
      key: consumed.
      mask: the first mask; the parameters must be zero elsewhere.
      grow: one of GROWTHS.
      steps: number of steps of the whole training.
      every: number of steps between two changes of the mask.
      stop: share of the training after which the mask is fixed, in [0, 1].
      fraction: initial share of a layer that is dropped, in [0, 1].
      prunable: predicate on leaf paths; other leaves are never dropped. By default every leaf is.

    Returns:
      An optax transformation with a RewiringState; every layer keeps its number of parameters.

    Raises:
      ValueError: if grow is unknown or a number is out of range.

    Source: RigL, Evci et al. 2020, https://arxiv.org/abs/1911.11134; SET, Mocanu et al. 2018,
    https://arxiv.org/abs/1707.04780. The original SET drops a constant share after each epoch, the
    smallest positive and the largest negative weights; here it has RigL's schedule, as in the RigL
    paper.
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
        trees = params, state.mask, wanted
        moved = _move(jax.random.fold_in(state.key, state.step), *trees, share, prunable)
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


def _move(
    key: Key,
    params: Params,
    mask: Mask,
    wanted: Params,
    share: chex.Numeric,
    prunable: Prunable | None,
) -> Mask:
    """Drops a share of each layer's kept, the smallest |params|, and grows the largest |wanted|."""
    drop_key, grow_key = jax.random.split(key)
    kept, unravel = groups.ravel_layers(mask, prunable)
    sizes, wishes = (
        groups.ravel_layers(jax.tree.map(jnp.abs, tree), prunable)[0] for tree in (params, wanted)
    )
    counts = jnp.stack([jnp.sum(vector, dtype=jnp.int32) for vector in kept])
    dropped = jnp.floor(share * counts.astype(jnp.float32)).astype(jnp.int32)
    stay, _ = topk.top(drop_key, sizes, counts - dropped, kept)
    grown, _ = topk.top(grow_key, wishes, dropped, [~vector for vector in stay])
    return unravel([a | b for a, b in zip(stay, grown, strict=True)])
