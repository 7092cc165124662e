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

from plantjax import draws
from plantjax.finders.seek import linear, predictions, subnetwork
from plantjax.finders.seek.linear import Rest
from plantjax.finders.seek.predictions import Lines
from plantjax.finders.seek.search import Search
from plantjax.finders.seek.subnetwork import Chain, Kept, matmul
from plantjax.types import Key

ROUNDS = 4  # moves per output and sweep


class _Noise(NamedTuple):
    """Random numbers in (0, 1) of one visit, drawn for all visits at once."""

    coin: jax.Array  # [], for the bias as partner
    pick: jax.Array  # [R], for another partner
    choice: jax.Array  # [finalists]


class _State(NamedTuple):
    kept_in: jax.Array  # [R, C], a unit per column
    kept_out: jax.Array  # [R, C], a unit per row
    following: jax.Array  # [N, C] pre-activations of the next layer


class _Layer(NamedTuple):
    """What all visits of a hidden layer share.

    Attributes:
      fed: inputs of the layer, and a column of ones [N, R].
      rest: the layers after the next.
      elsewhere: number of live parameters in other layers.
    """

    fed: jax.Array
    rest: Rest
    elsewhere: jax.Array


def sweep(key: Key, search: Search, chain: Chain, kept: Kept, candidates: int) -> Kept:
    """Visits all units of a small network, layer by layer, from the first to the outputs.

    Args:
      key: consumed.
      search: the goal, its samples, and what moves are judged by.
      chain: the small network. Units are visited in their order.
      kept: its mask.
      candidates: number of moves per visit that are evaluated.

    Returns:
      A live mask.
    """
    n_hidden, n_out = len(chain.widths) - 2, chain.widths[-1]
    shape, size = (n_hidden, max(chain.widths[1:-1], default=0)), chain.weights.shape[1]
    inner, outer = draws.uniform(
        key, (_empty(shape, size, search), _empty((ROUNDS, n_out), size, search))
    )

    def visit(kept: Kept, item: tuple[jax.Array, _Noise]) -> tuple[Kept, None]:
        return _visit_layer(*item, search, chain, kept, candidates), None

    if n_hidden:
        layers = jnp.arange(n_hidden, dtype=jnp.int32)
        kept, _ = jax.lax.scan(visit, kept, (layers, inner))
    return subnetwork.live(chain, _visit_outputs(outer, search, chain, kept))


def _empty(shape: tuple[int, ...], size: int, search: Search) -> _Noise:
    shapes = shape, (*shape, size), (*shape, search.finalists)
    return _Noise(*(jnp.zeros(shape, jnp.float32) for shape in shapes))


def _visit_layer(
    layer: jax.Array, noise: _Noise, search: Search, chain: Chain, kept: Kept, candidates: int
) -> Kept:
    """Visits all units of a hidden layer, and keeps what is live."""
    weights, real = subnetwork.masked(chain, kept), subnetwork.real(chain.widths)
    fed = subnetwork.inputs(weights, search.sample.x, layer)
    shared = _Layer(
        fed,
        Rest(weights, layer + 2, chain.widths[-1]),
        subnetwork.count(kept) - subnetwork.count(kept[layer]) - subnetwork.count(kept[layer + 1]),
    )
    ours = [jnp.asarray(array)[layer].T for array in (chain.weights, real)]
    above = [jnp.asarray(array)[layer + 1] for array in (chain.weights, real)]

    def visit(state: _State, item: tuple[jax.Array, _Noise]) -> tuple[_State, None]:
        unit, noise = item
        line = Lines(
            *(ours[0][unit], above[0][unit], state.kept_in[:, unit], state.kept_out[unit]),
            *(ours[1][unit], above[1][unit]),
        )
        others = subnetwork.count(state.kept_in) + subnetwork.count(state.kept_out)
        others = others - subnetwork.count(line.kept_in) - subnetwork.count(line.kept_out)
        others = (shared.elsewhere + others).astype(jnp.float32)
        line, following = _visit_unit(
            noise, search, line, shared, state.following, others, candidates
        )
        kept_in = state.kept_in.at[:, unit].set(line.kept_in)
        kept_out = state.kept_out.at[unit].set(line.kept_out)
        return _State(kept_in, kept_out, following), None

    hidden = subnetwork.fed(jax.nn.relu(matmul(fed, weights[layer])), weights.shape[1])
    state = _State(kept[layer], kept[layer + 1], matmul(hidden, weights[layer + 1]))
    units = jnp.arange(noise.coin.shape[0], dtype=jnp.int32)
    state, _ = jax.lax.scan(visit, state, (units, noise))
    return subnetwork.live(
        chain, kept.at[layer].set(state.kept_in).at[layer + 1].set(state.kept_out)
    )


def _visit_unit(
    noise: _Noise,
    search: Search,
    unit: Lines,
    layer: _Layer,
    following: jax.Array,
    others: jax.Array,
    candidates: int,
) -> tuple[Lines, jax.Array]:
    """Makes the best move at one unit, or none if no move is an improvement.

    Args:
      noise: of this visit.
      search: shared by all visits.
      unit: the unit.
      layer: shared by all visits of its layer.
      following: pre-activations of the next layer [N, C].
      others: number of live parameters without this unit, float.
      candidates: number of moves to evaluate.

    Returns:
      (the changed unit, pre-activations of the next layer [N, C]).
    """
    n, terms, fed = search.first_samples, search.terms, layer.fed
    partner = predictions.partner(noise.coin, noise.pick, unit.kept_in, unit.real_in)
    masks_in, possible_in = predictions.flips(unit.kept_in, unit.real_in, partner)  # [M, R], [M]
    n_out = unit.kept_out.shape[0]
    masks_out = unit.kept_out[None, :] ^ jnp.eye(n_out + 1, n_out, -1, dtype=bool)  # first: none
    possible = possible_in[:, None] & jnp.append(True, unit.real_out)[None, :]
    old_in = jnp.where(unit.kept_in, unit.weights_in, 0.0)
    before = jax.nn.relu(matmul(fed, old_in[:, None]))
    after = jax.nn.relu(matmul(fed[:n], jnp.where(masks_in, unit.weights_in[None, :], 0.0).T))
    model = linear.model(search.goal, terms.aim, following[:n], layer.rest, search.first)
    predicted = predictions.predict(model, unit, before[:n], after)
    sizes = predictions.sizes(masks_in)[:, None] + predictions.sizes(masks_out)[None, :]
    dead = ~(jnp.any(masks_in, 1)[:, None] & jnp.any(masks_out, 1)[None, :])
    totals = others + jnp.where(dead, 0.0, sizes)
    promise = jnp.where(possible, predicted + search.cost(totals), jnp.inf)
    promise = promise.at[0, 0].set(-jnp.inf)  # always consider no move
    _, chosen = jax.lax.top_k(-jnp.ravel(promise), min(candidates, promise.size))

    def outcome(move: jax.Array, samples: int | None) -> jax.Array:
        """Pre-activations of the next layer after a move."""
        mask_in, mask_out = masks_in[move // (n_out + 1)], masks_out[move % (n_out + 1)]
        new = jax.nn.relu(matmul(fed[:samples], jnp.where(mask_in, unit.weights_in, 0.0)[:, None]))
        old = before[:samples] * jnp.where(unit.kept_out, unit.weights_out, 0.0)[None, :]
        return following[:samples] - old + new * jnp.where(mask_out, unit.weights_out, 0.0)[None, :]

    def outputs_of(move: jax.Array, samples: int | None) -> jax.Array:
        return layer.rest.outputs(outcome(move, samples))

    judged = jnp.ravel(totals)[chosen], jnp.ravel(possible)[chosen]
    move = chosen[search.best(noise.choice, outputs_of, chosen, *judged)]
    alive = ~jnp.ravel(dead)[move]
    kept_in = masks_in[move // (n_out + 1)] & alive
    kept_out = masks_out[move % (n_out + 1)] & alive
    return unit._replace(kept_in=kept_in, kept_out=kept_out), outcome(move, None)


def _visit_outputs(noise: _Noise, search: Search, chain: Chain, kept: Kept) -> Kept:
    """Makes the best flip of edges and bias of the output layer, for one output at a time."""
    n_out, last = chain.widths[-1], len(chain.widths) - 2
    weights = subnetwork.masked(chain, kept)
    fed = subnetwork.inputs(weights, search.sample.x, last)
    below = subnetwork.count(kept[:-1])
    real = jnp.asarray(subnetwork.real(chain.widths)[-1][:, 0])

    def visit(
        state: tuple[jax.Array, jax.Array], item: tuple[jax.Array, _Noise]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        (ends, outputs), (out, noise) = state, item
        column, mask = chain.weights[-1][:, out], ends[:, out]
        partner = predictions.random_kept(noise.pick, mask, real)
        masks, possible = predictions.flips(mask, real, partner)  # [M, R], [M]
        changes = jnp.where(masks, column[None, :], 0.0) - jnp.where(mask, column, 0.0)[None, :]
        others = below + subnetwork.count(ends) - subnetwork.count(mask)

        def outputs_of(move: jax.Array, samples: int | None) -> jax.Array:
            change = matmul(fed[:samples], changes[move][:, None])[:, 0]
            return outputs[:samples].at[:, out].add(change)

        totals = others.astype(jnp.float32) + predictions.sizes(masks)
        moves = jnp.arange(masks.shape[0], dtype=jnp.int32)
        best = search.best(noise.choice, outputs_of, moves, totals, possible)
        return (ends.at[:, out].set(masks[best]), outputs_of(best, None)), None

    order = jnp.tile(jnp.arange(n_out, dtype=jnp.int32), ROUNDS)
    noise = jax.tree.map(lambda a: a.reshape(ROUNDS * n_out, *a.shape[2:]), noise)
    state = kept[-1], matmul(fed, weights[-1])[:, :n_out]
    (ends, _), _ = jax.lax.scan(visit, state, (order, noise))
    return kept.at[last].set(ends)
