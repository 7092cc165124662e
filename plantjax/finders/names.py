"""Finders by name: those of the registries, and their controls, as in "snip+shuffled"."""

import inspect
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any

from plantjax import checks
from plantjax.finders import FINDERS, REFERENCES
from plantjax.finders.controls import CONTROLS
from plantjax.finders.entries import space_of
from plantjax.finders.spaces import Spaces
from plantjax.types import Finder, Task

CONTROLLED = "+"
"""Between the name of a finder and those of its controls."""


def base(name: str) -> str:
    """The name without its controls.

    >>> base("snip+inverted+shuffled")
    'snip'
    """
    return name.partition(CONTROLLED)[0]


def options(name: str) -> frozenset[str]:
    """The options that a finder takes: those of its maker that neither name nor `partial` fixes.

    Raises:
      ValueError: if there is no finder of this name.

    >>> known = options("snip100")
    >>> "scope" in known, "rounds" in known, "score" in known
    (True, False, False)
    """
    maker = _maker(name)
    return frozenset(inspect.signature(maker).parameters) - {"task"} - _fixed(maker)


def space(name: str) -> Spaces:
    """The options of a finder that can be tuned, and where they are drawn from.

    Raises:
      ValueError: if there is no finder of this name.

    >>> print(space("gem_miner+shuffled")["period"])
    2 or 5
    """
    known = options(name)
    return {k: part for k, part in space_of(_registered(base(name))).items() if k in known}


def make(task: Task, name: str, **static: Any) -> Finder:
    """The finder of a name; cached, so that equal calls return the same object and share programs.

    Args:
      task: what its loss and metrics are of.
      name: in FINDERS or REFERENCES, perhaps followed by controls.
      **static: its options, hashable.

    Returns:
      A Finder.

    Raises:
      ValueError: if a name or an option is unknown, or a value is not hashable or out of range.

    >>> import plantjax as pj
    >>> make(pj.TASKS["circle"], "snip+oracle").scope
    'oracle'
    """
    checks.options(f"finder {name!r}", static, options(name))
    for option, value in static.items():
        if not isinstance(value, Hashable):
            raise ValueError(f"{option} must be hashable, got {value!r}.")
    return _finder(task, name, _registered(base(name)), tuple(sorted(static.items())))


@lru_cache(maxsize=512)
def _finder(
    task: Task, name: str, made_by: Callable[..., Finder], static: tuple[tuple[str, Any], ...]
) -> Finder:
    del made_by  # part of the cache's key: a new function of an old name is another finder
    return _maker(name)(task, **dict(static))


def _maker(name: str) -> Callable[..., Finder]:
    found = _registered(base(name))
    for control in name.split(CONTROLLED)[1:]:
        checks.choice("control", control, CONTROLS)
        found = CONTROLS[control](found)
    return found


def _registered(name: str) -> Callable[..., Finder]:
    checks.choice("finder", name, [*FINDERS, *REFERENCES])
    return FINDERS[name] if name in FINDERS else REFERENCES[name]


def _fixed(maker: Any) -> set[str]:
    """The keywords that a `partial` has set, in this maker or in one that it wraps."""
    fixed: set[str] = set()
    while isinstance(maker, partial) or hasattr(maker, "__wrapped__"):
        if isinstance(maker, partial):
            fixed |= set(maker.keywords)
        maker = maker.func if isinstance(maker, partial) else maker.__wrapped__
    return fixed
