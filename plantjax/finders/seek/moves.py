"""Moves: improves a mask unit by unit; predicts the effect of many flips, evaluates the best.

A visit to a unit considers every flip of one in-edge or bias, alone or together with a partner (a
swap, or an edge and its bias), and combines each with no flip or one flip of an out-edge. So edges
come and go, and a dead unit can get an edge in and an edge out in one move. A few matrix products
predict the effect of all moves on the loss (`predictions`). The best are evaluated exactly on some
of the samples, and the best of these on all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek import loss, predictions, subnetwork
from plantjax.finders.seek.loss import Aim, Goal
from plantjax.finders.seek.predictions import Around, Lines
from plantjax.finders.seek.subnetwork import Stack
from plantjax.types import Batch, Key

ROUNDS = 4  # moves per output and sweep


class Effort(NamedTuple):
    """How hard a visit searches: samples and moves of the first evaluation, moves of the second."""

    samples: int
    candidates: int
    finalists: int


class Terms(NamedTuple):
    """The objective of a move: log loss + price * (number of parameters)."""

    aim: Aim
    price: jax.Array


@dataclass(frozen=True)
class _Search:
    """Values that all visits of one sweep share."""

    goal: Goal
    batch: Batch
    terms: Terms
    effort: Effort

    def log_loss(self, outputs: jax.Array, samples: int | None) -> jax.Array:
        """The log loss of outputs [samples, O] on the first samples, or on all if None."""
        return self.goal.log_loss(outputs, self.batch.y[:samples], self.terms.aim)

    def best(self, first: jax.Array, evaluate: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """The index of the best move: the finalists by `first` are evaluated on all samples.

        Args:
          first: objective of every move on some samples; move 0, to change nothing, is always a
            finalist.
          evaluate: `(indices) -> objective` on all samples.
        """
        first = first.at[0].set(-jnp.inf)
        _, finalists = jax.lax.top_k(-first, min(self.effort.finalists, first.size))
        return finalists[jnp.argmin(evaluate(finalists))]


def visit_all(
    key: Key, goal: Goal, weights: Stack, kept: Stack, batch: Batch, terms: Terms, effort: Effort
) -> tuple[Stack, jax.Array]:
    """Visits all units, from the first layer to the outputs, and fits the scale of the logits.

    Args:
      key: consumed.
      goal: the loss to minimise.
      weights: of the small network.
      kept: its mask.
      batch: N samples.
      terms: the objective of moves.
      effort: how hard to search.

    Returns:
      (a live mask, log scale).
    """
    search = _Search(goal, batch, terms, effort)
    last = len(weights) - 1
    for layer in range(last):
        layer_key = jax.random.fold_in(key, layer)
        hidden = _inputs(weights, kept, batch.x, layer)
        kept = _visit_layer(layer_key, search, weights, kept, layer, hidden)
        kept = subnetwork.live(weights, kept)
    hidden = _inputs(weights, kept, batch.x, last)
    layer_key = jax.random.fold_in(key, last)
    ends = _visit_outputs(layer_key, search, weights[-1], kept[-1], hidden)
    kept = subnetwork.live(weights, (*kept[:-1], ends))
    return kept, loss.fit_scale(goal, run(weights, kept, batch.x), batch.y, terms.aim)


def run(weights: Stack, kept: Stack, x: jax.Array) -> jax.Array:
    """Outputs [N, O] of the masked network."""
    first, *rest = subnetwork.masked(weights, kept)
    return subnetwork.through(tuple(rest), subnetwork.matmul(subnetwork.with_one(x), first))


def _inputs(weights: Stack, kept: Stack, x: jax.Array, layer: int) -> jax.Array:
    """Inputs of a layer of the masked network, [N, I]."""
    for part in subnetwork.masked(weights[:layer], kept[:layer]):
        x = jax.nn.relu(subnetwork.matmul(subnetwork.with_one(x), part))
    return x


class _State(NamedTuple):
    kept_in: jax.Array  # [I + 1, U]
    kept_out: jax.Array  # [U + 1, K]
    following: jax.Array  # [N, K] pre-activations of the next layer


def _visit_layer(
    key: Key, search: _Search, weights: Stack, kept: Stack, layer: int, hidden: jax.Array
) -> Stack:
    """Visits every unit of a hidden layer with inputs `hidden` [N, I] once, in random order."""
    order_key, step_key = jax.random.split(key)
    width = weights[layer].shape[1]
    fed = subnetwork.with_one(hidden)
    rest = subnetwork.masked(weights[layer + 2 :], kept[layer + 2 :])
    weights_in, weights_out = weights[layer], weights[layer + 1]
    first, second = subnetwork.masked(weights[layer : layer + 2], kept[layer : layer + 2])
    following = subnetwork.through((second,), subnetwork.matmul(fed, first))

    def visit(state: _State, item: tuple[jax.Array, Key]) -> tuple[_State, None]:
        unit, visit_key = item
        lines = Lines(
            weights_in[:, unit], weights_out[unit], state.kept_in[:, unit], state.kept_out[unit]
        )
        around = Around(state.following, rest, search.batch.y)
        lines, following = _visit_unit(visit_key, search, lines, fed, around)
        kept_in = state.kept_in.at[:, unit].set(lines.kept_in)
        kept_out = state.kept_out.at[unit].set(lines.kept_out)
        return _State(kept_in, kept_out, following), None

    order = jax.random.permutation(order_key, width)
    state = _State(kept[layer], kept[layer + 1], following)
    state, _ = jax.lax.scan(visit, state, (order, jax.random.split(step_key, width)))
    return (*kept[:layer], state.kept_in, state.kept_out, *kept[layer + 2 :])


def _visit_outputs(
    key: Key, search: _Search, weights: jax.Array, kept: jax.Array, hidden: jax.Array
) -> jax.Array:
    """Makes the best flip of edges and bias of the output layer, for one output at a time."""
    effort, price = search.effort, search.terms.price
    fed = subnetwork.with_one(hidden)
    outputs = subnetwork.matmul(fed, jnp.where(kept, weights, 0.0))
    n_in, n_out = weights.shape

    def visit(
        state: tuple[jax.Array, jax.Array], item: tuple[jax.Array, Key]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        kept, outputs = state
        out, partner_key = item
        column, mask = weights[:, out], kept[:, out]
        flips = predictions.flips(n_in, predictions.random_kept(partner_key, mask))  # [C, I + 1]
        masks = mask[None, :] ^ flips
        changes = jnp.where(flips, jnp.where(mask, -column, column)[None, :], 0.0)

        def evaluate(chosen: jax.Array, samples: int | None) -> jax.Array:
            def value(move: jax.Array) -> jax.Array:
                return search.log_loss(outputs[:samples].at[:, out].add(move), samples)

            moves = subnetwork.matmul(fed[:samples], changes[chosen].T)
            return jax.vmap(value, 1)(moves) + price * predictions.sizes(masks[chosen])

        first = evaluate(jnp.arange(flips.shape[0]), effort.samples)
        best = search.best(first, lambda chosen: evaluate(chosen, None))
        outputs = outputs.at[:, out].add(subnetwork.matmul(fed, changes[best][:, None])[:, 0])
        return (kept.at[:, out].set(masks[best]), outputs), None

    order = jnp.tile(jnp.arange(n_out), ROUNDS)
    (kept, _), _ = jax.lax.scan(
        visit, (kept, outputs), (order, jax.random.split(key, ROUNDS * n_out))
    )
    return kept


def _visit_unit(
    key: Key, search: _Search, unit: Lines, fed: jax.Array, around: Around
) -> tuple[Lines, jax.Array]:
    """Makes the best move at one unit, or none if no move is an improvement.

    Args:
      key: consumed.
      search: shared by all visits.
      unit: the unit.
      fed: inputs of its layer, and a column of ones [N, I + 1].
      around: the network after it.

    Returns:
      (the changed unit, pre-activations of the next layer [N, K]).
    """
    n, price = search.effort.samples, search.terms.price
    following, rest, y = around
    partner = predictions.partner(key, unit.kept_in)
    flips = predictions.flips(unit.kept_in.shape[0], partner)  # [C, I + 1]
    masks_in = unit.kept_in[None, :] ^ flips
    n_out = unit.kept_out.shape[0]
    masks_out = unit.kept_out[None, :] ^ jnp.eye(n_out + 1, n_out, -1, dtype=bool)  # first: none
    before = jax.nn.relu(
        subnetwork.matmul(fed, jnp.where(unit.kept_in, unit.weights_in, 0.0)[:, None])
    )
    after = jax.nn.relu(
        subnetwork.matmul(fed[:n], jnp.where(masks_in, unit.weights_in[None, :], 0.0).T)
    )  # [n, C]
    goal, aim = search.goal, search.terms.aim
    predicted = predictions.predict(
        goal, aim, unit, before[:n], after, Around(following[:n], rest, y[:n])
    )
    sizes = predictions.sizes(masks_in)[:, None] + predictions.sizes(masks_out)[None, :]
    dead = ~(jnp.any(masks_in, 1)[:, None] & jnp.any(masks_out, 1)[None, :])
    sizes = jnp.where(dead, 0.0, sizes)
    promise = (predicted + price * sizes).at[0, 0].set(-jnp.inf)  # always consider no move
    _, chosen = jax.lax.top_k(-jnp.ravel(promise), min(search.effort.candidates, promise.size))

    def outcome(move: jax.Array, samples: int | None) -> jax.Array:
        """Pre-activations of the next layer after a move."""
        mask_in, mask_out = masks_in[move // (n_out + 1)], masks_out[move % (n_out + 1)]
        line = jnp.where(mask_in, unit.weights_in, 0.0)[:, None]
        new = jax.nn.relu(subnetwork.matmul(fed[:samples], line))
        old = before[:samples] * jnp.where(unit.kept_out, unit.weights_out, 0.0)[None, :]
        return following[:samples] - old + new * jnp.where(mask_out, unit.weights_out, 0.0)[None, :]

    def evaluate(moves: jax.Array, samples: int | None) -> jax.Array:
        def value(move: jax.Array) -> jax.Array:
            return search.log_loss(subnetwork.through(rest, outcome(move, samples)), samples)

        return jax.vmap(value)(moves) + price * jnp.ravel(sizes)[moves]

    first = evaluate(chosen, n)
    move = chosen[search.best(first, lambda indices: evaluate(chosen[indices], None))]
    alive = ~jnp.ravel(dead)[move]
    kept_in = masks_in[move // (n_out + 1)] & alive
    kept_out = masks_out[move % (n_out + 1)] & alive
    return unit._replace(kept_in=kept_in, kept_out=kept_out), outcome(move, None)
