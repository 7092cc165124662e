"""Main job: can pruning algorithms find the planted ticket?

Plants sparse targets in random networks, lets the finders seek them at every density, and reports
how good the tickets are strong (masked only) and weak (after training), beside the planted one.
"""

import ast
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from plantjax import checks, masks
from plantjax.finders import FINDERS, REFERENCES, names
from plantjax.finders.controls import CONTROLS
from plantjax.jobs import cli, figures, runner, summary, tables, terminal
from plantjax.jobs.grids import TICKET, Grid, Group, parse_density
from plantjax.jobs.job import Operation, checking_input, finished, job
from plantjax.jobs.processes import Team
from plantjax.metrics import METRICS
from plantjax.scores import PAPER_SCORES
from plantjax.tasks import SAMPLES, TASKS

if TYPE_CHECKING:
    import pandas as pd

FINDER_OPTIONS = (
    "scope",
    "rounds",
    "search_epochs",
    "level_epochs",
    "search_learning_rate",
    "loss",
    "head",
)
TRAINING_SAMPLES = SAMPLES - SAMPLES // 10


@dataclass(frozen=True)
class Settings(Operation):
    """Plant sparse tickets in large random networks and let pruning algorithms seek them."""

    out: Path = Path("results/seek")
    """Folder for results; a run with the same settings goes on where it stopped."""
    tasks: Annotated[tuple[str, ...], cli.known(TASKS)] = ("circle",)
    """Tasks."""
    finders: Annotated[tuple[str, ...], cli.known(FINDERS)] = PAPER_SCORES
    """Finders, also with controls as in "snip+shuffled"; references, see --list, are added."""
    densities: tuple[str, ...] = (TICKET, "0.01", "0.1", "0.5", "1")
    """Fractions of the parameters to keep, in (0, 1], or that of the planted ticket: "ticket", or
    "ticket/2", half of it."""
    seeds: int = 5
    """Number of seeds: of mother, planting, data, search and training."""
    first_seed: int = 0
    """The first seed."""
    depth: int = 5
    """Layers of neurons, the input included; at least 3."""
    width: int = 100
    """Neurons per hidden layer of the mother; at least the target's."""
    noise: float = 0.01
    """Noise of the data in [0, 1]: standard deviation (regression) or flip rate (classes)."""
    scope: Annotated[str | None, cli.known((*masks.SCOPES, *masks.PATTERNS))] = None
    """Where parameters compete (default: the finder's own)."""
    rounds: int | None = None
    """Rounds or levels of scoring and selection (default: the finder's own)."""
    search_epochs: int | None = None
    """Epochs of searches that learn masks (default: the finder's own)."""
    level_epochs: int | None = None
    """Epochs of training per level of multishot (default: 5)."""
    search_learning_rate: float | None = None
    """Learning rate of searches that train (default: the finder's own)."""
    loss: Literal["scale-free", "plain", "robust"] | None = None
    """Loss of searches that learn masks (default: scale-free)."""
    head: Literal["none", "reference"] | None = None
    """Edge-popup: "reference" adds the softmax of the paper's code (default: none)."""
    options: tuple[str, ...] = ()
    """Further options of finders, as in "restarts=4 sharpen=0.0"; each goes to those that take it.
    """
    rescale: Literal["none", "rms"] = "none"
    """Weak training starts from the found parameters, or from them at He scale (rms)."""
    epochs: int = 10
    """Epochs of weak training; 0 for strong tickets only."""
    batch_size: int = 32
    """Samples per training step."""
    learning_rate: float = 1e-3
    """Learning rate of weak training (Adam)."""
    fresh: int = 0
    """Number of fresh samples on which all networks are judged as well, at least 1,000."""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """List tasks, finders, controls and metrics, and stop."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        _names("--tasks", self.tasks, TASKS)
        bases = [names.base(name) for name in self.finders]
        _names("--finders", bases, FINDERS)
        if not self.densities:
            raise ValueError("--densities must name at least one density, got none.")
        for name in self.densities:
            parse_density(name)
        checks.integer("--seeds", self.seeds, 1)
        checks.integer("--first-seed", self.first_seed, 0, 2**31 - 1 - self.seeds)
        checks.integer("--depth", self.depth, 3)
        checks.integer("--width", self.width, 1)
        checks.interval("--noise", self.noise, 0.0, 1.0)
        if self.scope is not None:
            masks.check_scope("--scope", self.scope)
        if self.rounds is not None:
            checks.integer("--rounds", self.rounds, 1)
        checks.integer("--epochs", self.epochs, 0)
        checks.integer("--batch-size", self.batch_size, 1, TRAINING_SAMPLES)
        checks.interval("--learning-rate", self.learning_rate, 0.0, 1e30, open_low=True)
        for option in ("search_epochs", "level_epochs"):
            if getattr(self, option) is not None:
                checks.integer(f"--{option.replace('_', '-')}", getattr(self, option), 1)
        if self.search_learning_rate is not None:
            rate = self.search_learning_rate
            checks.interval("--search-learning-rate", rate, 0.0, 1e30, open_low=True)
        self.grid().groups()

    def grid(self) -> Grid:
        """The grid that these settings describe."""
        return Grid(
            tasks=self.tasks,
            finders=self.finders,
            densities=self.densities,
            seeds=range(self.first_seed, self.first_seed + self.seeds),
            depth=self.depth,
            width=self.width,
            noise=self.noise,
            learning_rate=self.learning_rate,
            static={k: getattr(self, k) for k in ("epochs", "batch_size", "rescale")}
            | ({"fresh": self.fresh} if self.fresh else {}),
            finder_options={
                name: getattr(self, name)
                for name in FINDER_OPTIONS
                if getattr(self, name) is not None
            }
            | dict(map(_option, self.options)),
        )


def run(settings: Settings, console: Console, team: Team) -> None:
    """Computes what is missing, then rebuilds table and figure from the folder."""
    groups = settings.grid().groups()
    try:
        computed = runner.compute({settings.out: groups}, settings, console, team)
    finally:
        table = _write(settings, groups) if team.leads else None
    if table is not None:
        report(settings, table, computed, console)


def report(settings: Settings, table: "pd.DataFrame", computed: int, console: Console) -> None:
    """Prints the table, and where everything is."""
    summary.show(table, console)
    if not computed:
        terminal.say(console, f"All cells were done before; nothing was computed ({settings.out}).")
    terminal.say(console, f"Results, settings and figure: {settings.out}")


def _write(settings: Settings, groups: Sequence[Group]) -> "pd.DataFrame":
    table = tables.write(settings.out, groups)
    if len(table):
        figures.figure(table, settings.out / "figure.png", _note(settings))
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "seek.py")
    console = Console()
    if settings.show_list:
        for line in (
            "tasks:     " + ", ".join(TASKS),
            "finders:   " + ", ".join(FINDERS),
            "reference: " + ", ".join(REFERENCES) + " (always run)",
            "controls:  " + ", ".join(CONTROLS) + " (finder+control)",
            "metrics:   " + ", ".join(METRICS) + " (columns of results.csv)",
        ):
            terminal.say(console, line)
        return
    if finished(settings) and (settings.out / "figure.png").exists():
        report(settings, tables.read(settings.out), 0, console)
        return
    with job(settings) as team:
        run(settings, console, team)


def _option(words: str) -> tuple[str, Any]:
    """A pair (name, value) of words like "restarts=4"; a value that is no literal is a string."""
    name, equals, value = words.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--options must be pairs NAME=VALUE, got {words!r}.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _names(option: str, names: Sequence[str], allowed: Collection[str]) -> None:
    if not names:
        raise ValueError(f"{option} must name at least one of {', '.join(allowed)}, got none.")
    for name in names:
        checks.choice(option, name, allowed)


def _note(settings: Settings) -> str:
    return (
        f"{terminal.of_seeds(settings.grid().seeds)}; depth {settings.depth}, "
        f"width {settings.width}, noise {settings.noise:g}, "
        f"{terminal.count(settings.epochs, 'epoch')} of training\n"
        f"{cli.command('experiments/seek.py', settings, Settings())}"
    )


if __name__ == "__main__":
    cli.run(main)
