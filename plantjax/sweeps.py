"""Sweeps: many cells of one static shape, in batches of one compiled program.

A cell's world (mother, planted ticket, data) follows from its key alone; finder and density enter
only the finder's key, so all finders and densities of a seed see the same world.
"""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, worlds
from plantjax.runs import PROGRAMS, Run, flat_mask, make_run, options, search_info
from plantjax.tables import to_frame, to_levels
from plantjax.types import Cell, Task

__all__ = [
    "Run",
    "flat_mask",
    "make_cells",
    "make_run",
    "options",
    "sweep",
    "to_frame",
    "to_levels",
]


def make_cells(
    task: Task,
    seeds: Sequence[int],
    densities: Sequence[float],
    noise: float = 0.01,
    learning_rate: float = 1e-3,
) -> Cell:
    """All (seed, density) pairs as one Cell of arrays [C], densities fastest.

    Raises:
      ValueError: if seeds or densities are empty or out of range, or noise or learning rate is.
    """
    for name, values in (("seeds", seeds), ("densities", densities)):
        if not len(values):
            raise ValueError(f"{name} must not be empty.")
    for seed in seeds:
        checks.integer("seeds", seed, 0)
    checks.density(np.asarray(densities))
    checks.interval("noise", noise, 0.0, 1.0)
    checks.positive("learning_rate", learning_rate)
    keys = jnp.stack([worlds.cell_key(task, seed) for seed in seeds])
    n = len(seeds) * len(densities)
    return Cell(
        jnp.repeat(keys, len(densities), axis=0),
        jnp.tile(jnp.asarray(densities, jnp.float32), len(seeds)),
        jnp.full(n, noise, jnp.float32),
        jnp.full(n, learning_rate, jnp.float32),
    )


def sweep(run: Run, cells: Cell, batch: int | None = None) -> dict[str, np.ndarray]:
    """Runs all cells, in batches of one compiled program each for search and training.

    A batch is never smaller than two and ragged ends are padded, so a cell's result depends on its
    identity only: not on the batch, its place in it, or the order of the cells.

    Args:
      run: of `make_run`.
      cells: arrays [C].
      batch: cells per call of a program, at least 2; by default 2 on CPU, else up to 512.

    Returns:
      Arrays over the cells [C]: "pruned/value", "pruned/value_raw", "pruned/constant", the same
      with "trained/" and "trained/loss", "trained/diverged"; "ticket/value", "target/value";
      "recovery/...", see `recovery.compare`; "kept", "kept_density"; "mask" bool [C, P], leaves in
      tree order; "search/...", the finder's `Found.info`; "pruned/seconds" and "trained/seconds",
      wall time of a cell's share of its batch.

    Raises:
      ValueError: if batch is below 2 or the cells are not arrays of one length.
    """
    n = _length(cells)
    if batch is None:
        batch = 2 if jax.default_backend() == "cpu" else min(512, max(2, n))
    checks.integer("batch", batch, 2)
    parts = []
    for start in range(0, n, batch):
        index = np.minimum(np.arange(start, start + batch), n - 1)
        part = jax.tree.map(lambda a, index=index: a[index], cells)
        parts.append((_run_batch(run, part), min(batch, n - start)))
    return {
        name: np.concatenate([result[name][:size] for result, size in parts])
        for name in parts[0][0]
    }


@lru_cache(maxsize=PROGRAMS)
def _program(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(jax.vmap(function))


def _run_batch(run: Run, cells: Cell) -> dict[str, np.ndarray]:
    size = _length(cells)
    clock = time.perf_counter()
    world = _program(run.world)(cells)
    found = _program(run.search)(cells, world)
    metrics, found = search_info(found), found._replace(info={})
    metrics |= jax.block_until_ready(_program(run.judge)(world, found))
    seconds = {"pruned/seconds": time.perf_counter() - clock}
    if run.fit is not None:
        clock = time.perf_counter()
        metrics |= jax.block_until_ready(_program(run.fit)(cells, world, found))
        seconds["trained/seconds"] = time.perf_counter() - clock
    times = {name: np.full(size, value / size) for name, value in seconds.items()}
    return jax.tree.map(np.asarray, metrics) | times


def _length(cells: Cell) -> int:
    lengths = {jnp.shape(leaf)[:1] for leaf in cells}
    if len(lengths) != 1 or lengths == {()} or lengths == {(0,)}:
        raise ValueError(
            "cells must hold arrays of one length C >= 1, "
            f"got shapes {[jnp.shape(leaf) for leaf in cells]}."
        )
    return int(next(iter(lengths))[0])
