"""The leaderboard as a Markdown page: a ranking, then a table of scores per task and stage."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from plantjax.finders import REFERENCES
from plantjax.jobs.grids import TICKET
from plantjax.jobs.summary import (
    MARKS,
    SINGLE,
    STAGES,
    format_value,
    markdown,
    marks,
    metrics_in,
)
from plantjax.jobs.terminal import count, span
from ranking import statistics

Row: TypeAlias = Mapping[Hashable, Any]
"""A row of `statistics.cases`."""

NEVER = "none"
COST = "edge_popup"
"""The finder whose search time is the unit of the cost column."""


def page(table: pd.DataFrame, about: Sequence[str], picture: str) -> str:
    """The whole page.

    Args:
      table: tidy results, see `statistics.by_kind`.
      about: paragraphs on how they were made: command, seeds, options, device, versions, time.
      picture: path of the figure, relative to the page.

    Returns:
      Markdown.
    """
    cases, lows = statistics.cases(table), statistics.lowest(table)
    searched = [name for name in statistics.ranking(lows, table) if name not in REFERENCES]
    parts = [TITLE, *about, READING, f"![Scores of all finders]({picture})"]
    parts += ["## The lowest density that reaches the ticket", LOWEST]
    parts += [_lowest_table(lows, cases, searched)]
    for task in table["task"].unique():
        part = cases[cases["task"] == task]
        parts += [f"## {task}", _facts(table[table["task"] == task])]
        parts += [_search_table(part, searched)]
        for stage, words in (STAGES | {statistics.SIGNED: SIGNED}).items():
            if stage in set(part["stage"]):
                parts += [f"**{words.capitalize()}**", _score_table(part, stage, searched)]
    return "\n\n".join(parts) + "\n"


SIGNED = "signed (masked, signs flipped: no subnetworks, and outside of the ranking)"

TITLE = """# Leaderboard

Which finder comes closest to the planted ticket, and at how few parameters?"""

READING = f"""Every figure is the median over the mothers, with its {statistics.LEVEL:.0%} bootstrap
interval in brackets ({statistics.RESAMPLES} draws of mothers with replacement, from a fixed seed;
of few mothers it is little more than their range). A mother *reaches* its ticket within one point
of accuracy, or twice the error (MSE after one factor per output). *Strong*: the mother as it
stands, only masked; *weak*: after training (SET and RigL train as they search, and have no strong
scores). **Bold**: the median mother reaches its ticket. """
READING += "; ".join(f"n{mark}: {words}" for mark, _, words in MARKS.values()) + "."

LOWEST = f"""Strong / weak, by task; "{NEVER}" where no density will do. Sorted by mean rank over
the tasks: the lowest strong density first, then the lowest weak one, then how near the strong
masks come at all densities."""


def _lowest_table(lows: pd.DataFrame, cases: pd.DataFrame, finders: Sequence[str]) -> str:
    tasks = list(cases["task"].unique())
    stages = [stage for stage in STAGES if stage in set(lows["stage"])]
    names = cases.drop_duplicates(["task", "density"]).set_index(["task", "density"])
    found = {(low["task"], low["finder"], low["stage"]): low for low in lows.to_dict("records")}

    def density(task: str, value: float) -> str:
        return str(names.loc[(task, value), "density_name"]) if np.isfinite(value) else NEVER

    def cell(task: str, finder: str, stage: str) -> str:
        row = found.get((task, finder, stage))
        if row is None:
            return "-"
        ends = (row[name] for name in ("lowest", "lowest_low", "lowest_high"))
        middle, low, high = (density(task, value) for value in ends)
        return f"{middle} ({low} to {high})" if low != high else middle

    rows = [
        [f"`{finder}`", *(" / ".join(cell(task, finder, s) for s in stages) for task in tasks)]
        for finder in finders
    ]
    return markdown(["finder", *tasks], rows)


def _search_table(part: pd.DataFrame, finders: Sequence[str]) -> str:
    """Recovery at the ticket's density, the time of a search, and user-registered metrics."""
    further = metrics_in(part)
    rows_at = part[part["density_name"] == TICKET].sort_values("stage", kind="stable")
    rows_at = rows_at.drop_duplicates("finder")  # pruned before signed before trained
    at_ticket = {row["finder"]: row for row in rows_at.to_dict("records")}
    rows = []
    for finder in (name for name in finders if name in at_ticket):
        row = at_ticket[finder]
        unit = at_ticket.get(COST, {}).get("seconds")
        cost = f"{row['seconds'] / unit:.3g}" if unit else ""
        spreads = [_spread(row, name, "{:.2g}".format) for name in ("recall", "lift", "seconds")]
        strong = f"{row['reached']} of {row['seeds']}" if row["stage"] == "pruned" else ""
        others = [_spread(row, name, "{:.2g}".format) for name in further]
        rows.append([f"`{finder}`", *spreads, cost, strong, *others])
    heads = ["at the ticket's density", "recall of the planted mask", "lift over chance"]
    heads += ["seconds a search", f"times `{COST}`", "strong tickets", *further]
    return markdown(heads, rows)


def _score_table(part: pd.DataFrame, stage: str, finders: Sequence[str]) -> str:
    rows = part[(part["stage"] == stage) & ~part["finder"].isin(SINGLE)]
    names = list(rows.sort_values("density", ascending=False)["density_name"].unique())
    found = {(row["finder"], row["density_name"]): row for row in rows.to_dict("records")}
    others = [name for name in rows["finder"].unique() if name not in finders]
    lines = []
    for finder in [*finders, *others]:
        cells = [_score(found[finder, name]) if (finder, name) in found else "" for name in names]
        if any(cells):
            lines.append([f"`{finder}`", *cells])
    return markdown(["finder", *names], lines)


def _score(row: Row) -> str:
    metric = str(row["metric"])
    text = _spread(row, "value", lambda value: format_value(value, metric))
    text += marks({name: int(row[name]) for name in MARKS})
    return f"**{text}**" if statistics.reached(row["excess"]) else text


def _spread(row: Row, name: str, words: Any) -> str:
    """A value with its interval, as in `0.95 (0.93-0.97)`; with "to" if there are exponents."""
    middle, low, high = (words(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    between = " to " if "e" in low + high else "-"
    return f"{middle} ({low}{between}{high})"


def _facts(table: pd.DataFrame) -> str:
    """The values of ticket, target and references, to compare the scores with."""
    metric = str(table["metric"].iloc[0])

    def spread(values: pd.Series) -> str:
        names = ("value", "value_low", "value_high")
        row: Row = dict(zip(names, statistics.interval(values), strict=True))
        return _spread(row, "value", lambda value: format_value(value, metric))

    one = table.drop_duplicates("seed")
    text = (
        f"Metric {metric}; {count(len(one), 'mother')}, {span(sorted(one['seed']))}. "
        f"Planted ticket {spread(one['ticket_value'])} at density "
        f"{one['ticket_density'].iloc[0]:.3g}, target network {spread(one['target_value'])}."
    )
    trained = table[table["stage"] == "trained"]
    for finder, words in SINGLE.items():
        rows = trained[trained["finder"] == finder]
        text += f" The {words} (weak): {spread(rows['value'])}." if len(rows) else ""
    return text


def options_note(options: Mapping[str, Mapping[str, Any]]) -> str:
    """Lists the finders that ran with options other than those of the registry."""
    told: dict[str, list[str]] = {}
    for finder, chosen in options.items():
        words = " ".join(f"`{name}={value}`" for name, value in chosen.items())
        told.setdefault(words, []).append(f"`{finder}`")
    told.pop("", None)
    return "; ".join(f"{words} of {', '.join(names)}" for words, names in told.items()) or "none"
