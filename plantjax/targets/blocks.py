"""Building blocks of targets: piecewise-linear functions of one variable, and identity layers.

A hidden unit computes relu(p (x - s)); sums of such units interpolate a function linearly between
the knots s.

Source: Fischer and Burkholz, ICLR 2022, section 3.2 and supplement, https://arxiv.org/abs/2111.11153
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from plantjax.types import Params

Layers: TypeAlias = list[tuple[np.ndarray, np.ndarray]]
"""(kernel [I, O], bias [O]) of every layer, in float64."""

SPLIT = np.kron(np.eye(2), [[1.0, -1.0]])
"""Kernel [2, 4] that splits two numbers into their parts (x1+, x1-, x2+, x2-), before the ReLU."""
ABSOLUTE = np.abs(SPLIT).T
"""Kernel [4, 2] that reads the absolute values |x| = x+ + x- from these parts."""


class Block(NamedTuple):
    """A piecewise-linear function: hidden units relu(sign * x + bias), and weights of their sum."""

    sign: np.ndarray  # [N]
    bias: np.ndarray  # [N]
    outer: np.ndarray  # [N, O]
    offset: np.ndarray  # [O]


def univariate(
    function: Callable[[np.ndarray], np.ndarray],
    knots: np.ndarray,
    last_sign: int | None = None,
) -> Block:
    """Interpolates `function` linearly between equally spaced, increasing knots.

    Args:
      function: maps x [N] to values [N, O].
      knots: float64 [N], N >= 2.
      last_sign: sign of the last unit; by default the signs alternate, starting with +.

    Returns:
      The block, which is exact at the knots. Its outer weights are changes of slope; those below
      1e-9 of the largest one of their output are set to exactly zero.
    """
    n = len(knots)
    sign = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    if last_sign is not None:
        sign[-1] = last_sign
    values = function(np.append(knots, knots[-1] + knots[1] - knots[0]))
    slopes = np.diff(values, axis=0) / (knots[1] - knots[0])
    outer = np.diff(slopes, axis=0, prepend=slopes[:1])
    outer[0] = slopes[0] + outer[sign < 0].sum(axis=0)
    outer[np.abs(outer) < 1e-9 * np.abs(outer).max(axis=0)] = 0.0  # rounding noise, not weights
    bias = -sign * knots + 0.0
    offset = values[0] - np.maximum(sign * knots[0] + bias, 0.0) @ outer
    offset[np.abs(offset) < 1e-9 * np.abs(values).max(axis=0)] = 0.0
    return Block(sign, bias, outer, offset)


def within(values: np.ndarray, low: float, high: float) -> Block:
    """Interpolates values [N, O] at N equally spaced knots from low to high with the fewest units.

    Beyond the last knot the function continues with the last slope, which takes no unit. Units
    whose weights are zero by symmetry are dropped as well.
    """
    beyond = 2.0 * values[-1:] - values[-2:-1]
    extended = np.concatenate([values, beyond])
    block = univariate(lambda _: extended, np.linspace(low, high, len(values)))
    used = (block.outer != 0).any(axis=1)
    return Block(block.sign[used], block.bias[used], block.outer[used], block.offset)


def abreast(parts: Sequence[Block], read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hidden units of several blocks in one layer.

    Args:
      parts: the blocks.
      read: [I, parts]; column i holds the weights with which block i reads the inputs.

    Returns:
      (kernel [I, units], bias [units]).
    """
    column = np.repeat(np.arange(len(parts)), [len(part.sign) for part in parts])
    sign = np.concatenate([part.sign for part in parts])
    return read[:, column] * sign, np.concatenate([part.bias for part in parts])


def ridge(
    depth: int, read: np.ndarray, block: Callable[[float], Block], low: float, lift: np.ndarray
) -> Layers:
    """A piecewise-linear function f of the sum s = read x, as a network of any depth.

    Args:
      depth: layers of neurons, the input included, at least 3. At depth 3 the units of the block
        read the inputs; from 4 on a first unit computes s - low; from 5 on identity layers follow.
      read: [I, 1].
      block: `(shift) -> Block` that computes f(s) from s + shift.
      low: the lowest value of s.
      lift: [O], added to the outputs so that none is negative in the identity layers.

    Returns:
      depth - 1 layers.
    """
    if depth == 3:
        inner = block(0.0)
        return [(read * inner.sign[None, :], inner.bias), (inner.outer, inner.offset)]
    inner = block(-low)
    first, second = (read, np.full(1, -low)), (inner.sign[None, :], inner.bias)
    return passed_on([first, second, (inner.outer, inner.offset)], depth, lift)


def passed_on(layers: Layers, depth: int, lift: np.ndarray) -> Layers:
    """Adds identity layers until the network has the given depth; the function stays the same.

    The outputs pass through these layers with `lift` [O] added, so that ReLU does not cut them off;
    the last layer subtracts it again.
    """
    missing = depth - 1 - len(layers)
    if missing == 0:
        return layers
    (*before, (kernel, bias)), n = layers, len(lift)
    identities = [(np.eye(n), np.zeros(n))] * (missing - 1)
    return [*before, (kernel, bias + lift), *identities, (np.eye(n), 0.0 - lift)]


def to_params(layers: Layers) -> Params:
    """The layers as a chain of concrete float32 arrays, even inside jit.

    >>> import numpy as np
    >>> to_params([(np.ones((2, 3)), np.zeros(3))])["layer_00"]["kernel"].shape
    (2, 3)
    """
    with jax.ensure_compile_time_eval():
        return {
            f"layer_{index:02d}": {
                # cast by numpy, because JAX would compile a program for every shape
                "kernel": jnp.asarray(kernel.astype(np.float32)),
                "bias": jnp.asarray(bias.astype(np.float32)),
            }
            for index, (kernel, bias) in enumerate(layers)
        }
