"""Examples in docstrings as blocks of code, which Markdown would take for quotations."""

from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Fences the examples of every docstring, before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text with every run of lines from `>>>` to the next empty one as a block of code."""
    lines, inside = [], False
    for line in [*text.splitlines(), ""]:
        if not inside and line.startswith(">>>"):
            inside = True
            lines.append("```pycon")
        elif inside and not line.strip():
            inside = False
            lines.append("```")
        lines.append(line)
    return "\n".join(lines[:-1])
