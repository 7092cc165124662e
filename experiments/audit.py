"""The leak audit: what detectors that see no data tell of planted tickets.

`python experiments/audit.py --publish` rebuilds the tables of docs/audit.md.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.console import Console

import plantjax as pj
from plantjax import audit, checks, nets, planting
from plantjax.jobs import chunks, cli, folder
from plantjax.jobs.job import Operation, checking_input, job
from plantjax.jobs.summary import markdown
from plantjax.sweeps import worlds
from plantjax.tasks import HIDDEN, TASKS
from plantjax.types import Cell, Key, Params, Planted, Task
from ranking import statistics

ROOT = Path(__file__).parent.parent
PAGE, TABLE = ROOT / "docs" / "audit.md", ROOT / "docs" / "audit.csv"
BEGIN, END = "<!-- begin audit -->", "<!-- end audit -->"
FORENSIC = "forensic"
KNOWN = {**TASKS, **{f"{name}_hidden": pj.tasks.hidden(name) for name in HIDDEN}}
"""The tasks of the registry, and all that have random targets."""
CLOSER = ("circle", "circle_hidden", "random_teacher")
"""Tasks for which all schemes and decoys are tried as well."""
DECOYS = 4
FEWEST = 8
"""Planted entries that an array needs to be named in the table."""


def forensic(params: Params) -> Params:
    """The score of the finder of this name, with one fixed key."""
    return audit.evidence(jax.random.key(0, impl=worlds.PRNG), params)


DETECTORS = {**audit.DETECTORS, FORENSIC: forensic}


class Case(NamedTuple):
    """A row of the table: how mothers and tickets are made."""

    task: str
    scheme: str = "he"
    rule: str = "norm"
    decoys: int = 0

    @property
    def id(self) -> str:
        """Its name in the results folder."""
        return " ".join(map(str, self))


@dataclass(frozen=True)
class Settings(Operation):
    """Audit planted tickets: can they be told from their mothers without any data?"""

    out: Path = Path("results/audit")
    """Folder for results; a run with the same settings goes on where it stopped."""
    tasks: Annotated[tuple[str, ...], cli.known(KNOWN)] = tuple(KNOWN)
    """Tasks; those with _hidden have a random target for each mother."""
    seeds: int = 20
    """Number of mothers."""
    first_seed: int = 0
    """The first seed."""
    depth: int = 5
    """Layers of neurons, the input included."""
    width: int = 100
    """Neurons per hidden layer."""
    publish: bool = False
    """Write the tables into docs/audit.md, and all numbers into docs/audit.csv."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        checks.integer("--seeds", self.seeds, 2, 10_000)
        checks.integer("--first-seed", self.first_seed, 0, 2**31 - 10_001)
        checks.integer("--depth", self.depth, 3)
        for name in self.tasks:
            checks.choice("--tasks", name, KNOWN)
            worlds.mother_widths(KNOWN[name], self.depth, self.width)
        if not self.tasks:
            raise ValueError("--tasks must name at least one, got none.")

    def settings(self) -> dict[str, Any]:
        """Everything that changes a result."""
        return {name: v for name, v in super().settings().items() if name != "publish"}

    def cases(self) -> list[Case]:
        """Both rules for all tasks; other schemes and decoys for some."""
        both = [Case(task, rule=rule) for task in self.tasks for rule in planting.RULES]
        closer = [task for task in CLOSER if task in self.tasks]
        schemes = [Case(task, name) for task in closer for name in nets.SCHEMES if name != "he"]
        return [*both, *schemes, *(Case(task, decoys=DECOYS) for task in closer)]


def measured(case: Case, settings: Settings) -> dict[str, np.ndarray]:
    """The entries of `audit.leaks` [1, S] for one case, and the density of the ticket."""
    task = KNOWN[case.task]
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    keys = jnp.stack([worlds.cell_key(task, seed) for seed in seeds])
    found = audit.audit(_Draw(task, case, settings.depth, settings.width), keys, DETECTORS)
    return {name: np.asarray(values)[None] for name, values in found.items()}


@dataclass(frozen=True)
class _Draw:
    """`(key) -> Planted` of a case, the mothers of all other experiments."""

    task: Task
    case: Case
    depth: int
    width: int

    def __call__(self, key: Key) -> Planted:
        _, scheme, rule, decoys = self.case
        draw = worlds.DrawWorld(self.task, self.depth, self.width, scheme, rule, 10, decoys)
        return draw(Cell(key, 0.0, 0.0, 0.0)).planted


def tidy(settings: Settings) -> pd.DataFrame:
    """One row for each case and detector: medians and intervals of AUC and recall."""
    results = {chunk.ids[0]: chunk.results for chunk in folder.load(settings.out)}
    rows = []
    for case in settings.cases():
        if case.id not in results:
            continue
        found = {name: values[0] for name, values in results[case.id].items()}
        density = worlds.ticket_density(KNOWN[case.task], settings.depth, settings.width)
        for detector in DETECTORS:
            row = {**case._asdict(), "detector": detector, "chance": density}
            for name in ("auc", "recall"):
                numbers = statistics.interval(found[f"{detector}/{name}"])
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
            rows.append(row | _best_array(found, detector, case, settings))
    return pd.DataFrame(rows)


def _best_array(
    found: dict[str, np.ndarray], detector: str, case: Case, settings: Settings
) -> dict[str, Any]:
    """The array with the largest median AUC, among those with enough of the ticket."""
    target = KNOWN[case.task].target(settings.depth)
    planted = {
        f"{layer}/{name}": int((leaf != 0).sum())
        for layer, leaves in target.items()
        for name, leaf in leaves.items()
    }
    intervals = {
        path: statistics.interval(found[f"{detector}/{path}/auc"])
        for path, count in planted.items()
        if count >= FEWEST and not np.isnan(found[f"{detector}/{path}/auc"]).any()
    }
    if not intervals:
        return {}
    path = max(intervals, key=lambda name: intervals[name][0])
    names = ("array_auc", "array_auc_low", "array_auc_high")
    return {"array": path, **dict(zip(names, intervals[path], strict=True))}


def page(table: pd.DataFrame, settings: Settings) -> str:
    """The tables of docs/audit.md, with how they were made."""
    config = json.loads((settings.out / folder.CONFIG).read_text())
    versions = ", ".join(f"{name} {number}" for name, number in config["versions"].items())
    last = settings.first_seed + settings.seeds - 1
    command = cli.command("experiments/audit.py", settings, Settings())
    parts = [
        f"Made by `{command}`: seeds {settings.first_seed} to {last}, depth {settings.depth}, "
        f"width {settings.width}. Device {config['device']}; Python {config['python']}, "
        f"{versions}. Medians over mothers with 95% bootstrap intervals.",
        "### Recall of each detector at the size of the ticket",
        _wide(table, "recall"),
        "### AUC of each detector, over all parameters",
        _wide(table, "auc"),
        "### AUC of each detector in the array where it is largest",
        f"Among arrays with at least {FEWEST} planted entries.",
        _wide(table, "array_auc"),
    ]
    return "\n\n".join(parts)


def _wide(table: pd.DataFrame, measure: str) -> str:
    """A table of one measure: a row for each case, a column for each detector."""
    header = ["task", "scheme", "rule", "decoys"]
    header += (["chance"] if measure == "recall" else []) + list(DETECTORS)
    rows = []
    for case, part in table.groupby(["task", "scheme", "rule", "decoys"], sort=False):
        part = part.set_index("detector")
        row = [str(value) for value in case]
        row += [f"{part['chance'].iloc[0]:.4f}"] if measure == "recall" else []
        for name in DETECTORS:
            cell = part.loc[name]
            if measure not in cell or pd.isna(cell[measure]):
                row.append("")
                continue
            value, low, high = (cell[measure + end] for end in ("", "_low", "_high"))
            where = f" {_short(cell['array'])}" if measure == "array_auc" else ""
            row.append(f"{value:.2f} ({low:.2f} to {high:.2f}){where}")
        rows.append(row)
    return markdown(header, rows)


def _short(path: str) -> str:
    """The name of an array in a cell of a table: "layer_03/kernel" is "kernel 3"."""
    layer, _, name = path.rpartition("/")
    return f"{name} {int(re.sub(r'[^0-9]', '', layer))}"


def run(settings: Settings, console: Console) -> None:
    """Computes what is missing, then rebuilds table and page from the folder."""
    done = {chunk.ids[0] for chunk in folder.load(settings.out)}
    for case in settings.cases():
        if case.id not in done:
            console.print(f"{case.id} ...")
            chunk = chunks.Chunk({"id": [case.id]}, measured(case, settings))
            folder.save(settings.out, chunk)
    table = tidy(settings)
    folder.write_table(settings.out, table, "audit.csv")
    text = page(table, settings)
    with chunks.replacing(settings.out / PAGE.name) as file:
        file.write(f"{text}\n".encode())
    folder.finish(settings.out, [case.id for case in settings.cases()])
    if settings.publish:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
        shutil.copyfile(settings.out / "audit.csv", TABLE)
    console.print(f"Tables: {settings.out}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "audit.py")
        if settings.processes is not None or settings.executor != "local":
            raise ValueError("audit.py runs in one process: leave out --processes and --executor.")
    with job(settings):
        run(settings, Console())


if __name__ == "__main__":
    cli.run(main)
