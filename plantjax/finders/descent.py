"""Descent to a budget: sweeps of moves at a price that makes the live count follow its target.

The target first lies above the budget, so that structure can grow, and then sinks to it: parameters
go where they are least missed, and others take over from them.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from plantjax.finders import compact, refine
from plantjax.finders.compact import Stack
from plantjax.finders.goals import Aim, Goal
from plantjax.finders.refine import Effort, Terms
from plantjax.types import Batch, Key, Metrics

LOWEST_PRICE, HIGHEST_PRICE = 0.01, 8.0  # of all k parameters together, in units of log loss
FIRST_SCALE = 0.5  # log scale of the logits

Tree = TypeVar("Tree")


class Plan(NamedTuple):
    """The static numbers of a descent, see `seek`."""

    sweeps: int
    starts: int
    start_sweeps: int
    units: int
    sweep_samples: int
    effort: Effort
    swell: float
    power: float


class _Point(NamedTuple):
    """Where a search stands: a live mask, its size, the logits' log scale, the price of all k."""

    kept: Stack
    size: jax.Array
    log_scale: jax.Array
    price: jax.Array


class _State(NamedTuple):
    point: _Point
    champion: _Point  # the best start so far
    rating: jax.Array  # of the champion
    best: Stack  # the best mask within the budget
    value: jax.Array  # its log loss


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
    """Sweeps from every start, then many more from where the best of them got.

    Args:
      key: consumed.
      goal: what to lower.
      weights: the mother.
      data: training samples.
      k: int32, the budget.
      begun: live masks to start from, [starts, ...].
      safe: a mask within the budget, kept if nothing better is found.
      plan: how long and how hard.

    Returns:
      (the best mask within the budget; after each sweep "losses" on all data, "live" counts and
      "prices" [starts start_sweeps + sweeps]; "loss", that of the mask).
    """
    trial = plan.starts * plan.start_sweeps
    wanted = k.astype(jnp.float32)

    def body(state: _State, index: jax.Array) -> tuple[_State, Metrics]:
        fresh = (index < trial) & (index % plan.start_sweeps == 0)
        number = jnp.minimum(index // plan.start_sweeps, plan.starts - 1)
        start = _point(tuple(layer[number] for layer in begun))
        point = _choose(fresh, start, state.point)
        point = _choose(index == trial, state.champion, point)
        done = jnp.maximum(index + 1 - trial, 0) / plan.sweeps  # of the second part
        target = _target(wanted, plan.swell, done)
        power = plan.power * jnp.clip(2.0 * done, 0.0, 1.0)
        point, value = _sweep(
            jax.random.fold_in(key, index), goal, weights, data, point, target, wanted, power, plan
        )
        rating = value + point.size.astype(jnp.float32) / wanted
        wins = (index < trial) & ((index + 1) % plan.start_sweeps == 0) & (rating < state.rating)
        better = (point.size <= k) & (value < state.value)
        told = {"losses": jnp.exp(value), "live": point.size, "prices": point.price / wanted}
        state = _State(
            point,
            _choose(wins, point, state.champion),
            jnp.where(wins, rating, state.rating),
            _choose(better, point.kept, state.best),
            jnp.where(better, value, state.value),
        )
        return state, told

    aim = Aim(jnp.float32(FIRST_SCALE), jnp.float32(plan.power))
    value = goal.log_loss(refine.run(weights, safe, data.x), data.y, aim)
    first = _point(tuple(layer[0] for layer in begun))
    state = _State(first, first, jnp.float32(jnp.inf), safe, value)
    state, told = jax.lax.scan(body, state, jnp.arange(trial + plan.sweeps))
    return state.best, told | {"loss": jnp.exp(state.value)}


def _target(wanted: jax.Array, swell: float, done: jax.Array) -> jax.Array:
    """Live parameters wanted: k swell in the first third, then falling, in the last a bit below k.

    A count steered to k itself would lie above it half of the time.
    """
    return 0.98 * wanted * swell ** jnp.clip(2.0 - 3.0 * done, 0.0, 1.0)


def _point(kept: Stack) -> _Point:
    return _Point(kept, compact.count(kept), jnp.float32(FIRST_SCALE), jnp.float32(1.0))


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
    power: jax.Array,
    plan: Plan,
) -> tuple[_Point, jax.Array]:
    """One sweep with fresh samples and slots, and the log loss of its end on all samples."""
    part_key, slot_key, move_key = jax.random.split(key, 3)
    samples = min(plan.sweep_samples, data.x.shape[0])
    chosen = jax.random.choice(part_key, data.x.shape[0], (samples,), replace=False)
    batch = jax.tree.map(lambda a: a[chosen], data)
    places = compact.slots(slot_key, point.kept, plan.units)
    small, kept = compact.gather(weights, places), compact.gather(point.kept, places)
    terms = Terms(Aim(point.log_scale, power), point.price / wanted)
    effort = plan.effort._replace(samples=min(plan.effort.samples, samples))
    kept, log_scale = refine.sweep(move_key, goal, small, kept, batch, terms, effort)
    aim = Aim(log_scale, jnp.float32(plan.power))
    value = goal.log_loss(refine.run(small, kept, data.x), data.y, aim)
    size = compact.count(kept)
    price = _next_price(point, size.astype(jnp.float32), target)
    return _Point(compact.scatter(kept, point.kept, places), size, log_scale, price), value


def _next_price(point: _Point, size: jax.Array, target: jax.Array) -> jax.Array:
    """Raises the price where more is live than wanted, unless it is on its way there already."""
    size = jnp.maximum(size, 1.0)
    excess = jnp.log(size / target)
    trend = jnp.log(size / jnp.maximum(point.size, 1).astype(jnp.float32))
    step = jnp.clip(0.5 * excess + 1.0 * trend, -0.15, 0.15)
    return jnp.clip(point.price * jnp.exp(step), LOWEST_PRICE, HIGHEST_PRICE)
