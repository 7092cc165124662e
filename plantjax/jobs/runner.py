"""Runs groups of cells block by block, with a progress bar, and saves every block.

Cells that the folder already holds are skipped, whatever chunks they came in, so a run can resume
with other chunks, devices, processes or executors.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from plantjax.jobs import tables, waiting
from plantjax.jobs.executors import EXECUTORS, POLL_SECONDS, Watch, Work, scheduled
from plantjax.jobs.folder import SavedCells, finish, load
from plantjax.jobs.grids import Grid, Group
from plantjax.jobs.job import Operation, finished, job
from plantjax.jobs.processes import Team
from plantjax.jobs.progress import Bar, stopping
from plantjax.jobs.schedule import Schedule
from plantjax.jobs.waiting import Stop

if TYPE_CHECKING:
    import pandas as pd

_Numbered = tuple[int, list[dict[str, Any]]]
Jobs = Mapping[Path, Sequence[Group]]
"""The groups to run, by results folder."""


def run(grid: Grid, operation: Operation | Path | str) -> pd.DataFrame:
    """Runs a grid in a results folder, from a script of your own.

    The folder is locked meanwhile; every block of cells is saved once it is computed, a progress
    bar shows how far it is, and the same call goes on after an interruption or a kill. A finished
    folder is not computed again.

    Args:
      grid: what to run.
      operation: the folder, or an `Operation`, which also says where and how to compute.

    Returns:
      The tidy table, a row per cell and stage; the folder also holds it as results.csv.

    Raises:
      InputError: if an argument is out of range, the folder holds other settings, or another
        process is writing to it; nothing is written then.
    """
    if not isinstance(operation, Operation):
        operation = Operation(out=Path(operation))
    asked = _OfGrid(**operation.operation(), grid=grid)
    if finished(asked):
        return tables.read(asked.out)
    with job(asked) as team:
        groups = grid.groups()
        compute({asked.out: groups}, asked, Console(stderr=True), team)
        if team.leads:
            return tables.write(asked.out, groups)
        return tables.read(asked.out)


@dataclass(frozen=True)
class _OfGrid(Operation):
    """The operation of a grid."""

    grid: Grid | None = None

    def check(self) -> None:
        """Raises ValueError if the grid is out of range."""
        self.settings()
        if self.grid is not None:
            self.grid.groups()

    def settings(self) -> dict[str, Any]:
        """Those of the grid."""
        return {} if self.grid is None else self.grid.settings()


def compute(jobs: Jobs, operation: Operation, console: Console, team: Team) -> int:
    """Computes and saves every cell that the folders do not hold yet; returns how many.

    Processes of a team share the blocks; the leading one comes back when all are done, and notes
    in every folder that it is finished.
    """
    work = list(_missing(jobs, lambda group: _block_size(group, operation, team)))
    mine = [
        item._replace(blocks=[b for n, b in numbered if team.owns(n)]) for item, numbered in work
    ]
    mine = [item for item in mine if item.blocks]
    total = sum(group.size for groups in jobs.values() for group in groups)
    missing = sum(len(block) for _, numbered in work for _, block in numbered)
    if missing:
        if missing < total:
            console.print(f"{total - missing} of {total} cells are done; going on with the others.")
        share = sum(len(block) for item in mine for block in item.blocks)
        schedule = scheduled(mine, operation)
        with Bar(console, schedule, total - missing, total - missing + share) as bar:
            try:
                _execute(mine, operation, schedule, bar)
            finally:
                schedule.keep()
            if team.leads and share < missing:
                _await_others(jobs, bar, total)
    if team.leads:
        for folder, groups in jobs.items():
            finish(folder, [cell["id"] for group in groups for cell in group.cells()])
    return missing


def _block_size(group: Group, operation: Operation, team: Team) -> int:
    """Number of cells that run, and are saved, together."""
    if operation.chunk is not None:
        return operation.chunk
    return group.block(min(operation.devices or max(team.devices), max(team.devices)))


def _missing(
    jobs: Jobs, size_of: Callable[[Group], int]
) -> Iterator[tuple[Work, list[tuple[int, list[dict[str, Any]]]]]]:
    """The unfinished groups with their numbered blocks of missing cells.

    Blocks are numbered by their place among all cells, done or not, so that processes which look
    at the folder at different times agree on who computes a block.
    """
    number = 0
    for folder, groups in jobs.items():
        done = {name for chunk in load(folder) for name in chunk.ids}
        for group in groups:
            cells, blocks, size = group.cells(), [], size_of(group)
            for start in range(0, len(cells), size):
                block = [c for c in cells[start : start + size] if c["id"] not in done]
                blocks += [(number, block)] if block else []
                number += 1
            if blocks:
                yield Work(folder, group.at(folder), []), blocks


def _execute(work: Sequence[Work], operation: Operation, schedule: Schedule, bar: Bar) -> None:
    """Computes the work in a thread; Ctrl-C stops it after the program that runs."""

    def pieces(stop: Stop) -> Iterator[int]:
        watch = Watch(schedule, bar.console.print, stop)
        return EXECUTORS[operation.executor](work, operation, watch)

    def tell() -> None:
        print(stopping(schedule), file=sys.stderr, flush=True)

    with contextlib.closing(waiting.iterated(pieces, tell)) as done:
        for cells in done:
            bar.saved(cells)


def _await_others(jobs: Jobs, bar: Bar, total: int) -> None:
    wanted = [
        (SavedCells(folder), {cell["id"] for group in groups for cell in group.cells()})
        for folder, groups in jobs.items()
    ]
    missing = total
    while missing:
        missing = sum(len(ids - saved.ids()) for saved, ids in wanted)
        bar.waits(total - missing, total)
        time.sleep(POLL_SECONDS if missing else 0.0)
