"""The leaderboard as one HTML file that loads nothing: ranks, scores, costs, profiles and filters.

`python experiments/leaderboard.py page RESULTS` writes it from results folders and tables, or from
the release's table.
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import tyro
from rich.console import Console

from plantjax import results
from plantjax.finders.names import base
from plantjax.jobs import chunks, cli
from plantjax.jobs.job import checking_input
from plantjax.jobs.styles import COLORS
from plantjax.jobs.summary import SINGLE, STAGES
from plantjax.jobs.terminal import span
from plantjax.results.table import ASSET
from ranking import plan, scores, statistics

HERE = Path(__file__).parent
FINDERS_PAGE = HERE.parent.parent / "docs" / "finders.md"
ALL, OTHERS = "all", "Others"
LEVELS = np.linspace(0.0, 1.0, 51)
"""The values of tau of a profile."""
CELL = ("task", "depth", "width", "finder", "ruling", "tuned", "density_name", "seed", "stage")
"""Columns that tell one row of a table from the others."""
LINES = 6
"""Finders in a panel of profiles."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Write the leaderboard as an HTML page of one file."""

    sources: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Results folders or tables, as one; of equal cells the last one's are taken (default: the
    release's table)."""
    out: Path = Path("leaderboard.html")
    """The page."""
    docs: str = "docs/finders.md"
    """Where finders are explained, as the page links to it."""
    publish: bool = False
    """Write the release's table, plantjax/results/results.csv.gz, as well."""


def read(sources: Sequence[Path]) -> pd.DataFrame:
    """The table of all sources, with how they were made in its `attrs`.

    Args:
      sources: results folders or tables, or none for the release's; a cell that several have is
        that of the last one.

    Raises:
      ValueError: if there are no results.
    """
    parts = [_read(source) for source in sources] or [_read(None)]
    cells = [name for name in CELL if all(name in part for part in parts)]
    table = pd.concat(parts, ignore_index=True)
    place = pd.Series(np.repeat(np.arange(len(parts)), [len(part) for part in parts]))
    last = place.groupby([table[name] for name in cells], dropna=False).transform("max")
    table = table[place == last].reset_index(drop=True)
    for name in parts[0].attrs:
        words = dict.fromkeys(str(part.attrs.get(name, "not recorded")) for part in parts)
        table.attrs[name] = "; ".join(words)
    return table


def _read(source: Path | None) -> pd.DataFrame:
    try:
        if source is None or not source.is_dir():
            return results.load(source)
        table = results.load(source / "results.csv")
        config = json.loads((source / "config.json").read_text())
        table.attrs["command"] = shlex.join(["python", *map(str, config["command"])])
        table.attrs["device"] = str(config["device"])
        versions = config["versions"].items()
        table.attrs["versions"] = ", ".join(f"{name} {number}" for name, number in versions)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"SOURCES must be results of plantjax: {error}") from None
    return table


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
      table: tidy results with `dead_value`, and `attrs` as of `read`.
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
    for ruling, stage, part in _parts(table):
        part, without = scores.complete(part)
        lacking |= set(without)
        runs = plan.of_ruling(table, ruling)
        cost = scores.costs(runs[runs["finder"].isin({*part["finder"], scores.COST})])
        for task, density, cells in _pooled(part):
            rows = _rows(cells, cost, told, docs)
            groups.append({"task": task, "density": density, "stage": stage, "ruling": ruling})
            groups[-1] |= {"rows": rows}
            if (task, density) == (ALL, ALL):
                figure: Row = {"stage": stage, "ruling": ruling, "words": STAGES[stage]}
                figures.append(figure | {"panels": _panels(cells, rows), "points": _points(rows)})
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader([HERE, HERE.parent]),
    )
    names = ("stage", "ruling", "task", "density")
    filters = {name: list(dict.fromkeys(group[name] for group in groups)) for name in names}
    kinds = sorted({row["family"] for group in groups for row in group["rows"]})
    return environment.get_template("site.html").render(
        groups=groups,
        figures=figures,
        filters={name: values for name, values in filters.items() if len(values) > 1},
        families=kinds,
        lacking=sorted(lacking),
        about=_about(table),
        command=table.attrs.get("command", "not recorded"),
        facts={name: words for name, words in table.attrs.items() if name != "command"},
    )


def _parts(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of each ruling and stage; strong ones are those of subnetworks only."""
    for ruling in plan.rulings_in(table):
        for stage in STAGES:
            part = plan.of_ruling(table[table["stage"] == stage], ruling)
            if stage == "pruned" and "kind" in part:
                part = part[part["kind"].fillna("subnetwork") == "subnetwork"]
            if len(part):
                yield ruling, stage, part


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
    taken: list[tuple[float, float]] = []
    for point in points:
        spots = [
            (point["x"] + r * np.cos(angle), point["y"] + r * np.sin(angle))
            for r in (10, 18, 26, 36, 48)
            for angle in np.arange(12) * np.pi / 6
        ]
        free = [s for s in spots if all(abs(s[0] - x) > 13 or abs(s[1] - y) > 10 for x, y in taken)]
        point["at"] = (free or spots)[0]
        taken.append(point["at"])
    ticks = [
        (45 + 400 * (power - first) / (last - first), f"{10.0**power:g}")
        for power in range(first, last + 1)
    ]
    best = sorted((p for p in points if p["front"]), key=lambda p: p["x"])
    steps = "".join(f"{'H' if n else 'M'}{p['x']:.1f}{'V' if n else ','}{p['y']:.1f}"
                    for n, p in enumerate(best))  # fmt: skip
    return {"points": points, "ticks": ticks, "steps": steps}


def _about(table: pd.DataFrame) -> str:
    """Tasks, mothers and spread, as captions say them."""
    seeds = {task: sorted(part["seed"].unique()) for task, part in table.groupby("task")}
    words = "; ".join(f"{task!s} {span(numbers)}" for task, numbers in seeds.items())
    return (
        f"Mothers: {words}. Intervals hold {scores.LEVEL:.0%} of {scores.RESAMPLES} bootstrap "
        "draws of mothers within tasks."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "leaderboard.py page")
        if not settings.out.absolute().parent.is_dir() or settings.out.is_dir():
            raise ValueError(f"--out must be a file in a folder that exists, got {settings.out}.")
        table = read(settings.sources)
        content = page(table, settings.docs)
    with chunks.replacing(settings.out) as file:
        file.write(content.encode())
    if settings.publish:
        results.write(table, ASSET, {str(name): str(v) for name, v in table.attrs.items()})
    Console().print(f"Page: {settings.out}", soft_wrap=True)
