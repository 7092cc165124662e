"""Sanity controls: take away what a finder claims to use, and see what its masks are still worth.

One of them, `best`, gives a finder more time instead.

A control maps an entry of the registry, a function `(task, **static) -> Finder`, to another one,
which jits and vmaps in the same way; so controls compose. Sweeps and scripts use the name
"NAME+CONTROL". Its search gets the same key as that of NAME, so that the control changes the very
search, or the very mask, of NAME.

Source: Su et al. 2020, https://arxiv.org/abs/2009.11094, and Frankle et al. 2021,
https://arxiv.org/abs/2009.08576 (masks shuffled within layers, new initial values, inverted
scores).
"""

import functools
import inspect
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, draws, masks, nets, scores
from plantjax.finders import common
from plantjax.finders.entries import opened
from plantjax.types import (
    Apply,
    Batch,
    Finder,
    Found,
    Key,
    Loss,
    MakeFinder,
    MakeScore,
    Mask,
    Params,
    Planted,
    ScoreFn,
    Task,
)

TRIES = 16
"""Number of searches of `best`, unless it is set."""


def shuffled(make: MakeFinder) -> MakeFinder:
    """Permutes the entries of the found mask within every array, so only the counts remain.

    Weak training starts from the mother's parameters, as with all controls that change a mask.
    """

    def changed(key: Key, task: Task, params: Params, mask: Mask, density: chex.Numeric) -> Mask:
        del task, params, density
        return draws.permuted(key, mask)

    return _changed(make, "shuffled", changed)


def reinitialised(make: MakeFinder) -> MakeFinder:
    """Searches a mother whose entries are permuted within every array, and keeps the mask it finds.

    If the entries of an array are identically distributed, this is a new initialisation, for any
    network and scheme. The mask does not know which values it keeps of the true mother, neither as
    a strong ticket nor at the start of weak training.
    """
    return _changed(make, "reinitialised", mother=draws.permuted)


def inverted(make: MakeFinder) -> MakeFinder:
    """Negates the score, so that the finder keeps the parameters that it would prune first.

    Scores that a finder learns are negated after the search.

    Raises:
      ValueError: if the finder has no score.
    """
    make = opened(make)
    known = inspect.signature(make).parameters
    if not has_score(make):
        raise ValueError("control inverted goes with finders that have a score, and this has none.")
    if "invert" in known:
        return functools.partial(make, invert=not known["invert"].default)

    usual = known["score"].default

    @functools.wraps(make)
    def made(task: Task, *, score: str | MakeScore = usual, **static: Any) -> Finder:
        make_score = scores.get(score)

        def negated(apply: Apply, loss: Loss) -> ScoreFn:
            score_fn = make_score(apply, loss)
            return lambda *arguments: jax.tree.map(jnp.negative, score_fn(*arguments))

        return make(task, score=negated, **static)

    return made


def oracle(make: MakeFinder) -> MakeFinder:
    """Gives the finder the layer counts of the target, scaled to exactly k.

    A finder with a scope gets scope "oracle". For others, layers of the found mask that keep too
    many parameters are cut at random, and those that keep too few are filled at random.

    >>> import plantjax as pj
    >>> oracle(pj.FINDERS["magnitude"])(pj.TASKS["relu"]).scope
    'oracle'
    """
    make = opened(make)
    if "scope" in inspect.signature(make).parameters:
        return functools.partial(make, scope="oracle")

    def changed(key: Key, task: Task, params: Params, mask: Mask, density: chex.Numeric) -> Mask:
        first = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), mask)
        counts = common.target_counts(task, params)
        return masks.select(key, first, density, "oracle", counts=counts)

    return _changed(make, "oracle", changed, scope="oracle", exact_counts=True)


def best(make: MakeFinder) -> MakeFinder:
    """Searches `tries` times (an option), and keeps the mask with the least training error.

    The error is that of the untrained network, by the task's metric; the first one of equal masks
    is kept. This gives a cheap finder as much time as a dear one.

    Raises:
      ValueError: if tries is below 1.

    >>> import plantjax as pj
    >>> from plantjax.finders import names
    >>> "tries" in names.options("concrete_ticket+best")
    True
    """
    make = opened(make)

    @functools.wraps(make)
    def made(task: Task, *, tries: int = TRIES, **static: Any) -> Finder:
        checks.integer("tries", tries, 1)
        finder = make(task, **static)
        network = common.with_head(static.get("apply", nets.apply), finder.head)

        def search(
            key: Key, params: Params, data: Batch, density: chex.Numeric, *truth: Planted
        ) -> Found:
            def attempt(index: jax.Array) -> tuple[Found, jax.Array]:
                own = jax.random.fold_in(_own(key, "best"), index)
                found = finder(own, params, data, density, *truth)
                outputs = network(masks.apply(found.params, found.mask), data.x)
                value = task.evaluate(outputs, data.y)[task.metric]
                error = -value if task.metric == "accuracy" else value
                return found, jnp.where(jnp.isfinite(error), error, jnp.inf)

            every, errors = jax.lax.map(attempt, jnp.arange(tries, dtype=jnp.int32))
            found: Found = jax.tree.map(lambda leaf: leaf[jnp.argmin(errors)], every)
            return found

        return replace(finder, search=search, levels=None)

    usual = inspect.signature(make)
    own = inspect.Parameter("tries", inspect.Parameter.KEYWORD_ONLY, default=TRIES)
    made.__signature__ = usual.replace(  # type: ignore[attr-defined]
        parameters=[*usual.parameters.values(), own]
    )
    return made


def has_score(make: MakeFinder) -> bool:
    """Whether the finder ranks parameters by a score that can be chosen or inverted.

    >>> import plantjax as pj
    >>> has_score(pj.FINDERS["snip"]), has_score(pj.FINDERS["phew"])
    (True, False)
    """
    return bool({"score", "invert"} & set(inspect.signature(opened(make)).parameters))


def _own(key: Key, control: str) -> Key:
    """A key for the draws of a control; the search uses the key itself."""
    return jax.random.fold_in(key, zlib.crc32(control.encode()))


def _changed(
    make: MakeFinder,
    control: str,
    mask: Callable[..., Mask] | None = None,
    mother: Callable[[Key, Params], Params] | None = None,
    **facts: Any,
) -> MakeFinder:
    """A finder that searches another mother, or whose mask is changed afterwards.

    Args:
      make: the finder of the registry.
      control: name of the control, folded into its key.
      mask: `(key, task, params, found mask, density) -> mask`, or None.
      mother: `(key, params) -> params` of the mother that is searched, or None. Weak training
        always starts from the true mother.
      **facts: fields of the Finder to replace.
    """
    make = opened(make)

    @functools.wraps(make)
    def made(task: Task, **static: Any) -> Finder:
        finder = make(task, **static)

        def search(
            key: Key, params: Params, data: Batch, density: chex.Numeric, *truth: Planted
        ) -> Found:
            own = _own(key, control)
            seen = params if mother is None else mother(own, params)
            found = finder(key, seen, data, density, *truth)
            kept = found.mask
            if mask is not None:
                kept = mask(own, task, params, kept, density)
            return found._replace(mask=kept, params=params)

        return replace(finder, search=search, levels=None, **facts)

    return made


CONTROLS: dict[str, Callable[[MakeFinder], MakeFinder]] = {
    "shuffled": shuffled,
    "reinitialised": reinitialised,
    "inverted": inverted,
    "oracle": oracle,
    "best": best,
}
"""The registry of controls."""
