"""What docstrings of registered functions say, for the tables of README and docs."""

import inspect
import re
from functools import partial
from typing import Any

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns):$", re.MULTILINE)


def unwrapped(entry: Any) -> tuple[Any, dict[str, Any]]:
    """The function behind a registry entry, and the options that the entry sets.

    A `partial` fixes options; a preset (`finders.registry.preset`) changes their defaults.
    """
    options: dict[str, Any] = {}
    while isinstance(entry, partial) or hasattr(entry, "__wrapped__"):
        if isinstance(entry, partial):
            options, entry = {**entry.keywords, **options}, entry.func
        else:
            options, entry = {**_new_defaults(entry), **options}, entry.__wrapped__
    return entry, options


def _new_defaults(preset: Any) -> dict[str, Any]:
    """The defaults that a preset gives, where the function it wraps has others."""
    before = inspect.signature(preset.__wrapped__).parameters
    now = inspect.signature(preset).parameters
    return {n: p.default for n, p in now.items() if n in before and p != before[n]}


def paragraphs(maker: Any) -> tuple[list[str], list[str]]:
    """The paragraphs of a docstring before its sections, and those on its source."""
    text = (callable(maker) and inspect.getdoc(maker)) or ""
    parts = re.split(r"\n\s*\n", text)
    source = [part for part in parts if part.startswith("Source")]
    before = re.split(r"\n\s*\n", _SECTION.split(text.partition(">>>")[0])[0].strip())
    return [part for part in before if part and not part.startswith("Source")], source
