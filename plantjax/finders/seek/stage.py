"""One stage of a search: importance samples, redesign of units, moves of edges, the next price."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax import draws
from plantjax.finders.seek import edges, loss, price, sampling, subnetwork, units
from plantjax.finders.seek.loss import Aim, Goal
from plantjax.finders.seek.price import Terms
from plantjax.finders.seek.search import Search
from plantjax.finders.seek.subnetwork import Chain, Kept, Slots
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

    kept: Kept
    log_scale: jax.Array
    price: jax.Array


class Step(NamedTuple):
    """What a stage is told, all traced.

    Attributes:
      budget: number of parameters, float, to which the count is steered.
      noise: of choices among moves.
      high: slope of the cost above the budget.
      rate: largest relative change of the price.
      robust: 1 if moves lower the robust loss of `Effort`, 0 if they lower the cross entropy.
    """

    budget: jax.Array
    noise: jax.Array
    high: jax.Array
    rate: jax.Array
    robust: jax.Array


LOW = 0.6  # slope of the cost below the budget


def start(goal: Goal, chain: Chain, data: Batch, kept: Kept, effort: Effort) -> Point:
    """The point where a search from a mask begins."""
    log_scale = loss.first_scale(goal, outputs(chain, kept, data, effort), sampling.whole(data))
    return Point(kept, log_scale, jnp.float32(effort.price))


def few(k: jax.Array, effort: Effort) -> jax.Array:
    """Whether k parameters are so few that their units fit into `units` slots per layer."""
    return k <= 14 * effort.units


def run(
    key: Key, goal: Goal, chain: Chain, data: Batch, point: Point, step: Step, effort: Effort
) -> tuple[Point, jax.Array]:
    """One stage.

    Args:
      key: consumed.
      goal: what to lower.
      chain: the mother.
      data: N training samples.
      point: where the search is.
      step: what the stage is told.
      effort: how hard to search.

    Returns:
      (the next point, the log error of its mask on all samples).
    """
    sample_key, move_key = jax.random.split(key)
    aim = Aim(point.log_scale + step.robust * effort.sharpen, step.robust * effort.power)
    before = outputs(chain, point.kept, data, effort)
    n = min(effort.sweep_samples, data.x.shape[0])
    search = Search(
        goal,
        sampling.draw(sample_key, data, goal.chances(before, data.y, aim), n),
        Terms(aim, point.price / step.budget, step.budget, jnp.float32(LOW), step.high, step.noise),
        min(effort.first_samples, n),
        effort.finalists,
    )
    kept = _move(move_key, search, chain, point.kept, effort)
    after, everything = outputs(chain, kept, data, effort), sampling.whole(data)
    log_scale = loss.fit_scale(goal, after, everything, point.log_scale)
    size = subnetwork.count(kept).astype(jnp.float32)
    steered = price.steered(point.price, size, step.budget, step.rate)
    return Point(kept, log_scale, steered), goal.log_error(after, everything)


def _move(key: Key, search: Search, chain: Chain, kept: Kept, effort: Effort) -> Kept:
    """Redesigns units and moves edges; if the budget is large, only edges, of more units.

    Loops of one or no step, so that a batch of which no cell needs one of them does not run it.
    """
    unit_key, slot_key, edge_key = jax.random.split(key, 3)
    noise = draws.uniform(slot_key, [subnetwork.hidden(chain.widths)] * 2)

    def edge_moves(kept: Kept, units: int) -> Kept:
        slots = subnetwork.slots(noise[0], kept, chain.widths, units)
        slots = _shuffled(noise[1], slots, chain.widths)
        small, small_kept = subnetwork.small(chain, slots), subnetwork.gather(kept, slots, chain)
        small_kept = edges.sweep(edge_key, search, small, small_kept, effort.candidates)
        return subnetwork.scatter(small_kept, slots, chain)

    def in_few(_: jax.Array, kept: Kept) -> Kept:
        kept = units.sweep(unit_key, search, chain, kept, effort.redesign)
        return edge_moves(kept, effort.units)

    def in_many(_: jax.Array, kept: Kept) -> Kept:
        return edge_moves(kept, effort.wide_units)

    steps = few(search.terms.budget, effort).astype(jnp.int32)
    kept = jax.lax.fori_loop(0, steps, in_few, kept)
    return jax.lax.fori_loop(0, 1 - steps, in_many, kept)


def _shuffled(noise: jax.Array, slots: Slots, widths: tuple[int, ...]) -> Slots:
    """The slots of every layer in random order, padding last."""
    size = slots.shape[1]
    rank = jnp.where(subnetwork.hidden(widths)[:, :size], noise[:, :size], 1.0)
    return jnp.take_along_axis(slots, jnp.argsort(rank, axis=1), axis=1)


def outputs(chain: Chain, kept: Kept, data: Batch, effort: Effort) -> jax.Array:
    """Outputs [N, O] of a mask, whose live units fit into the slots."""
    most = max(effort.units, effort.wide_units)
    noise = jnp.zeros(subnetwork.hidden(chain.widths).shape, jnp.float32)
    slots = subnetwork.slots(noise, kept, chain.widths, most)
    small = subnetwork.small(chain, slots)
    return subnetwork.run(small, subnetwork.gather(kept, slots, chain), data.x)
