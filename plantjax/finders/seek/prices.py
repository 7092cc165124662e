"""Descent to a budget: sweeps of moves at a price that steers the live count to a target.

The target may start above the budget, so that structure can grow, and then falls to the budget. The
least important parameters go first, and the others adapt.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from plantjax.finders.seek import loss, moves, subnetwork
from plantjax.finders.seek.loss import Aim, Goal
from plantjax.finders.seek.moves import Effort, Terms
from plantjax.finders.seek.subnetwork import Stack
from plantjax.types import Batch, Key, Metrics

LOWEST_PRICE, HIGHEST_PRICE = 0.01, 25.0  # price of all k parameters together, in log loss

Tree = TypeVar("Tree")


class Plan(NamedTuple):
    """The static options of a descent, see `seek`."""

    sweeps: int
    restarts: int
    units: int
    sweep_samples: int
    effort: Effort
    swell: float
    power: float


class _Point(NamedTuple):
    """State of one restart: a live mask, its size, the log scale of logits, the price of all k."""

    kept: Stack
    size: jax.Array
    log_scale: jax.Array
    price: jax.Array


class _State(NamedTuple):
    point: _Point
    best: Stack  # the best mask within the budget
    value: jax.Array  # the log of its error


def descend(
    key: Key,
    goal: Goal,
    weights: Stack,
    data: Batch,
    k: jax.Array,
    begun: Stack,
    safe: Stack,
    plan: Plan,
) -> tuple[Stack, Metrics]:
    """Sweeps from every start down to the budget, and returns the best mask of all.

    Args:
      key: consumed.
      goal: the loss to minimise.
      weights: the mother.
      data: training samples.
      k: int32, the budget.
      begun: live masks to start from, [restarts, ...].
      safe: a mask within the budget, used if no better one is found.
      plan: how long and how hard to search.

    Returns:
      (the best mask within the budget; info: after each sweep "errors" on all data, "live" counts
      and "prices" [restarts sweeps], and the "error" of the mask).
    """
    wanted = k.astype(jnp.float32)

    def body(state: _State, index: jax.Array) -> tuple[_State, Metrics]:
        start = jax.tree.map(lambda a: a[index // plan.sweeps], starts)
        point = _choose(index % plan.sweeps == 0, start, state.point)
        done = (index % plan.sweeps + 1) / plan.sweeps
        target = _target(wanted, plan.swell, done)
        point, value = _sweep(
            jax.random.fold_in(key, index), goal, weights, data, point, target, wanted, plan
        )
        better = (point.size <= k) & (value < state.value)
        told = {"errors": jnp.exp(value), "live": point.size, "prices": point.price / wanted}
        best = _choose(better, point.kept, state.best)
        return _State(point, best, jnp.where(better, value, state.value)), told

    value = goal.log_loss(moves.run(weights, safe, data.x), data.y, loss.verdict())
    starts = jax.lax.map(lambda kept: _start(goal, weights, data, kept, plan.power), begun)
    state = _State(jax.tree.map(lambda a: a[0], starts), safe, value)
    state, told = jax.lax.scan(body, state, jnp.arange(plan.restarts * plan.sweeps))
    return state.best, told | {"error": jnp.exp(state.value)}


def _target(wanted: jax.Array, swell: float, done: jax.Array) -> jax.Array:
    """Target of the live count: 0.98 k swell in the first third, falling to 0.98 k in the second.

    It is below k, because a count that is steered to k itself exceeds it half of the time.
    """
    return 0.98 * wanted * swell ** jnp.clip(2.0 - 3.0 * done, 0.0, 1.0)


def _start(goal: Goal, weights: Stack, data: Batch, kept: Stack, power: float) -> _Point:
    aim = Aim(jnp.float32(0.0), jnp.float32(power))
    log_scale = loss.first_scale(goal, moves.run(weights, kept, data.x), data.y, aim)
    return _Point(kept, subnetwork.count(kept), log_scale, jnp.float32(1.0))


def _choose(condition: jax.Array, yes: Tree, no: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _sweep(
    key: Key,
    goal: Goal,
    weights: Stack,
    data: Batch,
    point: _Point,
    target: jax.Array,
    wanted: jax.Array,
    plan: Plan,
) -> tuple[_Point, jax.Array]:
    """One sweep with fresh samples and slots; returns the log error on all samples as well."""
    part_key, slot_key, move_key = jax.random.split(key, 3)
    samples = min(plan.sweep_samples, data.x.shape[0])
    chosen = jax.random.choice(part_key, data.x.shape[0], (samples,), replace=False)
    batch = jax.tree.map(lambda a: a[chosen], data)
    places = subnetwork.slots(slot_key, point.kept, plan.units)
    small, kept = subnetwork.gather(weights, places), subnetwork.gather(point.kept, places)
    terms = Terms(Aim(point.log_scale, jnp.float32(plan.power)), point.price / wanted)
    effort = plan.effort._replace(samples=min(plan.effort.samples, samples))
    kept, log_scale = moves.visit_all(move_key, goal, small, kept, batch, terms, effort)
    value = goal.log_loss(moves.run(small, kept, data.x), data.y, loss.verdict())
    size = subnetwork.count(kept)
    price = _next_price(point, size.astype(jnp.float32), target)
    return _Point(subnetwork.scatter(kept, point.kept, places), size, log_scale, price), value


def _next_price(point: _Point, size: jax.Array, target: jax.Array) -> jax.Array:
    """The price rises with the excess of the live count over its target, and with its trend."""
    size = jnp.maximum(size, 1.0)
    excess = jnp.log(size / target)
    trend = jnp.log(size / jnp.maximum(point.size, 1).astype(jnp.float32))
    step = jnp.clip(0.5 * excess + 1.0 * trend, -0.15, 0.15)
    return jnp.clip(point.price * jnp.exp(step), LOWEST_PRICE, HIGHEST_PRICE)
