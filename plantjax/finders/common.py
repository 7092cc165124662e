"""Helpers that finders share: input checks, score batches, the target's layer counts."""

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
"""Scopes that keep exactly k parameters in all; the others round per array or layer."""


def check_options(
    *,
    scope: str | None = None,
    loss: str | None = None,
    search_learning_rate: float | None = None,
    **counts: int,
) -> None:
    """Raises ValueError if an option that finders share is unknown or out of range.

    Args:
      scope: must be in `masks.SCOPES` or a pattern.
      loss: must be in `losses.SEARCH_LOSSES`.
      search_learning_rate: must be positive.
      **counts: options by name; each must be an integer of at least 1.
    """
    if scope is not None:
        masks.check_scope("scope", scope)
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
    """Raises ValueError unless the input of a finder is finite, in range and of fitting shapes."""
    checks.finite("params", params)
    checks.batch(data)
    checks.labels(data.y, task.n_out)
    checks.density(density)
    checks.integer("rounds", rounds, 1, masks.size(params, prunable))
    checks.integer("batch_size", batch_size, 1, data.x.shape[0])


def score_batch(key: Key, task: Task, data: Batch, batches: int = 1) -> Batch:
    """Draws 10 * classes * batches distinct samples; a regression task counts as 4 classes."""
    wanted = 10 * batches * (task.n_out if task.metric == "accuracy" else 4)
    n = data.x.shape[0]
    chosen = jax.random.choice(key, n, (min(wanted, n),), replace=False)
    return Batch(data.x[chosen], data.y[chosen])


def progress(params: Params, mask: Mask, apply: Apply, prunable: Prunable | None = None) -> Metrics:
    """Per-round diagnostics: kept density, live density (of chains), collapsed layers."""
    kept = masks.density(mask, prunable)
    told = {"kept_density": kept, "collapsed": recovery.collapsed(mask)}
    wiring = wirings.of(apply, params)
    if wiring is not None:
        told["live_density"] = masks.density(masks.live(params, mask, wiring), prunable)
    return told


def in_levels(levels: Levels, scope: str, rounds: int) -> Finder:
    """Returns the finder that runs all levels, one after the other, in one scan."""

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        def level(state: Any, index: jax.Array) -> tuple[Any, Metrics]:
            return levels.advance(key, params, data, density, state, index)

        first = levels.begin(key, params, data, density)
        return levels.finish(*jax.lax.scan(level, first, jnp.arange(1, rounds + 1)))

    exact = scope in EXACT_SCOPES
    return Finder(search, scope, rounds, exact, levels=levels)


def prunable_of(apply: Apply, prunable: Prunable | None) -> Prunable | None:
    """The given predicate, or else that of the network, or None."""
    return prunable or getattr(apply, "prunable", None)


def on_prunable(
    make: Callable[[Apply], Callable[..., Found]], apply: Apply, prunable: Prunable | None = None
) -> Callable[[Key, Params, Batch, chex.Numeric], Found]:
    """Runs a search that knows only prunable leaves, and keeps all others as constants.

    Args:
      make: `(apply) -> search`, for the network of the prunable leaves alone.
      apply: the whole network.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A search on the whole network.
    """
    prunable = prunable_of(apply, prunable)
    if prunable is None:
        return make(apply)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        free, merged = masks.partition(params, prunable)
        found = make(lambda part, x: apply(merged(part), x))(key, free, data, density)
        return found._replace(mask=merged(found.mask, True), params=merged(found.params))

    return search


def with_head(apply: Apply, head: Head | None) -> Apply:
    """The network followed by `head`."""
    return apply if head is None else lambda params, x: head(apply(params, x))


def target_counts(task: Task, params: Params) -> jax.Array:
    """Live parameters per layer of the task's target at the depth of `params`; int32 [L]."""
    target = task.target(len(nets.layers(params)) + 1)
    return masks.group_counts(masks.live(target, masks.nonzero(target)))


def oracle_counts(task: Task, params: Params, scope: str) -> jax.Array | None:
    """The `counts` that `masks.select` needs in this scope; None unless it is "oracle"."""
    return target_counts(task, params) if scope == "oracle" else None
