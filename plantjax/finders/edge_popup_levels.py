"""Edge-popup in levels: the density sinks level by level, and the learning rate starts anew.

Within a level the density stands still. Scores are carried on, momentum is not, so that a level is
a program of its own and long searches can be saved between them.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, losses, masks, nets, training
from plantjax.finders import common, schedules
from plantjax.finders.edge_popup import SCORE_INITS, begin, objective, sgd, straight
from plantjax.types import (
    Apply,
    Batch,
    Finder,
    Found,
    Key,
    Mask,
    Metrics,
    Params,
    Prunable,
    Schedule,
    Task,
)


class _State(NamedTuple):
    """Between two levels: scores and scale, the mask that they make, its thresholds, the mother."""

    learned: Params
    mask: Mask
    near: jax.Array
    params: Params


def edge_popup_levels(
    task: Task,
    *,
    apply: Apply = nets.apply,
    scope: str = "layer",
    rounds: int = 5,
    schedule: str | Schedule = "exponential",
    level_epochs: int = 10,
    warmup: float = 0.1,
    batch_size: int = 32,
    search_learning_rate: float = 0.1,
    loss: str = "scale-free",
    init: str = "fan_in",
    prunable: Prunable | None = None,
    transform: training.Transform | None = None,
) -> Finder:
    """Learns scores of frozen parameters as `edge_popup` does, in levels of sinking density.

    In level l of L the mask keeps the highest |s| at density schedule(density, l, L), by default
    density^(l / L); the scores are carried on, momentum and learning rate start anew.

    Args:
      task: gives the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: see `masks.select`; "layer" ranks kernel and bias of a layer together, as the paper
        does for VGG16.
      rounds: number of levels L; level l keeps `schedule(density, l, L)`.
      schedule: a name in `schedules.SCHEDULES`, or such a function.
      level_epochs: epochs per level.
      warmup: share of a level in which the learning rate rises from zero, in [0, 1).
      batch_size: samples per step.
      search_learning_rate: of SGD (momentum 0.9, weight decay 5e-4), falling to zero in every level
        by a cosine.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", or "plain", the task's.
      init: see `edge_popup`.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf is.
      transform: changes the inputs of every step at random, see `training.fit`.

    Returns:
      A Finder. `Found.info` holds per level "kept_density", "live_density" (of chains), "collapsed"
      (layers without a kept weight) and "loss", that of its last epoch, each [L].

    Raises:
      ValueError: if a name is unknown or a number out of range.

    Source: paper, section 4.4 and its code, https://arxiv.org/abs/2111.11153

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.edge_popup_levels(task, rounds=3, level_epochs=1))
    >>> found = find(keys[2], mother, data, 0.1)
    >>> [round(float(kept), 2) for kept in found.info["kept_density"]]
    [0.46, 0.21, 0.1]
    """
    common.check_options(
        scope=scope,
        loss=loss,
        rounds=rounds,
        level_epochs=level_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    density_after = schedules.get(schedule)
    checks.choice("init", init, SCORE_INITS)
    checks.interval("warmup", warmup, 0.0, 0.99)
    prunable = common.prunable_of(apply, prunable)
    search_loss = losses.SEARCH_LOSSES[loss](task)

    def start(key: Key, params: Params, data: Batch, density: chex.Numeric) -> _State:
        common.check(task, params, data, density, rounds, prunable, batch_size)
        learned = begin(jax.random.split(key, 3)[0], params, init)
        return _State(learned, masks.full(params), masks.unknown(params, scope, prunable), params)

    def advance(
        key: Key,
        params: Params,
        data: Batch,
        density: chex.Numeric,
        state: _State,
        level: chex.Numeric,
    ) -> tuple[_State, Metrics]:
        _, *keys = jax.random.split(key, 3)
        select_key, train_key = (jax.random.fold_in(part, level) for part in keys)
        counts = common.oracle_counts(task, params, scope)
        kept = density_after(density, level, rounds)

        def mask_at(scores: Params, near: jax.Array, step: jax.Array) -> tuple[Mask, jax.Array]:
            sizes = jax.tree.map(jnp.abs, jax.lax.stop_gradient(scores))
            tie_key = jax.random.fold_in(select_key, step)
            return masks.reselect(
                tie_key, sizes, kept, near, scope, counts=counts, prunable=prunable
            )

        steps = level_epochs * (data.x.shape[0] // batch_size)
        learned, near, values, _ = training.minimize(
            train_key,
            state.learned,
            state.near,
            data,
            objective(params, apply, search_loss, mask_at, straight),
            optimizer=sgd(search_learning_rate, steps, int(warmup * steps)),
            epochs=level_epochs,
            batch_size=batch_size,
            transform=transform,
        )
        mask, near = mask_at(learned["scores"], near, jnp.int32(steps))
        told = common.progress(params, mask, apply, prunable)
        return _State(learned, mask, near, params), told | {"loss": values[-1]}

    def finish(state: _State, told: Metrics) -> Found:
        return Found(state.mask, state.params, told)

    return common.in_levels(start, advance, finish, scope, rounds)
