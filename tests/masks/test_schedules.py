"""Schedules of the density over rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax.masks import schedules
from plantjax.masks.schedules import SCHEDULES


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_schedules_fall_and_end_exactly_at_the_density(name: str, steps: int) -> None:
    densities = jnp.array([1e-4, 0.0062189056, 0.1, 0.7, 1.0])
    rounds = jnp.arange(1, steps + 1)
    schedule = jax.vmap(jax.vmap(SCHEDULES[name], (None, 0, None)), (0, None, None))
    values = np.asarray(jax.jit(schedule, static_argnums=2)(densities, rounds, steps))
    np.testing.assert_array_equal(values[:, -1], densities)
    assert (np.diff(values, axis=1) <= 0).all()
    assert (values <= 1).all()


def test_schedules_follow_their_formulas() -> None:
    np.testing.assert_allclose(SCHEDULES["exponential"](0.01, 3, 10), 0.01**0.3, rtol=1e-6)
    np.testing.assert_allclose(SCHEDULES["linear"](0.01, 3, 10), 1 - 0.99 * 0.3, rtol=1e-6)
    np.testing.assert_allclose(SCHEDULES["cubic"](0.01, 3, 10), 0.01 + 0.99 * 0.7**3, rtol=1e-6)
    assert [float(SCHEDULES["one_shot"](0.5, step, 3)) for step in (1, 2, 3)] == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_by_name(name: str) -> None:
    assert schedules.get(name) is SCHEDULES[name]


def test_a_schedule_of_ones_own_is_taken_as_it_is() -> None:
    def halves(density: float, step: int, steps: int) -> jax.Array:
        return jnp.float32(density) if step == steps else jnp.float32(0.5)

    assert schedules.get(halves) is halves


@pytest.mark.parametrize("name", ["quadratic", "", None, 0.5])
def test_unknown_schedules_are_refused(name: object) -> None:
    with pytest.raises(
        ValueError, match="schedule must be one of exponential, linear, cubic, one_shot, got "
    ):
        schedules.get(name)
