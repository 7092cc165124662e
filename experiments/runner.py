"""Runs groups of cells, chunk by chunk, with a progress bar; saves every chunk, resumes by cell.

Cells that are already in the folder are left out, whatever chunks they came in, so a run can be
resumed with other chunks.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
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
from experiments.grids import Group
from plantjax import sweeps

AHEAD = 2
"""Groups whose programs compile while another runs."""
_Work = tuple[Path, Group, list[dict[str, Any]]]
Jobs = Mapping[Path, Sequence[Group]]
"""What to run, by the folder that holds it."""


def run(jobs: Jobs, chunk: int | None, console: Console, devices: int | None = None) -> int:
    """Computes and saves every cell that the folders do not hold yet; returns how many."""
    devices = devices or jax.local_device_count()
    size = chunk or devices * (8 if jax.default_backend() == "cpu" else 512)
    work = [item for folder, groups in jobs.items() for item in _missing(folder, groups)]
    total = sum(group.size for groups in jobs.values() for group in groups)
    missing = sum(len(rest) for _, _, rest in work)
    if not missing:
        return 0
    if missing < total:
        console.print(f"{total - missing} of {total} cells are done; going on with the others.")
    with _progress(console) as progress:
        bar = progress.add_task("", total=total, completed=total - missing)
        for (folder, group, rest), program in _prepared(work, size, devices):
            for start in range(0, len(rest), size):
                progress.update(bar, description=f"{group.task} {group.finder}")
                part = rest[start : start + size]
                store.save(folder, group.compute(program, part, devices))
                progress.advance(bar, len(part))
    return missing


def _prepared(work: Sequence[_Work], size: int, devices: int) -> Iterator[tuple[_Work, sweeps.Run]]:
    """The work with its programs; those of the next groups compile while one runs."""
    work = [item for item in work if item[2]]
    threads = ThreadPoolExecutor(AHEAD)
    started: list[sweeps.Run] = []
    try:
        for index, item in enumerate(work):
            for _, group, rest in work[len(started) : index + 1 + AHEAD]:
                started.append(group.run())
                threads.submit(sweeps.prepare, started[-1], min(size, len(rest)), devices)
            yield item, started[index]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _missing(folder: Path, groups: Sequence[Group]) -> list[_Work]:
    """The cells of every group that the folder does not hold."""
    done = {name for saved in store.load(folder) for name in saved.ids}
    return [(folder, group, [c for c in group.cells() if c["id"] not in done]) for group in groups]


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
