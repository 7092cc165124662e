"""The summary on the terminal: median and range per finder and density, ticket, dead networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plantjax import metrics
from plantjax.finders import REFERENCES
from plantjax.jobs import terminal

if TYPE_CHECKING:
    import pandas as pd

SINGLE = {"dense": "dense network", "planted": "planted mask, trained"}
"""References that have one density only."""
STAGES = {"pruned": "strong (masked only)", "trained": "weak (after training)"}


CASE = ["task", "depth", "width", "noise", "finder", "scope", "rounds", "rescale"]
CASE += ["density_name", "density", "stage", "metric"]


def aggregate(table: pd.DataFrame, further: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per case: its seeds, median and range, dead and diverged networks, recovery.

    Strong values of finders that train as they search are left out, since they are no tickets.

    Args:
      table: tidy results.
      further: columns whose medians come last; by default those of further metrics.
    """
    further = metrics_in(table) if further is None else further
    table = without_trained(table)
    case = [name for name in (*CASE, "mother") if name in table]
    groups = table.groupby(case, sort=False)
    return groups.agg(
        seeds=("seed", "nunique"),
        median=("value", "median"),
        min=("value", "min"),
        max=("value", "max"),
        ticket=("ticket_value", "median"),
        dead=("constant", "sum"),
        diverged=("status", lambda status: (status == "diverged").sum()),
        recall=("recall", "median"),
        feasible_recall=("feasible_recall", "median"),
        live_density=("live_density", "median"),
        **{name: (name, "median") for name in further},
    ).reset_index()


def metrics_in(table: pd.DataFrame) -> list[str]:
    """The table's columns of registered metrics, without the built-in ones."""
    return [name for name in metrics.names() if name in table]


def show(table: pd.DataFrame, console: Console | None = None) -> None:
    """Prints one table per task and stage: finders, densities, median and range over the seeds.

    Where the terminal is too narrow, ranges are left out, and then every density gets a row of its
    own; no number and no name is ever cut. Finders that train as they search have no strong value.
    """
    console = console or Console()
    plain = console.options.ascii_only
    for label, stage, whole in _parts(table):
        metric, words = whole["metric"].iloc[0], STAGES[stage]
        part, finders = without_trained(whole), _rows(whole)
        cells = [partial(_cell, metric=metric, plain=plain, ranges=r) for r in (True, False)]
        seeds = terminal.count(whole["seed"].nunique(), "seed")
        layouts = [layout(part, finders, cell) for layout in LAYOUTS for cell in cells]
        ranges = terminal.fits(console, *layouts) % 2 == 0 and whole["seed"].nunique() > 1
        kind = "median and range" if ranges else "median"
        terminal.say(console, f"{label}, {metric}, {words}: {kind} of {seeds}", style="bold")
        terminal.show(console, *layouts)
        for line in _references(part, cells[0], metric) + _apart(whole):
            terminal.say(console, line)
        console.print()
        for name in metrics_in(part):
            terminal.say(console, f"{label}, {name}, {words}: median", style="bold")
            middle = partial(_median, name=name)
            terminal.show(console, *(layout(part, finders, middle) for layout in LAYOUTS))
    for name, number in troubles(table).items():
        if number:
            terminal.say(console, f"n{MARKS[name][plain]}: {MARKS[name][2]}")


class Pivot(NamedTuple):
    """A table of one task and stage: finders by densities.

    Attributes:
      task: the task.
      stage: "pruned" or "trained".
      title: what it shows.
      densities: the heads of its columns but the first.
      rows: a finder and its texts, each a median with marks, and in a second line the range.
      notes: the references, and finders that are no subnetworks.
    """

    task: str
    stage: str
    title: str
    densities: list[str]
    rows: list[list[str]]
    notes: list[str]


def pivots(table: pd.DataFrame) -> list[Pivot]:
    """The tables that `show` prints where there is room."""
    found = []
    for label, stage, whole in _parts(table):
        metric, part = whole["metric"].iloc[0], without_trained(whole)
        cell = partial(_cell, metric=metric, plain=False, ranges=True)
        densities, texts = _texts(part, cell)
        rows = [[name, *(texts.get((name, d), "") for d in densities)] for name in _rows(whole)]
        title = f"{label}, {metric}, {STAGES[stage]}"
        notes = _references(part, cell, metric) + _apart(whole)
        found.append(Pivot(str(whole["task"].iloc[0]), stage, title, densities, rows, notes))
    return found


def _parts(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of each task and stage, and of each network and noise if there are several."""
    further = [name for name in FURTHER if name in table and table[name].nunique() > 1]
    for (task, stage, *values), part in table.groupby(["task", "stage", *further], sort=False):
        words = [f"{name} {value}" for name, value in zip(further, values, strict=True)]
        yield ", ".join([str(task), *words]), str(stage), part


FURTHER = ("depth", "width", "noise", "mother", "rescale")
"""Columns whose values are never mixed in one table."""


def _rows(part: pd.DataFrame) -> list[str]:
    """The finders that have a row."""
    return [str(name) for name in part["finder"].unique() if name not in SINGLE]


def without_trained(table: pd.DataFrame) -> pd.DataFrame:
    """The table without strong values of finders that train as they search: they are no tickets."""
    if "kind" not in table:
        return table
    return table[(table["stage"] != "pruned") | (table["kind"] != "trained")]


def _apart(part: pd.DataFrame) -> list[str]:
    """Notes on finders whose strong values are no values of subnetworks."""
    if "kind" not in part or part["stage"].iloc[0] != "pruned":
        return []
    found = {kind: part[part["kind"] == kind]["finder"].unique() for kind in APART}
    return [f"{', '.join(names)}: {APART[kind]}" for kind, names in found.items() if len(names)]


APART = {
    "trained": "trained during the search, so no strong tickets",
    "signed": "with other signs than the mother, so no subnetworks of it",
}
"""What to say of kinds of finders that are not of subnetworks."""

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


def format_value(value: float, metric: str) -> str:
    """0.978 as accuracy, 1.0e-4 as error."""
    if metric == "accuracy":
        return f"{value:.3f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+00", "")


_Cell: TypeAlias = Callable[["pd.DataFrame"], str]
"""`(rows of a finder and a density) -> text`."""


def _wide(part: pd.DataFrame, finders: Sequence[str], cell: _Cell) -> Table:
    """Finders by densities."""
    densities, texts = _texts(part, cell)
    rows = [[name, *(texts.get((name, d), "") for d in densities)] for name in finders]
    return terminal.table(["finder", *densities], rows, tuple(REFERENCES))


def _long(part: pd.DataFrame, finders: Sequence[str], cell: _Cell) -> Table:
    """A row for every finder and density."""
    densities, texts = _texts(part, cell)
    pairs = [(name, d) for name in finders for d in densities if (name, d) in texts]
    rows = [[*pair, texts[pair].replace("\n", "  ")] for pair in pairs]
    return terminal.table(["finder", "density", "value"], rows, tuple(REFERENCES))


def _nested(part: pd.DataFrame, finders: Sequence[str], cell: _Cell) -> Text:
    """The densities below each finder."""
    densities, texts = _texts(part, cell)
    rows = [[name, *(texts.get((name, d), "") for d in densities)] for name in finders]
    return terminal.listed(["finder", *densities], rows)


LAYOUTS: tuple[Callable[[pd.DataFrame, Sequence[str], _Cell], Table | Text], ...] = (
    *(_wide, _long, _nested),
)
"""The layouts of a table, the widest first."""


def _texts(part: pd.DataFrame, cell: _Cell) -> tuple[list[str], dict[tuple[str, str], str]]:
    """The densities, and the text of every finder and density."""
    searched = part[~part["finder"].isin(SINGLE)]
    cases = searched.groupby(["finder", "density_name"], sort=False)
    texts = {(str(finder), str(density)): cell(rows) for (finder, density), rows in cases}
    return [str(name) for name in dict.fromkeys(searched["density_name"])], texts


def _references(part: pd.DataFrame, cell: _Cell, metric: str) -> list[str]:
    """The references below a table: ticket, target and dense network."""
    ticket, density = part["ticket_value"].median(), part["ticket_density"].iloc[0]
    lines = [
        f"planted ticket {format_value(ticket, metric)} at density {density:.3g}; "
        f"target network {format_value(part['target_value'].median(), metric)}"
    ]
    for finder, words in SINGLE.items():
        rows = part[part["finder"] == finder]
        if len(rows) and not (finder == "planted" and part["stage"].iloc[0] == "pruned"):
            lines.append(f"{words} {cell(rows)}".replace("\n", ", "))
    return lines


def _median(rows: pd.DataFrame, name: str) -> str:
    return f"{rows[name].median():.3g}"


def _cell(rows: pd.DataFrame, metric: str, ranges: bool, plain: bool) -> str:
    values = rows["value"].astype("float32")  # as it was computed, whatever a file made of it
    text = format_value(values.median(), metric) + marks(troubles(rows), plain)
    if ranges and len(values) > 1:
        low, high = format_value(values.min(), metric), format_value(values.max(), metric)
        text += f"\n{low}-{high}" if metric == "accuracy" else f"\n{low} to {high}"
    return text


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
