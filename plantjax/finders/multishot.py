"""Multishot: levels of train, score, select and rewind."""

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets, schedules, scores, training
from plantjax.finders import common
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Metrics, Params, Schedule, Task

REWINDS = ("init", "step", "learning_rate")
"""Where a level starts: the mother, the mother after some steps, the weights as they are."""


def multishot(
    task: Task,
    *,
    score: str | scores.MakeScore,
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

    Returns:
      A Finder. `Found.params` is where the last level would start anew; `Found.info` holds per
      level "kept_density", "live_density" (of chains), "collapsed" (layers without a kept weight)
      and "loss", that of its last epoch of training, each [L].

    Raises:
      ValueError: if a name is unknown or a number out of range; rounds must be in [1, P].

    Source: paper, section 4.2, https://arxiv.org/abs/2111.11153
    """
    make_score = scores.get(score)
    density_after = schedules.get(schedule)
    checks.choice("scope", scope, masks.SCOPES)
    checks.choice("rewind", rewind, REWINDS)
    checks.integer("rounds", rounds, 1)
    checks.integer("level_epochs", level_epochs, 1)
    checks.integer("batch_size", batch_size, 1)
    checks.integer("rewind_step", rewind_step, 0)
    checks.positive("search_learning_rate", search_learning_rate)
    score_fn = make_score(apply, task.loss)
    fitting = {
        "apply": apply,
        "loss": task.loss,
        "optimizer": optimizer or optax.adam(search_learning_rate),
        "epochs": level_epochs,
        "batch_size": batch_size,
    }

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, rounds)
        counts = common.oracle_counts(task, params, scope)
        train_key, prune_key = jax.random.split(key)
        full, start = masks.full(params), params
        if rewind == "step":
            first = jax.random.fold_in(train_key, 1)
            start, _ = training.fit(first, params, full, data, steps=rewind_step, **fitting)

        def level(
            state: tuple[Mask, Params, Params], index: jax.Array
        ) -> tuple[tuple[Mask, Params, Params], Metrics]:
            mask, begin, later = state
            fit_key = jax.random.fold_in(train_key, index)
            trained, losses = training.fit(fit_key, begin, mask, data, **fitting)
            if allow_revive:  # what is pruned competes with the value that it would start from
                trained = jax.tree.map(jnp.where, mask, trained, begin)
            keys = jax.random.split(jax.random.fold_in(prune_key, index), 3)
            batch = common.score_batch(keys[0], task, data)
            values = score_fn(keys[1], trained, mask, batch)
            kept = density_after(density, index, rounds)
            within = None if allow_revive else mask
            mask = masks.select(keys[2], values, kept, scope, within, counts)
            begin = trained if rewind == "learning_rate" else later
            return (mask, begin, later), common.progress(params, mask) | {"loss": losses[-1]}

        levels = jnp.arange(1, rounds + 1)
        (mask, begin, _), info = jax.lax.scan(level, (full, params, start), levels)
        return Found(mask, begin, info)

    return Finder(search, scope, rounds, exact_counts=scope in common.EXACT_SCOPES)
