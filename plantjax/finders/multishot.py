"""Multishot: levels of train, score, select and rewind."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets, scores, training
from plantjax.finders import common, schedules
from plantjax.types import (
    Apply,
    Batch,
    Finder,
    Found,
    Key,
    MakeScore,
    Mask,
    Metrics,
    Params,
    Prunable,
    Schedule,
    Task,
)

REWINDS = ("init", "step", "learning_rate")
"""Where a level starts: the mother, the mother after some steps, the weights as they are."""


class _State(NamedTuple):
    """Between two levels: the mask, where the next one starts, and where all start again."""

    mask: Mask
    start: Params
    later: Params


def multishot(
    task: Task,
    *,
    score: str | MakeScore,
    apply: Apply = nets.apply,
    rounds: int = 10,
    schedule: str | Schedule = "exponential",
    scope: str = "global",
    allow_revive: bool = False,
    level_epochs: int = 5,
    batch_size: int = 32,
    search_learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    rewind: str = "init",
    rewind_step: int = 0,
    prunable: Prunable | None = None,
    transform: training.Transform | None = None,
) -> Finder:
    """Trains, scores the trained network, selects and rewinds, level by level.

    Every level has a fresh optimizer; level l keeps `schedule(density, l, rounds)`.

    Args:
      task: gives loss and score batches.
      score: a name in `scores.SCORES`, or such a function.
      apply: `(params, x) -> outputs`.
      rounds: number of levels L.
      schedule: a name in `schedules.SCHEDULES`, or such a function.
      scope: see `masks.select`.
      allow_revive: let later levels keep what earlier ones pruned.
      level_epochs: epochs of training per level.
      batch_size: samples per training step.
      search_learning_rate: of Adam.
      optimizer: any optax optimizer instead.
      rewind: "init": every level starts from the mother's parameters; "step": from those after
        `rewind_step` steps of the first level's training (Frankle et al. 2020,
        https://arxiv.org/abs/1912.05671); "learning_rate": from where the last level ended
        (Renda et al. 2020, https://arxiv.org/abs/2003.02389).
      rewind_step: for "step", at most the steps of a level.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf is.
      transform: changes the inputs of every step of training at random, see `training.fit`.

    Returns:
      A Finder. `Found.params` is where the last level would start anew; `Found.info` holds per
      level "kept_density", "live_density" (of chains), "collapsed" (layers without a kept weight)
      and "loss", that of its last epoch of training, each [L].

    Raises:
      ValueError: if a name is unknown or a number out of range; rounds must be in [1, P].

    Source: Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635; paper, section 4.2,
    https://arxiv.org/abs/2111.11153

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.multishot(task, score="magnitude", rounds=3, level_epochs=1))
    >>> found = find(keys[2], mother, data, 0.1)
    >>> [round(float(kept), 2) for kept in found.info["kept_density"]]
    [0.46, 0.21, 0.1]
    """
    make_score = scores.get(score)
    density_after = schedules.get(schedule)
    common.check_options(
        scope=scope,
        rounds=rounds,
        level_epochs=level_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.choice("rewind", rewind, REWINDS)
    checks.integer("rewind_step", rewind_step, 0)
    prunable = common.prunable_of(apply, prunable)
    score_fn = make_score(apply, task.loss)
    fitting = {
        "apply": apply,
        "loss": task.loss,
        "optimizer": optimizer or optax.adam(search_learning_rate),
        "epochs": level_epochs,
        "batch_size": batch_size,
        "transform": transform,
    }

    def begin(key: Key, params: Params, data: Batch, density: chex.Numeric) -> _State:
        common.check(task, params, data, density, rounds, prunable)
        full, start = masks.full(params), params
        if rewind == "step":
            first = jax.random.fold_in(jax.random.split(key)[0], 1)
            start, _ = training.fit(first, params, full, data, steps=rewind_step, **fitting)
        return _State(full, params, start)

    def advance(
        key: Key,
        params: Params,
        data: Batch,
        density: chex.Numeric,
        state: _State,
        level: chex.Numeric,
    ) -> tuple[_State, Metrics]:
        train_key, prune_key = jax.random.split(key)
        mask, start, later = state
        fit_key = jax.random.fold_in(train_key, level)
        trained, losses = training.fit(fit_key, start, mask, data, **fitting)
        if allow_revive:  # what is pruned competes with the value that it would start from
            trained = jax.tree.map(jnp.where, mask, trained, start)
        keys = jax.random.split(jax.random.fold_in(prune_key, level), 3)
        batch = common.score_batch(keys[0], task, data)
        values = score_fn(keys[1], trained, mask, batch)
        kept = density_after(density, level, rounds)
        within = None if allow_revive else mask
        counts = common.oracle_counts(task, params, scope)
        mask = masks.select(keys[2], values, kept, scope, within, counts, prunable=prunable)
        start = trained if rewind == "learning_rate" else later
        told = common.progress(params, mask, apply, prunable)
        return _State(mask, start, later), told | {"loss": losses[-1]}

    def finish(state: _State, told: Metrics) -> Found:
        return Found(state.mask, state.start, told)

    return common.in_levels(begin, advance, finish, scope, rounds)
