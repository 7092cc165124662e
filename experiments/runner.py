"""Runs groups of cells, chunk by chunk, with a progress bar; saves every chunk, resumes by cell.

A group has one static shape. Its cells that are already in the folder are left out, whatever chunks
they came in, so a run can be resumed with other chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from experiments import store
from plantjax import sweeps, worlds
from plantjax.tasks import TASKS

TICKET = "ticket"


@dataclass(frozen=True)
class Group:
    """Cells of one static shape: one task, one finder, seeds x densities.

    Attributes:
      densities: (name, value) pairs; the name is "ticket" or the decimal as the user wrote it.
      static: further options of `sweeps.make_run`, the finder's scope and rounds among them.
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
            "metric": task.metric,
            "ticket_density": worlds.ticket_density(*sizes),
            "ticket_density_weights": worlds.ticket_density(*sizes, weights_only=True),
        }
        prefix = f"{self.task}/{self.depth}/{self.width}/{self.noise}/{self.finder}"
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

    def compute(self, run: sweeps.Run, cells: Sequence[dict[str, Any]]) -> store.Chunk:
        """Runs some of the group's cells."""
        task = TASKS[self.task]
        parts = [
            sweeps.make_cells(task, [c["seed"]], [c["density"]], self.noise, self.learning_rate)
            for c in cells
        ]
        stacked = jax.tree.map(lambda *leaves: jax.numpy.concatenate(leaves), *parts)
        results = sweeps.sweep(run, stacked)
        results["mask"] = np.packbits(results["mask"], axis=1)
        return store.Chunk({name: [c[name] for c in cells] for name in cells[0]}, results)


def run(folder: Path, groups: Sequence[Group], chunk: int | None, console: Console) -> int:
    """Computes and saves every cell that the folder does not hold yet; returns how many."""
    size = chunk or (10 if jax.default_backend() == "cpu" else 512)
    done = {name for saved in store.load(folder) for name in saved.ids}
    cells = [(group, [c for c in group.cells() if c["id"] not in done]) for group in groups]
    total = sum(len(group.seeds) * len(group.densities) for group in groups)
    missing = sum(len(rest) for _, rest in cells)
    if not missing:
        return 0
    if missing < total:
        console.print(f"{total - missing} of {total} cells are done; going on with the others.")
    with _progress(console) as progress:
        bar = progress.add_task("", total=total, completed=total - missing)
        for group, rest in cells:
            program = group.run()
            for start in range(0, len(rest), size):
                progress.update(bar, description=f"{group.task} {group.finder}")
                part = rest[start : start + size]
                store.save(folder, group.compute(program, part))
                progress.advance(bar, len(part))
    return missing


def table(folder: Path, groups: Sequence[Group]) -> pd.DataFrame:
    """The tidy table of everything the folder holds of these groups, in their order."""
    order = {c["id"]: i for i, c in enumerate(c for group in groups for c in group.cells())}
    frames = [sweeps.to_frame(chunk.results, chunk.labels) for chunk in store.load(folder)]
    frames = [frame[frame["id"].isin(order)] for frame in frames]
    if not frames:
        return pd.DataFrame()
    whole = pd.concat(frames, ignore_index=True)
    stage = whole["stage"].map({"pruned": 0, "trained": 1})
    whole = whole.assign(position=whole["id"].map(order) * 2 + stage).sort_values("position")
    return whole.drop(columns=["id", "position"]).reset_index(drop=True)


class _RateColumn(ProgressColumn):
    """Cells per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("    - cells/s" if speed is None else f"{speed:5.1f} cells/s", style="cyan")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=120.0,
    )
