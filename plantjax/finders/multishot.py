"""Multishot: levels of train, score, select and rewind."""

from dataclasses import dataclass
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets, scores, training
from plantjax.finders import common
from plantjax.masks import schedules
from plantjax.types import (
    Apply,
    Batch,
    Finder,
    Found,
    Key,
    Levels,
    MakeScore,
    Mask,
    Metrics,
    Params,
    Prunable,
    Schedule,
    ScoreFn,
    Task,
)

REWINDS = ("init", "step", "learning_rate")
"""Where a level starts: at the mother, at the mother after some steps, or at the trained weights
of the last level."""


class _State(NamedTuple):
    """State between two levels: the mask, where the next level starts, and where to rewind to."""

    mask: Mask
    start: Params
    later: Params


@common.on_floats
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
      task: defines the loss, the size of score batches and, for scope "oracle", the layer counts.
      score: as in `singleshot`.
      apply: as in `singleshot`.
      rounds: number of levels L.
      schedule: as in `singleshot`.
      scope: as in `singleshot`.
      allow_revive: let later levels keep parameters that earlier ones pruned.
      level_epochs: number of passes over the data per level.
      batch_size: samples per training step.
      search_learning_rate: learning rate of Adam.
      optimizer: optax optimizer to use instead.
      rewind: "init": every level starts from the mother's parameters; "step": from those after
        `rewind_step` steps of the first level's training (Frankle et al. 2020,
        https://arxiv.org/abs/1912.05671); "learning_rate": from the end of the last level (Renda
        et al. 2020, https://arxiv.org/abs/2003.02389).
      rewind_step: used by "step"; at most the number of steps of a level.
      prunable: as in `singleshot`.
      transform: random change of the inputs of every training step, see `training.fit`.

    Returns:
      A Finder. `Found.params` are the parameters from which one more level would start.
      `Found.info` holds per level "kept_density", "live_density" (only where the wiring is known),
      "collapsed" (number of layers without a kept weight), "not_finite" (share of scores) and
      "loss" (mean of its last epoch), each [L].

    Raises:
      ValueError: if a name is unknown or a number is out of range; rounds must be at least 1, and
        at most the number of parameters.

    Source: Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635; paper, section 4.2,
    https://arxiv.org/abs/2111.11153
    """
    make_score = scores.get(score)
    common.check_options(
        scope=scope,
        rounds=rounds,
        level_epochs=level_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.choice("rewind", rewind, REWINDS)
    checks.integer("rewind_step", rewind_step, 0)
    search = _Multishot(
        task=task,
        score_fn=make_score(apply, task.loss),
        apply=apply,
        rounds=rounds,
        schedule=schedules.get(schedule),
        scope=scope,
        allow_revive=allow_revive,
        epochs=level_epochs,
        batch_size=batch_size,
        optimizer=optimizer or optax.adam(search_learning_rate),
        rewind=rewind,
        rewind_step=rewind_step,
        prunable=common.prunable_of(apply, prunable),
        transform=transform,
    )
    return common.in_levels(Levels(search.begin, search.advance, search.finish), scope, rounds)


@dataclass(frozen=True)
class _Multishot:
    """The levels of `multishot`; the fields are its checked options."""

    task: Task
    score_fn: ScoreFn
    apply: Apply
    rounds: int
    schedule: Schedule
    scope: str
    allow_revive: bool
    epochs: int
    batch_size: int
    optimizer: optax.GradientTransformation
    rewind: str
    rewind_step: int
    prunable: Prunable | None
    transform: training.Transform | None

    def begin(self, key: Key, params: Params, data: Batch, density: chex.Numeric) -> _State:
        common.check(self.task, params, data, density, self.rounds, self.prunable)
        full, later = masks.full(params), params
        if self.rewind == "step":
            first = jax.random.fold_in(jax.random.split(key)[0], 1)
            later, _ = self._fit(first, params, full, data, self.rewind_step)
        return _State(full, params, later)

    def advance(
        self,
        key: Key,
        params: Params,
        data: Batch,
        density: chex.Numeric,
        state: _State,
        level: chex.Numeric,
    ) -> tuple[_State, Metrics]:
        train_key, prune_key = jax.random.split(key)
        mask, start, later = state
        trained, losses = self._fit(jax.random.fold_in(train_key, level), start, mask, data)
        if self.allow_revive:  # pruned parameters compete with the values they would start from
            trained = jax.tree.map(jnp.where, mask, trained, start)
        keys = jax.random.split(jax.random.fold_in(prune_key, level), 3)
        batch = common.score_batch(keys[0], self.task, data)
        values = self.score_fn(keys[1], trained, mask, batch)
        kept = self.schedule(density, level, self.rounds)
        within = None if self.allow_revive else mask
        counts, prunable = common.oracle_counts(self.task, params, self.scope), self.prunable
        mask = masks.select(keys[2], values, kept, self.scope, within, counts, prunable=prunable)
        start = trained if self.rewind == "learning_rate" else later
        told = common.progress(params, mask, self.apply, values, prunable)
        return _State(mask, start, later), told | {"loss": losses[-1]}

    def finish(self, state: _State, told: Metrics) -> Found:
        return Found(state.mask, state.start, told)

    def _fit(
        self, key: Key, params: Params, mask: Mask, data: Batch, steps: int | None = None
    ) -> tuple[Params, jax.Array]:
        return training.fit(
            key,
            params,
            mask,
            data,
            apply=self.apply,
            loss=self.task.loss,
            optimizer=self.optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            steps=steps,
            transform=self.transform,
        )
