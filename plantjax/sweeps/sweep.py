"""Sweeps: many cells of one static shape, in batches of one compiled program.

The world of a cell (mother, planted ticket, data) depends only on its key. Finder and density enter
only the finder's key, so all finders and densities of a seed see the same world.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from plantjax import checks
from plantjax.sweeps import programs, worlds
from plantjax.sweeps.compiling import mesh_of, share
from plantjax.sweeps.labels import labels_of
from plantjax.sweeps.runs import Run, search_info
from plantjax.types import Cell, Found, Task


def make_cells(
    task: Task,
    seeds: Sequence[int],
    densities: Sequence[float],
    noise: float = 0.01,
    learning_rate: float = 1e-3,
) -> Cell:
    """All (seed, density) pairs as one Cell of arrays [C]; densities vary fastest.

    Args:
      task: the task, whose name enters the keys.
      seeds: integers, 0 or more.
      densities: in (0, 1].
      noise: noise of the samples, in [0, 1].
      learning_rate: learning rate of weak training.

    Raises:
      ValueError: if seeds or densities are empty, or a number is out of range.

    >>> import plantjax as pj
    >>> pj.sweeps.make_cells(pj.TASKS["relu"], seeds=[0, 1], densities=[0.25, 0.5]).density.tolist()
    [0.25, 0.5, 0.25, 0.5]
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


class Keeper(Protocol):
    """Stores an unfinished search: its last finished level, and its state as a pytree of arrays."""

    def restore(self, like: Any) -> tuple[int, Any]:
        """The last stored level and its tree, structured like `like`; (0, like) if none is."""

    def save(self, level: int, tree: Any) -> None:
        """Stores the tree after a level, if that is worthwhile."""

    def clear(self) -> None:
        """Deletes everything, because the search is done."""


def sweep(
    run: Run,
    cells: Cell,
    batch: int | None = None,
    devices: int | None = None,
    keep: Callable[[int], Keeper] | None = None,
    after: Callable[[int], bool] | None = None,
) -> dict[str, np.ndarray]:
    """Runs all cells in batches, with one compiled program each for search and training.

    Every device always has at least two cells (one if they are computed in turn), and the last
    batch is padded. So the result of a cell only depends on the cell, not on the batch, its
    position in it, the devices, or the order of the cells.

    Args:
      run: a run, see `make_run`.
      cells: arrays [C].
      batch: cells per device and call of a program, at least 2; by default 2 on CPU, else at most
        512, or as many as fit (`compiling.ROOM`). For runs whose cells are computed in turn it may
        be 1, which is their default.
      devices: how many of this process's devices share the cells; by default all.
      keep: `(first cell of a batch) -> Keeper`. With it, searches that have levels run level by
        level and resume where they stopped.
      after: `(number of cells) -> whether to stop`, called after every batch. If it stops the
        sweep, the results are those of the first cells.

    Returns:
      Arrays over the cells [C]: "pruned/value", "pruned/value_raw", "pruned/constant", the same
      with "trained/", and "trained/loss", "trained/diverged"; "ticket/value", "target/value",
      "dead/value"; "recovery/...", see `recovery.compare`; "pruned/metric/..." and
      "trained/metric/...", see `metrics.METRICS`; "kept", "kept_density"; "mask" bool [C, P],
      leaves in tree order;
      "search/...", the finder's `Found.info`; "pruned/seconds" and "trained/seconds", the wall time
      of a batch divided by its cells, without compilation; and "label/...", the columns that
      identify the cells in tables, see `labels.labels_of`.

    Raises:
      ValueError: if batch is too small, there are fewer devices, or the cells are not arrays of one
        length.
    """
    n = _length(cells)
    mesh = _mesh(devices)
    cells = jax.tree.map(jnp.asarray, cells)
    if batch is None:
        batch = programs.fitting_batch(run, cells, n, mesh, keep is not None)
    checks.integer("batch", batch, 1 if run.in_turn else 2)
    step = batch * mesh.size
    parts = []
    for start in range(0, n, step):
        index = np.minimum(np.arange(start, start + step), n - 1)
        part = share(mesh, jax.tree.map(lambda a, index=index: a[index], cells))
        keeper = None if keep is None or run.finder.levels is None else keep(start)
        parts.append((_run_batch(run, part, mesh, keeper), min(step, n - start)))
        if after is not None and after(parts[-1][1]):
            break
    results = {
        name: np.concatenate([result[name][:size] for result, size in parts])
        for name in parts[0][0]
    }
    done = sum(size for _, size in parts)
    return results | labels_of(run, jax.tree.map(lambda a: a[:done], cells))


def prepare(
    run: Run,
    n: int,
    devices: int | None = None,
    cells: Cell | None = None,
    by_levels: bool = False,
    batch: int | None = None,
) -> None:
    """Compiles the programs of a group ahead of `sweep`, for example in a thread.

    Args:
      run: a run, see `make_run`.
      n: number of cells that `sweep` will get.
      devices: as in `sweep`.
      cells: one batch for all devices, with the shapes that `sweep` will get; by default a Cell.
      by_levels: whether `sweep` will get `keep`.
      batch: as in `sweep`.
    """
    mesh = _mesh(devices)
    if cells is None:
        cells = jax.eval_shape(lambda: programs.example(1))
        if batch is None:
            batch = programs.fitting_batch(run, cells, n, mesh, by_levels)
        cells = programs.resized(cells, batch * mesh.size)
    programs.build(run, cells, mesh, by_levels)


def _mesh(devices: int | None) -> Mesh:
    if devices is not None:
        checks.integer("devices", devices, 1, jax.local_device_count())
    return mesh_of(devices)


def _run_batch(run: Run, cells: Cell, mesh: Mesh, keeper: Keeper | None) -> dict[str, np.ndarray]:
    size = _length(cells)
    parts = programs.build(run, cells, mesh, keeper is not None)
    clock = time.perf_counter()
    world = parts.world(cells)
    if parts.search is not None:
        found = parts.search(cells, world)
    else:
        assert keeper is not None
        assert parts.levels is not None
        found = _by_levels(parts.levels, run.finder.rounds, cells, world, mesh, keeper)
    metrics, found = search_info(found), found._replace(info={})
    metrics |= jax.block_until_ready(parts.evaluate(world, found))
    seconds = {"pruned/seconds": time.perf_counter() - clock}
    if parts.fit is not None:
        clock = time.perf_counter()
        metrics |= jax.block_until_ready(parts.fit(cells, world, found))
        seconds["trained/seconds"] = time.perf_counter() - clock
    times = {name: np.full(size, value / size) for name, value in seconds.items()}
    return jax.tree.map(np.asarray, metrics) | times


def _by_levels(
    levels: programs.Levels, rounds: int, cells: Cell, world: Any, mesh: Mesh, keeper: Keeper
) -> Found:
    """Runs a search level by level, starting after the last stored level."""
    size = _length(cells)
    state = levels.begin(cells, world)
    kinds = levels.advance.out_info[1]
    told = jax.tree.map(lambda a: np.zeros((size, rounds), a.dtype), kinds)
    done, (state, told) = keeper.restore((jax.device_get(state), told))
    state = share(mesh, state)
    for level in range(done + 1, rounds + 1):
        index = share(mesh, jnp.full(size, level, jnp.int32))
        state, metrics = levels.advance(cells, world, state, index)
        for name, values in metrics.items():
            told[name][:, level - 1] = values
        keeper.save(level, (jax.device_get(state), told))
    keeper.clear()
    found: Found = levels.finish(state, share(mesh, told))
    return found


def _length(cells: Cell) -> int:
    lengths = {jnp.shape(leaf)[:1] for leaf in cells}
    if len(lengths) != 1 or lengths == {()} or lengths == {(0,)}:
        raise ValueError(
            "cells must hold arrays of one length C >= 1, "
            f"got shapes {[jnp.shape(leaf) for leaf in cells]}."
        )
    return int(next(iter(lengths))[0])
