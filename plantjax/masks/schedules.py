"""Density schedules of iterative and gradual pruning; each ends at exactly the final density."""

import chex
import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.types import Schedule


def exponential(density: chex.Numeric, step: chex.Numeric, steps: int) -> jax.Array:
    """density^(step / steps): every round prunes the same share of the remaining parameters.

    Args:
      density: the final density in (0, 1]; may be traced.
      step: the round, from 1 to steps; may be traced.
      steps: number of rounds.

    Returns:
      The density after the round, a float32 scalar.

    >>> [round(float(exponential(0.01, step, 2)), 3) for step in (1, 2)]
    [0.1, 0.01]
    """
    density, share = jnp.asarray(density, jnp.float32), _share(step, steps)
    return jnp.where(share >= 1.0, density, jnp.power(density, share))


def linear(density: chex.Numeric, step: chex.Numeric, steps: int) -> jax.Array:
    """1 - (1 - density) step / steps: every round prunes the same number; see `exponential`.

    >>> [round(float(linear(0.01, step, 2)), 3) for step in (1, 2)]
    [0.505, 0.01]
    """
    density, share = jnp.asarray(density, jnp.float32), _share(step, steps)
    return jnp.where(share >= 1.0, density, 1.0 - (1.0 - density) * share)


def cubic(density: chex.Numeric, step: chex.Numeric, steps: int) -> jax.Array:
    """1 - (1 - density) (1 - (1 - step / steps)^3): fast at first, then slower and slower.

    Source: Zhu and Gupta 2017, equation 1, https://arxiv.org/abs/1710.01878

    >>> [round(float(cubic(0.01, step, 2)), 3) for step in (1, 2)]
    [0.134, 0.01]
    """
    density, share = jnp.asarray(density, jnp.float32), _share(step, steps)
    left = (1.0 - share) * (1.0 - share) * (1.0 - share)
    return jnp.where(share >= 1.0, density, density + (1.0 - density) * left)


def one_shot(density: chex.Numeric, step: chex.Numeric, steps: int) -> jax.Array:
    """1 before the last step, and then the density; see `exponential`.

    >>> [round(float(one_shot(0.01, step, 2)), 3) for step in (1, 2)]
    [1.0, 0.01]
    """
    density, share = jnp.asarray(density, jnp.float32), _share(step, steps)
    return jnp.where(share >= 1.0, density, jnp.ones_like(density))


def get(schedule: str | Schedule) -> Schedule:
    """Looks up a schedule by name; a function is returned unchanged.

    Raises:
      ValueError: if the name is unknown.

    >>> float(get("linear")(0.5, 1, 2))
    0.75
    """
    if callable(schedule):
        return schedule
    checks.choice("schedule", schedule, SCHEDULES)
    return SCHEDULES[schedule]


def _share(step: chex.Numeric, steps: int) -> jax.Array:
    return jnp.asarray(step, jnp.float32) / steps


SCHEDULES: dict[str, Schedule] = checks.Names(
    {
        "exponential": exponential,
        "linear": linear,
        "cubic": cubic,
        "one_shot": one_shot,
    }
)
"""The registry of schedules."""
