"""Helpers that finders share: input checks, score batches, the target's layer counts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, draws, losses, masks, nets, recovery
from plantjax.masks import groups
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
    Planted,
    Prunable,
    Task,
)

_CHAIN_TOLERANCE = 0.02
"""Of the largest output: products of half precision may differ by so much."""

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
    checks.finite("params", params, prunable)
    checks.batch(data)
    checks.labels(data.y, task.n_out)
    checks.density(density)
    groups.members(groups.flatten(params)[0], "global", prunable)  # refuses to prune nothing
    checks.integer("rounds", rounds, 1, masks.size(params, prunable))
    checks.integer("batch_size", batch_size, 1, data.x.shape[0])


def check_chain(finder: str, apply: Apply, params: Params) -> None:
    """Raises ValueError unless a network is the chain of dense layers that a finder searches.

    Runs it on numbers of its own, so also while tracing. A function that holds tracers itself
    cannot be checked, and is taken for a chain.

    Args:
      finder: name of the finder, for messages.
      apply: `(params, x) -> outputs`.
      params: must be a chain.

    Raises:
      ValueError: if params is not a chain, or apply computes anything else than `nets.apply`.
    """
    first = nets.layers(params)[0]["kernel"]
    if apply is nets.apply:
        return
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(0))
        drawn = jax.tree.map(
            lambda leaf: leaf / max([1, *leaf.shape[:-1]]) ** 0.5, draws.normal(keys[0], params)
        )
        (x,) = draws.arrays(keys[1], [(16, first.shape[0])])
        x = x.astype(first.dtype)
        found, wanted = apply(drawn, x), nets.apply(drawn, x)
        if not checks.is_concrete(found):
            return
        alike = found.shape == wanted.shape and bool(
            jnp.max(jnp.abs(found - wanted)) <= _CHAIN_TOLERANCE * jnp.max(jnp.abs(wanted))
        )
    if not alike:
        raise ValueError(
            f"apply must be the chain of dense layers with ReLU that {finder} searches, as "
            f"nets.apply is, got {getattr(apply, '__name__', apply)!r} with other outputs."
        )


def score_batch(key: Key, task: Task, data: Batch, batches: int = 1) -> Batch:
    """Draws 10 * classes * batches distinct samples; a regression task counts as 4 classes."""
    wanted = 10 * batches * (task.n_out if task.metric == "accuracy" else 4)
    n = data.x.shape[0]
    chosen = jax.random.choice(key, n, (min(wanted, n),), replace=False)
    return Batch(data.x[chosen], data.y[chosen])


def progress(
    params: Params, mask: Mask, apply: Apply, values: Params, prunable: Prunable | None = None
) -> Metrics:
    """Per-round diagnostics: kept and live density, collapsed layers, scores that overflowed."""
    kept = masks.density(mask, prunable)
    told = {"kept_density": kept, "collapsed": recovery.collapsed(mask)}
    told |= not_finite(values, prunable)
    wiring = wirings.of(apply, params)
    if wiring is not None:
        told["live_density"] = masks.density(masks.live(params, mask, wiring), prunable)
    return told


def not_finite(values: Params, prunable: Prunable | None = None) -> Metrics:
    """The share of scores that are infinite or NaN, among which selection can only guess."""
    broken = jax.tree.map(lambda leaf: ~jnp.isfinite(leaf), values)
    return {"not_finite": masks.density(broken, prunable)}


def in_levels(levels: Levels, scope: str, rounds: int) -> Finder:
    """Returns the finder that runs all levels, one after the other, in one scan."""

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        def level(state: Any, index: jax.Array) -> tuple[Any, Metrics]:
            return levels.advance(key, params, data, density, state, index)

        first = levels.begin(key, params, data, density)
        return levels.finish(
            *jax.lax.scan(level, first, jnp.arange(1, rounds + 1, dtype=jnp.int32))
        )

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
        if all(prunable(path) for path in wirings.leaves(params)):
            return make(apply)(key, params, data, density)
        free, merged = masks.partition(params, prunable)
        found = make(lambda part, x: apply(merged(part), x))(key, free, data, density)
        return found._replace(mask=merged(found.mask, True), params=merged(found.params))

    return search


def on_floats(make: Callable[..., Finder]) -> Callable[..., Finder]:
    """Makes a finder take leaves that are not floats, such as counters and random keys.

    These must not be prunable; the finder searches without them, and gives them back as they are.
    """

    @wraps(make)
    def made(task: Task, *, apply: Apply = nets.apply, **options: Any) -> Finder:
        finder = make(task, apply=apply, **options)
        chosen = tuple(sorted(options.items()))
        return replace(finder, search=_OnFloats(finder.search, make, task, apply, chosen))

    return made


@dataclass(frozen=True)
class _OnFloats:
    """The search of `on_floats`; compared by value, as all parts of a run.

    Attributes:
      plain: the search, for parameters that are floats only.
      make: makes the same search for another network.
      task: given to `make`, as the rest.
      apply: the network.
      options: all other arguments of `make`.
    """

    plain: Callable[..., Found]
    make: Callable[..., Finder]
    task: Task
    apply: Apply
    options: tuple[tuple[str, Any], ...]

    def __call__(
        self, key: Key, params: Params, data: Batch, density: chex.Numeric, *truth: Planted
    ) -> Found:
        if all(map(checks.is_float, jax.tree.leaves(params))):
            return self.plain(key, params, data, density, *truth)
        options = dict(self.options)
        prunable = prunable_of(self.apply, options.get("prunable"))
        checks.finite("params", params, prunable or (lambda path: True))
        finder = self.make(self.task, apply=_Floats(self.apply, params), **options)
        part = [
            Planted(groups.floats(p.params, params), groups.floats(p.mask, params), p.scale)
            for p in truth
        ]
        found = finder.search(key, groups.floats(params, params), data, density, *part)
        return found._replace(
            mask=groups.with_others(found.mask, params, fill=True),
            params=groups.with_others(found.params, params),
        )


class _Floats:
    """A network as a function of its floats alone, with all its attributes."""

    def __init__(self, apply: Apply, params: Params) -> None:
        self._apply, self._params = apply, params

    def __call__(self, floats: Params, x: jax.Array) -> jax.Array:
        return self._apply(groups.with_others(floats, self._params), x)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._apply, name)
        return _Floats(found, self._params) if name == "flow" else found


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
