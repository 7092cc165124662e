"""One stage of a search: importance samples, redesign of units, moves of edges, the next price."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek import edges, loss, price, sampling, subnetwork, units
from plantjax.finders.seek.loss import Aim, Goal
from plantjax.finders.seek.price import Terms
from plantjax.finders.seek.search import Search
from plantjax.finders.seek.subnetwork import Stack
from plantjax.types import Batch, Key


class Effort(NamedTuple):
    """How hard a stage searches; static options of `seek`, which explains them."""

    units: int
    wide_units: int
    sweep_samples: int
    first_samples: int
    candidates: int
    finalists: int
    sharpen: float
    power: float
    price: float
    redesign: units.Options


class Point(NamedTuple):
    """A place of a search: a live mask, the log scale of its logits, the price of all k."""

    kept: Stack
    log_scale: jax.Array
    price: jax.Array


class Step(NamedTuple):
    """What a stage is told, all traced.

    Attributes:
      budget: number of parameters, float, to which the count is steered.
      noise: of choices among moves.
      high: slope of the cost above the budget.
      rate: largest relative change of the price.
    """

    budget: jax.Array
    noise: jax.Array
    high: jax.Array
    rate: jax.Array


LOW = 0.6  # slope of the cost below the budget


def start(goal: Goal, weights: Stack, data: Batch, kept: Stack, price: float) -> Point:
    """The point where a search from a mask begins."""
    outputs = subnetwork.run(weights, kept, data.x)
    log_scale = loss.first_scale(goal, outputs, sampling.whole(data))
    return Point(kept, log_scale, jnp.float32(price))


def few(k: jax.Array, effort: Effort) -> jax.Array:
    """Whether k parameters are so few that their units fit into `units` slots per layer."""
    return k <= 14 * effort.units


def run(
    key: Key, goal: Goal, weights: Stack, data: Batch, point: Point, step: Step, effort: Effort
) -> tuple[Point, jax.Array]:
    """One stage.

    Args:
      key: consumed.
      goal: what to lower.
      weights: the mother.
      data: N training samples.
      point: where the search is.
      step: what the stage is told.
      effort: how hard to search.

    Returns:
      (the next point, the log error of its mask on all samples).
    """
    sample_key, move_key, slot_key = jax.random.split(key, 3)
    aim = Aim(point.log_scale + effort.sharpen, jnp.float32(effort.power))
    outputs = _outputs(slot_key, weights, point.kept, data, effort)
    n = min(effort.sweep_samples, data.x.shape[0])
    search = Search(
        goal,
        sampling.draw(sample_key, data, goal.chances(outputs, data.y, aim), n),
        Terms(aim, point.price / step.budget, step.budget, jnp.float32(LOW), step.high, step.noise),
        min(effort.first_samples, n),
        effort.finalists,
    )
    kept = _move(move_key, search, weights, point.kept, effort)
    outputs, everything = _outputs(slot_key, weights, kept, data, effort), sampling.whole(data)
    log_scale = loss.fit_scale(goal, outputs, everything, point.log_scale)
    size = subnetwork.count(kept).astype(jnp.float32)
    steered = price.steered(point.price, size, step.budget, step.rate)
    return Point(kept, log_scale, steered), goal.log_error(outputs, everything)


def _move(key: Key, search: Search, weights: Stack, kept: Stack, effort: Effort) -> Stack:
    """Redesigns units and moves edges; if the budget is large, only edges, of more units."""
    unit_key, slot_key, edge_key = jax.random.split(key, 3)

    def edge_moves(kept: Stack, slots: int) -> Stack:
        places = subnetwork.slots(slot_key, kept, slots)
        small, small_kept = subnetwork.gather(weights, places), subnetwork.gather(kept, places)
        small_kept = edges.sweep(edge_key, search, small, small_kept, effort.candidates)
        return subnetwork.scatter(small_kept, kept, places)

    def in_few(kept: Stack) -> Stack:
        kept = units.sweep(unit_key, search, weights, kept, effort.redesign)
        return edge_moves(kept, effort.units)

    def in_many(kept: Stack) -> Stack:
        return edge_moves(kept, effort.wide_units)

    return jax.lax.cond(few(search.terms.budget, effort), in_few, in_many, kept)


def _outputs(key: Key, weights: Stack, kept: Stack, data: Batch, effort: Effort) -> jax.Array:
    """Outputs [N, O] of a mask, whose live units fit into the slots."""
    places = subnetwork.slots(key, kept, max(effort.units, effort.wide_units))
    return subnetwork.run(
        subnetwork.gather(weights, places), subnetwork.gather(kept, places), data.x
    )
