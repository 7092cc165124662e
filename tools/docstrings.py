"""What docstrings of registered functions say, for the README and the documentation."""

import inspect
import re
from functools import partial
from typing import Any

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns):$", re.MULTILINE)


def unwrapped(entry: Any) -> tuple[Any, dict[str, Any]]:
    """The function of a `partial`, and the options that it sets."""
    options: dict[str, Any] = {}
    while isinstance(entry, partial):
        options, entry = {**entry.keywords, **options}, entry.func
    return entry, options


def paragraphs(maker: Any) -> tuple[list[str], list[str]]:
    """What a function's docstring says before its sections, and on its source."""
    text = (callable(maker) and inspect.getdoc(maker)) or ""
    parts = re.split(r"\n\s*\n", text)
    source = [part for part in parts if part.startswith("Source")]
    before = re.split(r"\n\s*\n", _SECTION.split(text.partition(">>>")[0])[0].strip())
    return [part for part in before if part and not part.startswith("Source")], source
