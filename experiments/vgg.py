"""Tickets in a VGG on real images: the paper's figure 5, with options.

Finds a ticket with SynFlow and trains it, plants it in another VGG, lets edge-popup seek it there
as a strong ticket, and compares the weak tickets of all finders.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from images import plan
from images.plan import Plan
from images.sources import SOURCES
from plantjax import checks
from plantjax.finders import FINDERS
from plantjax.jobs import cli, runner, tables, terminal
from plantjax.jobs.job import Operation, checking_input, finished, job
from plantjax.jobs.processes import Team
from plantjax.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd
from plantjax.nets.convnets import VGGS


@dataclass(frozen=True)
class Settings(Operation):
    """Train a sparse ticket of a VGG, plant it in another one, and let edge-popup seek it there."""

    out: Path = Path("results/vgg")
    """Folder for results; running again with the same settings resumes."""
    data: Annotated[str, cli.known(SOURCES)] = "mnist5k"
    """Data set; mnist5k and digits come with packages (extra "data")."""
    data_dir: Path | None = None
    """Folder with the files of the data set, unless it comes with a package."""
    budget: Literal["full", "quick", "smoke"] = "quick"
    """full: the paper's epochs, all finders; quick: minutes on two CPU cores; smoke: for tests."""
    seeds: int | None = None
    """Number of seeds for mothers, searches, planting and training (default: 3; smoke: 1)."""
    first_seed: int = 0
    """The first seed."""
    depth: int | None = None
    """Depth of the VGG: 11, 13, 16 or 19 (default: the data set's)."""
    width: float | None = None
    """Factor of the VGG's channels, of which the first layer has 64 (default: the data set's)."""
    ticket_density: str | None = None
    """Density of the ticket that is trained and planted (default: 0.01)."""
    finders: Annotated[tuple[str, ...] | None, cli.known(FINDERS)] = None
    """Finders of weak tickets (default: the budget's)."""
    densities: tuple[str, ...] | None = None
    """Densities of weak tickets (default: the budget's)."""
    popup_densities: tuple[str, ...] | None = None
    """Densities at which edge-popup seeks strong tickets (default: the budget's)."""
    epochs: int | None = None
    """Epochs of weak training (default: the budget's)."""
    level_epochs: int | None = None
    """Epochs of training per level of multishot (default: the budget's)."""
    popup_epochs: int | None = None
    """Epochs per level of edge-popup (default: the budget's)."""
    samples: int | None = None
    """Largest number of images for training, and for testing (default: all)."""
    learning_rate: float | None = None
    """Learning rate of Adam in training (default: the data set's)."""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """List data sets, networks, finders and metrics, and exit."""

    def check(self) -> None:
        """Raises ValueError naming the option if a setting is out of range or data is missing."""
        if self.seeds is not None:
            checks.integer("--seeds", self.seeds, 1, 10_000)
        checks.integer("--first-seed", self.first_seed, 0, 2**30)
        checks.choice("--data", self.data, SOURCES)
        self.plan().check()

    def settings(self) -> dict[str, Any]:
        """All settings that change a result, so not the folder of the data."""
        return {name: v for name, v in super().settings().items() if name != "data_dir"}

    def sources(self) -> Sequence[Path]:
        """The folder of the image experiments."""
        return (Path(plan.__file__).parent,)

    def plan(self) -> Plan:
        """What to run."""
        options = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name in Plan.__dataclass_fields__ and name != "seeds"
        }
        planned = plan.plan(self.budget, **options)
        number = len(planned.seeds) if self.seeds is None else self.seeds
        return replace(planned, seeds=range(self.first_seed, self.first_seed + number))


def run(settings: Settings, console: Console, team: Team) -> None:
    """Computes all missing cells, then rebuilds tables and figure from the folder."""
    groups = settings.plan().groups()
    try:
        computed = runner.compute({settings.out: groups}, settings, console, team)
    finally:
        table = tables.write(settings.out, groups) if team.leads else None
        if table is not None and len(table):
            plan.draw(table, settings.out / "figure.png", _note(settings))
    if table is not None:
        report(settings, table, computed, console)


def report(settings: Settings, table: "pd.DataFrame", computed: int, console: Console) -> None:
    """Prints the tables, and the folder with the results."""
    plan.show(table, console)
    if not computed:
        terminal.say(console, f"Everything was done before; nothing was computed ({settings.out}).")
    terminal.say(console, f"Results, settings and figure: {settings.out}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "vgg.py")
    console = Console()
    if settings.show_list:
        for line in (
            "data sets: " + ", ".join(SOURCES),
            "networks:  " + ", ".join(f"VGG{depth} (--depth {depth})" for depth in VGGS),
            "finders:   " + ", ".join(FINDERS),
            "metrics:   " + ", ".join(METRICS) + " (columns of results.csv)",
        ):
            terminal.say(console, line)
        return
    if finished(settings) and (settings.out / "figure.png").exists():
        report(settings, tables.read(settings.out), 0, console)
        return
    with job(settings) as team:
        run(settings, console, team)


def _note(settings: Settings) -> str:
    """The caption of the figure: seeds, network, and the command."""
    command = cli.command("experiments/vgg.py", settings, Settings())
    return f"{settings.plan().about()}\n{command}"


if __name__ == "__main__":
    cli.run(main)
