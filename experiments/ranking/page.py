"""The leaderboard as a Markdown page: scores over all tasks, then the lowest densities by task."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from plantjax.finders import REFERENCES
from plantjax.jobs.summary import SINGLE, STAGES, format_value, markdown
from plantjax.jobs.terminal import count, span
from ranking import plan, scores, statistics

Row: TypeAlias = Mapping[Hashable, Any]
"""A row of `statistics.cases`."""

NEVER = "none"
PUBLISH = "python experiments/leaderboard.py page RESULTS --publish"


def page(table: pd.DataFrame, facts: Mapping[str, str], picture: str) -> str:
    """The whole page.

    Args:
      table: tidy results, with the columns `ruling` and `sheet` or without.
      facts: how they were made, by name, as of `release.read`.
      picture: path of the figure, relative to the page.

    Returns:
      Markdown.
    """
    (_, table), *others = plan.with_sheets(table).groupby("sheet", sort=False)
    parts = [TITLE, *_about(table, facts), READING, "## All tasks together", TOGETHER]
    parts += [_together(table)]
    rulings, table = plan.rulings_in(table), statistics.by_kind(table)
    best = plan.of_ruling(table, rulings[0])
    cases, lows = statistics.cases(best), statistics.lowest(best)
    searched = [name for name in statistics.ranking(lows, cases) if name not in REFERENCES]
    parts += ["## The lowest density that reaches the ticket", LOWEST]
    parts += [_lowest_table(lows, cases, searched)]
    parts += [f"![Scores of all finders, ruling {rulings[0]}]({picture})"]
    parts += ["## The tasks", *(_facts(part) for _, part in best.groupby("task", sort=False))]
    for sheet, part in others:
        parts += [f"## {str(sheet).capitalize()}", _extent(part), _together(part)]
    if lost := dead_everywhere(table):
        parts += ["## Dead everywhere", DEAD, *(f"- {words}" for words in lost)]
    return "\n\n".join(parts) + "\n"


TITLE = """# Leaderboard

Which finder comes closest to the planted ticket, and at how few parameters?"""

READING = f"""*Strong*: the mother as it stands, only masked; *weak*: after training (finders that
train as they search have no strong scores). Two rulings: *published*, each finder with the options
of the registry; *tuned*, with those that won [12 trials](docs/finders.md#tuned-options) on other
mothers of the same task. Brackets hold {scores.LEVEL:.0%} of {scores.RESAMPLES} bootstrap
draws of mothers, from a fixed seed. Times leave out runs that were killed. Medians of every task,
density and stage are in [docs/leaderboard.csv](docs/leaderboard.csv), every cell in
`plantjax.results.load()` ([docs/results.md](docs/results.md))."""

TOGETHER = """A network's score is (value - dead) / (ticket - dead), clipped to [0, 1]: 0 for the
best constant output, 1 for the planted ticket. The table has interquartile means over all tasks,
densities and mothers, and a search's time in searches of `edge_popup` (geometric mean over the
tasks), from wall times. Sorted by the first column."""

LOWEST = f"""Strong / weak, by task, with the interval where it is no single density; "{NEVER}"
where no density will do. A mother reaches its ticket within one point of accuracy, or twice the
error (MSE after one factor per output); the median mother counts. Sorted by mean rank over the
tasks: the lowest strong density first, then the lowest weak one, then how near the strong masks
come at all densities."""

DEAD = "These finders have no live strong mask at density 0.5 or 0.1 on some task, tuned or not:"


def commands(facts: Mapping[Any, Any]) -> list[str]:
    """The commands that made the results, from facts as of `page`."""
    return str(facts.get("command", "not recorded")).split("; ")


def _about(table: pd.DataFrame, facts: Mapping[str, str]) -> list[str]:
    """Paragraphs on how the results were made."""
    told = {name: words for name, words in facts.items() if words and name != "command"}
    made = "\n".join(f"- `{command}`" for command in commands(facts))
    lines = [f"{_extent(table)} Made by", made, f"then `{PUBLISH}`."]
    if options := [part for part in told.pop("options", NEVER).split("; ") if part != NEVER]:
        lines += [f"Options that are not the registry's, tuned ones apart: {'; '.join(options)}."]
    return [*lines, "\n".join(f"- {name.capitalize()}: {words}." for name, words in told.items())]


def _extent(table: pd.DataFrame) -> str:
    """Finders, tasks, densities and seeds of a sheet."""
    finders = table[~table["finder"].isin(REFERENCES)]["finder"].nunique()
    densities = table[~table["finder"].isin(SINGLE)].sort_values("density", ascending=False)
    return (
        f"{count(finders, 'finder')}; tasks {', '.join(table['task'].unique())}; densities "
        f"{', '.join(densities['density_name'].unique())}; {span(sorted(table['seed'].unique()))}."
    )


def _together(table: pd.DataFrame) -> str:
    """Interquartile means and costs of all finders of a sheet, by stage and ruling."""
    rulings = plan.rulings_in(table)
    searches = plan.of_ruling(table, rulings[0])
    cost = scores.costs(searches) if scores.COST in set(searches["finder"]) else {}
    table = statistics.by_kind(table)
    table = table[~table["finder"].isin(SINGLE)].assign(score=scores.normalised)
    means: dict[tuple[str, str], dict[str, scores.Interval]] = {}
    for stage in STAGES:
        for ruling in rulings:
            part = plan.of_ruling(table[table["stage"] == stage], ruling)
            part, _ = scores.complete(part)
            if len(part):
                means[stage, ruling] = scores.means(*scores.blocks(part))
    order: dict[str, None] = {}
    for found in means.values():
        by_score = sorted(found.items(), key=lambda pair: -pair[1].value)
        order |= dict.fromkeys(name for name, _ in by_score)
    rows = [
        [
            f"`{name}`",
            *(_interval(found[name]) if name in found else "-" for found in means.values()),
            f"{cost[name]:.3g}" if name in cost else "-",
        ]
        for name in order
    ]
    words = {"pruned": "strong", "trained": "weak"}
    heads = [f"{words[stage]}, {ruling}" for stage, ruling in means]
    return markdown(["finder", *heads, "time"], rows)


def _interval(found: scores.Interval) -> str:
    return f"{found.value:.3f} ({found.low:.3f}-{found.high:.3f})"


def dead_everywhere(table: pd.DataFrame) -> list[str]:
    """Sentences on finders whose strong masks are all dead on a task, at 0.5 and at 0.1."""
    rows = table[(table["stage"] == "pruned") & table["density_name"].isin(["0.5", "0.1"])]
    lost = rows.groupby(["finder", "task"], sort=False)["constant"].all()
    tasks: dict[str, list[str]] = {}
    for finder, task in lost.index[lost.to_numpy()]:
        tasks.setdefault(str(finder), []).append(str(task))
    return [
        f"`{name}` on {', '.join(found)}: {REASONS.get(name, 'not looked into.')}"
        for name, found in tasks.items()
    ]


REASONS: dict[str, str] = {}
"""Why finders are dead, by name."""


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
        f"**{one['task'].iloc[0]}**: {metric}; {count(len(one), 'mother')}, "
        f"{span(sorted(one['seed']))}. "
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
