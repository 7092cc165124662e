"""The leaderboard as one HTML file that loads nothing: ranks, scores, costs, profiles, filters."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from plantjax.finders.names import base
from plantjax.jobs.styles import COLORS
from plantjax.jobs.summary import SINGLE, STAGES
from plantjax.jobs.terminal import span
from ranking import plan, scores, statistics
from ranking.page import commands

HERE = Path(__file__).parent
FINDERS_PAGE = HERE.parent.parent / "docs" / "finders.md"
ALL, OTHERS = "all", "Others"
LEVELS = np.linspace(0.0, 1.0, 51)
"""The values of tau of a profile."""
LINES = 6
"""Finders in a panel of profiles."""
SHOWN = 0.02
"""The least score of finders beyond the front that get a number in the plot of costs."""
Row = dict[str, Any]


def families() -> dict[str, str]:
    """The family of each finder: the heading above it in docs/finders.md, also its anchor."""
    found: dict[str, str] = {}
    heading = OTHERS
    for line in FINDERS_PAGE.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif name := re.match(r"\| `(\w+)` \|", line):
            found.setdefault(name[1], heading)
    return found


def page(table: pd.DataFrame, docs: str) -> str:
    """The whole page; the template escapes every word.

    Args:
      table: tidy results with `dead_value`, and `attrs` as of `release.read`.
      docs: where finders are explained.

    Raises:
      ValueError: if a column is missing, or edge_popup did not run.
    """
    told = families()
    table = statistics.judged(table)
    table = table[~table["finder"].isin(SINGLE)].assign(score=scores.normalised)
    groups: list[Row] = []
    figures: list[Row] = []
    lacking: set[str] = set()
    for sheet, ruling, stage, part in _parts(plan.with_sheets(table)):
        part, without = scores.complete(part)
        lacking |= set(without)
        runs = plan.of_ruling(sheet, ruling)
        cost = scores.costs(runs[runs["finder"].isin({*part["finder"], scores.COST})])
        shown: Row = {"sheet": sheet["sheet"].iloc[0], "stage": stage, "ruling": ruling}
        for task, density, cells in _pooled(part):
            rows = _rows(cells, cost, told, docs)
            groups.append({**shown, "task": task, "density": density, "rows": rows})
            if (task, density) == (ALL, ALL):
                figure = {**shown, "words": STAGES[stage], "about": _about(cells)}
                figures.append(figure | {"panels": _panels(cells, rows), "points": _points(rows)})
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader([HERE, HERE.parent]),
    )
    names = ("sheet", "stage", "ruling", "task", "density")
    filters = {name: list(dict.fromkeys(group[name] for group in groups)) for name in names}
    kinds = sorted({row["family"] for group in groups for row in group["rows"]})
    return environment.get_template("site.html").render(
        groups=groups,
        figures=figures,
        filters={name: values for name, values in filters.items() if len(values) > 1},
        families=kinds,
        lacking=sorted(lacking),
        shown=SHOWN,
        commands=commands(table.attrs),
        facts={name: words for name, words in table.attrs.items() if name != "command"},
    )


def _parts(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str, str, pd.DataFrame]]:
    """Every sheet, with its rows of each ruling and stage; strong ones are of subnetworks only."""
    for _, sheet in table.groupby("sheet", sort=False):
        for ruling, stage in itertools.product(plan.rulings_in(sheet), STAGES):
            part = plan.of_ruling(sheet[sheet["stage"] == stage], ruling)
            if stage == "pruned" and "kind" in part:
                part = part[part["kind"].fillna("subnetwork") == "subnetwork"]
            if len(part):
                yield sheet, ruling, stage, part


def _pooled(part: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of each task and density, and of all of them together."""
    densities = part.sort_values("density", ascending=False)["density_name"].unique()
    for task in (ALL, *part["task"].unique()):
        for density in (ALL, *densities):
            cells = part if task == ALL else part[part["task"] == task]
            cells = cells if density == ALL else cells[cells["density_name"] == density]
            if len(cells):
                yield str(task), str(density), cells


def _rows(
    cells: pd.DataFrame, cost: Mapping[str, float], told: Mapping[str, str], docs: str
) -> list[Row]:
    """A row for each finder, best first."""
    finders, blocks = scores.blocks(cells)
    means, ranks = scores.means(finders, blocks), scores.ranks(finders, blocks)
    front = scores.front(dict(cost), {name: means[name].value for name in finders})
    order = sorted(finders, key=lambda name: (ranks[name].value, name))
    nexts = dict(itertools.pairwise(order))
    wins = scores.improvement(finders, blocks, nexts.items())
    rows = []
    for name in order:
        family = told.get(base(name), OTHERS)
        anchor = re.sub(r"\W+", "-", family.lower())
        link = f"{docs}#{anchor}" if base(name) in told else ""
        row: Row = {"finder": name, "family": family, "link": link, "score": means[name]}
        row["wins"] = wins.get((name, nexts.get(name, "")))
        rows.append(row | {"rank": ranks[name], "cost": cost[name], "front": name in front})
    return rows


def _panels(cells: pd.DataFrame, rows: Sequence[Row]) -> list[Row]:
    """The profiles as small panels of one family, with at most LINES finders each."""
    finders, blocks = scores.blocks(cells)
    found = scores.profiles(finders, blocks, LEVELS)
    panels = []
    for family in dict.fromkeys(row["family"] for row in rows):
        names = [row["finder"] for row in rows if row["family"] == family]
        for start in range(0, len(names), LINES):
            lines = [
                {"finder": name, "color": COLORS[place], "line": _path(found[name][0])}
                | {"band": _path(found[name][1]) + _path(found[name][2], back=True) + "Z"}
                for place, name in enumerate(names[start : start + LINES])
            ]
            panels.append({"family": family, "lines": lines})
    return panels


def _path(values: np.ndarray, back: bool = False) -> str:
    """A curve over LEVELS in a panel of 260 by 150; `back` goes on from another, right to left."""
    pairs = list(zip(40 + 260 * LEVELS, 160 - 150 * values, strict=True))
    text = "L".join(f"{x:.1f},{y:.1f}" for x, y in (pairs[::-1] if back else pairs))
    return ("L" if back else "M") + text


def _points(rows: Sequence[Row]) -> dict[str, Any]:
    """Cost against score in a plot of 400 by 260, numbered by rank."""
    logs = np.log10([row["cost"] for row in rows])
    first, last = int(np.floor(logs.min())), int(np.floor(logs.max())) + 1
    xs = 45 + 400 * (logs - first) / (last - first)
    points = [
        {"x": float(x), "number": place, **row}
        | dict(zip(("y", "low", "high"), (270 - 260 * v for v in row["score"]), strict=True))
        for place, (x, row) in enumerate(zip(xs, rows, strict=True), 1)
    ]
    taken = [(p["x"], p["y"], 8, 7) for p in points]  # x, y and the room they need
    numbered = [p for p in points if p["front"] or p["score"].value >= SHOWN]
    for point in numbered:
        spots = [
            (point["x"] + r * np.cos(angle), point["y"] + r * np.sin(angle))
            for r in (10, 18, 26, 36, 48)
            for angle in -np.arange(12) * np.pi / 6
        ]
        free = [s for s in spots if all(abs(s[0] - x) > w or abs(s[1] - y) > h
                                        for x, y, w, h in taken)]  # fmt: skip
        point["at"] = (free or spots)[0]
        taken.append((*point["at"], 13, 10))
    ticks = [
        (45 + 400 * (power - first) / (last - first), f"{10.0**power:g}")
        for power in range(first, last + 1)
    ]
    best = sorted((p for p in points if p["front"]), key=lambda p: p["x"])
    steps = "".join(f"{'H' if n else 'M'}{p['x']:.1f}{'V' if n else ','}{p['y']:.1f}"
                    for n, p in enumerate(best))  # fmt: skip
    least = [point for point in points if point not in numbered]
    return {"numbered": numbered, "least": least, "ticks": ticks, "steps": steps}


def _about(table: pd.DataFrame) -> str:
    """Tasks, mothers and spread, as captions say them."""
    seeds = {task: sorted(part["seed"].unique()) for task, part in table.groupby("task")}
    words = "; ".join(f"{task!s} {span(numbers)}" for task, numbers in seeds.items())
    return (
        f"Mothers: {words}. Intervals hold {scores.LEVEL:.0%} of {scores.RESAMPLES} bootstrap "
        "draws of mothers within tasks."
    )
