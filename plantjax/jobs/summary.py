"""The summary on the terminal: mean and range per finder and density, ticket, dead networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

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
        diverged=("status", lambda status: (status != "ok").sum()),
        recall=("recall", "mean"),
        feasible_recall=("feasible_recall", "mean"),
        live_density=("live_density", "mean"),
        **{name: (name, "mean") for name in further},
    ).reset_index()


def metrics_in(table: pd.DataFrame) -> list[str]:
    """The table's columns of metrics that not every table has."""
    return [name for name in metrics.names() if name in table]


def show(table: pd.DataFrame, console: Console | None = None) -> None:
    """Prints one table per task and stage: mean and range per finder and density."""
    console = console or Console()
    for (task, stage), part in table.groupby(["task", "stage"], sort=False):
        metric, seeds = part["metric"].iloc[0], part["seed"].nunique()
        title = f"{task}, {metric}, {STAGES[str(stage)]}: mean and range of {seeds} seeds"
        console.print(title, style="bold")
        console.print(_table(part, partial(_cell, metric=metric)))
        console.print(_references(part, metric) + "\n")
        for name in metrics_in(part):
            console.print(f"{task}, {name}, {STAGES[str(stage)]}: mean", style="bold")
            console.print(_table(part, partial(_mean, name=name)))
    if (table["constant"] | (table["status"] != "ok")).any():
        console.print("n†: n networks with a constant output (dead); n‡: n networks that diverged.")


def format_value(value: float, metric: str) -> str:
    """0.978 as accuracy, 1.0e-4 as error."""
    if metric == "accuracy":
        return f"{value:.3f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+00", "")


def _table(part: pd.DataFrame, cell: Callable[[pd.DataFrame], str]) -> Table:
    """Finders by densities; `cell` makes the text of each from its rows."""
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    searched = part[~part["finder"].isin(SINGLE)]
    names = list(dict.fromkeys(searched["density_name"]))
    result.add_column("finder", no_wrap=True)
    for name in names:
        result.add_column(name, justify="right")
    for finder, rows in searched.groupby("finder", sort=False):
        cells = [cell(rows[rows["density_name"] == name]) for name in names]
        result.add_row(str(finder), *cells, style="dim" if finder in REFERENCES else None)
    return result


def _references(part: pd.DataFrame, metric: str) -> str:
    """What the table is to be read against: ticket, target and dense network."""
    ticket, density = part["ticket_value"].mean(), part["ticket_density"].iloc[0]
    lines = [
        f"planted ticket {format_value(ticket, metric)} at density {density:.3g}; "
        f"target network {format_value(part['target_value'].mean(), metric)}"
    ]
    for finder, words in SINGLE.items():
        rows = part[part["finder"] == finder]
        if len(rows) and not (finder == "planted" and part["stage"].iloc[0] == "pruned"):
            lines.append(f"{words} {_cell(rows, metric)}".replace("\n", ", "))
    return "\n".join(lines)


def _mean(rows: pd.DataFrame, name: str) -> str:
    return f"{rows[name].mean():.3g}" if len(rows) else ""


def _cell(rows: pd.DataFrame, metric: str) -> str:
    if not len(rows):
        return ""
    values = rows["value"]
    text = format_value(values.mean(), metric)
    dead, broken = int(rows["constant"].sum()), int((rows["status"] != "ok").sum())
    text += (f" {dead}†" if dead else "") + (f" {broken}‡" if broken else "")
    if len(values) > 1:
        low, high = format_value(values.min(), metric), format_value(values.max(), metric)
        if metric == "accuracy":  # without leading zeros, five densities fit on 80 columns
            text += f"\n{low.removeprefix('0')}-{high.removeprefix('0')}"
        else:
            text += f"\n{low}.. {high}"
    return text


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
