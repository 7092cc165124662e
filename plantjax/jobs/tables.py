"""Tables of a results folder, rebuilt from its chunks alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plantjax import metrics
from plantjax.jobs.chunks import Chunk
from plantjax.jobs.folder import done_ids, load, write_table
from plantjax.jobs.grids import Group

if TYPE_CHECKING:
    import pandas as pd


def read(folder: Path) -> pd.DataFrame:
    """The tidy table of a finished folder, one row per cell and stage."""
    return _tables(folder, done_ids(folder))[0]


def write(folder: Path, groups: Sequence[Group], out: Path | None = None) -> pd.DataFrame:
    """Rebuilds results.csv, and levels.csv if a finder has levels, from the folder's chunks.

    Args:
      folder: with the chunks.
      groups: what to take from them, in this order; cells that are not there yet are left out.
      out: where the tables go, by default to the same folder.

    Returns:
      The tidy table, one row per cell and stage.
    """
    cells, levels = _tables(folder, [c["id"] for group in groups for c in group.cells()])
    if len(cells):
        write_table(out or folder, cells)
    if len(levels):
        write_table(out or folder, levels, "levels.csv")
    return cells


def _tables(folder: Path, ids: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per cell and stage, and one row per cell and level of pruning."""
    order = {name: place for place, name in enumerate(ids)}
    chunks = list(load(folder))
    cells = [metrics.to_frame(chunk.results, chunk.labels | _masks(chunk)) for chunk in chunks]
    levels = [metrics.to_levels(chunk.results, chunk.labels) for chunk in chunks]
    return _ordered(cells, order), _ordered(levels, order)


def _masks(chunk: Chunk) -> dict[str, list[str]]:
    """The column `mask`: a hash of every mask, equal for equal masks."""
    packed = chunk.results["mask"]
    return {"mask": [hashlib.sha256(row.tobytes()).hexdigest()[:12] for row in packed]}


def _ordered(frames: Sequence[pd.DataFrame], order: Mapping[str, int]) -> pd.DataFrame:
    import pandas as pd

    frames = [frame[frame["id"].isin(order)] for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame()
    whole = pd.concat(frames, ignore_index=True)
    position = whole["id"].map(order).sort_values(kind="stable").index
    return whole.loc[position].drop(columns="id").reset_index(drop=True)
