"""Runs groups of cells, block by block, with a progress bar; saves every block, resumes by cell.

Cells that are already in the folder are left out, whatever chunks they came in, so a run can be
resumed with other chunks, devices, processes or executors.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from experiments import cli, store
from experiments.executors import EXECUTORS, Work
from experiments.grids import Group
from experiments.machines import Team
from plantjax import sweeps

POLL_SECONDS = 1.0
_Numbered = tuple[int, list[dict[str, Any]]]
Jobs = Mapping[Path, Sequence[Group]]
"""What to run, by the folder that holds it."""


def run(jobs: Jobs, operation: cli.Operation, console: Console, team: Team) -> int:
    """Computes and saves every cell that the folders do not hold yet; returns how many.

    Processes of a team share the blocks; the leading one comes back when all are done.
    """
    work = list(_missing(jobs, lambda group: _block_size(group, operation, team)))
    mine = [
        item._replace(blocks=[b for n, b in numbered if team.owns(n)]) for item, numbered in work
    ]
    mine = [item for item in mine if item.blocks]
    total = sum(group.size for groups in jobs.values() for group in groups)
    missing = sum(len(block) for _, numbered in work for _, block in numbered)
    if not missing:
        return 0
    if missing < total:
        console.print(f"{total - missing} of {total} cells are done; going on with the others.")
    with _progress(console) as progress:
        share = sum(len(block) for item in mine for block in item.blocks)
        bar = progress.add_task("", total=total - missing + share, completed=total - missing)
        execute = EXECUTORS[operation.executor]
        for group, cells in execute(mine, operation, progress.console.print):
            progress.update(bar, description=f"{group.task} {group.finder}", advance=cells)
        if team.leads and share < missing:
            progress.update(bar, description="the other processes", total=total)
            _await_others(jobs, progress, bar, total)
    return missing


def _block_size(group: Group, operation: cli.Operation, team: Team) -> int:
    """Cells that run, and are saved, as one."""
    if operation.chunk is not None:
        return operation.chunk
    return group.block(min(operation.devices or max(team.devices), max(team.devices)))


def _missing(
    jobs: Jobs, size_of: Callable[[Group], int]
) -> Iterator[tuple[Work, list[tuple[int, list[dict[str, Any]]]]]]:
    """Every group that is not finished, with its blocks of missing cells.

    Blocks are numbered by their place among all cells, done or not: processes that look at the
    folder at different times still agree whose a block is.
    """
    number = 0
    for folder, groups in jobs.items():
        done = {name for saved in store.load(folder) for name in saved.ids}
        for group in groups:
            cells, blocks, size = group.cells(), [], size_of(group)
            for start in range(0, len(cells), size):
                block = [c for c in cells[start : start + size] if c["id"] not in done]
                blocks += [(number, block)] if block else []
                number += 1
            if blocks:
                yield Work(folder, group.at(folder), []), blocks


def _await_others(jobs: Jobs, progress: Progress, bar: TaskID, total: int) -> None:
    missing = total
    while missing:
        time.sleep(POLL_SECONDS)
        left = _missing(jobs, lambda group: total)
        missing = sum(len(block) for _, blocks in left for _, block in blocks)
        progress.update(bar, completed=total - missing)


def tables(folder: Path, groups: Sequence[Group]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tidy tables of everything the folder holds of these groups, in their order.

    Returns:
      (one row per cell and stage, one row per cell and level of pruning).
    """
    order = {c["id"]: i for i, c in enumerate(c for group in groups for c in group.cells())}
    chunks = list(store.load(folder))
    cells = _ordered([sweeps.to_frame(chunk.results, chunk.labels) for chunk in chunks], order)
    levels = _ordered([sweeps.to_levels(chunk.results, chunk.labels) for chunk in chunks], order)
    return cells, levels


def write_tables(folder: Path, groups: Sequence[Group], out: Path | None = None) -> pd.DataFrame:
    """Rebuilds results.csv, and levels.csv if a finder has levels, from the folder's chunks."""
    cells, levels = tables(folder, groups)
    if len(cells):
        store.write_table(out or folder, cells)
    if len(levels):
        store.write_table(out or folder, levels, "levels.csv")
    return cells


def _ordered(frames: Sequence[pd.DataFrame], order: Mapping[str, int]) -> pd.DataFrame:
    frames = [frame[frame["id"].isin(order)] for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame()
    whole = pd.concat(frames, ignore_index=True)
    position = whole["id"].map(order).sort_values(kind="stable").index
    return whole.loc[position].drop(columns="id").reset_index(drop=True)


class _RateColumn(ProgressColumn):
    """Cells per second, or per minute where they are slow."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("    - cells/s", style="cyan")
        slow = speed < 0.5
        rate = f"{60 * speed:5.1f} cells/min" if slow else f"{speed:5.1f} cells/s"
        return Text(rate, style="cyan")


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
