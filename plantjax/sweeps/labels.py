"""Labels: what a sweep knows of its cells, so that its results make a table by themselves."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from plantjax.metrics import LABEL
from plantjax.sweeps.runs import Run
from plantjax.sweeps.worlds import PRNG
from plantjax.types import Cell, Task

SEEDS = 4096
"""Seeds from 0 that are recognised by their keys."""


def labels_of(run: Run, cells: Cell) -> dict[str, np.ndarray]:
    """The columns that identify each cell, as entries "label/NAME" of the results [C].

    These are task, finder, scope, rounds, metric, density and noise; depth and width of mothers
    that plantjax draws; and the seed, if it is below SEEDS and the key is its `cell_key`, else -1.
    """
    task = run.evaluate.further.task
    n = np.shape(jax.tree.leaves(cells)[0])[0]
    shared = {
        "task": task.name,
        "depth": getattr(run.world, "depth", None),
        "width": getattr(run.world, "width", None),
        "finder": run.name,
        "scope": run.finder.scope,
        "rounds": run.finder.rounds,
        "metric": task.metric,
    }
    labels = {name: np.full(n, value) for name, value in shared.items() if value is not None}
    for name in ("noise", "density"):
        if hasattr(cells, name):
            labels[name] = _decimal(getattr(cells, name))
    if hasattr(cells, "key"):
        labels["seed"] = _seeds(task, cells.key)
    return {f"{LABEL}{name}": column for name, column in labels.items()}


def _decimal(values: jax.Array) -> np.ndarray:
    """Single numbers as the doubles that are written alike: 0.1, not 0.10000000149."""
    return np.array([float(str(value)) for value in np.asarray(values, np.float32)])


def _seeds(task: Task, keys: jax.Array) -> np.ndarray:
    """The seeds that the keys are of, -1 where there is none."""
    data = np.asarray(jax.random.key_data(keys))
    known = np.asarray(_keys_of_seeds(np.uint32(zlib.crc32(task.name.encode()))))
    if data.shape[1:] != known.shape[1:]:  # of another generator
        return np.full(len(data), -1)
    seeds = {row.tobytes(): seed for seed, row in enumerate(known)}
    return np.array([seeds.get(row.tobytes(), -1) for row in data])


@jax.jit
def _keys_of_seeds(name: jax.Array) -> jax.Array:
    """The data of `cell_key` for each of SEEDS, from the number of a task's name."""

    def data(seed: jax.Array) -> jax.Array:
        return jax.random.key_data(jax.random.fold_in(jax.random.key(seed, impl=PRNG), name))

    return jax.vmap(data)(jnp.arange(SEEDS, dtype=jnp.int32))
