"""Worlds of images: plain mothers, and mothers with a trained ticket planted in them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from images.sources import BIAS_SCALE
from plantjax import masks, nets, plant
from plantjax.sweeps import World, key_for
from plantjax.types import Batch, Params, Planted


class ImageCell(NamedTuple):
    """A `plantjax.types.Cell` with images and the parameters of the target [P], if there is one."""

    key: jax.Array
    density: Any
    noise: Any
    learning_rate: Any
    target: Any
    x: Any
    y: Any
    test_x: Any
    test_y: Any


@dataclass(frozen=True)
class DrawImageWorld:
    """`(cell) -> World`: a plain mother, or another mother with the cell's ticket planted in it.

    In a plain mother nothing is planted, and the whole mother counts as the target. Compared by
    value, so that equal worlds share compiled programs.
    """

    network: nets.Network
    image: tuple[int, ...]
    plants: bool

    def __call__(self, cell: ImageCell) -> World:
        """Draws the world."""
        network, key = self.network, key_for(cell.key, "mother")
        images = Batch(cell.x, cell.y), Batch(cell.test_x, cell.test_y)
        if not self.plants:
            mother = network.init(key, self.image, bias_scale=BIAS_SCALE)
            whole = Planted(mother, masks.full(mother), jnp.ones(network.module.n_out))
            return World(mother, whole, *images)
        mother = network.init(jax.random.fold_in(key, 1), self.image, bias_scale=BIAS_SCALE)
        target = unravel(cell.target, mother)
        planting = key_for(cell.key, "planting")
        hidden = plant(planting, target, mother, wiring=network.wiring)
        return World(target, hidden, *images)


def size(network: nets.Network, image: tuple[int, ...]) -> int:
    """Number of parameters P."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), image))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def unravel(vector: jax.Array, like: Params) -> Params:
    """The tree, structured like `like`, whose leaves in tree order form the vector [P]."""
    return ravel_pytree(like)[1](vector)
