"""Seek: our search for strong tickets, by discrete moves at a price per parameter.

Concrete ticket search finds sparse starts (`starts`); moves, evaluated exactly (`moves`),
improve each in a small network of its live units and of dead ones to try (`subnetwork`), at a price
that leads the number of live parameters to the budget (`prices`). Only the mask changes.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, masks, nets
from plantjax.finders import common
from plantjax.finders.concrete_ticket import concrete_ticket
from plantjax.finders.seek import loss, prices, starts, subnetwork
from plantjax.finders.seek.moves import Effort
from plantjax.finders.seek.prices import Plan
from plantjax.finders.seek.subnetwork import Stack
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Task


class Defaults(NamedTuple):
    """What `seek` takes for a metric unless told otherwise."""

    sweeps: int
    restarts: int
    units: int
    sweep_samples: int


DEFAULTS = {"accuracy": Defaults(30, 8, 32, 2048), "mse": Defaults(60, 2, 64, 1024)}
"""By measurement, see SEEKER.md; about a minute of one core in mothers of depth 5, width 100."""


def seek(
    task: Task,
    *,
    apply: Apply = nets.apply,
    sweeps: int | None = None,
    restarts: int | None = None,
    units: int | None = None,
    sweep_samples: int | None = None,
    first_samples: int = 512,
    candidates: int = 16,
    finalists: int = 3,
    swell: float = 1.0,
    power: float = 0.0,
    search_epochs: int = 40,
    widen: float = 1.25,
    batch_size: int = 64,
) -> Finder:
    """Searches strong tickets by discrete moves; keeps live parameters only, at most k.

    A move flips edges and biases of one unit. Of all moves of a visit the one with the lowest
    log loss + price * (live parameters) is made, if it gains; from sweep to sweep the price rises
    where more than k are left, and falls where fewer are. Starts are concrete tickets.

    Args:
      task: gives the goal: the scale-free squared error, or a scale-free loss of probabilities.
      apply: `(params, x) -> outputs` of the concrete starts; the moves need a chain of dense layers
        with ReLU, whatever `apply` is.
      sweeps: visits to all units of the small network, per restart; by default 30 for
        classification, 60 for regression.
      restarts: whole searches, each from a concrete ticket with a key of its own; by default 8 for
        classification, 2 for regression, whose sweeps take longer.
      units: the most live units per hidden layer; by default 32 for classification, 64 for
        regression.
      sweep_samples: training samples of a sweep, drawn anew for each; all, if there are fewer; by
        default 2048 for classification, 1024 for regression.
      first_samples: those of them on which candidates are first evaluated.
      candidates: moves per visit that are evaluated, of all whose effect is predicted.
      finalists: the best of them, evaluated on all samples of the sweep.
      swell: the live count is led to k swell first, and then down to k.
      power: exponent q in [0, 1] of the loss of probabilities that the moves lower, see `loss`: 0
        is cross entropy, 1 the expected error. The best mask is chosen by the error itself.
      search_epochs: of every concrete ticket search.
      widen: its density is min(1, widen density).
      batch_size: its samples per step.

    Returns:
      A Finder. `Found.info` holds, after each sweep [restarts sweeps], "errors" on the training
      data (share of wrong labels, or MSE after the factors), "live", the number of parameters, and
      "prices", the log loss that one parameter has to be worth; and "error" of the mask.

    Raises:
      ValueError: if a number is out of range; the finder itself, if params is no chain.

    Source: ours; SEEKER.md has what it finds, and what was tried.
    """
    usual = DEFAULTS[task.metric]
    sweeps = usual.sweeps if sweeps is None else sweeps
    restarts = usual.restarts if restarts is None else restarts
    units = usual.units if units is None else units
    sweep_samples = usual.sweep_samples if sweep_samples is None else sweep_samples
    least = {
        "sweeps": (sweeps, 1),
        "restarts": (restarts, 1),
        "units": (units, 1),
        "sweep_samples": (sweep_samples, 1),
        "first_samples": (first_samples, 1),
        "candidates": (candidates, 2),
        "finalists": (finalists, 2),
    }
    for name, (value, minimum) in least.items():
        checks.integer(name, value, minimum)
    checks.interval("swell", swell, 1.0, 100.0)
    checks.interval("power", power, 0.0, 1.0)
    checks.positive("widen", widen)
    effort = Effort(first_samples, candidates, finalists)
    plan = Plan(sweeps, restarts, units, sweep_samples, effort, swell, power)
    beginner = concrete_ticket(
        task, apply=apply, search_epochs=search_epochs, batch_size=batch_size
    )

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density)
        nets.layers(params)
        start_key, path_key, sweep_key = jax.random.split(key, 3)
        weights = _unit_scale(subnetwork.stack(params))
        goal = loss.goal_of(task)
        k = masks.number_kept(density, masks.size(params))
        wide = jnp.minimum(jnp.asarray(density, jnp.float32) * widen, 1.0)

        def begin(key: Key) -> Stack:
            return starts.learned(key, beginner, params, weights, data, wide, units)

        begun = jax.lax.map(begin, jax.random.split(start_key, restarts))
        safe = starts.safe(path_key, goal, weights, data, k, loss.verdict())
        best, told = prices.descend(sweep_key, goal, weights, data, k, begun, safe, plan)
        mask = dict(zip(sorted(params), subnetwork.unstack(best).values(), strict=True))
        return Found(mask, params, told)

    return Finder(search, "global", exact_counts=False)


def _unit_scale(weights: Stack) -> Stack:
    """Kernels of unit size in every layer; outputs change by one factor."""
    scaled, total = [], jnp.float32(1.0)
    for layer in weights:
        size = jnp.sqrt(jnp.mean(jnp.square(layer[:-1])))
        factor = 1.0 / checks.divisor(size)
        total = total * factor
        scaled.append(jnp.concatenate([layer[:-1] * factor, layer[-1:] * total], axis=0))
    return tuple(scaled)
