"""Finders: searches for a ticket, `(key, params, data, density) -> Found`, and the references.

`FINDERS[name](task, **static)` closes over everything structural; key, params, data and density
are traced. A finder never sees the planted ticket; the references take it as a fifth argument.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, masks, nets
from plantjax.schedules import SCHEDULES
from plantjax.scores import SCORES
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Planted, Task


def singleshot(
    task: Task,
    *,
    score: str,
    apply: Apply = nets.apply,
    rounds: int = 1,
    schedule: str = "exponential",
    scope: str = "global",
    allow_revive: bool = False,
) -> Finder:
    """Scores the untrained network and selects, in one round or several.

    Args:
      task: gives the loss, the number of score samples and, for scope "oracle", the layer counts.
      score: a name in `scores.SCORES`.
      apply: `(params, x) -> outputs`.
      rounds: rounds R of scoring and selection; round r keeps `schedule(density, r, R)`.
      schedule: a name in `schedules.SCHEDULES`.
      scope: see `masks.select`.
      allow_revive: let later rounds keep what earlier ones pruned (as the paper's code does for
        random, magnitude and SNIP).

    Returns:
      A Finder; `Found.info["densities"]` holds the density after each round [R].

    Raises:
      ValueError: if score, schedule or scope is unknown, or rounds is below 1.

    Source: paper, section 4.1, https://arxiv.org/abs/2111.11153
    """
    checks.choice("score", score, SCORES)
    checks.choice("schedule", schedule, SCHEDULES)
    checks.choice("scope", scope, masks.SCOPES)
    checks.integer("rounds", rounds, 1)
    score_fn = SCORES[score](apply, task.loss)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        _check(task, params, data, density)
        counts = target_counts(task, params) if scope == "oracle" else None
        batch_key, key = jax.random.split(key)
        batch = score_batch(batch_key, task, data)

        def prune(mask: Mask, index: jax.Array) -> tuple[Mask, jax.Array]:
            score_key, select_key = jax.random.split(jax.random.fold_in(key, index))
            scores = score_fn(score_key, params, mask, batch)
            kept = SCHEDULES[schedule](density, index, rounds)
            within = None if allow_revive else mask
            mask = masks.select(select_key, scores, kept, scope, within, counts)
            return mask, masks.density(mask)

        mask, densities = jax.lax.scan(prune, masks.full(params), jnp.arange(1, rounds + 1))
        return Found(mask, params, {"densities": densities})

    return Finder(search, scope, rounds)


def score_batch(key: Key, task: Task, data: Batch) -> Batch:
    """Draws 10 samples per class (regression counts as 4 classes), without replacement."""
    wanted = 10 * (task.n_out if task.metric == "accuracy" else 4)
    n = data.x.shape[0]
    chosen = jax.random.choice(key, n, (min(wanted, n),), replace=False)
    return Batch(data.x[chosen], data.y[chosen])


def target_counts(task: Task, params: Params) -> jax.Array:
    """Live parameters per layer of the task's target, as deep as `params`; int32 [L]."""
    target = task.target(len(nets.layers(params)) + 1)
    return masks.group_counts(masks.live(target, masks.nonzero(target)))


def dense(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: the whole network, whatever density is asked."""
    del task, apply

    def search(
        key: Key, params: Params, data: Batch, density: chex.Numeric, planted: Planted
    ) -> Found:
        del key, data, density, planted
        return Found(masks.full(params), params, {})

    return Finder(search, exact_counts=False)


def planted(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: the planted mask, whatever density is asked."""
    del task, apply

    def search(
        key: Key, params: Params, data: Batch, density: chex.Numeric, planted: Planted
    ) -> Found:
        del key, data, density
        return Found(planted.mask, params, {})

    return Finder(search, exact_counts=False)


def oracle_random(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: a random mask with the planted mask's layer counts, scaled to the density."""
    score_fn = SCORES["random"](apply, task.loss)

    def search(
        key: Key, params: Params, data: Batch, density: chex.Numeric, planted: Planted
    ) -> Found:
        _check(task, params, data, density)
        score_key, select_key = jax.random.split(key)
        scores = score_fn(score_key, params, planted.mask, data)
        counts = masks.group_counts(planted.mask)
        mask = masks.select(select_key, scores, density, "oracle", counts=counts)
        return Found(mask, params, {})

    return Finder(search, scope="oracle")


def _check(task: Task, params: Params, data: Batch, density: chex.Numeric) -> None:
    checks.finite("params", params)
    checks.batch(data)
    checks.labels(data.y, task.n_out)
    checks.density(density)


FINDERS = {name: partial(singleshot, score=name) for name in SCORES} | {
    "synflow100": partial(singleshot, score="synflow", rounds=100),
}
"""The registry of finders: a new one takes one function and one entry here."""

REFERENCES = {"dense": dense, "planted": planted, "oracle_random": oracle_random}
"""The references: finders that are told the planted ticket."""
