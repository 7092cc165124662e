"""Density schedules of iterative pruning; every one ends at exactly the final density."""

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


SCHEDULES: dict[str, Schedule] = {"exponential": exponential, "linear": linear}
"""The registry of schedules."""
