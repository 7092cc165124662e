"""Worlds of images: plain mothers, and mothers with a trained ticket planted in them.

What is shared by all cells of a shape is made once, so that their programs are the same.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.images import BIAS_SCALE, Source, task_of
from plantjax import convnets, masks, worlds
from plantjax.finders import FINDERS, REFERENCES
from plantjax.planting import plant
from plantjax.types import Batch, Finder, Params, Planted
from plantjax.worlds import World


class ImageCell(NamedTuple):
    """A `plantjax.types.Cell` with its images, and the parameters of the target [P], if any."""

    key: jax.Array
    density: Any
    noise: Any
    learning_rate: Any
    target: Any
    x: Any
    y: Any
    test_x: Any
    test_y: Any


@lru_cache
def plain(network: convnets.Network, image: tuple[int, ...]) -> Any:
    """`(cell) -> World` of a mother in which nothing is planted: all of it counts as the target."""

    def world(cell: ImageCell) -> World:
        mother = network.init(worlds.fold(cell.key, "mother"), image, bias_scale=BIAS_SCALE)
        planted = Planted(mother, masks.full(mother), jnp.ones(network.module.n_out))
        return World(mother, planted, *_images(cell))

    return world


@lru_cache
def planted(network: convnets.Network, image: tuple[int, ...]) -> Any:
    """`(cell) -> World` of another mother than the plain one, with the cell's target in it."""

    def world(cell: ImageCell) -> World:
        key = jax.random.fold_in(worlds.fold(cell.key, "mother"), 1)
        mother = network.init(key, image, bias_scale=BIAS_SCALE)
        target = unflattened(cell.target, mother)
        hidden = plant(worlds.fold(cell.key, "planting"), target, mother, wiring=network.wiring)
        return World(target, hidden, *_images(cell))

    return world


@lru_cache
def finder(
    name: str, source: Source, network: convnets.Network, static: tuple[tuple[str, Any], ...]
) -> Finder:
    """A finder or reference for these networks."""
    make = FINDERS[name] if name in FINDERS else REFERENCES[name]
    return make(task_of(source), apply=network, **dict(static))


@lru_cache
def size(network: convnets.Network, image: tuple[int, ...]) -> int:
    """Number of parameters P."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), image))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def unflattened(vector: jax.Array, like: Params) -> Params:
    """The tree whose leaves, in tree order, make up the vector [P]."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = jnp.split(vector, ends)
    return jax.tree.unflatten(
        structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    )


def _images(cell: ImageCell) -> tuple[Batch, Batch]:
    return Batch(cell.x, cell.y), Batch(cell.test_x, cell.test_y)
