"""Groups of cells on images, with VGGs as mothers, plain or with a trained ticket planted in them.

The ticket of a seed was found and trained in the seed's plain mother by one of the groups. Its
parameters are read from that group's chunks, or computed again if they are not there (yet).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from images.sources import SOURCES, network_of, task_of
from images.worlds import DrawImageWorld, ImageCell, size
from plantjax import sweeps
from plantjax.finders import names
from plantjax.jobs.chunks import Chunk
from plantjax.jobs.folder import load, name_of
from plantjax.jobs.grids import Group, stacked_keys
from plantjax.sweeps.runs import TrainingPlan

PLAIN, PLANTED = "plain", "planted"
TRAINED = "trained/parameters"
TRUTH = frozenset({"precision", "recall", "f1", "iou", "lift", "feasible_recall"})
"""Metrics defined only for planted tickets."""


class _Forgetful:
    """A keeper that stores nothing."""

    def restore(self, like: Any) -> tuple[int, Any]:
        """Returns that nothing is stored."""
        return 0, like

    def save(self, level: int, tree: Any) -> None:
        """Does nothing."""

    def clear(self) -> None:
        """Does nothing."""


class Ticket(NamedTuple):
    """A trained ticket: its parameters as a vector [P], zero where pruned, and its accuracy."""

    parameters: np.ndarray
    value: float


@dataclass(frozen=True)
class ImageGroup(Group):
    """Cells of one finder in VGGs of one shape.

    Attributes:
      width: factor of the VGG's channels.
      ticket_density: density of the planted tickets.
      mother: "plain", or "planted" with the seed's ticket in it.
      ticket: the group whose cells train these tickets; None for that group itself.
      data_dir: the folder with the data set's files.
      samples: largest number of images for training, and for testing.
      folder: the results folder, which stores trained tickets and unfinished searches.
    """

    width: float  # type: ignore[assignment]
    ticket_density: float = 0.01
    mother: str = PLAIN
    ticket: "ImageGroup | None" = None
    data_dir: Path | None = None
    samples: int | None = None
    folder: Path | None = None

    def at(self, folder: Path) -> "ImageGroup":
        """The same group with its results in this folder."""
        ticket = None if self.ticket is None else self.ticket.at(folder)
        return replace(self, folder=folder.absolute(), ticket=ticket)

    def block(self, devices: int) -> int:
        """The number of cells that run and are saved together."""
        return devices

    @cached_property
    def run(self) -> sweeps.Run:
        """The run of this group."""
        source = SOURCES[self.task]
        network = network_of(source, self.depth, self.width)
        static = dict(self.static)
        plan = TrainingPlan(
            static.pop("epochs"),
            source.batch_size,
            transform=source.transform,
            decay=True,
            parameters=True,
        )
        known = names.options(self.finder)
        training: dict[str, Any] = {"batch_size": source.batch_size, "transform": source.transform}
        static |= {name: value for name, value in training.items() if name in known}
        if self.finder.startswith("multishot_"):
            static |= {"search_learning_rate": self.learning_rate}
        return sweeps.assemble(
            task_of(source),
            names.make(task_of(source), self.finder, apply=network, **static),
            self.finder,
            DrawImageWorld(network, source.image, self.mother == PLANTED),
            plan,
            apply=network,
            in_turn=True,
        )

    def cells(self) -> list[dict[str, Any]]:
        """The labels of each cell, in the order of the table."""
        finder = self.run.finder
        shared = {
            "task": self.task,
            "mother": self.mother,
            "depth": self.depth,
            "width": self.width,
            "finder": self.finder,
            "scope": finder.scope,
            "rounds": finder.rounds,
            "noise": 0.0,
            "rescale": "none",
            "kind": finder.kind,
            "metric": "accuracy",
            "ticket_density": self.ticket_density,
        }
        return self.labels(shared, ("task", "mother", "finder", "scope", "rounds"))

    def example(self, n: int = 1) -> Any:
        """Its first cell n times, with a target of zeros."""
        return self._image_cells([self.cells()[0]] * n, None)

    def prepare(self, n: int, devices: int) -> None:
        """Compiles the group's programs for this number of devices."""
        cells = self.example(devices)
        sweeps.prepare(self.run, n, devices, cells, by_levels=self.folder is not None)

    def compute(
        self,
        cells: Sequence[dict[str, Any]],
        devices: int,
        keep: Callable[[int], sweeps.Keeper] | None = None,
        after: Callable[[int], bool] | None = None,
    ) -> Chunk:
        """Runs some of the group's cells on this number of devices, see `Group.compute`.

        Searches in levels are stored after each level even if `keep` is not given.
        """
        tickets = None if self.ticket is None else self.ticket.trained(cells, devices)
        stacked = self._image_cells(cells, tickets)
        keep = keep or self._keeping(cells)
        results = sweeps.sweep(self.run, stacked, devices=devices, keep=keep, after=after)
        cells = cells[: len(results["mask"])]
        trained: Any = results.pop(TRAINED, None)
        if tickets is None:
            kept = zip(trained, results["mask"], strict=True)
            results[TRAINED] = np.stack([vector[mask] for vector, mask in kept])
        results["mask"] = np.packbits(results["mask"], axis=1)
        labels = {name: [c[name] for c in cells] for name in cells[0]}
        if self.mother == PLAIN:  # nothing is planted, so cells are compared with the found ticket
            results = {n: a for n, a in results.items() if n.removeprefix("recovery/") not in TRUTH}
            tickets = tickets or dict(self._tickets(Chunk(labels, results)))
            value = np.array([tickets[c["seed"]].value for c in cells], np.float32)
            results |= {"ticket/value": value, "target/value": value}
        return Chunk(labels, results)

    def trained(self, cells: Sequence[dict[str, Any]], devices: int) -> dict[int, Ticket]:
        """This group's trained tickets by seed, for the seeds of another group's cells."""
        seeds = {c["seed"] for c in cells}
        mine = [c for c in self.cells() if c["seed"] in seeds]
        found = self._found
        some_missing = not seeds <= found.keys()
        for chunk in load(self.folder) if some_missing and self.folder is not None else ():
            if mine[0]["id"].rpartition("/")[0] in {name.rpartition("/")[0] for name in chunk.ids}:
                found.update(self._tickets(chunk))
        missing = [c for c in mine if c["seed"] not in found]
        if missing:  # another process may be computing them, so leave its checkpoints alone
            chunk = self.compute(missing, devices, lambda start: _Forgetful())
            found.update(self._tickets(chunk))
        return {seed: found[seed] for seed in seeds}

    @cached_property
    def _found(self) -> dict[int, Ticket]:
        """The trained tickets by seed that were read or computed so far."""
        return {}

    def _tickets(self, chunk: Chunk) -> Iterator[tuple[int, Ticket]]:
        for index, seed in enumerate(chunk.labels["seed"]):
            parameters = np.zeros(self._size, np.float32)
            kept = np.unpackbits(chunk.results["mask"][index], count=self._size).astype(bool)
            parameters[kept] = chunk.results[TRAINED][index]
            yield seed, Ticket(parameters, float(chunk.results["trained/value"][index]))

    @property
    def _size(self) -> int:
        """Number of parameters P."""
        source = SOURCES[self.task]
        return size(network_of(source, self.depth, self.width), source.image)

    def _image_cells(
        self, cells: Sequence[dict[str, Any]], tickets: dict[int, Ticket] | None
    ) -> Any:
        """The cells as one ImageCell; the images are views of one array."""
        n, source = len(cells), SOURCES[self.task]
        images = [a for part in source.load(self.data_dir, self.samples) for a in part]
        target = np.zeros((n, 1 if self.mother == PLAIN else self._size), np.float32)
        if self.mother == PLANTED and tickets is not None:
            target = np.stack([tickets[c["seed"]].parameters for c in cells])
        return ImageCell(
            stacked_keys(task_of(source), [c["seed"] for c in cells]),
            np.array([c["density"] for c in cells], np.float32),
            np.zeros(n, np.float32),
            np.full(n, self.learning_rate, np.float32),
            target,
            *(np.broadcast_to(a, (n, *a.shape)) for a in images),
        )

    def _keeping(self, cells: Sequence[dict[str, Any]]) -> Callable[[int], sweeps.Keeper] | None:
        if self.folder is None:
            return None
        from plantjax.jobs.checkpoints import Checkpoint  # Orbax takes a second to import

        path = self.folder / "levels" / name_of([c["id"] for c in cells])
        return lambda start: Checkpoint(path.with_name(f"{path.name}-{start}"), 0.0)
