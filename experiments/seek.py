"""Main job: can pruning algorithms find the planted ticket?

Plants sparse targets in random networks, lets the finders seek them at every density, and reports
how good the tickets are strong (masked only) and weak (after training), beside the planted one.
"""

import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments import cli, plots, runner, store, summary
from plantjax import checks, masks, worlds
from plantjax.finders import FINDERS, REFERENCES
from plantjax.scores import SCORES
from plantjax.tasks import SAMPLES, TASKS

TRAINING_SAMPLES = SAMPLES - SAMPLES // 10


@dataclass(frozen=True)
class Settings(cli.Operation):
    """Plant sparse tickets in large random networks and let pruning algorithms seek them."""

    out: Path = Path("results/seek")
    """Folder for results; a run with the same settings goes on where it stopped."""
    tasks: tuple[str, ...] = ("circle",)
    """Tasks, see --list."""
    finders: tuple[str, ...] = tuple(SCORES)
    """Finders, see --list; the references dense, planted and oracle_random are always added."""
    densities: tuple[str, ...] = (runner.TICKET, "0.01", "0.1", "0.5", "1")
    """Fractions of the parameters to keep, in (0, 1]; "ticket" is that of the planted ticket."""
    seeds: int = 5
    """Number of seeds: of mother, planting, data, search and training."""
    first_seed: int = 0
    """The first seed."""
    depth: int = 5
    """Layers of neurons, the input included; at least 3."""
    width: int = 100
    """Neurons per hidden layer of the mother; at least the target's."""
    noise: float = 0.01
    """Noise of the data in [0, 1]: standard deviation (relu, helix) or flip rate (circle)."""
    scope: str | None = None
    """Where parameters compete: global, local, layer or oracle (default: the finder's own)."""
    rounds: int | None = None
    """Rounds of scoring and selection (default: the finder's own)."""
    epochs: int = 10
    """Epochs of weak training; 0 for strong tickets only."""
    batch_size: int = 32
    """Samples per training step."""
    learning_rate: float = 1e-3
    """Learning rate of weak training (Adam)."""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """List tasks and finders, and stop."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        _names("--tasks", self.tasks, TASKS)
        _names("--finders", self.finders, FINDERS)
        if not self.densities:
            raise ValueError("--densities must name at least one density, got none.")
        for name in self.densities:
            _density(name)
        checks.integer("--seeds", self.seeds, 1)
        checks.integer("--first-seed", self.first_seed, 0, 2**31 - 1 - self.seeds)
        checks.integer("--depth", self.depth, 3)
        checks.integer("--width", self.width, 1)
        checks.interval("--noise", self.noise, 0.0, 1.0)
        if self.scope is not None:
            checks.choice("--scope", self.scope, masks.SCOPES)
        if self.rounds is not None:
            checks.integer("--rounds", self.rounds, 1)
        checks.integer("--epochs", self.epochs, 0)
        checks.integer("--batch-size", self.batch_size, 1, TRAINING_SAMPLES)
        checks.interval("--learning-rate", self.learning_rate, 0.0, 1e30, open_low=True)
        if self.chunk is not None:
            checks.integer("--chunk", self.chunk, 1)
        self.groups()

    def groups(self) -> list[runner.Group]:
        """What to run: one group per task and finder, the references last."""
        static = {"epochs": self.epochs, "batch_size": self.batch_size}
        options = {"scope": self.scope, "rounds": self.rounds}
        chosen = {name: value for name, value in options.items() if value is not None}
        groups = []
        for name in dict.fromkeys(self.tasks):
            ticket = (runner.TICKET, worlds.ticket_density(TASKS[name], self.depth, self.width))
            asked = tuple(
                ticket if density == runner.TICKET else (density, _density(density))
                for density in dict.fromkeys(self.densities)
            )
            only = {"dense": (("1", 1.0),), "planted": (ticket,)}
            for finder in [*dict.fromkeys(self.finders), *REFERENCES]:
                groups.append(
                    runner.Group(
                        task=name,
                        depth=self.depth,
                        width=self.width,
                        finder=finder,
                        seeds=tuple(range(self.first_seed, self.first_seed + self.seeds)),
                        densities=only.get(finder, asked),
                        noise=self.noise,
                        learning_rate=self.learning_rate,
                        static=static | ({} if finder in REFERENCES else chosen),
                    )
                )
        return groups


def run(settings: Settings, console: Console) -> None:
    """Computes what is missing, then rebuilds table and figure from the folder."""
    groups, command = settings.groups(), _command(settings)
    store.start(settings.out, settings.settings(), sys.argv, settings.force)
    try:
        computed = runner.run(settings.out, groups, settings.chunk, console)
    finally:
        table = runner.table(settings.out, groups)
        if len(table):
            store.write_table(settings.out, table)
            plots.seek_figure(table, settings.out / "figure.png", _note(settings, command))
    summary.show(table, console)
    if not computed:
        console.print(f"All cells were done before; nothing was computed ({settings.out}).")
    console.print(f"Results, settings and figure: {settings.out}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli.checking_input():
        settings = cli.parse(Settings, argv, "seek.py")
    console = Console()
    if settings.show_list:
        console.print("tasks:     " + ", ".join(TASKS))
        console.print("finders:   " + ", ".join(FINDERS))
        console.print("reference: " + ", ".join(REFERENCES) + " (always run)")
        return
    with cli.checking_input():
        settings.check()
        store.check(settings.out, settings.settings(), settings.force)
    cli.use_compilation_cache()
    run(settings, console)


def _names(option: str, names: Sequence[str], allowed: Collection[str]) -> None:
    if not names:
        raise ValueError(f"{option} must name at least one of {', '.join(allowed)}, got none.")
    for name in names:
        checks.choice(option, name, allowed)


def _density(name: str) -> float:
    if name == runner.TICKET:
        return 1.0
    try:
        value = float(name)
    except ValueError:
        raise ValueError(
            f"--densities must be '{runner.TICKET}' or numbers in (0, 1], got {name!r}."
        ) from None
    checks.interval("--densities", value, 0.0, 1.0, open_low=True)
    return value


def _command(settings: Settings) -> str:
    """The command that makes these results, options at their defaults left out."""
    words = ["python", "experiments/seek.py"]
    for name, value in settings.settings().items():
        if value != Settings().settings()[name]:
            values = value if isinstance(value, list) else [value]
            words += ["--" + name.replace("_", "-"), *map(str, values)]
    return shlex.join(words)


def _note(settings: Settings, command: str) -> str:
    last = settings.first_seed + settings.seeds - 1
    return (
        f"mean and range of seeds {settings.first_seed} to {last}; depth {settings.depth}, "
        f"width {settings.width}, noise {settings.noise:g}, {settings.epochs} epochs of training\n"
        f"{command}"
    )


if __name__ == "__main__":
    cli.run(main)
