"""What targets are built of: piecewise-linear functions of one variable, and layers that pass on.

A hidden unit computes relu(p (x - s)); sums of such units interpolate a function linearly between
its knots s.

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


class Block(NamedTuple):
    """Hidden units relu(sign * x + bias) and outer weights of one piecewise-linear function."""

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


def within(values: np.ndarray, low: float, high: float) -> Block:
    """Interpolates values [N, O] at N equally spaced knots from low to high, in fewest units.

    Beyond the last knot the function goes on with the last slope, so that no unit is spent there;
    units that symmetry leaves without a weight are left out as well.
    """
    beyond = 2.0 * values[-1:] - values[-2:-1]
    extended = np.concatenate([values, beyond])
    block = univariate(lambda _: extended, np.linspace(low, high, len(values)))
    used = (block.outer != 0).any(axis=1)
    return Block(block.sign[used], block.bias[used], block.outer[used], block.offset)


def abreast(parts: Sequence[Block], read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hidden units of several blocks in one layer; part i reads column i of read [I, parts].

    Returns:
      (kernel [I, units], bias [units]).
    """
    column = np.repeat(np.arange(len(parts)), [len(part.sign) for part in parts])
    sign = np.concatenate([part.sign for part in parts])
    return read[:, column] * sign, np.concatenate([part.bias for part in parts])


def ridge(
    depth: int, read: np.ndarray, block: Callable[[float], Block], low: float, lift: np.ndarray
) -> Layers:
    """A piecewise-linear function of the sum s = read x, as deep as asked.

    Args:
      depth: layers of neurons, the input included, at least 3. At 3 the units read the inputs; from
        4 on one unit reads s - low first; from 5 on the outputs are passed on.
      read: [I, 1].
      block: `shift` to the block of f(s - shift), so of s + shift.
      low: the least s.
      lift: [O], at least minus the least output.

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
    """The same function with identity layers up to a depth; outputs lifted [O] pass them unharmed.

    The last layer takes the lift back.
    """
    missing = depth - 1 - len(layers)
    if missing == 0:
        return layers
    (*before, (kernel, bias)), n = layers, len(lift)
    identities = [(np.eye(n), np.zeros(n))] * (missing - 1)
    return [*before, (kernel, bias + lift), *identities, (np.eye(n), 0.0 - lift)]


def to_params(layers: Layers) -> Params:
    """The layers as a chain of float32 arrays, also inside of jit.

    >>> import numpy as np
    >>> to_params([(np.ones((2, 3)), np.zeros(3))])["layer_00"]["kernel"].shape
    (2, 3)
    """
    with jax.ensure_compile_time_eval():
        return {
            f"layer_{index:02d}": {
                # cast by numpy: JAX would compile a program for every shape
                "kernel": jnp.asarray(kernel.astype(np.float32)),
                "bias": jnp.asarray(bias.astype(np.float32)),
            }
            for index, (kernel, bias) in enumerate(layers)
        }
