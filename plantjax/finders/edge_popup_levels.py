"""Edge-popup in levels: the density falls level by level, and each level restarts the optimizer.

The density is constant within a level. Scores carry over to the next level, momentum does not. So
each level is a program of its own, and a long search can be saved between levels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, losses, masks, nets, training
from plantjax.finders import common
from plantjax.finders.edge_popup_scores import (
    SCORE_INITS,
    Selection,
    begin,
    objective,
    sgd,
    straight,
)
from plantjax.masks import schedules
from plantjax.types import (
    Apply,
    Batch,
    Finder,
    Found,
    Key,
    Levels,
    Mask,
    Metrics,
    Params,
    Prunable,
    Schedule,
    Task,
)


class _State(NamedTuple):
    """State between two levels: scores and scale, their mask and its thresholds, the mother."""

    learned: Params
    mask: Mask
    near: jax.Array
    params: Params


@common.on_floats
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
    """Learns scores of frozen parameters like `edge_popup`, in levels of falling density.

    In level l of L the mask keeps the highest |s| at density schedule(density, l, L), by default
    density^(l / L). Scores carry over to the next level; momentum and learning rate start anew.

    Args:
      task: defines the loss and, for scope "oracle", the layer counts.
      apply: as in `edge_popup`.
      scope: where scores compete, see `masks.select`; "layer" ranks kernel and bias of a layer
        together, as the paper does for VGG16.
      rounds: number of levels L.
      schedule: a name in `masks.SCHEDULES`, or such a function.
      level_epochs: number of passes over the data per level.
      warmup: share of a level in which the learning rate rises from zero, in [0, 1).
      batch_size: samples per step.
      search_learning_rate: largest learning rate of SGD (momentum 0.9, weight decay 5e-4), which
        decays to zero by a cosine in every level.
      loss: as in `edge_popup`.
      init: as in `edge_popup`.
      prunable: as in `edge_popup`.
      transform: as in `edge_popup`.

    Returns:
      A Finder. `Found.info` holds per level "kept_density", "live_density" (of chains), "collapsed"
      (number of layers without a kept weight) and "loss" (mean of its last epoch), each [L].

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: paper, section 4.4 and its code, https://arxiv.org/abs/2111.11153
    """
    common.check_options(
        scope=scope,
        loss=loss,
        rounds=rounds,
        level_epochs=level_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.choice("init", init, SCORE_INITS)
    checks.interval("warmup", warmup, 0.0, 0.99)
    search = _Levels(
        task=task,
        apply=apply,
        scope=scope,
        rounds=rounds,
        schedule=schedules.get(schedule),
        epochs=level_epochs,
        warmup=warmup,
        batch_size=batch_size,
        learning_rate=search_learning_rate,
        loss=loss,
        init=init,
        prunable=common.prunable_of(apply, prunable),
        transform=transform,
    )
    return common.in_levels(Levels(search.begin, search.advance, search.finish), scope, rounds)


@dataclass(frozen=True)
class _Levels:
    """The levels of `edge_popup_levels`; the fields are its checked options."""

    task: Task
    apply: Apply
    scope: str
    rounds: int
    schedule: Schedule
    epochs: int
    warmup: float
    batch_size: int
    learning_rate: float
    loss: str
    init: str
    prunable: Prunable | None
    transform: training.Transform | None

    def begin(self, key: Key, params: Params, data: Batch, density: chex.Numeric) -> _State:
        rounds, prunable, size = self.rounds, self.prunable, self.batch_size
        common.check(self.task, params, data, density, rounds, prunable, size)
        learned = begin(jax.random.split(key, 3)[0], params, self.init)
        full = masks.full(params)
        return _State(learned, full, masks.unknown(params, self.scope, prunable), params)

    def advance(
        self,
        key: Key,
        params: Params,
        data: Batch,
        density: chex.Numeric,
        state: _State,
        level: chex.Numeric,
    ) -> tuple[_State, Metrics]:
        _, *keys = jax.random.split(key, 3)
        select_key, train_key = (jax.random.fold_in(part, level) for part in keys)
        counts = common.oracle_counts(self.task, params, self.scope)
        kept = self.schedule(density, level, self.rounds)
        selection = Selection(select_key, params, self.scope, counts, self.prunable)

        def mask_at(scores: Params, near: jax.Array, step: jax.Array) -> tuple[Mask, jax.Array]:
            return selection.mask(scores, kept, step, near)

        search_loss = losses.SEARCH_LOSSES[self.loss](self.task)
        steps = self.epochs * (data.x.shape[0] // self.batch_size)
        learned, near, values, _ = training.minimize(
            train_key,
            state.learned,
            state.near,
            data,
            objective(params, self.apply, search_loss, mask_at, straight),
            optimizer=sgd(self.learning_rate, steps, int(self.warmup * steps)),
            epochs=self.epochs,
            batch_size=self.batch_size,
            transform=self.transform,
        )
        mask, near = mask_at(learned["scores"], near, jnp.int32(steps))
        told = common.progress(params, mask, self.apply, learned["scores"], self.prunable)
        return _State(learned, mask, near, params), told | {"loss": values[-1]}

    def finish(self, state: _State, told: Metrics) -> Found:
        return Found(state.mask, state.params, told)
