"""Singleshot: scores the untrained network and selects, in one round or in many."""

import chex
import jax
import jax.numpy as jnp

from plantjax import masks, nets, scores
from plantjax.finders import common
from plantjax.masks import schedules
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


@common.on_floats
def singleshot(
    task: Task,
    *,
    score: str | MakeScore,
    apply: Apply = nets.apply,
    rounds: int = 1,
    schedule: str | Schedule = "exponential",
    scope: str = "global",
    allow_revive: bool = False,
    prunable: Prunable | None = None,
    batches: int = 1,
) -> Finder:
    """Scores the untrained network and selects, in one round or several.

    Args:
      task: defines the loss, the size of score batches and, for scope "oracle", the layer counts.
      score: a name in `scores.SCORES`, or such a function.
      apply: `(params, x) -> outputs`.
      rounds: number of rounds R; round r keeps `schedule(density, r, R)`.
      schedule: a name in `masks.SCHEDULES`, or such a function.
      scope: see `masks.select`.
      allow_revive: let later rounds keep parameters that earlier ones pruned, as the paper's code
        does for random, magnitude and SNIP.
      prunable: predicate on leaf paths; by default `apply.prunable`, or else every leaf.
      batches: multiplies the size of the score batch, by default 10 samples per class.

    Returns:
      A Finder; `Found.info` holds per round "kept_density", "live_density" (of chains),
      "collapsed" (number of layers without a kept weight) and "not_finite" (share of the scores),
      each [R].

    Raises:
      ValueError: if score, schedule or scope is unknown, rounds is not in [1, P], or batches is
        below 1.

    Source: paper, section 4.1, https://arxiv.org/abs/2111.11153; SNIP in rounds, de Jorge et al.
    2021, https://arxiv.org/abs/2006.09081

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 20, 1)), task.sample(keys[1], 100)
    >>> find = jax.jit(pj.finders.singleshot(task, score="magnitude", rounds=5))
    >>> found = find(keys[2], mother, data, 0.1)
    >>> int(found.mask["layer_00"]["kernel"].sum()) <= 6, found.info["kept_density"].shape
    (True, (5,))
    """
    make_score = scores.get(score)
    density_after = schedules.get(schedule)
    common.check_options(scope=scope, rounds=rounds, batches=batches)
    prunable = common.prunable_of(apply, prunable)
    score_fn = make_score(apply, task.loss)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, rounds, prunable)
        counts = common.oracle_counts(task, params, scope)
        batch_key, key = jax.random.split(key)
        batch = common.score_batch(batch_key, task, data, batches)

        def prune(
            state: tuple[Mask, jax.Array], index: jax.Array
        ) -> tuple[tuple[Mask, jax.Array], Metrics]:
            mask, near = state
            score_key, select_key = jax.random.split(jax.random.fold_in(key, index))
            values = score_fn(score_key, params, mask, batch)
            kept = density_after(density, index, rounds)
            within = None if allow_revive else mask
            mask, near = masks.reselect(
                select_key, values, kept, near, scope, within, counts, prunable=prunable
            )
            return (mask, near), common.progress(params, mask, apply, values, prunable)

        start = (masks.full(params), masks.unknown(params, scope, prunable))
        (mask, _), info = jax.lax.scan(prune, start, jnp.arange(1, rounds + 1, dtype=jnp.int32))
        return Found(mask, params, info)

    return Finder(search, scope, rounds, exact_counts=scope in common.EXACT_SCOPES)
