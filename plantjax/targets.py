"""Exact, hand-built, extremely sparse target networks for the three tasks of the paper.

Built in float64 numpy when called, returned as float32 pytrees. A hidden unit computes
relu(p (x - s)); sums of such units interpolate a function linearly between its knots s.

Source: Fischer and Burkholz, ICLR 2022, section 3.2 and supplement, https://arxiv.org/abs/2111.11153
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.types import Params

CIRCLE_BOUNDARIES = (0.2, 0.5, 0.7)
"""Values of x1^2 + x2^2 at which the class of Circle changes."""
CIRCLE_SLOPES = (5.0, 10.0, 20.0, 40.0)
"""Slope of each class score of Circle in x1^2 + x2^2."""

Layers = list[tuple[np.ndarray, np.ndarray]]  # (kernel [I, O], bias [O]) in float64


class Block(NamedTuple):
    """Hidden units relu(sign * x + bias) and outer weights of one piecewise-linear function."""

    sign: np.ndarray  # [N]
    bias: np.ndarray  # [N]
    outer: np.ndarray  # [N, O]
    offset: np.ndarray  # [O]


def circle_offsets() -> np.ndarray:
    """Biases [4] that make neighbouring class scores of Circle equal at the boundaries."""
    steps = np.diff(CIRCLE_SLOPES) * CIRCLE_BOUNDARIES
    return np.concatenate([[0.0], -np.cumsum(steps)])


def helix_curve(x: np.ndarray) -> np.ndarray:
    """The Helix curve at x [...] in [-1, 1]: (u cos u, u sin u, u) / (8 pi), u = 5 pi + 3 pi x."""
    u = np.pi * (5.0 + 3.0 * x)
    return np.stack([u * np.cos(u), u * np.sin(u), u], axis=-1) / (8.0 * np.pi)


def univariate(
    function: Callable[[np.ndarray], np.ndarray],
    knots: np.ndarray,
    last_sign: int | None = None,
) -> Block:
    """Interpolates `function` linearly between equally spaced, increasing knots.

    Args:
      function: maps x [N] to values [N, O].
      knots: float64 [N], N >= 2.
      last_sign: sign of the last unit; by default signs alternate +, -, +, ...

    Returns:
      The block, exact at the knots; its outer weights are changes of slope. Weights below 1e-9 of
      the largest of their output are exactly zero.
    """
    n = len(knots)
    sign = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    if last_sign is not None:
        sign[-1] = last_sign
    values = function(np.append(knots, knots[-1] + knots[1] - knots[0]))
    slopes = np.diff(values, axis=0) / (knots[1] - knots[0])
    outer = np.diff(slopes, axis=0, prepend=slopes[:1])
    outer[0] = slopes[0] + outer[sign < 0].sum(axis=0)
    outer[np.abs(outer) < 1e-9 * np.abs(outer).max(axis=0)] = 0.0  # rounding noise is no weight
    bias = -sign * knots + 0.0
    offset = values[0] - np.maximum(sign * knots[0] + bias, 0.0) @ outer
    offset[np.abs(offset) < 1e-9 * np.abs(values).max(axis=0)] = 0.0
    return Block(sign, bias, outer, offset)


def relu(depth: int) -> Params:
    """The target max(x, 0): one unit a layer, weights 1, biases 0; widths (1, ..., 1).

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
    return _params([(np.ones((1, 1)), np.zeros(1))] * (depth - 1))


def helix(depth: int, knots: int = 30) -> Params:
    """The Helix target; widths (1, knots, 3), (1, 1, knots, 3) or (1, 1, knots, 3, ..., 3).

    Args:
      depth: layers of neurons, the input included, at least 3.
      knots: knots of the piecewise-linear curve, at least 2.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth is below 3 or knots below 2.
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 2)
    if depth == 3:
        return _params(_block_layers(univariate(helix_curve, np.linspace(-1.0, 1.0, knots))))
    block = univariate(lambda x: helix_curve(x - 1.0), np.linspace(0.0, 2.0, knots))
    layers: Layers = [(np.ones((1, 1)), np.ones(1)), *_block_layers(block)]
    if depth >= 5:  # the outputs, lifted by one, pass the identity layers unharmed
        kernel, bias = layers[-1]
        layers[-1] = (kernel, bias + 1.0)
        layers += [(np.eye(3), np.zeros(3))] * (depth - 5)
        layers.append((np.eye(3), -np.ones(3)))
    return _params(layers)


def circle(depth: int, knots: int = 10) -> Params:
    """The Circle target: class scores that are linear in x1^2 + x2^2, equal at the ring boundaries.

    Widths (2, 2 N, 4), (2, 4, 2 N, 4), (2, 4, 2, 2 N, 4), then one mirroring layer of three units
    per further layer, which halves the angle that the point can have to the first axis.

    Args:
      depth: layers of neurons, the input included, at least 3.
      knots: N, knots of x^2 per coordinate, at least 2, at least 3 from depth 6 on.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth or knots is too small.
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 2 if depth < 6 else 3)
    if depth >= 6:
        return _params(_mirrored_circle(depth, knots))
    start, last_sign = (-1.0 if depth == 3 else 0.0), (1 if depth == 5 else -1)
    block = univariate(_square, np.linspace(start, 1.0, knots), last_sign)
    coordinates = np.eye(2)
    if depth == 3:
        return _params(_ring_layers([block, block], coordinates))
    split = np.kron(np.eye(2), [[1.0, -1.0]])  # (x1+, x1-, x2+, x2-) before the ReLU
    fold = np.abs(split).T  # |x| = x+ + x-
    layers: Layers = [(split, np.zeros(4))]
    if depth == 4:
        return _params(layers + _ring_layers([block, block], fold))
    layers.append((fold, np.zeros(2)))
    return _params(layers + _ring_layers([block, block], coordinates))


def _mirrored_circle(depth: int, knots: int) -> Layers:
    split = np.kron(np.eye(2), [[1.0, -1.0]])
    layers: Layers = [(split, np.zeros(4)), (np.abs(split).T, np.zeros(2))]
    read = np.eye(2)  # how the current point is read from the layer's units
    angle = 0.0
    for k in range(1, depth - 4):
        angle = math.pi / 2 ** (k + 1)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([math.sin(angle), -math.cos(angle)])
        layers.append((read @ np.stack([along, across, -across], axis=1), np.zeros(3)))
        read = np.stack([along, across, across])
    reach = abs(math.sin(angle)) * math.sqrt(CIRCLE_BOUNDARIES[-1]) + 0.01
    diagonal = math.sqrt(2.0)
    n_along = min(math.ceil(2 * knots * diagonal / (diagonal + reach)), 2 * knots - 3)
    blocks = [
        univariate(_square, np.linspace(0.0, diagonal, n_along), last_sign=1),
        univariate(_square, np.linspace(0.0, reach, max(2 * knots - n_along, 3)), last_sign=1),
    ]
    return layers + _ring_layers(blocks, np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))


def _square(x: np.ndarray) -> np.ndarray:
    return x[:, None] ** 2


def _block_layers(block: Block) -> Layers:
    return [(block.sign[None, :], block.bias), (block.outer, block.offset)]


def _ring_layers(blocks: Sequence[Block], read: np.ndarray) -> Layers:
    """The last two layers of Circle: squares of the coordinates read [I, 2], then class scores."""
    coordinate = np.repeat([0, 1], [len(block.sign) for block in blocks])
    sign = np.concatenate([block.sign for block in blocks])
    outer = np.concatenate([block.outer for block in blocks])
    offset = sum(block.offset for block in blocks)
    slopes = np.array([CIRCLE_SLOPES])
    return [
        (read[:, coordinate] * sign, np.concatenate([block.bias for block in blocks])),
        (outer @ slopes, slopes[0] * offset + circle_offsets()),
    ]


def _params(layers: Layers) -> Params:
    with jax.ensure_compile_time_eval():
        return {
            f"layer_{index:02d}": {
                # cast by numpy: JAX would compile a program for every shape
                "kernel": jnp.asarray(kernel.astype(np.float32)),
                "bias": jnp.asarray(bias.astype(np.float32)),
            }
            for index, (kernel, bias) in enumerate(layers)
        }
