"""Targets beyond the paper's: parity, a product, a random piecewise-linear function, a teacher.

All are exact except the product, whose squares are interpolated. Each has a minimal depth; deeper
versions have additional identity layers.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from plantjax import checks
from plantjax.targets.blocks import (
    ABSOLUTE,
    SPLIT,
    Block,
    Layers,
    abreast,
    passed_on,
    ridge,
    to_params,
    within,
)
from plantjax.types import Params

TEACHER_SPREAD = 1.0 / 3.0
"""Standard deviation of each output of a teacher over its inputs."""
_PROBES = 4096  # random inputs on which a teacher's activations are measured


def parity(depth: int, k: int = 2, d: int = 10) -> Params:
    """Whether an even (class 0) or odd number of the first k of d inputs is negative; no biases.

    It is exact for all inputs. Since (|a + b| - |a - b|) / 2 = sign(a b) min(|a|, |b|), four units
    multiply two signs, and a tree with ceil(log2 k) hidden layers multiplies k signs. The class
    scores are |a + b| and |a - b| at the root of the tree.

    Args:
      depth: layers of neurons, the input included, at least 2 + ceil(log2 k).
      k: number of inputs that count, at least 2.
      d: number of inputs, at least k.

    Returns:
      Params of depth - 1 layers, with 2 outputs.

    Raises:
      ValueError: if a number is too small.

    >>> import plantjax as pj
    >>> pj.nets.widths(pj.targets.parity(depth=4, k=4, d=10))
    (10, 8, 4, 2)
    """
    checks.integer("k", k, 2)
    checks.integer("d", d, k)
    checks.integer("depth", depth, 2 + (k - 1).bit_length())
    layers: Layers = []
    signals = np.eye(d)[:, :k]  # column s: the weights that read signal s from the layer before
    while signals.shape[1] > 1:
        kernel, reads = _multiplied(signals)
        layers.append((kernel, np.zeros(kernel.shape[1])))
        signals = reads
    classes = np.kron(np.eye(2), np.ones((2, 1)))
    layers.append((classes, np.zeros(2)))
    return to_params(passed_on(layers, depth, np.zeros(2)))


def product(depth: int, knots: int = 10) -> Params:
    """The product x1 x2 = ((x1 + x2)^2 - (x1 - x2)^2) / 4 by two interpolated squares.

    From depth 4 on the absolute values are squared. From depth 5 on these have a layer of their
    own, and identity layers follow it.

    Args:
      depth: layers of neurons, the input included, at least 3.
      knots: number N of knots of each square, on [-2, 2] at depth 3 and [0, 2] beyond; at least 3.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth or knots is below 3.

    >>> import plantjax as pj
    >>> pj.nets.widths(pj.targets.product(depth=5))
    (2, 4, 2, 18, 1)
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 3)
    low = -2.0 if depth == 3 else 0.0
    square = within(np.linspace(low, 2.0, knots)[:, None] ** 2, low, 2.0)
    layers: Layers = []
    read = np.array([[1.0, 1.0], [1.0, -1.0]])  # x1 + x2 and x1 - x2
    if depth > 3:
        layers.append((read @ SPLIT, np.zeros(4)))
        read = ABSOLUTE
    if depth > 4:
        layers += [(read, np.zeros(2)), *[(np.eye(2), np.zeros(2))] * (depth - 5)]
        read = np.eye(2)
    layers.append(abreast([square, square], read))
    outer = np.concatenate([square.outer, -square.outer]) / 4.0
    return to_params([*layers, (outer, np.zeros(1))])


def random_function(knots: int, seed: int) -> np.ndarray:
    """Values [knots] of the random piecewise-linear function at equally spaced knots on [-1, 1].

    >>> random_function(knots=3, seed=0).round(3).tolist()
    [0.274, -0.46, -0.918]
    """
    return np.random.default_rng(seed).uniform(-1.0, 1.0, knots)


def piecewise(depth: int, knots: int = 10, seed: int = 0) -> Params:
    """A piecewise-linear function of one input with values U(-1, 1) at its knots.

    Widths (1, knots - 1, 1), (1, 1, knots - 1, 1) or (1, 1, knots - 1, 1, ..., 1).

    Args:
      depth: layers of neurons, the input included, at least 3.
      knots: equally spaced on [-1, 1], both ends included, at least 2.
      seed: seed of the values, see `random_function`.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if a number is too small.

    >>> import plantjax as pj
    >>> pj.nets.widths(pj.targets.piecewise(depth=4))
    (1, 1, 9, 1)
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 2)
    checks.integer("seed", seed, 0)
    values = random_function(knots, seed)[:, None]

    def block(shift: float) -> Block:
        return within(values, -1.0 + shift, 1.0 + shift)

    return to_params(ridge(depth, np.ones((1, 1)), block, -1.0, np.ones(1)))


def teacher(
    depth: int, widths: Sequence[int] = (5, 10, 2), density: float = 0.4, seed: int = 0
) -> Params:
    """A random sparse network: normal weights, and biases that put every unit's kink to use.

    Every unit and every input has an edge, so a layer [I, O] keeps max(I, O, density I O) weights.
    A hidden unit becomes active at 20 to 60% of the range of its weighted sum. Outputs have no bias
    and a standard deviation of a third over uniform inputs.

    Args:
      depth: layers of neurons, the input included, at least len(widths); additional layers are
        identities.
      widths: (I, ..., O) of the teacher itself, at least three.
      density: density of the kernels, in (0, 1].
      seed: seed of the teacher.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if a number is out of range.

    >>> import plantjax as pj
    >>> pj.nets.widths(pj.targets.teacher(depth=4))
    (5, 10, 2, 2)
    """
    if len(widths) < 3:
        raise ValueError(f"widths must name at least three layers, got {tuple(widths)}.")
    for width in widths:
        checks.integer("widths", width, 1)
    checks.density(density)
    checks.integer("seed", seed, 0)
    checks.integer("depth", depth, len(widths))
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1.0, 1.0, (_PROBES, widths[0]))
    layers: Layers = []
    for n_in, n_out in pairwise(widths):
        kernel = np.where(_edges(rng, n_in, n_out, density), rng.normal(size=(n_in, n_out)), 0.0)
        kernel = kernel / np.std(values @ kernel, axis=0)
        least, most = (end(values @ kernel, axis=0) for end in (np.min, np.max))
        bias = -least - rng.uniform(0.2, 0.6, n_out) * (most - least)
        layers.append((kernel, bias))
        values = np.maximum(values @ kernel + bias, 0.0)
    layers[-1] = (TEACHER_SPREAD * layers[-1][0], np.zeros(widths[-1]))
    return to_params(passed_on(layers, depth, np.ceil(np.maximum(-_least(layers), 0.0))))


def _least(layers: Layers) -> np.ndarray:
    """A lower bound [O] of the outputs for inputs in [-1, 1], by interval arithmetic."""
    high = np.ones(layers[0][0].shape[0])
    low = least = -high
    for kernel, bias in layers:
        up, down = np.maximum(kernel, 0.0), np.minimum(kernel, 0.0)
        least = low @ up + high @ down + bias
        low, high = np.maximum(least, 0.0), np.maximum(high @ up + low @ down + bias, 0.0)
    return least


def _multiplied(signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One level of the tree that multiplies signs, as the kernel of a layer.

    Args:
      signals: [I, S]; column s holds the weights that read signal s from the layer's inputs.

    Returns:
      (kernel [I, U]; weights [U, ceil(S / 2)] that read the products from the layer's units).
    """
    pairs, odd = divmod(signals.shape[1], 2)
    four = np.array([[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, -1.0, 1.0]])
    kernel = signals[:, : 2 * pairs] @ np.kron(np.eye(pairs), four)
    reads = np.kron(np.eye(pairs), np.array([[0.5], [0.5], [-0.5], [-0.5]]))
    if odd:  # the last signal has no partner; its positive and negative part pass
        kernel = np.concatenate([kernel, signals[:, -1:], -signals[:, -1:]], axis=1)
        last = np.zeros((len(reads) + 2, pairs + 1))
        last[:-2, :-1], last[-2:, -1] = reads, (1.0, -1.0)
        reads = last
    return kernel, reads


def _edges(rng: np.random.Generator, rows: int, columns: int, density: float) -> np.ndarray:
    """Random edges, bool [rows, columns], with at least one in every row and column."""
    index = np.arange(max(rows, columns))
    kept = np.zeros((rows, columns), bool)
    kept[rng.permutation(rows)[index % rows], rng.permutation(columns)[index % columns]] = True
    free = np.flatnonzero(~kept)
    more = max(0, round(density * rows * columns) - len(index))
    kept.flat[rng.permutation(free)[:more]] = True
    return kept
