"""What scripts print: no number and no name is cut or broken, however narrow the terminal is."""

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints a text, with line breaks between words only."""
    for line in text.split("\n"):
        lines = textwrap.wrap(
            line,
            console.width,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=False,
        )
        whole = "\n".join(part if len(lines) == 1 else part.rstrip() for part in lines)
        console.print(whole, style=style, soft_wrap=True)


def show(console: Console, *layouts: RenderableType) -> None:
    """Prints the first layout that fits on the terminal, or the last one."""
    layout = layouts[fits(console, *layouts)]
    if isinstance(layout, Table):
        layout.width = _width(layout, console)
    console.print(layout, crop=False, no_wrap=True, overflow="ignore")


def fits(console: Console, *layouts: RenderableType) -> int:
    """The place of the first layout that fits on the terminal, or of the last one."""
    each = enumerate(layouts)
    last = len(layouts) - 1
    return next((i for i, layout in each if _width(layout, console) <= console.width), last)


def _width(layout: RenderableType, console: Console) -> int:
    """The columns that a layout takes if nothing is cut or wrapped."""
    anywhere = console.options.update(width=100_000)
    return console.measure(layout, options=anywhere).maximum


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], dim: Sequence[str] = ()) -> Table:
    """A table whose first column has names; the rows of names in `dim` are dim."""
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        result.add_column(head, justify="left" if head == heads[0] else "right", no_wrap=True)
    for row in rows:
        result.add_row(*row, style="dim" if row[0] in dim else None)
    return result


def listed(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Text:
    """The same as a list: a name, and below it a line for every value that is there."""
    wide = max(map(len, heads[1:]), default=0)
    lines = [""]
    for name, *values in rows:
        lines.append(name)
        for head, value in zip(heads[1:], values, strict=True):
            first, *more = value.split("\n")
            lines += [f"  {head.ljust(wide)}  {first}"] if value else []
            lines += [f"  {'':{wide}}  {line}" for line in more]
    return Text("\n".join([*lines, ""]))


def count(number: int, noun: str) -> str:
    """A number with its noun, "1 seed" or "3 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(seeds: Sequence[int]) -> str:
    """Seeds in words, "seed 3" or "seeds 0 to 4"."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def of_seeds(seeds: Sequence[int]) -> str:
    """Which values are shown: "seed 3", or "median and range of seeds 0 to 4"."""
    return span(seeds) if len(seeds) == 1 else f"median and range of {span(seeds)}"
