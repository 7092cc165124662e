"""Sweeps: many cells (seed, density) of one static shape, in batches of one compiled program."""

from plantjax.metrics import to_frame, to_levels
from plantjax.sweeps.evaluation import evaluate
from plantjax.sweeps.programs import default_batch
from plantjax.sweeps.runs import RESCALES, Run, assemble, make_run
from plantjax.sweeps.sweep import Keeper, make_cells, prepare, sweep
from plantjax.sweeps.worlds import (
    World,
    cell_key,
    key_for,
    make_world,
    mother_size,
    mother_widths,
    ticket_density,
)

__all__ = [
    "RESCALES",
    "Keeper",
    "Run",
    "World",
    "assemble",
    "cell_key",
    "default_batch",
    "evaluate",
    "key_for",
    "make_cells",
    "make_run",
    "make_world",
    "mother_size",
    "mother_widths",
    "prepare",
    "sweep",
    "ticket_density",
    "to_frame",
    "to_levels",
]
