"""A race of starts down to the budget, in one scan over the stages of a schedule."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from plantjax.finders.seek import sampling, schedule, stage, subnetwork
from plantjax.finders.seek.loss import Goal
from plantjax.finders.seek.schedule import Table
from plantjax.finders.seek.stage import Effort, Point, Step
from plantjax.finders.seek.subnetwork import Chain, Kept
from plantjax.types import Batch, Key, Metrics

Tree = TypeVar("Tree")


class _Runner(NamedTuple):
    """A point, and by what it is ranked: its log error, and the cost of what is above the budget.

    So a start that is nearly down to the budget is not lost.
    """

    point: Point
    value: jax.Array


class _State(NamedTuple):
    pool: _Runner  # [restarts, ...], the best of every start
    order: jax.Array  # int [restarts], starts by their error
    place: jax.Array  # int, the start that runs
    now: Point
    best: _Runner  # of this leg
    answer: Kept  # the best mask within the budget
    error: jax.Array  # its log error


def run(
    key: Key,
    goal: Goal,
    chain: Chain,
    data: Batch,
    k: jax.Array,
    begun: Kept,
    safe: Kept,
    table: Table,
    effort: Effort,
) -> tuple[Kept, Metrics]:
    """Runs all stages, and returns the best mask within the budget.

    Args:
      key: consumed.
      goal: what to lower.
      chain: the mother.
      data: training samples.
      k: int32, the budget.
      begun: live masks to start from, [restarts, ...].
      safe: a mask within the budget, the answer if no better one is found.
      table: the schedule.
      effort: how hard to search.

    Returns:
      (the mask; info: after each stage [T] "errors" on all data, "live" counts and "prices" of one
      parameter, and the "error" of the mask).
    """
    wanted = k.astype(jnp.float32)

    def body(state: _State, item: tuple[jax.Array, Table]) -> tuple[_State, Metrics]:
        index, row = item
        state = _begin(state, row)
        step = Step(wanted * row.swell, row.noise, row.high, row.rate, row.robust)
        now, value = stage.run(
            jax.random.fold_in(key, index), goal, chain, data, state.now, step, effort
        )
        size = subnetwork.count(now.kept)
        excess = jnp.maximum(size - k, 0).astype(jnp.float32) / wanted
        runner = _Runner(now, value + schedule.HIGH * now.price * excess)
        best = _choose(runner.value < state.best.value, runner, state.best)
        better = (size <= k) & (value < state.error)
        state = state._replace(
            now=now,
            best=best,
            answer=_choose(better, now.kept, state.answer),
            error=jnp.where(better, value, state.error),
        )
        stored = jax.tree.map(lambda a, b: a.at[state.place].set(b), state.pool, best)
        told = {"errors": jnp.exp(value), "live": size, "prices": now.price / wanted}
        return state._replace(pool=_choose(row.store, stored, state.pool)), told

    def entry(kept: Kept) -> _Runner:
        return _Runner(stage.start(goal, chain, data, kept, effort), jnp.float32(jnp.inf))

    pool = jax.lax.map(entry, begun)
    first = _at(pool, jnp.int32(0))
    order = jnp.arange(pool.value.shape[0], dtype=jnp.int32)
    error = goal.log_error(stage.outputs(chain, safe, data, effort), sampling.whole(data))
    state = _State(pool, order, jnp.int32(0), first.point, first, safe, error)
    stages = jnp.arange(table.load.shape[0], dtype=jnp.int32)
    state, told = jax.lax.scan(body, state, (stages, table))
    return state.answer, told | {"error": jnp.exp(state.error)}


def _begin(state: _State, row: Table) -> _State:
    """Loads the start of a given rank where a leg begins."""
    order = jnp.where(row.rank, jnp.argsort(state.pool.value).astype(jnp.int32), state.order)
    begins = row.load >= 0
    place = jnp.where(begins, order[jnp.maximum(row.load, 0)], state.place)
    loaded = _at(state.pool, place)
    now = loaded.point._replace(price=loaded.point.price * row.discount)
    return state._replace(
        order=order,
        place=place,
        now=_choose(begins, now, state.now),
        best=_choose(begins, loaded, state.best),
    )


def _at(runners: _Runner, place: jax.Array) -> _Runner:
    return jax.tree.map(lambda leaf: leaf[place], runners)


def _choose(condition: jax.Array, yes: Tree, no: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
