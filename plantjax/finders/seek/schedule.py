"""The schedule of a search: a race of starts, in which ever fewer go on ever longer.

A race is a table of stages, so that one compiled stage serves all of them. A leg is a number of
stages with one start. All starts run a short one; the best third of them runs one of three times as
many stages, and so on (successive halving, by thirds). The best of all then runs cycles, each of
which swells above the budget and comes down to it again.

Source: Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943 (successive halving).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Plan(NamedTuple):
    """The static options of a race; `seek` explains them."""

    restarts: int
    sweeps: int
    rungs: int
    cycles: int
    cycle_sweeps: int


class Table(NamedTuple):
    """One row per stage [T].

    Attributes:
      load: rank of the start that begins a leg here, or -1 within a leg.
      rank: whether starts are ranked anew before that.
      store: whether a leg ends here.
      swell: budget of the stage in units of k.
      discount: factor of the price where a leg begins.
      noise: of choices among moves.
      high: slope of the cost above the budget.
      rate: largest relative change of the price.
      robust: 1 in all rungs but the last, where moves lower a robust loss, then 0.
    """

    load: jax.Array
    rank: jax.Array
    store: jax.Array
    swell: jax.Array
    discount: jax.Array
    noise: jax.Array
    high: jax.Array
    rate: jax.Array
    robust: jax.Array


KEPT = 3  # one of so many starts goes on, for so many times as many stages
HIGH, STEEP = 1.6, 2.5  # slope above the budget; the same at the end of cycles
RATE = 0.05
SWELL, DISCOUNT, SWOLLEN = 1.08, 0.9, 2  # budget and price of a cycle's first stages, and how many


def table(plan: Plan, noise: float) -> Table:
    """The table of a race.

    Args:
      plan: how many legs of how many stages.
      noise: of the first legs; later ones begin at two thirds of it, and all fall to a tenth of
        that.
    """
    rows: list[tuple[float, ...]] = []

    def leg(
        start: int, rank: bool, noises: np.ndarray, swollen: int, high: float, robust: bool
    ) -> None:
        for index, value in enumerate(noises):
            begins, high_up = index == 0, index < swollen
            rows.append(
                (
                    *(start if begins else -1, rank and begins, index == len(noises) - 1),
                    *(SWELL if high_up else 1.0, DISCOUNT if begins and swollen else 1.0),
                    *(value, HIGH if high_up else high, 0.0 if high_up else RATE, robust),
                )
            )

    for rung in range(plan.rungs):
        sweeps = plan.sweeps * KEPT**rung
        first, last = (noise / 1.5, noise / 12) if rung else (noise, noise / 6)
        for start in range(max(plan.restarts // KEPT**rung, 1)):
            robust = rung < plan.rungs - 1
            leg(start, start == 0, _falling(first, last, sweeps), 0, HIGH, robust)
    for _ in range(plan.cycles):
        falling = _falling(noise / 1.5, noise / 15, plan.cycle_sweeps)
        leg(0, True, np.append(np.full(SWOLLEN, noise / 1.5), falling), SWOLLEN, STEEP, False)
    columns = [np.asarray(column) for column in zip(*rows, strict=True)]
    kinds = (np.int32, bool, bool, *[np.float32] * 6)
    return Table(*[jnp.asarray(c, kind) for c, kind in zip(columns, kinds, strict=True)])


def _falling(first: float, last: float, n: int) -> np.ndarray:
    """A geometric row of n numbers from `first` to `last`; none if n is 0."""
    return first * (last / first) ** (np.arange(n) / max(n - 1, 1))
