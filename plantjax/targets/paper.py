"""The three targets of the paper: ReLU, Circle and Helix.

Source: Fischer and Burkholz, ICLR 2022, section 3.2 and supplement, https://arxiv.org/abs/2111.11153
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.targets.blocks import (
    ABSOLUTE,
    SPLIT,
    Block,
    Layers,
    abreast,
    ridge,
    to_params,
    univariate,
)
from plantjax.types import Params

Array = TypeVar("Array", np.ndarray, jax.Array)

CIRCLE_BOUNDARIES = (0.2, 0.5, 0.7)
"""Values of x1^2 + x2^2 at which the class of Circle changes."""
CIRCLE_SLOPES = (5.0, 10.0, 20.0, 40.0)
"""Slopes of the class scores of Circle in x1^2 + x2^2."""


def circle_offsets() -> np.ndarray:
    """Biases [4] that make the scores of neighbouring classes equal at the boundaries of Circle.

    >>> circle_offsets().tolist()
    [0.0, -1.0, -6.0, -20.0]
    """
    steps = np.diff(CIRCLE_SLOPES) * CIRCLE_BOUNDARIES
    return np.concatenate([[0.0], -np.cumsum(steps)])


def helix_curve(x: Array) -> Array:
    """The Helix curve (u cos u, u sin u, u) / (8 pi), u = 5 pi + 3 pi x.

    Args:
      x: [...] in [-1, 1], of numpy or JAX.

    Returns:
      Points [..., 3] of the same library and dtype.

    >>> import numpy as np
    >>> helix_curve(np.array(0.0)).round(3).tolist()
    [-0.625, 0.0, 0.625]
    """
    library: Any = jnp if isinstance(x, jax.Array) else np
    u: Any = np.pi * (5.0 + 3.0 * x)
    curve = library.stack([u * library.cos(u), u * library.sin(u), u], axis=-1)
    return curve / (8.0 * np.pi)


def relu(depth: int) -> Params:
    """The target max(x, 0): one unit per layer, weights 1, biases 0; widths (1, ..., 1).

    Args:
      depth: layers of neurons, the input included, at least 3.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth is below 3.

    >>> len(relu(depth=5))
    4
    """
    checks.integer("depth", depth, 3)
    return to_params([(np.ones((1, 1)), np.zeros(1))] * (depth - 1))


def helix(depth: int, knots: int = 30) -> Params:
    """The Helix target: a curve in three dimensions, interpolated linearly between its knots.

    Widths (1, knots, 3), (1, 1, knots, 3) or (1, 1, knots, 3, ..., 3).

    Args:
      depth: layers of neurons, the input included, at least 3.
      knots: knots of the piecewise-linear curve, at least 2.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth is below 3 or knots below 2.

    >>> import plantjax as pj
    >>> pj.nets.widths(pj.targets.helix(depth=5))
    (1, 1, 30, 3, 3)
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 2)

    def block(shift: float) -> Block:
        return univariate(
            lambda x: helix_curve(x - shift), np.linspace(-1.0 + shift, 1.0 + shift, knots)
        )

    return to_params(ridge(depth, np.ones((1, 1)), block, -1.0, np.ones(3)))


def circle(depth: int, knots: int = 10) -> Params:
    """The Circle target: class scores that are linear in x1^2 + x2^2, equal at the ring boundaries.

    Widths (2, 2 N, 4), (2, 4, 2 N, 4), (2, 4, 2, 2 N, 4). Each layer beyond is a mirroring layer of
    three units, which halves the largest angle between the point and the first axis.

    Args:
      depth: layers of neurons, the input included, at least 3.
      knots: number N of knots of x^2 per coordinate, at least 2, from depth 6 on at least 3.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth or knots is too small.

    >>> import plantjax as pj
    >>> pj.nets.widths(pj.targets.circle(depth=6))
    (2, 4, 2, 3, 20, 4)
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 2 if depth < 6 else 3)
    if depth >= 6:
        return to_params(_mirrored_circle(depth, knots))
    start, last_sign = (-1.0 if depth == 3 else 0.0), (1 if depth == 5 else -1)
    block = univariate(_square, np.linspace(start, 1.0, knots), last_sign)
    coordinates = np.eye(2)
    if depth == 3:
        return to_params(_ring_layers([block, block], coordinates))
    layers: Layers = [(SPLIT, np.zeros(4))]
    if depth == 4:
        return to_params(layers + _ring_layers([block, block], ABSOLUTE))
    layers.append((ABSOLUTE, np.zeros(2)))
    return to_params(layers + _ring_layers([block, block], coordinates))


def _mirrored_circle(depth: int, knots: int) -> Layers:
    """The layers of Circle from depth 6 on: absolute values, mirrors, squares, class scores."""
    layers: Layers = [(SPLIT, np.zeros(4)), (ABSOLUTE, np.zeros(2))]
    read = np.eye(2)  # weights that read the current point from the layer's units
    angle = 0.0
    for k in range(1, depth - 4):
        angle = math.pi / 2 ** (k + 1)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([math.sin(angle), -math.cos(angle)])
        layers.append((read @ np.stack([along, across, -across], axis=1), np.zeros(3)))
        read = np.stack([along, across, across])
    reach, n_along, n_across = mirrored_knots(angle, knots)
    blocks = [
        univariate(_square, np.linspace(0.0, math.sqrt(2.0), n_along), last_sign=1),
        univariate(_square, np.linspace(0.0, reach, n_across), last_sign=1),
    ]
    return layers + _ring_layers(blocks, np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))


def mirrored_knots(angle: float, knots: int) -> tuple[float, int, int]:
    """Length of the interval that needs knots across the last mirror, and knots along and across.

    >>> mirrored_knots(math.pi / 4, knots=10)
    (0.6016079783099616, 15, 5)
    """
    reach, diagonal = abs(math.sin(angle)) * math.sqrt(CIRCLE_BOUNDARIES[-1]) + 0.01, math.sqrt(2.0)
    n_along = min(math.ceil(2 * knots * diagonal / (diagonal + reach)), 2 * knots - 3)
    return reach, n_along, max(2 * knots - n_along, 3)


def _square(x: np.ndarray) -> np.ndarray:
    return x[:, None] ** 2


def _ring_layers(blocks: Sequence[Block], read: np.ndarray) -> Layers:
    """The last two layers of Circle: squares of the coordinates (read [I, 2]), and class scores."""
    kernel, bias = abreast(blocks, read)
    outer = np.concatenate([block.outer for block in blocks])
    offset = sum(block.offset for block in blocks)
    slopes = np.array([CIRCLE_SLOPES])
    return [(kernel, bias), (outer @ slopes, slopes[0] * offset + circle_offsets())]
