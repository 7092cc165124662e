"""A Circle target drawn anew for each mother: the rings stay, all else is random."""

import math

import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.targets.blocks import ABSOLUTE
from plantjax.targets.paper import CIRCLE_BOUNDARIES, mirrored_knots
from plantjax.targets.random_blocks import (
    JITTER,
    Knots,
    factors,
    knots_on,
    named,
    side_by_side,
    split_absolute,
)
from plantjax.types import Key, Params

MIRROR = 1.03
"""Largest factor of a mirror's angle; from 1 on the mirrors still fold all angles."""
BEYOND = (0.3, 1.7)
"""Range of factors of the changes of slope that no ring depends on."""


def random_circle(key: Key, depth: int, knots: int = 10) -> Params:
    """A Circle target with the same rings, in which all else is random.

    Widths as of `circle`. Random are: the knots and the signs of the units; order and signs of the
    coordinates; the slopes, by which two neighbouring class scores differ; from depth 6 on the
    angles of the mirrors; and an offset of every unit, which all classes share, so that it changes
    no prediction. Where |x| is so large that a point lies outside a ring, the scores on both sides
    of that ring differ by a random convex function instead of a multiple of x^2.

    Args:
      key: consumed.
      depth: layers of neurons, the input included, at least 3.
      knots: number N of knots of x^2 per coordinate, at least 2, from depth 6 on at least 3.

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if depth or knots is too small.

    >>> import jax, plantjax as pj
    >>> draw = lambda key: pj.targets.random_circle(key, depth=6)
    >>> pj.nets.widths(jax.eval_shape(draw, jax.random.key(0)))
    (2, 4, 2, 3, 20, 4)
    """
    checks.integer("depth", depth, 3)
    checks.integer("knots", knots, 2 if depth < 6 else 3)
    turn_key, angle_key, *knot_keys, score_key = jax.random.split(key, 5)
    turned = jax.random.permutation(turn_key, jnp.eye(2, dtype=jnp.float32))
    turned = turned * jax.random.rademacher(turn_key, (2,), jnp.float32)[None, :]
    if depth < 6:
        layers = split_absolute()[: depth - 3]
        read = jnp.asarray(ABSOLUTE, jnp.float32) if depth == 4 else jnp.eye(2, dtype=jnp.float32)
        low = -1.0 if depth == 3 else 0.0
        reach, counts = (jnp.ones((), jnp.float32), jnp.ones((), jnp.float32)), (knots, knots)
        steps = [(1.0 - low) / (knots - 1)] * 2
    else:
        low, (layers, read, reach, counts) = 0.0, _mirrors(angle_key, depth, knots)
        plain, *_ = mirrored_knots(math.pi / 2 ** (depth - 4), knots)
        steps = [end / (n - 1) for end, n in zip((math.sqrt(2.0), plain), counts, strict=True)]
    parts = [
        knots_on(part_key, low, high, count, jitter=JITTER / 2 if depth == 3 else JITTER)
        for part_key, high, count in zip(knot_keys, reach, counts, strict=True)
    ]
    layers = [*layers, *_rings(score_key, parts, steps, read)]
    kernel, bias = layers[0]
    return named([(jnp.matmul(turned, kernel, precision="highest"), bias), *layers[1:]])


def _mirrors(
    key: Key, depth: int, knots: int
) -> tuple[
    list[tuple[jax.Array, jax.Array]], jax.Array, tuple[jax.Array, jax.Array], tuple[int, int]
]:
    """The mirroring layers of Circle at random angles, slightly beyond half of what they fold.

    Returns:
      (layers, weights [3, 2] that read the point from the last one, and for each of its coordinates
      the end of its knots and their number).
    """
    layers = split_absolute()
    read, folded = jnp.eye(2, dtype=jnp.float32), depth - 5
    angle = jnp.full((), math.pi / 2, jnp.float32)
    for wider in jax.random.uniform(key, (folded,), minval=1.0, maxval=MIRROR, dtype=jnp.float32):
        angle = wider * angle / 2
        along = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        across = jnp.stack([jnp.sin(angle), -jnp.cos(angle)])
        axes = jnp.stack([along, across, -across], axis=1)
        layers.append((jnp.matmul(read, axes, precision="highest"), jnp.zeros(3, jnp.float32)))
        read = jnp.stack([along, across, across])
    _, n_along, n_across = mirrored_knots(math.pi / 2 ** (folded + 1), knots)
    reach = jnp.sin(angle) * math.sqrt(CIRCLE_BOUNDARIES[-1]) + 0.01
    last = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    return layers, last, (jnp.full((), math.sqrt(2.0), jnp.float32), reach), (n_along, n_across)


def _rings(
    key: Key, parts: list[Knots], even: list[float], read: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    """The last two layers of a random Circle: functions of the coordinates, and class scores.

    Score c + 1 exceeds score c by a positive multiple of h_c(x1) + h_c(x2) - b_c, where
    h_c(x) = x^2 for x^2 <= b_c, and h_c(x) >= b_c beyond, which is all that decides the class.
    `even` are the distances of even knots, whose mean error is kept.
    """
    slope_key, unit_key, bias_key, *free_keys = jax.random.split(key, 3 + len(parts))
    boundaries = jnp.array(CIRCLE_BOUNDARIES)
    steps = factors(slope_key, boundaries.size)  # of neighbouring scores
    outers, offset = [], -boundaries
    for free_key, knot, step in zip(free_keys, parts, even, strict=True):
        squares = knot.squares(step)
        changes = knot.changes(squares)
        beyond = knot.at[:-1, None] ** 2 >= boundaries[None, :]
        beyond = beyond & (knot.at[:-1, None] > 0.0)
        factor = jax.random.uniform(
            free_key, beyond.shape, minval=BEYOND[0], maxval=BEYOND[1], dtype=jnp.float32
        )
        outer = knot.outer(changes * jnp.where(beyond, factor, 1.0))
        offset = offset + knot.offset(outer, squares[0])
        outers.append(outer)
    sums = jnp.cumsum(jnp.concatenate(outers) * steps[None, :], axis=1)
    kernel = _with_common(unit_key, jnp.pad(sums, ((0, 0), (1, 0))))
    bias = _with_common(bias_key, jnp.pad(jnp.cumsum(offset * steps), (1, 0))[None, :])[0]
    return [side_by_side(parts, read), (kernel, bias)]


def _with_common(key: Key, rows: jax.Array) -> jax.Array:
    """Rows [N, O] with a new random mean each, as large as in a row of independent entries."""
    centred = rows - jnp.mean(rows, axis=1, keepdims=True)
    spread = jnp.sqrt(jnp.sum(jnp.square(centred), axis=1) / (rows.shape[1] - 1))
    mean = (
        spread / math.sqrt(rows.shape[1]) * jax.random.normal(key, spread.shape, dtype=jnp.float32)
    )
    return centred + mean[:, None]
