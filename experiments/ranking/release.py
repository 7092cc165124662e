"""The files of the leaderboard: pages, figure, summary and the release's table, made of tables.

`python experiments/leaderboard.py page RESULTS` writes the HTML page, and with --publish all files
of the release.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from rich.console import Console

from plantjax import results
from plantjax.finders import REFERENCES
from plantjax.jobs import chunks, cli, figures
from plantjax.jobs.folder import write_table
from plantjax.jobs.job import checking_input
from plantjax.jobs.summary import STAGES
from plantjax.jobs.terminal import count, span
from plantjax.results.table import ASSET
from ranking import heat, page, plan, site, statistics

ROOT = Path(__file__).parent.parent.parent
PAGE, PICTURE = Path("LEADERBOARD.md"), Path("docs/leaderboard.png")
SPENT = "spent.json"
"""What a run of the leaderboard tells of itself besides config.json: how, and the time spent."""
CELL = (
    *("sheet", "task", "depth", "width", "finder", "ruling", "tuned"),
    *("density_name", "seed", "stage"),
)
"""Columns that tell one row of a table from the others."""


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
    """Write the release's table, LEADERBOARD.md, docs/leaderboard.csv and .png as well."""


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
        if (source / SPENT).exists():
            table.attrs.update(_told(json.loads((source / SPENT).read_text())))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"SOURCES must be results of plantjax: {error}") from None
    return table


def _told(about: dict[str, str | float]) -> dict[str, str]:
    """The facts of SPENT as lines of text."""
    words = {name: str(value) for name, value in about.items() if not name.endswith("seconds")}
    minutes = [
        count(round(float(about[name]) / 60), "minute")
        for name in ("process_seconds", "wall_seconds")
    ]
    return words | {"time": f"{minutes[0]} of processor time, {minutes[1]} in all"}


def spend(folder: Path, about: dict[str, str], wall: float, process: float) -> None:
    """Notes how the folder's results are made, and adds up their time, but for runs that die."""
    path = folder / SPENT
    before = json.loads(path.read_text()) if path.exists() else {}
    spent = {"wall_seconds": wall, "process_seconds": process}
    chunks.write_json(path, about | {n: before.get(n, 0.0) + v for n, v in spent.items()})


def write(table: pd.DataFrame, path: Path, picture: Path) -> None:
    """Writes the Markdown page, the figure, and the summary beside the figure.

    Args:
      table: tidy results, with `attrs` as of `read`.
      path: of the page.
      picture: of the figure, in the page's folder or below it.
    """
    every = statistics.judged(table)
    main = plan.with_sheets(statistics.by_kind(every))
    main = main[main["sheet"] == main["sheet"].iloc[0]]
    parts = {name: plan.of_ruling(main, name) for name in plan.rulings_in(main)}
    cases = {name: statistics.cases(part) for name, part in parts.items()}
    summary = pd.concat([part.assign(ruling=name) for name, part in cases.items()])
    summary_name = picture.with_suffix(".csv").name
    write_table(picture.parent, summary, summary_name, numbers="%.6g")
    text = page.page(every, _facts(table), picture.relative_to(path.parent).as_posix())
    with chunks.replacing(path) as file:
        file.write(text.encode())
    best, *_ = parts  # tuned, if that ran
    ranked = statistics.ranking(statistics.lowest(parts[best]), cases[best])
    shown = [*(name for name in ranked if name not in REFERENCES), "oracle_random"]
    stages = [stage for stage in STAGES if stage in set(main["stage"])]
    panels = figures.stage_panels(list(main["task"].unique()), stages)
    commands = page.commands(table.attrs)
    made = commands[0] if len(commands) == 1 else f"{len(commands)} commands, see {path.name}"
    note = (
        "orange: the median mother reaches its ticket (within a point of accuracy, or twice the "
        f"error); darker blue: nearer\nmedians of {count(main['seed'].nunique(), 'mother')} "
        f"({span(sorted(main['seed'].unique()))}), ruling {best}; ranges: {summary_name}\n{made}"
    )
    heat.heat_figure(cases[best], shown, panels, picture, note)


def publish(table: pd.DataFrame) -> None:
    """Writes the files of the release: its table, LEADERBOARD.md, docs/leaderboard.csv and .png."""
    results.write(table, ASSET, _facts(table))
    write(table, ROOT / PAGE, ROOT / PICTURE)


def _facts(table: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(words) for name, words in table.attrs.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "leaderboard.py page")
        if not settings.out.absolute().parent.is_dir() or settings.out.is_dir():
            raise ValueError(f"--out must be a file in a folder that exists, got {settings.out}.")
        table = read(settings.sources)
        content = site.page(table, settings.docs)
    with chunks.replacing(settings.out) as file:
        file.write(content.encode())
    if settings.publish:
        publish(table)
    Console().print(f"Page: {settings.out}", soft_wrap=True)
