"""The paper's experiments, one command per figure: `python experiments/paper.py NAME`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import tyro
from rich.console import Console

from figures.budgets import BUDGETS
from figures.protocols import PROTOCOLS, Picture, Sweep
from images.plan import Plan
from plantjax import checks
from plantjax.jobs import cli, runner, summary, tables, terminal, waiting
from plantjax.jobs.folder import write_table
from plantjax.jobs.grids import Grid, Group
from plantjax.jobs.job import Operation, checking_input, job
from plantjax.jobs.processes import Team

ALL = "all"


@dataclass(frozen=True)
class Settings(Operation):
    """Run one experiment of the paper by name, or all of them."""

    name: tyro.conf.Positional[str] = ALL
    """The experiment, a name from --list, or all."""
    out: Path | None = None  # type: ignore[assignment]
    """Folder for results (default: results/paper/NAME; for all: a folder each in results/paper)."""
    budget: Literal["full", "quick", "smoke"] = "quick"
    """full: the paper's seeds and grids; quick: half an hour for all; smoke: for tests."""
    seeds: int | None = None
    """Number of seeds (default: the budget's)."""
    data: str | None = None
    """Data set of fig5, see `vgg.py --list` (default: mnist5k); the paper uses cifar10."""
    data_dir: Path | None = None
    """Folder with the files of this data set."""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """List the experiments and exit."""

    def check(self) -> None:
        """Raises ValueError naming the option if a setting is out of range."""
        checks.choice("NAME", self.name, [*PROTOCOLS, ALL])
        if self.seeds is not None:
            checks.integer("--seeds", self.seeds, 1, 10_000)
        chosen = self.experiments()
        for option, value in (("--data", self.data), ("--data-dir", self.data_dir)):
            if value is not None and not any(one.reads for one in chosen):
                raise ValueError(f"{option} goes with fig5, got it with {self.name}.")
        for one in chosen:
            one.check()

    def sources(self) -> Sequence[Path]:
        """The folders of the protocols."""
        return [Path(__file__).parent / name for name in ("figures", "images")]

    def folders(self) -> dict[Path, dict[str, Any]]:
        """The settings of each experiment, by folder."""
        return {one.folder: one.settings() for one in self.experiments()}

    def experiments(self) -> "list[Experiment]":
        """The experiments to run, all of them or one."""
        root = self.out or Path("results/paper") / (self.name if self.name != ALL else "")
        amount = (self.budget, self.seeds, self.data, self.data_dir)
        if self.name != ALL:
            return [Experiment(self.name, root, *amount)]
        return [Experiment(name, root / name, *amount) for name in PROTOCOLS]


@dataclass(frozen=True)
class Experiment:
    """One experiment: its folder, and how much of it to run."""

    name: str
    folder: Path
    budget: str
    seeds: int | None
    data: str | None = None
    data_dir: Path | None = None

    @property
    def like(self) -> str:
        """The experiment whose cells it shows, which is itself for most."""
        protocol = PROTOCOLS[self.name]
        return (isinstance(protocol, Sweep) and protocol.like) or self.name

    def settings(self) -> dict[str, Any]:
        """All settings that change its result."""
        given = self.reads and self.data not in (None, Plan().data)
        data = {"data": self.data} if given else {}
        return {"name": self.name, "budget": self.budget, "seeds": self.seeds, **data}

    @property
    def reads(self) -> bool:
        """Whether it reads image data."""
        protocol = PROTOCOLS[self.name]
        return isinstance(protocol, Sweep) and protocol.data

    def check(self) -> None:
        """Raises ValueError if it reads image data that is missing."""
        for grid in self.grids():
            if isinstance(grid, Plan):
                grid.check()

    def groups(self) -> list[Group]:
        """Its groups of cells; a picture has none."""
        return [group for grid in self.grids() for group in grid.groups()]

    def grids(self) -> Sequence[Grid | Plan]:
        """Its grids; a picture has none."""
        protocol = PROTOCOLS[self.name]
        if isinstance(protocol, Picture):
            return []
        data = (self.data, self.data_dir) if protocol.data else ()
        return protocol.grids(BUDGETS[self.budget], self.seeds, *data)

    def finish(self, source: Path) -> None:
        """Writes table and figure from the finished cells in the folder `source`."""
        protocol = PROTOCOLS[self.name]
        if isinstance(protocol, Sweep):
            table = tables.write(source, self.groups(), self.folder)
            if len(table):
                write_table(self.folder, summary.aggregate(table), "summary.csv")
        elif (self.folder / "results.csv").exists():
            table = pd.read_csv(self.folder / "results.csv")
        else:
            make = partial(protocol.make, BUDGETS[self.budget])
            table = waiting.called(make)
            write_table(self.folder, table)
        if len(table):
            protocol.draw(table, self.folder / "figure.png", self.note())

    def note(self) -> str:
        """The caption of its figure."""
        command = ["python", "experiments/paper.py", self.name, "--budget", self.budget]
        for option in ("seeds", "data"):
            value = self.settings().get(option)
            command += [] if value is None else [f"--{option}", str(value)]
        groups = self.groups()
        about = PROTOCOLS[self.name].about
        if groups:
            first = groups[0]
            about += (
                f"; {terminal.of_seeds(first.seeds)}; depth {first.depth}, width {first.width}, "
                f"{terminal.count(first.static['epochs'], 'epoch')} of training"
            )
        return f"{about}\n{shlex.join(command)}"


def run(settings: Settings, console: Console, team: Team) -> None:
    """Computes all missing cells under one progress bar, then writes all tables and figures."""
    chosen = settings.experiments()
    sweeps = [one for one in chosen if isinstance(PROTOCOLS[one.name], Sweep)]
    pictures = [one for one in chosen if one not in sweeps]
    folders = {one.name: one.folder for one in chosen}
    sources = {one.name: folders.get(one.like, one.folder) for one in sweeps}
    work = {one.folder: one.groups() for one in sweeps if sources[one.name] == one.folder}
    new = [one.name for one in pictures if not (one.folder / "results.csv").exists()]
    try:
        computed = runner.compute(work, settings, console, team)
    finally:
        for one in sweeps if team.leads else []:
            one.finish(sources[one.name])
    for one in pictures if team.leads else []:
        one.finish(one.folder)
    if not team.leads:
        return
    if not computed and not new:
        console.print("Everything was done before; nothing was computed.")
    for one in chosen:
        terminal.say(console, f"{one.name}: results, settings and figure in {one.folder}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "paper.py")
    console = Console()
    if settings.show_list:
        for name, protocol in PROTOCOLS.items():
            terminal.say(console, f"{name:9s} {protocol.about}")
        return
    with job(settings) as team:
        run(settings, console, team)


if __name__ == "__main__":
    cli.run(main)
