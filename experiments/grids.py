"""Grids: tasks x finders x densities x seeds, and the groups of one static shape they fall into."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import store
from plantjax import checks, named, sweeps, worlds
from plantjax.finders import REFERENCES
from plantjax.tasks import TASKS

TICKET, HALF = "ticket", "ticket/2"
"""Densities by name: that of the planted ticket, and half of it."""


@dataclass(frozen=True)
class Group:
    """Cells of one static shape: one task, one finder, seeds x densities.

    Attributes:
      densities: (name, value) pairs; the name is "ticket", "ticket/2" or the decimal as the user
        wrote it.
      static: further options of `sweeps.make_run`, the finder's own among them.
    """

    task: str
    depth: int
    width: int
    finder: str
    seeds: tuple[int, ...]
    densities: tuple[tuple[str, float], ...]
    noise: float
    learning_rate: float
    static: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.seeds) * len(self.densities)

    def at(self, folder: Path) -> "Group":
        """The group as it is run for a results folder."""
        del folder
        return self

    def block(self, devices: int) -> int:
        """Cells that run, and are saved, as one."""
        return devices * (8 if jax.default_backend() == "cpu" else 512)

    def prepare(self, run: sweeps.Run, n: int, devices: int) -> None:
        """Compiles the group's programs for so many cells and devices."""
        sweeps.prepare(run, n, devices)

    def run(self) -> sweeps.Run:
        """The group's programs."""
        return sweeps.make_run(self.task, self.depth, self.width, self.finder, **self.static)

    def cells(self) -> list[dict[str, Any]]:
        """The labels of every cell, in the order of the table."""
        task, run = TASKS[self.task], self.run()
        sizes = (task, self.depth, self.width)
        shared = {
            "task": self.task,
            "depth": self.depth,
            "width": self.width,
            "finder": self.finder,
            "scope": run.scope,
            "rounds": run.rounds,
            "noise": self.noise,
            "rescale": self.static.get("rescale", "none"),
            "metric": task.metric,
            "ticket_density": worlds.ticket_density(*sizes),
            "ticket_density_weights": worlds.ticket_density(*sizes, weights_only=True),
        }
        named = ("task", "depth", "width", "noise", "finder", "scope", "rounds", "rescale")
        return self.labels(shared, named)

    def labels(self, shared: dict[str, Any], named: Sequence[str]) -> list[dict[str, Any]]:
        """A cell's labels for every density and seed; its id tells the shared ones `named`."""
        prefix = "/".join(str(shared[name]) for name in named)
        return [
            {
                "id": f"{prefix}/{name}/{seed}",
                **shared,
                "seed": seed,
                "density": value,
                "density_name": name,
            }
            for name, value in self.densities
            for seed in self.seeds
        ]

    def compute(
        self,
        run: sweeps.Run,
        cells: Sequence[dict[str, Any]],
        devices: int,
        keep: Callable[[int], sweeps.Keeper] | None = None,
    ) -> store.Chunk:
        """Runs some of the group's cells, shared by so many devices; `keep` as of `sweep`."""
        task = TASKS[self.task]
        parts = [
            sweeps.make_cells(task, [c["seed"]], [c["density"]], self.noise, self.learning_rate)
            for c in cells
        ]
        stacked = jax.tree.map(lambda *leaves: jax.numpy.concatenate(leaves), *parts)
        results = sweeps.sweep(run, stacked, devices=devices, keep=keep)
        results["mask"] = np.packbits(results["mask"], axis=1)
        return store.Chunk({name: [c[name] for c in cells] for name in cells[0]}, results)


@dataclass(frozen=True)
class Grid:
    """What to run: every finder on every task, at every density, with every seed.

    Attributes:
      densities: decimals as written, or "ticket", the density of the planted ticket, or
        "ticket/2".
      references: references to run beside the finders.
      static: options of `sweeps.make_run` for all; finder options go to the finders that take them.
    """

    tasks: Sequence[str]
    finders: Sequence[str]
    densities: Sequence[str]
    seeds: Sequence[int]
    depth: int = 5
    width: int = 100
    noise: float = 0.01
    learning_rate: float = 1e-3
    references: Sequence[str] = tuple(REFERENCES)
    static: Mapping[str, Any] = field(default_factory=dict)
    finder_options: Mapping[str, Any] = field(default_factory=dict)

    def groups(self) -> list[Group]:
        """One group per task and finder, the references last.

        Raises:
          ValueError: if a name or number is out of range, or an option fits none of the finders.
        """
        for name in self.finder_options:
            if not any(name in named.options(finder) for finder in self.finders):
                raise ValueError(f"{name} is no option of {', '.join(self.finders)}.")
        groups = []
        for name in dict.fromkeys(self.tasks):
            ticket = worlds.ticket_density(TASKS[name], self.depth, self.width)
            words = {TICKET: ticket, HALF: ticket / 2}
            asked = tuple(
                (density, words.get(density) or parse_density(density))
                for density in dict.fromkeys(self.densities)
            )
            only = {"dense": (("1", 1.0),), "planted": ((TICKET, ticket),)}
            for finder in [*dict.fromkeys(self.finders), *self.references]:
                known = () if finder in REFERENCES else named.options(finder)
                chosen = {k: v for k, v in self.finder_options.items() if k in known}
                group = Group(
                    task=name,
                    depth=self.depth,
                    width=self.width,
                    finder=finder,
                    seeds=tuple(self.seeds),
                    densities=only.get(finder, asked),
                    noise=self.noise,
                    learning_rate=self.learning_rate,
                    static={**self.static, **chosen},
                )
                group.run()  # checks all options, compiles nothing
                groups.append(group)
        return groups


def parse_density(name: str) -> float:
    """The value of a density as written; 1 for those by name, whose value depends on the task.

    Raises:
      ValueError: if it is no number in (0, 1].
    """
    if name in (TICKET, HALF):
        return 1.0
    try:
        value = float(name)
    except ValueError:
        raise ValueError(
            f"--densities must be '{TICKET}', '{HALF}' or numbers in (0, 1], got {name!r}."
        ) from None
    checks.interval("--densities", value, 0.0, 1.0, open_low=True)
    return value
