"""Building blocks of random targets: jittered knots, random factors, lifted identity layers.

All are written in JAX, so that they jit and vmap over keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plantjax.targets.blocks import ABSOLUTE, SPLIT
from plantjax.types import Key, Params

FALLING = 0.1
"""Share of units with a negative sign in squares. More of them would need a larger first weight."""
JITTER = 0.2
"""Largest shift of a knot, in distances between even knots."""
SLOPES = (0.5, 2.0)
"""Range of random factors, drawn uniformly on a logarithmic scale."""


class Knots(NamedTuple):
    """Knots of a piecewise-linear function, and the signs of its hidden units relu(p (x - s))."""

    at: jax.Array  # [N + 1], the last one beyond the units
    sign: jax.Array  # [N]

    def squares(self, step: float) -> jax.Array:
        """Values [N + 1, 1] near x^2 whose chords err on average as those of knots `step` apart.

        The chord of an interval g exceeds x^2 by g^2 / 6 on average.
        """
        excess = (jnp.square(jnp.diff(self.at)) - step**2) / 6.0
        ends = jnp.concatenate([excess[:1], (excess[1:] + excess[:-1]) / 2.0, excess[-1:]])
        return (jnp.square(self.at) - ends)[:, None]

    def changes(self, values: jax.Array) -> jax.Array:
        """Slopes [N, O] of the first piece, and changes of slope at the others, from values."""
        slopes = jnp.diff(values, axis=0) / jnp.diff(self.at)[:, None]
        return jnp.concatenate([slopes[:1], jnp.diff(slopes, axis=0)])

    def outer(self, changes: jax.Array) -> jax.Array:
        """Outer weights [N, O]: the first unit undoes the linear part of those with sign -1."""
        falling = jnp.sum(jnp.where(self.sign[:, None] < 0, changes, 0.0), axis=0)
        return changes.at[0].add(falling)

    def offset(self, outer: jax.Array, first: jax.Array) -> jax.Array:
        """Biases [O] of the sum, so that it has the value `first` [O] at the first knot."""
        hidden = jnp.maximum(self.sign * (self.at[0] - self.at[:-1]), 0.0)
        return first - jnp.einsum("n,no->o", hidden, outer, precision="highest")


def knots_on(
    key: Key,
    low: float,
    high: float | jax.Array,
    count: int,
    falling: float = FALLING,
    jitter: float = JITTER,
) -> Knots:
    """`count` knots on [low, high], jittered but for the first, and one beyond; random signs.

    Knots move by at most `jitter` times the distance of even ones.
    """
    shift_key, sign_key = jax.random.split(key)
    step = (high - low) / (count - 1)
    shift = jitter * jax.random.uniform(
        shift_key, (count,), minval=-1.0, maxval=1.0, dtype=jnp.float32
    )
    inner = jnp.arange(1, count, dtype=jnp.float32) + shift[1:]
    at = low + step * jnp.concatenate(
        [jnp.zeros(1, jnp.float32), inner, jnp.full(1, float(count), jnp.float32)]
    )
    negative = jax.random.bernoulli(sign_key, falling, (count,)).at[0].set(False)
    sign = jnp.where(negative, -1.0, 1.0)
    return Knots(at, sign)


def side_by_side(parts: list[Knots], read: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The hidden units of several functions in one layer; column i of `read` [I, parts] feeds i."""
    column = np.repeat(np.arange(len(parts)), [part.sign.size for part in parts])
    sign = jnp.concatenate([part.sign for part in parts])
    at = jnp.concatenate([part.at[:-1] for part in parts])
    return read[:, column] * sign[None, :], -sign * at


def split_absolute() -> list[tuple[jax.Array, jax.Array]]:
    """The layers that compute the absolute values of two coordinates."""
    return [
        (jnp.asarray(kernel, jnp.float32), jnp.zeros(n, jnp.float32))
        for kernel, n in ((SPLIT, 4), (ABSOLUTE, 2))
    ]


def factors(key: Key, count: int) -> jax.Array:
    """Random positive factors [count], see SLOPES."""
    least, most = np.log(SLOPES)
    return jnp.exp(
        jax.random.uniform(
            key, (count,), minval=float(least), maxval=float(most), dtype=jnp.float32
        )
    )


def lifted(
    key: Key, layers: list[tuple[jax.Array, jax.Array]], depth: int
) -> list[tuple[jax.Array, jax.Array]]:
    """Adds identity layers with random lifts U(1, 2) [O] until the network has the given depth."""
    missing = depth - 1 - len(layers)
    if missing == 0:
        return layers
    (*before, (kernel, bias)), n = layers, layers[-1][1].size
    lifts = jax.random.uniform(key, (missing, n), minval=1.0, maxval=2.0, dtype=jnp.float32)
    identities = [(jnp.eye(n, dtype=jnp.float32), lift) for lift in lifts[1:]]
    last = (jnp.eye(n, dtype=jnp.float32), -jnp.sum(lifts, axis=0))
    return [*before, (kernel, bias + lifts[0]), *identities, last]


def named(layers: list[tuple[jax.Array, jax.Array]]) -> Params:
    """The layers as a chain of float32 arrays."""
    return {
        f"layer_{index:02d}": {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "bias": jnp.asarray(bias, jnp.float32),
        }
        for index, (kernel, bias) in enumerate(layers)
    }
