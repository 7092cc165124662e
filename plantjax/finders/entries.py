"""Entries of a registry of finders: makers with other defaults, or with options that are fixed."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

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
