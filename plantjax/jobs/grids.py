"""Grids: tasks x finders x densities x seeds, split into groups of one static shape."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, sweeps
from plantjax.finders import REFERENCES, names
from plantjax.jobs.chunks import Chunk
from plantjax.tasks import TASKS
from plantjax.types import Cell, Key, Task

TICKET = "ticket"
"""Name of the planted ticket's density."""
HALF = "ticket/2"
"""Name of half of the planted ticket's density."""
TRACED = {"seeds", "densities", "noise", "learning_rate", "ticket_density", "folder", "data_dir"}
TRACED |= {"ticket_density_weights", "ticket", "masks"}
"""Fields of groups that programs do not depend on."""


@dataclass(frozen=True)
class Group:
    """Cells of one static shape: one task, one finder, seeds x densities.

    Attributes:
      densities: (name, value) pairs; the name is "ticket", "ticket/2" or the decimal as the user
        wrote it.
      static: further options of `sweeps.make_run`, the finder's own among them.
      ticket_density: of the planted ticket, over weights and biases.
      ticket_density_weights: the same over weights alone, as in the paper.
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
    ticket_density: float = float("nan")
    ticket_density_weights: float = float("nan")

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.seeds) * len(self.densities)

    def at(self, folder: Path) -> "Group":
        """The group as it runs for a results folder."""
        del folder
        return self

    @cached_property
    def program(self) -> str:
        """A name of what is compiled, equal for groups with the same programs, and short."""
        static = {f.name: repr(getattr(self, f.name)) for f in fields(self) if f.name not in TRACED}
        words = [type(self).__name__, jax.__version__, jax.default_backend(), jax.device_count()]
        return hashlib.sha256(json.dumps([*words, static]).encode()).hexdigest()[:16]

    def block(self, devices: int) -> int:
        """Number of cells that run, and are saved, together."""
        return devices * (8 if jax.default_backend() == "cpu" else 512)

    def batch(self, n: int, devices: int) -> int | None:
        """Cells per device and call of a program; None for the default of `sweeps.sweep`."""
        del n, devices
        return None

    def prepare(self, n: int, devices: int) -> None:
        """Compiles the group's programs for so many cells and devices."""
        sweeps.prepare(self.run, n, devices, batch=self.batch(n, devices))

    @cached_property
    def run(self) -> sweeps.Run:
        """The group's functions; made once, which also checks all options."""
        return sweeps.make_run(self.task, self.depth, self.width, self.finder, **self.static)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the run out: workers make it anew, because its closures cannot be pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "run"}

    def cells(self) -> list[dict[str, Any]]:
        """The labels of every cell, in the order of the table."""
        shared = {
            "task": self.task,
            "depth": self.depth,
            "width": self.width,
            "finder": self.finder,
            "scope": self.run.finder.scope,
            "rounds": self.run.finder.rounds,
            "noise": self.noise,
            "rescale": self.static.get("rescale", "none"),
            "kind": self.run.finder.kind,
            "metric": TASKS[self.task].metric,
            "ticket_density": self.ticket_density,
            "ticket_density_weights": self.ticket_density_weights,
        }
        identity = ("task", "depth", "width", "noise", "finder", "scope", "rounds", "rescale")
        return self.labels(shared, identity)

    def labels(self, shared: dict[str, Any], identity: Sequence[str]) -> list[dict[str, Any]]:
        """The labels of every density and seed; `identity` names those that begin a cell's id."""
        prefix = "/".join(str(shared[name]) for name in identity)
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
        cells: Sequence[dict[str, Any]],
        devices: int,
        keep: Callable[[int], sweeps.Keeper] | None = None,
        after: Callable[[int], bool] | None = None,
    ) -> Chunk:
        """Runs some of the group's cells on this many devices.

        Args:
          cells: labels.
          devices: how many devices share them.
          keep: as in `sweeps.sweep`.
          after: as in `sweeps.sweep`; if it stops the sweep, only the first cells are returned.
        """
        stacked = self._stacked(cells)
        batch = self.batch(len(cells), devices)
        results = sweeps.sweep(self.run, stacked, batch, devices, keep, after)
        results["mask"] = np.packbits(results["mask"], axis=1)
        done = cells[: len(results["mask"])]
        return Chunk({name: [c[name] for c in done] for name in cells[0]}, results)

    def _stacked(self, cells: Sequence[dict[str, Any]]) -> Cell:
        n = len(cells)
        return Cell(
            stacked_keys(TASKS[self.task], [c["seed"] for c in cells]),
            np.array([c["density"] for c in cells], np.float32),
            np.full(n, self.noise, np.float32),
            np.full(n, self.learning_rate, np.float32),
        )


_Kind = TypeVar("_Kind", bound=Group)


def extended(kind: type[_Kind], group: Group, **more: Any) -> _Kind:
    """The group as one of another kind, which has further fields."""
    return kind(**{part.name: getattr(group, part.name) for part in fields(group)}, **more)


def stacked_keys(task: Task, seeds: Sequence[int]) -> Key:
    """The keys of cells with these seeds [C]; each is made once."""
    unique, index = np.unique(seeds, return_inverse=True)
    return jnp.stack([sweeps.cell_key(task, int(seed)) for seed in unique])[index]


class Tickets(dict[tuple[str, int, int], tuple[float, float]]):
    """Densities of planted tickets, over all parameters and over weights, by (task, depth, width).

    Each is computed once, when it is asked for.
    """

    def __missing__(self, shape: tuple[str, int, int]) -> tuple[float, float]:
        """Computes one."""
        task, depth, width = TASKS[shape[0]], shape[1], shape[2]
        weights = sweeps.ticket_density(task, depth, width, weights_only=True)
        self[shape] = sweeps.ticket_density(task, depth, width), weights
        return self[shape]


@dataclass(frozen=True)
class Grid:
    """What to run: every finder on every task, at every density, with every seed.

    Attributes:
      densities: decimals as written, or "ticket", the density of the planted ticket, or
        "ticket/2".
      references: references to run beside the finders.
      static: options of `sweeps.make_run` for all.
      finder_options: options of the finders; each goes to those that take it.
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

    def settings(self) -> dict[str, Any]:
        """Everything that changes a result, as JSON-ready values."""
        values = asdict(self) | {"seeds": [int(seed) for seed in self.seeds]}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def groups(self, tickets: Tickets | None = None) -> list[Group]:
        """One group per task and finder, the references last.

        Args:
          tickets: shared by grids of the same shape, so that none is computed twice.

        Raises:
          ValueError: if a name or number is out of range, or an option fits none of the finders.
        """
        for task in self.tasks:
            checks.choice("task", task, TASKS)
        for name in self.finder_options:
            if not any(name in names.options(finder) for finder in self.finders):
                raise ValueError(f"{name} is no option of {', '.join(self.finders)}.")
        tickets = Tickets() if tickets is None else tickets
        tasks = dict.fromkeys(self.tasks)
        return [group for task in tasks for group in self._of_task(task, tickets)]

    def _of_task(self, name: str, tickets: Tickets) -> list[Group]:
        ticket, ticket_weights = tickets[name, self.depth, self.width]
        words = {TICKET: ticket, HALF: ticket / 2}
        asked = tuple(
            (density, words.get(density) or parse_density(density))
            for density in dict.fromkeys(self.densities)
        )
        only = {"dense": (("1", 1.0),), "planted": ((TICKET, ticket),)}
        groups = []
        for finder in [*dict.fromkeys(self.finders), *self.references]:
            known = () if finder in REFERENCES else names.options(finder)
            chosen = {k: v for k, v in self.finder_options.items() if k in known}
            group = Group(
                task=name,
                depth=self.depth,
                width=self.width,
                finder=finder,
                seeds=tuple(int(seed) for seed in self.seeds),
                densities=only.get(finder, asked),
                noise=self.noise,
                learning_rate=self.learning_rate,
                static={**self.static, **chosen},
                ticket_density=ticket,
                ticket_density_weights=ticket_weights,
            )
            group.run  # noqa: B018  # checks all options, compiles nothing
            groups.append(group)
        return groups


def parse_density(name: str) -> float:
    """The value of a density as written; 1 for a name, whose value depends on the task.

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
