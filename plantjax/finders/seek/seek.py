"""Seek: our search for strong tickets, by discrete moves at a price per parameter.

Concrete ticket search provides sparse starts (`starts`). Each start becomes a small network of its
live units and some dead ones (`subnetwork`), which moves improve (`moves`); every chosen move is
evaluated exactly. A price per parameter leads the live count to the budget (`prices`). Only the
mask changes.
"""

from dataclasses import dataclass
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
from plantjax.nets.chains import with_layers
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Task


class Defaults(NamedTuple):
    """Default options of `seek` for one metric."""

    sweeps: int
    restarts: int
    units: int
    sweep_samples: int


DEFAULTS = {"accuracy": Defaults(30, 8, 32, 2048), "mse": Defaults(60, 2, 64, 1024)}
"""Chosen by measurement, see SEEKER.md; about a minute of one core at depth 5 and width 100."""


@common.on_floats
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

    A move flips edges and biases of one unit. A visit to a unit makes the move with the lowest
    log loss + price * (live parameters), if that is an improvement. From sweep to sweep the price
    rises while more than k parameters are left, and falls while fewer are. Every restart begins
    with a concrete ticket.

    Args:
      task: defines the loss: the scale-free squared error, or a scale-free loss of probabilities.
      apply: `(params, x) -> outputs`, used by concrete ticket search. The moves need a chain of
        dense layers with ReLU, whatever `apply` is.
      sweeps: number of sweeps per restart; a sweep visits all units of the small network. By
        default 30 for classification, 60 for regression.
      restarts: number of whole searches, each with a concrete ticket and a key of its own; by
        default 8 for classification, 2 for regression, whose sweeps take longer.
      units: largest number of units per hidden layer of the small network; by default 32 for
        classification, 64 for regression.
      sweep_samples: number of training samples per sweep, drawn anew for each, at most all; by
        default 2048 for classification, 1024 for regression.
      first_samples: number of these samples on which candidates are evaluated first.
      candidates: number of moves per visit that are evaluated; they have the best predictions.
      finalists: number of candidates that are then evaluated on all samples of the sweep.
      swell: the live count is first led to k swell, and then down to k.
      power: exponent q in [0, 1] of the loss of probabilities for moves, see `loss`: 0 is cross
        entropy, 1 the expected error. The best mask is chosen by the error itself.
      search_epochs: number of epochs of each concrete ticket search.
      widen: the density of concrete tickets is min(1, widen density).
      batch_size: samples per step of concrete ticket search.

    Returns:
      A Finder. `Found.info` holds, after each sweep [restarts sweeps], "errors" on the training
      data (share of wrong labels, or MSE after rescaling), "live", the number of live parameters,
      and "prices", the log loss that a parameter has to be worth; and "error", that of the mask.

    Raises:
      ValueError: if a number is out of range; in a search, if params is not a chain.

    Source: ours; SEEKER.md reports its results, and what else was tried.
    """
    usual = DEFAULTS[task.metric]
    plan = Plan(
        sweeps=usual.sweeps if sweeps is None else sweeps,
        restarts=usual.restarts if restarts is None else restarts,
        units=usual.units if units is None else units,
        sweep_samples=usual.sweep_samples if sweep_samples is None else sweep_samples,
        effort=Effort(first_samples, candidates, finalists),
        swell=swell,
        power=power,
    )
    _check(plan)
    checks.positive("widen", widen)
    beginner = concrete_ticket(
        task, apply=apply, search_epochs=search_epochs, batch_size=batch_size
    )
    return Finder(_Seek(task, plan, beginner, widen), "global", exact_counts=False)


def _check(plan: Plan) -> None:
    """Raises ValueError if an option is out of range."""
    for name in ("sweeps", "restarts", "units", "sweep_samples"):
        checks.integer(name, getattr(plan, name), 1)
    checks.integer("first_samples", plan.effort.samples, 1)
    checks.integer("candidates", plan.effort.candidates, 2)
    checks.integer("finalists", plan.effort.finalists, 2)
    checks.interval("swell", plan.swell, 1.0, 100.0)
    checks.interval("power", plan.power, 0.0, 1.0)


@dataclass(frozen=True)
class _Seek:
    """The search of `seek`."""

    task: Task
    plan: Plan
    beginner: Finder
    widen: float

    def __call__(self, key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(self.task, params, data, density)
        nets.layers(params)
        start_key, path_key, sweep_key = jax.random.split(key, 3)
        weights = _unit_scale(subnetwork.stack(params))
        goal = loss.goal_of(self.task)
        k = masks.number_kept(density, masks.size(params))
        wide = jnp.minimum(jnp.asarray(density, jnp.float32) * self.widen, 1.0)

        def begin(key: Key) -> Stack:
            units = self.plan.units
            return starts.learned(key, self.beginner, params, weights, data, wide, units)

        begun = jax.lax.map(begin, jax.random.split(start_key, self.plan.restarts))
        safe = starts.safe(path_key, goal, weights, data, k, loss.verdict())
        best, told = prices.descend(sweep_key, goal, weights, data, k, begun, safe, self.plan)
        mask = with_layers(params, nets.layers(subnetwork.unstack(best)))
        return Found(mask, params, told)


def _unit_scale(weights: Stack) -> Stack:
    """Scales every kernel to unit size, and biases with them; outputs change by one factor."""
    scaled, total = [], jnp.float32(1.0)
    for layer in weights:
        size = jnp.sqrt(jnp.mean(jnp.square(layer[:-1])))
        factor = 1.0 / checks.divisor(size)
        total = total * factor
        scaled.append(jnp.concatenate([layer[:-1] * factor, layer[-1:] * total], axis=0))
    return tuple(scaled)
