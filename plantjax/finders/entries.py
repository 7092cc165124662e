"""Entries of a registry of finders: makers with other defaults, fixed options, or a space."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from plantjax import checks
from plantjax.finders.spaces import Space, Spaces
from plantjax.types import Finder, MakeFinder, Task


def preset(make: MakeFinder, **defaults: Any) -> MakeFinder:
    """The maker with other defaults, which stay options.

    >>> from plantjax.finders import names
    >>> "search_epochs" in names.options("edge_popup_global")  # a preset
    True
    """

    @wraps(make)
    def made(task: Task, **options: Any) -> Finder:
        return make(task, **{**defaults, **options})

    made.__signature__ = inspect.signature(partial(make, **defaults))  # type: ignore[attr-defined]
    return made


def fixed(make: MakeFinder, **options: Any) -> MakeFinder:
    """The maker with options that its name fixes: they are refused, and not in its signature.

    Args:
      make: a maker of finders, perhaps a `preset`.
      **options: the options that are set.

    Returns:
      A maker with the docstring of `make`, which takes all other options.

    >>> from plantjax import FINDERS, TASKS
    >>> FINDERS["snip100"](TASKS["relu"], rounds=5)
    Traceback (most recent call last):
    ValueError: rounds is fixed to 100 here, got 5; singleshot itself takes it as an option.
    """
    whole = partial(make, **options)

    @wraps(make)
    def made(task: Task, **others: Any) -> Finder:
        for option in options:
            if option in others:
                raise ValueError(
                    f"{option} is fixed to {options[option]!r} here, got {others[option]!r}; "
                    f"{whole.func.__name__} itself takes it as an option."
                )
        return whole(task, **others)

    shown = inspect.signature(make)
    free = [part for part in shown.parameters.values() if part.name not in options]
    made.__signature__ = shown.replace(parameters=free)  # type: ignore[attr-defined]
    made.__wrapped__ = whole
    return made


def opened(make: MakeFinder) -> MakeFinder:
    """The maker behind one that is `fixed`, whose options can be set; any other as it is.

    >>> from plantjax import FINDERS
    >>> opened(FINDERS["snip"]).keywords
    {'score': 'snip'}
    """
    inner: Callable[..., Finder] | None = getattr(make, "__wrapped__", None)
    return inner if isinstance(inner, partial) else make


def tunable(make: MakeFinder, **space: Space) -> MakeFinder:
    """The maker with a space of options, from which experiments/tune.py draws what it tries.

    The space should have the options that matter, and ranges that hold the defaults. It should not
    let a search take much longer than by default, or use what only the planted ticket tells.

    Args:
      make: a maker of finders, perhaps one that is `fixed` or a `preset`.
      **space: where each option is drawn from, see `spaces`.

    Returns:
      A maker that does the same; `space_of` gives its space.

    Raises:
      ValueError: if the maker does not take one of the options.

    >>> from plantjax import FINDERS
    >>> print(space_of(FINDERS["gem_miner"])["penalty"])
    1e-09 to 0.001
    """
    signature = inspect.signature(make)
    checks.options(make.__name__, space, set(signature.parameters) - {"task"})

    @wraps(make)
    def made(task: Task, **options: Any) -> Finder:
        return make(task, **options)

    made.__signature__ = signature  # type: ignore[attr-defined]
    made.__wrapped__ = opened(make)
    made.space = dict(space)  # type: ignore[attr-defined]
    return made


def space_of(make: MakeFinder) -> Spaces:
    """The space of a maker's options, without those that are fixed; empty if it has none.

    >>> from plantjax import FINDERS
    >>> list(space_of(FINDERS["snip"])), space_of(FINDERS["phew"])
    (['rounds', 'scope', 'batches'], {})
    """
    space: Spaces = getattr(make, "space", {})
    known = inspect.signature(make).parameters
    return {name: part for name, part in space.items() if name in known}
