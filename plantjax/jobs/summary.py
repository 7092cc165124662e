"""The summary on the terminal: mean and range per finder and density, ticket, dead networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

from plantjax import metrics
from plantjax.finders import REFERENCES

if TYPE_CHECKING:
    import pandas as pd

SINGLE = {"dense": "dense network", "planted": "planted mask, trained"}
"""References that have one density only."""
STAGES = {"pruned": "strong (masked only)", "trained": "weak (after training)"}


CASE = ["task", "depth", "width", "noise", "finder", "scope", "rounds", "rescale"]
CASE += ["density_name", "density", "stage", "metric"]


def aggregate(table: pd.DataFrame, further: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per case: its seeds, mean, median and range, dead and diverged networks, recovery.

    Args:
      table: tidy results.
      further: columns whose means come last; by default those of further metrics.
    """
    further = metrics_in(table) if further is None else further
    case = [name for name in (*CASE, "mother") if name in table]
    groups = table.groupby(case, sort=False)
    return groups.agg(
        seeds=("seed", "nunique"),
        mean=("value", "mean"),
        median=("value", "median"),
        min=("value", "min"),
        max=("value", "max"),
        ticket=("ticket_value", "mean"),
        dead=("constant", "sum"),
        diverged=("status", lambda status: (status == "diverged").sum()),
        recall=("recall", "mean"),
        feasible_recall=("feasible_recall", "mean"),
        live_density=("live_density", "mean"),
        **{name: (name, "mean") for name in further},
    ).reset_index()


def metrics_in(table: pd.DataFrame) -> list[str]:
    """The table's columns of registered metrics, without the built-in ones."""
    return [name for name in metrics.names() if name in table]


def show(table: pd.DataFrame, console: Console | None = None) -> None:
    """Prints one table per task and stage: finders, densities, mean and range over the seeds.

    Where the terminal is too narrow, ranges are left out, and then every density gets a row of its
    own; no number and no name is ever cut.
    """
    console = console or Console()
    for (task, stage), part in table.groupby(["task", "stage"], sort=False):
        metric, words = part["metric"].iloc[0], STAGES[str(stage)]
        cell = partial(_cell, metric=metric, plain=console.options.ascii_only)
        cells = [partial(cell, ranges=ranges) for ranges in (True, False)]
        shown, ranges = _fitting(part, cells, console)
        kind = "mean and range" if ranges and part["seed"].nunique() > 1 else "mean"
        console.print(
            f"{task}, {metric}, {words}: {kind} of {count(part['seed'].nunique(), 'seed')}",
            style="bold",
        )
        whole(shown, console)
        console.print(_references(part, partial(cell, ranges=True), metric) + "\n")
        for name in metrics_in(part):
            console.print(f"{task}, {name}, {words}: mean", style="bold")
            whole(_fitting(part, [partial(_mean, name=name)], console)[0], console)
    plain = console.options.ascii_only
    for name, number in troubles(table).items():
        if number:
            console.print(f"n{MARKS[name][plain]}: {MARKS[name][2]}")


MARKS = {
    "dead": ("†", "d", "n networks with a constant output (dead)"),
    "diverged": ("‡", "x", "n networks whose value or training loss is not finite"),
    "over": ("§", "o", "n masks that keep more than their density allows: no tickets"),
    "guessed": ("¶", "s", "n masks from scores that are infinite or NaN: chance, not the finder"),
}
"""What is wrong with a network: its mark, the mark on ASCII terminals, and the words for it."""


def troubles(rows: pd.DataFrame) -> dict[str, int]:
    """How many of the rows have each of the troubles in MARKS."""
    status = rows["status"]
    return {
        "dead": int(rows["constant"].sum()),
        "diverged": int((status == "diverged").sum()),
        "over": int((status == metrics.OVER).sum()),
        "guessed": int(status.str.startswith("scores").sum()),
    }


def marks(counts: Mapping[str, int], plain: bool = False) -> str:
    """The marks behind a value, as in " 2† 1‡"; `plain` for ASCII."""
    return "".join(f" {counts[name]}{mark[plain]}" for name, mark in MARKS.items() if counts[name])


def count(number: int, noun: str) -> str:
    """A number with its noun, "1 seed" or "3 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_value(value: float, metric: str) -> str:
    """0.978 as accuracy, 1.0e-4 as error."""
    if metric == "accuracy":
        return f"{value:.3f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+00", "")


_Cell: TypeAlias = Callable[["pd.DataFrame"], str]
"""`(rows of a finder and a density) -> text`."""


def _fitting(part: pd.DataFrame, cells: Sequence[_Cell], console: Console) -> tuple[Table, bool]:
    """The first layout that fits the terminal, and whether it uses the first kind of cell."""
    tables = [(make(part, cell), cell is cells[0]) for make in (_wide, _long) for cell in cells]
    return next((pair for pair in tables if _width(pair[0], console) <= console.width), tables[-1])


def whole(table: Table, console: Console) -> None:
    """Prints a table without cutting a cell, even if it is wider than the terminal."""
    table.width = _width(table, console)
    console.print(table, crop=False)


def _width(table: Table, console: Console) -> int:
    """The columns that a table takes if nothing is cut or wrapped."""
    anywhere = console.options.update(width=100_000)
    return console.measure(table, options=anywhere).maximum


def _wide(part: pd.DataFrame, cell: _Cell) -> Table:
    """Finders by densities."""
    searched = part[~part["finder"].isin(SINGLE)]
    densities = list(dict.fromkeys(searched["density_name"]))
    result = _empty(["finder", *densities])
    for finder, rows in searched.groupby("finder", sort=False):
        texts = [cell(rows[rows["density_name"] == name]) for name in densities]
        result.add_row(str(finder), *texts, style="dim" if finder in REFERENCES else None)
    return result


def _long(part: pd.DataFrame, cell: _Cell) -> Table:
    """A row for every finder and density."""
    searched = part[~part["finder"].isin(SINGLE)]
    result = _empty(["finder", "density", "value"])
    for (finder, density), rows in searched.groupby(["finder", "density_name"], sort=False):
        style = "dim" if finder in REFERENCES else None
        result.add_row(str(finder), str(density), cell(rows).replace("\n", "  "), style=style)
    return result


def _empty(heads: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head == "finder" else "right", no_wrap=True)
    return table


def _references(part: pd.DataFrame, cell: _Cell, metric: str) -> str:
    """The references below a table: ticket, target and dense network."""
    ticket, density = part["ticket_value"].mean(), part["ticket_density"].iloc[0]
    lines = [
        f"planted ticket {format_value(ticket, metric)} at density {density:.3g}; "
        f"target network {format_value(part['target_value'].mean(), metric)}"
    ]
    for finder, words in SINGLE.items():
        rows = part[part["finder"] == finder]
        if len(rows) and not (finder == "planted" and part["stage"].iloc[0] == "pruned"):
            lines.append(f"{words} {cell(rows)}".replace("\n", ", "))
    return "\n".join(lines)


def _mean(rows: pd.DataFrame, name: str) -> str:
    return f"{rows[name].mean():.3g}" if len(rows) else ""


def _cell(rows: pd.DataFrame, metric: str, ranges: bool, plain: bool) -> str:
    if not len(rows):
        return ""
    values = rows["value"]
    text = format_value(values.mean(), metric)
    text += marks(troubles(rows), plain)
    if ranges and len(values) > 1:
        low, high = format_value(values.min(), metric), format_value(values.max(), metric)
        if metric == "accuracy":  # without leading zeros, five densities fit on 80 columns
            text += f"\n{low.removeprefix('0')}-{high.removeprefix('0')}"
        else:
            text += f"\n{low}.. {high}"
    return text


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
