"""Moves of single edges: a sweep visits all units of a small network, and flips what gains most.

A visit to a unit considers every flip of one in-edge or bias, alone or together with a partner (a
swap, or an edge and its bias), and combines each with no flip or one flip of an out-edge. So edges
come and go, and a dead unit can get an edge in and an edge out in one move. A few matrix products
predict the effect of all moves on the loss (`predictions`). The best are evaluated exactly on some
of the samples, and the best of these on all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek import linear, predictions, subnetwork
from plantjax.finders.seek.predictions import Lines
from plantjax.finders.seek.search import Search
from plantjax.finders.seek.subnetwork import Stack, matmul
from plantjax.types import Key

ROUNDS = 4  # moves per output and sweep


def sweep(key: Key, search: Search, weights: Stack, kept: Stack, candidates: int) -> Stack:
    """Visits all units of a small network, layer by layer, from the first to the outputs.

    Args:
      key: consumed.
      search: the goal, its samples, and what moves are judged by.
      weights: of the small network.
      kept: its mask.
      candidates: number of moves per visit that are evaluated.

    Returns:
      A live mask.
    """
    last = len(weights) - 1
    for layer in range(last):
        layer_key = jax.random.fold_in(key, layer)
        fed = subnetwork.with_one(subnetwork.inputs(weights, kept, search.sample.x, layer))
        kept = _visit_layer(layer_key, search, weights, kept, layer, fed, candidates)
        kept = subnetwork.live(weights, kept)
    fed = subnetwork.with_one(subnetwork.inputs(weights, kept, search.sample.x, last))
    ends = _visit_outputs(jax.random.fold_in(key, last), search, weights[-1], kept, fed)
    return subnetwork.live(weights, (*kept[:-1], ends))


class _State(NamedTuple):
    kept_in: jax.Array  # [I + 1, U]
    kept_out: jax.Array  # [U + 1, K]
    following: jax.Array  # [N, K] pre-activations of the next layer


def _visit_layer(
    key: Key,
    search: Search,
    weights: Stack,
    kept: Stack,
    layer: int,
    fed: jax.Array,
    candidates: int,
) -> Stack:
    """Visits all units of a hidden layer with inputs `fed` [N, I + 1], in random order."""
    order_key, step_key = jax.random.split(key)
    rest = subnetwork.masked(weights[layer + 2 :], kept[layer + 2 :])
    weights_in, weights_out = weights[layer], weights[layer + 1]
    first, second = subnetwork.masked(weights[layer : layer + 2], kept[layer : layer + 2])
    elsewhere = subnetwork.count((*kept[:layer], *kept[layer + 2 :]))

    def visit(state: _State, item: tuple[jax.Array, Key]) -> tuple[_State, None]:
        unit, visit_key = item
        lines = Lines(
            weights_in[:, unit], weights_out[unit], state.kept_in[:, unit], state.kept_out[unit]
        )
        others = elsewhere + subnetwork.count((state.kept_in, state.kept_out))
        others = others - subnetwork.count((lines.kept_in, lines.kept_out))
        lines, following = _visit_unit(
            visit_key, search, lines, fed, state.following, rest, others, candidates
        )
        kept_in = state.kept_in.at[:, unit].set(lines.kept_in)
        kept_out = state.kept_out.at[unit].set(lines.kept_out)
        return _State(kept_in, kept_out, following), None

    order = jax.random.permutation(order_key, weights_in.shape[1])
    state = _State(kept[layer], kept[layer + 1], subnetwork.through((second,), matmul(fed, first)))
    state, _ = jax.lax.scan(visit, state, (order, jax.random.split(step_key, order.shape[0])))
    return (*kept[:layer], state.kept_in, state.kept_out, *kept[layer + 2 :])


def _visit_unit(
    key: Key,
    search: Search,
    unit: Lines,
    fed: jax.Array,
    following: jax.Array,
    rest: Stack,
    others: jax.Array,
    candidates: int,
) -> tuple[Lines, jax.Array]:
    """Makes the best move at one unit, or none if no move is an improvement.

    Args:
      key: consumed.
      search: shared by all visits.
      unit: the unit.
      fed: inputs of its layer, and a column of ones [N, I + 1].
      following: pre-activations of the next layer [N, K].
      rest: the layers after it.
      others: number of live parameters without this unit.
      candidates: number of moves to evaluate.

    Returns:
      (the changed unit, pre-activations of the next layer [N, K]).
    """
    partner_key, noise_key = jax.random.split(key)
    n, terms = search.first_samples, search.terms
    flips = predictions.flips(
        unit.kept_in.shape[0], predictions.partner(partner_key, unit.kept_in)
    )  # [C, I + 1]
    masks_in = unit.kept_in[None, :] ^ flips
    n_out = unit.kept_out.shape[0]
    masks_out = unit.kept_out[None, :] ^ jnp.eye(n_out + 1, n_out, -1, dtype=bool)  # first: none
    old_in = jnp.where(unit.kept_in, unit.weights_in, 0.0)
    before = jax.nn.relu(matmul(fed, old_in[:, None]))
    after = jax.nn.relu(matmul(fed[:n], jnp.where(masks_in, unit.weights_in[None, :], 0.0).T))
    model = linear.model(search.goal, terms.aim, following[:n], rest, search.first)
    predicted = predictions.predict(model, unit, before[:n], after)
    sizes = predictions.sizes(masks_in)[:, None] + predictions.sizes(masks_out)[None, :]
    dead = ~(jnp.any(masks_in, 1)[:, None] & jnp.any(masks_out, 1)[None, :])
    totals = others.astype(jnp.float32) + jnp.where(dead, 0.0, sizes)
    promise = (predicted + search.cost(totals)).at[0, 0].set(-jnp.inf)  # always consider no move
    _, chosen = jax.lax.top_k(-jnp.ravel(promise), min(candidates, promise.size))

    def outcome(move: jax.Array, samples: int | None) -> jax.Array:
        """Pre-activations of the next layer after a move."""
        mask_in, mask_out = masks_in[move // (n_out + 1)], masks_out[move % (n_out + 1)]
        new = jax.nn.relu(matmul(fed[:samples], jnp.where(mask_in, unit.weights_in, 0.0)[:, None]))
        old = before[:samples] * jnp.where(unit.kept_out, unit.weights_out, 0.0)[None, :]
        return following[:samples] - old + new * jnp.where(mask_out, unit.weights_out, 0.0)[None, :]

    def outputs_of(move: jax.Array, samples: int | None) -> jax.Array:
        return subnetwork.through(rest, outcome(move, samples))

    move = chosen[search.best(noise_key, outputs_of, chosen, jnp.ravel(totals)[chosen])]
    alive = ~jnp.ravel(dead)[move]
    kept_in = masks_in[move // (n_out + 1)] & alive
    kept_out = masks_out[move % (n_out + 1)] & alive
    return unit._replace(kept_in=kept_in, kept_out=kept_out), outcome(move, None)


def _visit_outputs(
    key: Key, search: Search, weights: jax.Array, kept: Stack, fed: jax.Array
) -> jax.Array:
    """Makes the best flip of edges and bias of the output layer, for one output at a time."""
    n_in, n_out = weights.shape
    below = subnetwork.count(kept[:-1])

    def visit(
        state: tuple[jax.Array, jax.Array], item: tuple[jax.Array, Key]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        ends, outputs = state
        out, visit_key = item
        partner_key, noise_key = jax.random.split(visit_key)
        column, mask = weights[:, out], ends[:, out]
        flips = predictions.flips(n_in, predictions.random_kept(partner_key, mask))  # [C, I + 1]
        masks = mask[None, :] ^ flips
        changes = jnp.where(flips, jnp.where(mask, -column, column)[None, :], 0.0)
        others = below + subnetwork.count((ends,)) - subnetwork.count((mask,))

        def outputs_of(move: jax.Array, samples: int | None) -> jax.Array:
            change = matmul(fed[:samples], changes[move][:, None])[:, 0]
            return outputs[:samples].at[:, out].add(change)

        totals = others.astype(jnp.float32) + predictions.sizes(masks)
        best = search.best(
            noise_key, outputs_of, jnp.arange(flips.shape[0], dtype=jnp.int32), totals
        )
        return (ends.at[:, out].set(masks[best]), outputs_of(best, None)), None

    outputs = matmul(fed, jnp.where(kept[-1], weights, 0.0))
    order = jnp.tile(jnp.arange(n_out, dtype=jnp.int32), ROUNDS)
    (ends, _), _ = jax.lax.scan(
        visit, (kept[-1], outputs), (order, jax.random.split(key, ROUNDS * n_out))
    )
    return ends
