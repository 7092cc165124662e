"""Sweeps: many cells of one static shape, in batches of one compiled program.

A cell's world (mother, planted ticket, data) follows from its key alone; finder and density enter
only the finder's key, so all finders and densities of a seed see the same world. Masks and training
are programs of their own: training compiles once per shape, whatever the finder.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plantjax import checks, masks, nets, recovery, tasks, training, worlds
from plantjax.finders import FINDERS, REFERENCES
from plantjax.planting import RULES
from plantjax.tables import to_frame
from plantjax.types import Batch, Cell, Finder, Found, Mask, Metrics, Params, Task
from plantjax.worlds import World

__all__ = ["Run", "flat_mask", "make_cells", "make_run", "sweep", "to_frame"]


@dataclass(frozen=True)
class Run:
    """One group of a sweep as pure functions, each batched and compiled by itself.

    `seek` and `train` are the two functions of a Cell that a group consists of. They are made of
    four smaller ones, of which all groups of one task and shape share all but `search`, so that a
    further finder only compiles itself.

    Attributes:
      world: `(cell) -> World`.
      search: `(cell, world) -> Found`.
      judge: `(world, found) -> metrics` of the ticket without training.
      fit: `(cell, world, found) -> metrics` after weak training; None for 0 epochs.
      scope: the selection scope that the finder uses.
      rounds: the rounds that the finder uses.
    """

    world: Callable[[Cell], World]
    search: Callable[[Cell, World], Found]
    judge: Callable[[World, Found], Metrics]
    fit: Callable[[Cell, World, Found], Metrics] | None
    scope: str
    rounds: int

    def seek(self, cell: Cell) -> tuple[Found, Metrics]:
        """Draws the world, seeks a ticket in it, and scores what was found, untrained."""
        world = self.world(cell)
        found = self.search(cell, world)
        return found, self.judge(world, found)

    def train(self, cell: Cell, found: Found) -> Metrics:
        """Trains what was found and scores it; an empty dict for 0 epochs."""
        return self.fit(cell, self.world(cell), found) if self.fit is not None else {}


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
    checks.interval("learning_rate", learning_rate, 0.0, float(np.finfo(np.float32).max), True)
    keys = jnp.stack([worlds.cell_key(task, seed) for seed in seeds])
    n = len(seeds) * len(densities)
    return Cell(
        jnp.repeat(keys, len(densities), axis=0),
        jnp.tile(jnp.asarray(densities, jnp.float32), len(seeds)),
        jnp.full(n, noise, jnp.float32),
        jnp.full(n, learning_rate, jnp.float32),
    )


def make_run(
    task: Task | str,
    depth: int,
    width: int,
    finder: str | Finder,
    *,
    name: str | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    scheme: str = "he",
    rule: str = "norm",
    samples: int = tasks.SAMPLES,
    **static: Any,
) -> Run:
    """Builds the two programs of a group.

    Args:
      task: a Task, or its name in TASKS.
      depth: layers of neurons, the input included.
      width: neurons per hidden layer.
      finder: a name in FINDERS or REFERENCES, or a Finder.
      name: name of a Finder that is not in the registry; its random numbers depend on it.
      epochs: epochs of weak training; 0 for none.
      batch_size: of weak training.
      scheme: of the mother, see `nets.init`.
      rule: of the planting, see `planting.plant`.
      samples: size of the data set, the last tenth held out.
      **static: options of the finder (scope, rounds, ...).

    Returns:
      A Run.

    Raises:
      ValueError: if a name is unknown or a size out of range; all is checked before any compute.
    """
    if isinstance(task, str):
        checks.choice("task", task, tasks.TASKS)
        task = tasks.TASKS[task]
    checks.integer("samples", samples, 10)
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1, samples - samples // 10)
    worlds.mother_widths(task, depth, width)
    checks.choice("scheme", scheme, nets.SCHEMES)
    checks.choice("rule", rule, RULES)
    told = isinstance(finder, str) and finder in REFERENCES
    if isinstance(finder, str):
        checks.choice("finder", finder, [*FINDERS, *REFERENCES])
        name, finder = finder, (REFERENCES if told else FINDERS)[finder](task, **static)
    return Run(
        world=_world(task, depth, width, scheme, rule, samples),
        search=_search(finder, name or "finder", told),
        judge=_judge(task, finder.scope),
        fit=_fit(task, epochs, batch_size) if epochs else None,
        scope=finder.scope,
        rounds=finder.rounds,
    )


@cache
def _world(
    task: Task, depth: int, width: int, scheme: str, rule: str, samples: int
) -> Callable[[Cell], World]:
    def world(cell: Cell) -> World:
        return worlds.make_world(
            cell.key, task, depth, width, cell.noise, scheme=scheme, rule=rule, samples=samples
        )

    return world


def _search(finder: Finder, name: str, told: bool) -> Callable[[Cell, World], Found]:
    label = zlib.crc32(name.encode())

    def search(cell: Cell, world: World) -> Found:
        density = jnp.asarray(cell.density, jnp.float32)
        key = jax.random.fold_in(worlds.fold(cell.key, "finder"), label)
        key = jax.random.fold_in(key, jax.lax.bitcast_convert_type(density, jnp.uint32))
        truth = (world.planted,) if told else ()
        return finder(key, world.planted.params, world.train, density, *truth)

    return search


@cache
def _judge(task: Task, scope: str) -> Callable[[World, Found], Metrics]:
    def judge(world: World, found: Found) -> Metrics:
        planted = world.planted
        pruned = _evaluate(task, masks.apply(planted.params, found.mask), world.test)
        ticket = _evaluate(task, masks.apply(planted.params, planted.mask), world.test)
        target = _evaluate(task, world.target, world.test)
        compared = recovery.compare(planted.params, found.mask, planted, scope=scope)
        return {
            **{f"pruned/{k}": v for k, v in pruned.items()},
            "ticket/value": ticket["value"],
            "target/value": target["value"],
            **{f"recovery/{k}": v for k, v in compared.items()},
            "kept": masks.count(found.mask),
            "kept_density": masks.density(found.mask),
            "mask": flat_mask(found.mask),
        }

    return judge


@cache
def _fit(task: Task, epochs: int, batch_size: int) -> Callable[[Cell, World, Found], Metrics]:
    def fit(cell: Cell, world: World, found: Found) -> Metrics:
        params, losses = training.fit(
            worlds.fold(cell.key, "training"),
            found.params,
            found.mask,
            world.train,
            apply=nets.apply,
            loss=task.loss,
            optimizer=optax.adam(cell.learning_rate),
            epochs=epochs,
            batch_size=batch_size,
        )
        trained = _evaluate(task, params, world.test)
        return {
            **{f"trained/{k}": v for k, v in trained.items()},
            "trained/loss": losses[-1],
            "trained/diverged": ~jnp.isfinite(losses).all(),
        }

    return fit


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
      tree order; "pruned/seconds" and "trained/seconds", wall time of a cell's share of its batch.

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


def flat_mask(mask: Mask) -> jax.Array:
    """A mask as one bool vector [P], leaves in tree order."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(mask)])


def _evaluate(task: Task, params: Params, test: Batch) -> Metrics:
    outputs = nets.apply(params, test.x)
    metrics = task.evaluate(outputs, test.y)
    value = metrics[task.metric]
    return {
        "value": value,
        "value_raw": metrics.get(f"{task.metric}_raw", value),
        "constant": recovery.is_constant(outputs),
    }


@cache
def _program(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(jax.vmap(function))


def _run_batch(run: Run, cells: Cell) -> dict[str, np.ndarray]:
    size = _length(cells)
    clock = time.perf_counter()
    world = _program(run.world)(cells)
    found = _program(run.search)(cells, world)
    metrics = jax.block_until_ready(_program(run.judge)(world, found))
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
