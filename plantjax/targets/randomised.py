"""Targets drawn anew for each mother: random members of the families of the paper's targets.

The plain targets have regularities that give them away without any data: even knots, class scores
that are multiples of each other. Here knots, signs and slopes are random wherever the task does not
fix them. All functions are written in JAX, so that they jit and vmap over keys; the number of
nonzero parameters in every array is the same for all keys.
"""

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.targets.blocks import ABSOLUTE, SPLIT
from plantjax.targets.paper import helix_curve
from plantjax.targets.random_blocks import factors, knots_on, lifted, named, side_by_side
from plantjax.types import Key, Params


def random_relu(key: Key, depth: int) -> Params:
    """The target max(x, 0) with a random lift U(1, 2) in every identity layer.

    Widths (1, ..., 1). A lift is a bias that is added to a value that passes, so that no layer but
    the first two is a bare identity; the last layer subtracts the sum of the lifts. At depth 3
    there is nothing to draw.

    Args:
      key: consumed.
      depth: layers of neurons, the input included, at least 3.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth is below 3.

    >>> import jax, plantjax as pj
    >>> target = pj.targets.random_relu(jax.random.key(0), depth=5)
    >>> pj.nets.apply(target, jax.numpy.array([[-1.0], [0.5]])).round(5).tolist()
    [[0.0], [0.5]]
    """
    checks.integer("depth", depth, 3)
    layers = [(jnp.ones((1, 1), jnp.float32), jnp.zeros(1, jnp.float32))]
    return named(
        lifted(key, [*layers, (jnp.ones((1, 1), jnp.float32), jnp.zeros(1, jnp.float32))], depth)
    )


def random_helix(key: Key, depth: int, knots: int = 30) -> Params:
    """A Helix target with jittered knots, random signs, a mirrored input, and random lifts.

    Widths as of `helix`. Between its knots the curve is interpolated linearly.

    Args:
      key: consumed.
      depth: layers of neurons, the input included, at least 3.
      knots: knots of the curve, at least 2.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth is below 3 or knots below 2.

    >>> import jax, plantjax as pj
    >>> draw = lambda key: pj.targets.random_helix(key, depth=5)
    >>> pj.nets.widths(jax.eval_shape(draw, jax.random.key(0)))
    (1, 1, 30, 3, 3)
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 2)
    knot_key, side_key, lift_key = jax.random.split(key, 3)
    side = jax.random.rademacher(side_key, (1,), jnp.float32)  # the units see side * x
    shift = 0.0 if depth == 3 else 1.0
    knot = knots_on(knot_key, -1.0, 1.0, knots, falling=0.5)
    curve = helix_curve(side * knot.at)
    changes = knot.changes(curve).at[1:, 2].set(0.0)  # the third coordinate is linear
    outer = knot.outer(changes)
    last = (outer, knot.offset(outer, curve[0]))
    bias = -knot.sign * (knot.at[:-1] + shift)
    if depth == 3:
        return named([((side * knot.sign)[None, :], bias), last])
    first = (side[:, None], jnp.ones(1, jnp.float32))
    return named(lifted(lift_key, [first, (knot.sign[None, :], bias), last], depth))


def random_xor(key: Key, depth: int, d: int = 10) -> Params:
    """Whether one or both of the first two of d inputs are negative, by sums with random weights.

    Widths as of `parity`. |a x + b y| exceeds |a x - b y| where x y is positive, for all positive
    a and b.

    Args:
      key: consumed.
      depth: layers of neurons, the input included, at least 3.
      d: number of inputs, at least 2.

    Returns:
      Params of depth - 1 layers, with 2 outputs.

    Raises:
      ValueError: if a number is too small.

    >>> import jax, plantjax as pj
    >>> pj.nets.widths(pj.targets.random_xor(jax.random.key(0), depth=4))
    (10, 4, 2, 2)
    """
    checks.integer("depth", depth, 3)
    checks.integer("d", d, 2)
    four = jnp.array([[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, -1.0, 1.0]])
    kernel = jnp.zeros((d, 4), jnp.float32).at[:2].set(factors(key, 2)[:, None] * four)
    classes = jnp.asarray(ABSOLUTE, jnp.float32)
    identities = [(jnp.eye(2, dtype=jnp.float32), jnp.zeros(2, jnp.float32))] * (depth - 3)
    return named(
        [(kernel, jnp.zeros(4, jnp.float32)), (classes, jnp.zeros(2, jnp.float32)), *identities]
    )


def random_product(key: Key, depth: int, knots: int = 10) -> Params:
    """The product of two inputs by two squares, each interpolated between jittered knots.

    Widths as of `product`, but at depth 3 all units are used.

    Args:
      key: consumed.
      depth: layers of neurons, the input included, at least 3.
      knots: number N of knots of each square, on [-2, 2] at depth 3 and [0, 2] beyond; at least 3.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth or knots is below 3.

    >>> import jax, plantjax as pj
    >>> draw = lambda key: pj.targets.random_product(key, depth=5)
    >>> pj.nets.widths(jax.eval_shape(draw, jax.random.key(0)))
    (2, 4, 2, 18, 1)
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 3)
    low = -2.0 if depth == 3 else 0.0
    last = 2.0 - (2.0 - low) / (knots - 1)
    parts = [knots_on(part_key, low, last, knots - 1) for part_key in jax.random.split(key)]
    squares = [knot.squares((2.0 - low) / (knots - 1)) for knot in parts]
    outers = [
        sign * knot.outer(knot.changes(square)) / 4.0
        for sign, knot, square in zip((1.0, -1.0), parts, squares, strict=True)
    ]
    offset = jnp.zeros(1, jnp.float32)
    for sign, knot, outer, square in zip((1.0, -1.0), parts, outers, squares, strict=True):
        offset = offset + knot.offset(outer, sign * square[0] / 4.0)
    read = np.array([[1.0, 1.0], [1.0, -1.0]])
    layers: list[tuple[jax.Array, jax.Array]] = []
    if depth > 3:
        layers.append((jnp.asarray(read @ SPLIT, jnp.float32), jnp.zeros(4, jnp.float32)))
        read = ABSOLUTE
    if depth > 4:
        layers.append((jnp.asarray(read, jnp.float32), jnp.zeros(2, jnp.float32)))
        layers += [(jnp.eye(2, dtype=jnp.float32), jnp.zeros(2, jnp.float32))] * (depth - 5)
        read = np.eye(2)
    hidden = side_by_side(parts, jnp.asarray(read, jnp.float32))
    return named([*layers, hidden, (jnp.concatenate(outers), offset)])
