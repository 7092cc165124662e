"""`leaderboard.py score`: an entry's masks, evaluated and trained as those of our own finders.

An entry is a finder that finds nothing by itself: a cell brings the mask along. World, evaluation
and training are the programs of all other finders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import chex
import numpy as np
import tyro
from jax.flatten_util import ravel_pytree
from rich.console import Console

from plantjax import checks, masks, sweeps
from plantjax.jobs import cli, runner, summary, tables, terminal
from plantjax.jobs.grids import Grid, Group, Tickets
from plantjax.jobs.job import Operation, checking_input, job
from plantjax.jobs.processes import Team
from plantjax.sweeps.runs import Search
from plantjax.sweeps.worlds import World
from plantjax.tasks import SAMPLES
from plantjax.types import Found, Key
from ranking import entries
from ranking.entries import Entry, Flat
from ranking.open_worlds import DEPTH, EPOCHS, FRESH, NOISE, WIDTH, Sheet


class EntryCell(NamedTuple):
    """A Cell with the mask that was entered for it, bool [P]."""

    key: Key
    density: chex.Numeric
    noise: chex.Numeric
    learning_rate: chex.Numeric
    mask: chex.Array


@dataclass(frozen=True)
class Given(Search):
    """`(cell, world) -> Found`: the mask of the cell."""

    def __call__(self, cell: Any, world: World) -> Found:
        """Returns the mask in the structure of the mother."""
        params = world.planted.params
        _, structured = ravel_pytree(masks.full(params))
        return Found(structured(cell.mask), params, {})


@dataclass(frozen=True)
class EntryGroup(Group):
    """The cells of an entry on one task.

    Attributes:
      masks: the masks by density and seed; only these are cells.
    """

    masks: Flat = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.masks)

    @cached_property
    def run(self) -> sweeps.Run:
        """The run of a reference, with the masks that were entered in place of its own."""
        run = sweeps.make_run(self.task, self.depth, self.width, "dense", **self.static)
        return replace(run, search=Given(run.finder, self.finder), name=self.finder)

    def cells(self) -> list[dict[str, Any]]:
        """The labels of every cell that was entered."""
        return [c for c in super().cells() if (c["density_name"], c["seed"]) in self.masks]

    def prepare(self, n: int, devices: int) -> None:
        """Compiles the group's programs for so many cells and devices."""
        size = sweeps.default_batch(n, devices) * devices
        cells = self._stacked(self.cells()[:1] * size)
        sweeps.prepare(self.run, n, devices, cells)

    def _stacked(self, cells: Sequence[dict[str, Any]]) -> Any:
        found = [self.masks[c["density_name"], c["seed"]] for c in cells]
        return EntryCell(*super()._stacked(cells), np.stack(found))


@dataclass(frozen=True, kw_only=True)
class Settings(Operation):
    """Score an entry: masks that were found elsewhere, compared with the planted tickets."""

    folder: tyro.conf.Positional[Path]
    """The entry: entry.toml, and masks TASK/SEED/DENSITY.npz."""
    out: Path = Path("results/entry")
    """Folder for results; a run with the same settings goes on where it stopped."""
    depth: int = DEPTH
    """Layers of neurons of the mothers, the input included."""
    width: int = WIDTH
    """Neurons per hidden layer."""
    samples: int = SAMPLES
    """Size of the data set, of which the last tenth is held out."""
    epochs: int = EPOCHS
    """Epochs of weak training; 0 for none."""
    fresh: int = FRESH
    """Number of fresh samples to judge on as well, at least 1,000; 0 for none."""

    def check(self) -> None:
        """Raises ValueError if a setting is out of range, or the entry is not as it must be."""
        Sheet(self.depth, self.width, self.samples).check()
        checks.integer("--epochs", self.epochs, 0)
        if self.out.absolute().is_relative_to(self.folder.absolute()):
            raise ValueError(f"--out must not be in the entry itself, got {self.out}.")
        self.groups()

    @cached_property
    def entry(self) -> Entry:
        """The entry, read and checked once."""
        return entries.read(self.folder, Sheet(self.depth, self.width, self.samples))

    def settings(self) -> dict[str, Any]:
        """Everything that changes a result, the masks included, wherever they lie."""
        values = {name: v for name, v in super().settings().items() if name != "folder"}
        return {**values, "entry": dict(self.entry.about), "masks": self.entry.digest()}

    def groups(self) -> list[EntryGroup]:
        """One group per task."""
        return [self._group(task, found) for task, found in self.entry.masks.items()]

    def _group(self, task: str, found: Flat) -> EntryGroup:
        ticket, ticket_weights = Tickets()[task, self.depth, self.width]
        group = EntryGroup(
            task=task,
            depth=self.depth,
            width=self.width,
            finder=self.entry.about["name"],
            seeds=tuple(sorted({seed for _, seed in found})),
            densities=tuple(self.entry.densities[task].items()),
            noise=NOISE,
            learning_rate=Grid.learning_rate,
            static={"epochs": self.epochs, "samples": self.samples, "fresh": self.fresh},
            ticket_density=ticket,
            ticket_density_weights=ticket_weights,
            masks=found,
        )
        group.run  # noqa: B018  # checks all options, compiles nothing
        return group


def run(settings: Settings, console: Console, team: Team) -> None:
    """Computes what is missing, then writes and prints the table."""
    groups = settings.groups()
    runner.compute({settings.out: groups}, settings, console, team)
    if not team.leads:
        return
    table = tables.write(settings.out, groups)
    summary.show(table, console)
    terminal.say(console, _told(settings.entry.about))
    number = terminal.count(sum(group.size for group in groups), "mask")
    terminal.say(console, f"{number} scored anew: {settings.out / 'results.csv'}")


def _told(about: Mapping[str, str]) -> str:
    """What the entry says of itself."""
    return "; ".join(f"{name.replace('_', ' ')}: {text}" for name, text in about.items())


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "leaderboard.py score")
    with job(settings) as team:
        run(settings, Console(), team)
