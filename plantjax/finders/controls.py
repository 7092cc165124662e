"""Sanity controls: what a finder's masks are worth once what it claims to use is taken away.

A control takes a finder of the registry, a function `(task, **static) -> Finder`, and gives another
one that jits and vmaps alike; so controls compose. "NAME+CONTROL" names one in sweeps and scripts;
there it gets the key of NAME, so that it changes the very search, or the very mask, of NAME.

Source: Su et al. 2020, https://arxiv.org/abs/2009.11094, and Frankle et al. 2021,
https://arxiv.org/abs/2009.08576 (masks shuffled in their layers, new initial values, inverted
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

from plantjax import draws, masks, scores
from plantjax.finders import common
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


def shuffled(make: MakeFinder) -> MakeFinder:
    """The mask found, its entries permuted within every array: only the arrays' counts are left.

    Weak training starts from the mother's parameters, as with all controls that change a mask.

    >>> import plantjax as pj
    >>> task, mother = pj.TASKS["relu"], pj.nets.init(jax.random.key(0), (1, 10, 10, 1))
    >>> data = task.sample(jax.random.key(1), 64)
    >>> made = pj.FINDERS["magnitude"], shuffled(pj.FINDERS["magnitude"])
    >>> found, moved = (make(task)(jax.random.key(2), mother, data, 0.5).mask for make in made)
    >>> bool((masks.group_counts(found, "local") == masks.group_counts(moved, "local")).all())
    True
    >>> bool(masks.overlap(found, moved) < masks.count(found))
    True
    """

    def changed(key: Key, task: Task, params: Params, mask: Mask, density: chex.Numeric) -> Mask:
        del task, params, density
        return draws.permuted(key, mask)

    return _changed(make, "shuffled", changed)


def reinitialised(make: MakeFinder) -> MakeFinder:
    """The mask found in another mother: in one whose entries are permuted within every array.

    For entries that are drawn alike this is a new initialisation, whatever the network and scheme.
    The mask knows nothing of the values in its own mother, strong or before weak training.

    >>> import plantjax as pj
    >>> task, mother = pj.TASKS["relu"], pj.nets.init(jax.random.key(0), (1, 10, 10, 1))
    >>> find = reinitialised(pj.FINDERS["magnitude"])(task)
    >>> found = find(jax.random.key(2), mother, task.sample(jax.random.key(1), 64), 0.5)
    >>> int(masks.count(found.mask)), found.params is mother
    (71, True)
    """
    return _changed(make, "reinitialised", mother=draws.permuted)


def inverted(make: MakeFinder) -> MakeFinder:
    """The finder with its score negated: it keeps what it would have pruned first.

    Scores that edge-popup learns are negated when the search is over.

    Raises:
      ValueError: if the finder has no score.

    >>> import plantjax as pj
    >>> task, mother = pj.TASKS["relu"], pj.nets.init(jax.random.key(0), (1, 10, 10, 1))
    >>> data = task.sample(jax.random.key(1), 64)
    >>> made = pj.FINDERS["magnitude"], inverted(pj.FINDERS["magnitude"])
    >>> best, worst = (make(task)(jax.random.key(2), mother, data, 0.5).mask for make in made)
    >>> masks.size(mother), int(masks.count(best)), int(masks.overlap(best, worst))
    (141, 71, 1)
    """
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
    """The finder with the target's layer counts, scaled to exactly k.

    Finders that select take them as their scope. Of the others the mask found is cut in layers that
    have too many parameters, and filled up in those that have too few, both at random.

    >>> import plantjax as pj
    >>> oracle(pj.FINDERS["magnitude"])(pj.TASKS["relu"]).scope
    'oracle'
    """
    if "scope" in inspect.signature(make).parameters:
        return functools.partial(make, scope="oracle")

    def changed(key: Key, task: Task, params: Params, mask: Mask, density: chex.Numeric) -> Mask:
        first = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), mask)
        counts = common.target_counts(task, params)
        return masks.select(key, first, density, "oracle", counts=counts)

    return _changed(make, "oracle", changed, scope="oracle", exact_counts=True)


def has_score(make: MakeFinder) -> bool:
    """True if the finder ranks parameters by a score that can be told to it, or inverted.

    >>> import plantjax as pj
    >>> has_score(pj.FINDERS["snip"]), has_score(pj.FINDERS["phew"])
    (True, False)
    """
    return bool({"score", "invert"} & set(inspect.signature(make).parameters))


def _own(key: Key, control: str) -> Key:
    """A key for a control's own draws; the search has the key itself."""
    return jax.random.fold_in(key, zlib.crc32(control.encode()))


def _changed(
    make: MakeFinder,
    control: str,
    mask: Callable[..., Mask] | None = None,
    mother: Callable[[Key, Params], Params] | None = None,
    **facts: Any,
) -> MakeFinder:
    """The finder told another mother, `mother(key, params)`, or with another mask.

    That is `mask(key, task, params, mask found, density)`. Weak training has the true mother.
    """

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
}
"""The registry of controls."""
