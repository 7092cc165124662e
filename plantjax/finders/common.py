"""What finders share: input checks, score batches, the target's layer counts."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, losses, masks, nets, recovery
from plantjax.nets import wirings
from plantjax.types import (
    Apply,
    Batch,
    Finder,
    Found,
    Head,
    Key,
    Levels,
    Mask,
    Metrics,
    Params,
    Prunable,
    Task,
)

EXACT_SCOPES = ("global", "oracle")
"""Scopes whose counts add up to exactly k; the others round per array or layer."""


def check_options(
    *,
    scope: str | None = None,
    loss: str | None = None,
    search_learning_rate: float | None = None,
    **counts: int,
) -> None:
    """Raises ValueError if an option that finders share is unknown, or out of range.

    Args:
      scope: of `masks.SCOPES`.
      loss: of `losses.SEARCH_LOSSES`.
      search_learning_rate: a positive number.
      **counts: integers of at least 1, by name.
    """
    if scope is not None:
        checks.choice("scope", scope, masks.SCOPES)
    if loss is not None:
        checks.choice("loss", loss, losses.SEARCH_LOSSES)
    if search_learning_rate is not None:
        checks.positive("search_learning_rate", search_learning_rate)
    for name, count in counts.items():
        checks.integer(name, count, 1)


def check(
    task: Task,
    params: Params,
    data: Batch,
    density: chex.Numeric,
    rounds: int = 1,
    prunable: Prunable | None = None,
    batch_size: int = 1,
) -> None:
    """Raises ValueError if a finder's input is not finite, out of range or does not fit."""
    checks.finite("params", params)
    checks.batch(data)
    checks.labels(data.y, task.n_out)
    checks.density(density)
    checks.integer("rounds", rounds, 1, masks.size(params, prunable))
    checks.integer("batch_size", batch_size, 1, data.x.shape[0])


def score_batch(key: Key, task: Task, data: Batch, batches: int = 1) -> Batch:
    """Draws 10 samples per class (regression counts as 4 classes) and batch, all distinct."""
    wanted = 10 * batches * (task.n_out if task.metric == "accuracy" else 4)
    n = data.x.shape[0]
    chosen = jax.random.choice(key, n, (min(wanted, n),), replace=False)
    return Batch(data.x[chosen], data.y[chosen])


def progress(params: Params, mask: Mask, apply: Apply, prunable: Prunable | None = None) -> Metrics:
    """What finders tell about each of their rounds: densities, kept and live, collapsed layers."""
    kept = masks.density(mask, prunable)
    told = {"kept_density": kept, "collapsed": recovery.collapsed(mask)}
    wiring = wirings.of(apply, params)
    if wiring is not None:
        told["live_density"] = masks.density(masks.live(params, mask, wiring), prunable)
    return told


def in_levels(
    begin: Callable[..., Any],
    advance: Callable[..., tuple[Any, Metrics]],
    finish: Callable[[Any, Metrics], Found],
    scope: str,
    rounds: int,
) -> Finder:
    """The finder whose search is these pieces, see `types.Levels`, level after level."""

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        def level(state: Any, index: jax.Array) -> tuple[Any, Metrics]:
            return advance(key, params, data, density, state, index)

        first = begin(key, params, data, density)
        return finish(*jax.lax.scan(level, first, jnp.arange(1, rounds + 1)))

    exact = scope in EXACT_SCOPES
    return Finder(search, scope, rounds, exact, levels=Levels(begin, advance, finish))


def prunable_of(apply: Apply, prunable: Prunable | None) -> Prunable | None:
    """The predicate given, or that of the network, if it has one."""
    return prunable or getattr(apply, "prunable", None)


def with_head(apply: Apply, head: Head | None) -> Apply:
    """The network with `head` after its last layer."""
    return apply if head is None else lambda params, x: head(apply(params, x))


def target_counts(task: Task, params: Params) -> jax.Array:
    """Live parameters per layer of the task's target, as deep as `params`; int32 [L]."""
    target = task.target(len(nets.layers(params)) + 1)
    return masks.group_counts(masks.live(target, masks.nonzero(target)))


def oracle_counts(task: Task, params: Params, scope: str) -> jax.Array | None:
    """The `counts` that `masks.select` wants for this scope."""
    return target_counts(task, params) if scope == "oracle" else None
