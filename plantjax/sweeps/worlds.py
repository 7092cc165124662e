"""Worlds: a mother with a planted ticket, and the data, drawn from one key.

All finders and densities of a seed share one world. Its key is folded once per purpose, so that
nothing in it depends on finder, density, batch or order.
"""

import warnings
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import chex
import jax
import numpy as np

from plantjax import checks, masks, nets, tasks
from plantjax.planting import add_decoys, plant
from plantjax.types import Batch, Cell, Key, Params, Planted, Task

PRNG = "threefry2x32"
"""JAX's generator whose numbers do not depend on the batch; used whatever JAX's default is."""

PURPOSES = ("mother", "planting", "data", "finder", "training", "target", "decoys", "fresh")
"""The purposes for which the key of a cell is folded, by index."""


CROWDED = 0.5
"""Share of a mother above which its ticket is no needle in a haystack. A random mask of the
ticket's density has this share of it right, so that at more than half chance beats error."""


class World(NamedTuple):
    """A target, planted in a mother, and the data to train and test on.

    Attributes:
      target: parameters of the target network.
      planted: the mother with its ticket.
      train: training data, which finders see.
      test: held-out data.
      fresh: further samples, drawn to judge more exactly, or None.
    """

    target: Params
    planted: Planted
    train: Batch
    test: Batch
    fresh: Batch | None = None


def cell_key(task: Task, seed: int) -> Key:
    """The key of one seed of one task, from which all random numbers of its cells are derived."""
    return jax.random.fold_in(jax.random.key(seed, impl=PRNG), zlib.crc32(task.name.encode()))


def key_for(key: Key, purpose: str) -> Key:
    """The key of a cell for one of PURPOSES."""
    return jax.random.fold_in(key, PURPOSES.index(purpose))


def ticket_density(task: Task, depth: int, width: int, weights_only: bool = False) -> float:
    """Density of the planted ticket in mothers of this depth and width.

    Args:
      task: the task, which gives the target.
      depth: layers of neurons, the input included.
      width: neurons per hidden layer.
      weights_only: only count kernels, in ticket and mother, like the paper.

    Returns:
      (nonzero parameters of the cleaned target) / (parameters of the mother).

    >>> import plantjax as pj
    >>> round(pj.sweeps.ticket_density(pj.TASKS["circle"], 5, 100), 4)
    0.0062
    """
    target = task.target(depth)
    kept = masks.live(target, masks.nonzero(target))
    if weights_only:
        widths = mother_widths(task, depth, width)
        total = sum(n_in * n_out for n_in, n_out in pairwise(widths))
        return sum(int(layer["kernel"].sum()) for layer in kept.values()) / total
    return int(masks.count(kept)) / mother_size(task, depth, width)


def mother_size(task: Task, depth: int, width: int) -> int:
    """Number of parameters n, weights and biases, of a mother.

    >>> import plantjax as pj
    >>> pj.sweeps.mother_size(pj.TASKS["circle"], depth=5, width=100)
    20904
    """
    widths = mother_widths(task, depth, width)
    return sum(n_in * n_out + n_out for n_in, n_out in pairwise(widths))


def warn_if_crowded(task: Task, depth: int, width: int) -> None:
    """Warns, in one line and once, if the ticket is more than CROWDED of the mother."""
    size = mother_size(task, depth, width)
    with jax.ensure_compile_time_eval():
        most = sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(task.target(depth)))
        if most <= CROWDED * size:
            return
        share = ticket_density(task, depth, width)
    if share > CROWDED:
        warnings.warn_explicit(
            f"the ticket of {task.name} is {share:.0%} of a mother of depth {depth} and width "
            f"{width}, so that chance finds most of it; a larger width hides it",
            UserWarning,
            "plantjax",
            1,
            registry=globals().setdefault("__warningregistry__", {}),  # shows each of them once
        )


@dataclass(frozen=True)
class DrawWorld:
    """`(cell) -> World` by `make_world`; compared by value."""

    task: Task
    depth: int
    width: int
    scheme: str = "he"
    rule: str = "norm"
    samples: int = tasks.SAMPLES
    decoys: int = 0
    fresh: int = 0

    def __call__(self, cell: Cell) -> World:
        """Draws the cell's world."""
        return make_world(
            *(cell.key, self.task, self.depth, self.width, cell.noise),
            scheme=self.scheme,
            rule=self.rule,
            samples=self.samples,
            decoys=self.decoys,
            fresh=self.fresh,
        )


def make_world(
    key: Key,
    task: Task,
    depth: int,
    width: int,
    noise: chex.Numeric = 0.01,
    *,
    scheme: str = "he",
    rule: str = "norm",
    samples: int = tasks.SAMPLES,
    decoys: int = 0,
    fresh: int = 0,
) -> World:
    """Draws mother and data, and plants the task's target in the mother.

    Pure; works under jit, and under vmap over key and noise. It warns if the ticket is more than
    half of the mother (CROWDED).

    Args:
      key: the key of the cell (`cell_key`).
      task: the task to plant and sample.
      depth: layers of neurons, the input included.
      width: neurons per hidden layer.
      noise: noise of the samples; may be traced.
      scheme: initialisation of the mother, see `nets.init`.
      rule: rule of planting, see `planting.plant`.
      samples: size of the data set, of which the last tenth is held out.
      decoys: copies of the ticket that do not solve the task, see `planting.add_decoys`.
      fresh: number of further samples; 0 for none.

    Returns:
      The World.

    Raises:
      ValueError: as raised by the target, `nets.init` and `planting.plant`.

    >>> import jax, plantjax as pj
    >>> draw = lambda key: pj.sweeps.make_world(key, pj.TASKS["relu"], 3, 20, samples=100)
    >>> jax.eval_shape(draw, jax.random.key(0)).test.x.shape
    (10, 1)
    """
    warn_if_crowded(task, depth, width)
    mother = nets.init(key_for(key, "mother"), mother_widths(task, depth, width), scheme)
    shared = task.metric == "accuracy"
    target, sample = (
        (task.target(depth), task.sample)
        if task.draw is None
        else task.draw(key_for(key, "target"), depth)
    )
    planted = plant(key_for(key, "planting"), target, mother, rule, shared)
    planted = add_decoys(key_for(key, "decoys"), planted, decoys)
    train, test = tasks.split(sample(key_for(key, "data"), samples, noise))
    more = sample(key_for(key, "fresh"), fresh, noise) if fresh else None
    return World(target, planted, train, test, more)


def mother_widths(task: Task, depth: int, width: int) -> tuple[int, ...]:
    """The mother's widths (I, width, ..., width, O).

    Raises:
      ValueError: if depth is below 3, or width below the target's in a layer.

    >>> import plantjax as pj
    >>> pj.sweeps.mother_widths(pj.TASKS["circle"], depth=5, width=100)
    (2, 100, 100, 100, 4)
    """
    checks.integer("depth", depth, 3)
    checks.integer("width", width, 1)
    for layer, need in enumerate(nets.widths(task.target(depth))[1:-1]):
        if width < need:
            raise ValueError(
                f"width must be at least {need}, the width of the {task.name} target of depth "
                f"{depth} in {nets.layer_name(layer)}, got {width}."
            )
    return (task.n_in, *[width] * (depth - 2), task.n_out)
