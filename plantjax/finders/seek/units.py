"""Redesign of whole units: a unit is taken out, and the best other one is put in its place.

A visit considers the unit itself, random dead ones of the mother, sets of in-edges (`beam`), and
for each set the out-edges that a few flips on the quadratic model find. These designs, the unit as
it is and no unit at all are evaluated exactly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek import beam, linear, predictions, price, subnetwork
from plantjax.finders.seek.beam import Site
from plantjax.finders.seek.search import Search
from plantjax.finders.seek.subnetwork import Stack, matmul
from plantjax.types import Key

TYPICAL = 7.0  # parameters of a new unit, for the price of the predictions
FLIPS = 6  # of out-edges of a design


class Options(NamedTuple):
    """Static options of redesign.

    Attributes:
      units: largest number of live units per hidden layer.
      visits: number of units to redesign per hidden layer and sweep, live ones first.
      beam: how broad to search in-edges.
    """

    units: int
    visits: int
    beam: beam.Options


class _Place(NamedTuple):
    """A hidden layer in full width, between the slots of its neighbours.

    Attributes:
      fed: inputs of the layer and ones [N, R].
      weights_in: [R, W].
      weights_out: [W, K].
      usable: live units below, and the bias [R].
      reachable: live units above [K].
      rest: the layers after the next.
      elsewhere: number of live parameters that belong to no unit of the layer.
    """

    fed: jax.Array
    weights_in: jax.Array
    weights_out: jax.Array
    usable: jax.Array
    reachable: jax.Array
    rest: Stack
    elsewhere: jax.Array


class _State(NamedTuple):
    kept_in: jax.Array  # [R, W]
    kept_out: jax.Array  # [W, K]
    following: jax.Array  # [N, K] pre-activations of the next layer


class _Moves(NamedTuple):
    """P designs: which unit of the mother, its in-edges, its out-edges; all may be empty."""

    unit: jax.Array
    kept_in: jax.Array
    kept_out: jax.Array


def sweep(key: Key, search: Search, weights: Stack, kept: Stack, options: Options) -> Stack:
    """Visits units of all hidden layers, from the first to the last.

    Args:
      key: consumed.
      search: the goal, its samples, and what moves are judged by.
      weights: of the mother.
      kept: a live mask; only the `units` units with most edges per hidden layer are kept.
      options: how hard to search.

    Returns:
      A live mask.
    """
    for layer in range(len(weights) - 1):
        kept = _visit_layer(jax.random.fold_in(key, layer), search, weights, kept, layer, options)
        kept = subnetwork.live(weights, kept)
    return kept


def _visit_layer(
    key: Key, search: Search, weights: Stack, kept: Stack, layer: int, options: Options
) -> Stack:
    slot_key, order_key, visit_key = jax.random.split(key, 3)
    places = subnetwork.slots(slot_key, kept, options.units)
    kept = subnetwork.live(
        weights, subnetwork.scatter(subnetwork.gather(kept, places), kept, places)
    )
    below = subnetwork.rows(kept, places, layer)
    above = subnetwork.columns(kept, places, layer + 1)
    small, small_kept = subnetwork.gather(weights, places), subnetwork.gather(kept, places)
    kept_in, kept_out = kept[layer][below], kept[layer + 1][:-1][:, above]
    ends = kept[layer + 1][-1]
    place = _Place(
        fed=subnetwork.with_one(subnetwork.inputs(small, small_kept, search.sample.x, layer)),
        weights_in=weights[layer][below],
        weights_out=weights[layer + 1][:-1][:, above],
        usable=_usable(small_kept, layer),
        reachable=_reachable(small_kept, layer),
        rest=subnetwork.masked(small[layer + 2 :], small_kept[layer + 2 :]),
        elsewhere=subnetwork.count((*kept[:layer], *kept[layer + 2 :], ends)),
    )
    hidden = jax.nn.relu(matmul(place.fed, jnp.where(kept_in, place.weights_in, 0.0)))
    following = matmul(hidden, jnp.where(kept_out, place.weights_out, 0.0))
    following = following + jnp.where(ends, weights[layer + 1][-1], 0.0)[above][None, :]

    def visit(state: _State, item: tuple[jax.Array, Key]) -> tuple[_State, None]:
        return _visit_unit(item[1], search, place, state, item[0], options), None

    order = _visiting_order(order_key, jnp.any(kept_in, axis=0), options.visits)
    state, _ = jax.lax.scan(
        visit,
        _State(kept_in, kept_out, following),
        (order, jax.random.split(visit_key, order.shape[0])),
    )
    new_in = jnp.zeros_like(kept[layer]).at[below].set(state.kept_in)
    new_out = jnp.zeros_like(kept[layer + 1][:-1]).at[:, above].set(state.kept_out)
    new_out = jnp.concatenate([new_out, ends[None, :]])
    return (*kept[:layer], new_in, new_out, *kept[layer + 2 :])


def _visiting_order(key: Key, alive: jax.Array, visits: int) -> jax.Array:
    """Up to `visits` indices of units, live ones first where not all fit, in random order."""
    choose_key, order_key = jax.random.split(key)
    priority = jax.random.uniform(choose_key, alive.shape, jnp.float32) + alive.astype(jnp.float32)
    chosen = jax.lax.top_k(priority, min(visits, alive.shape[0]))[1]
    return jax.random.permutation(order_key, chosen)


def _usable(kept: Stack, layer: int) -> jax.Array:
    """Which in-edges of a layer come from a live unit or an input, or are the bias; bool [R]."""
    if layer == 0:
        return jnp.ones(kept[0].shape[0], bool)
    return jnp.append(jnp.any(kept[layer - 1], axis=0), True)


def _reachable(kept: Stack, layer: int) -> jax.Array:
    """Which units of the layer after a hidden one lead to an output; bool [K]."""
    if layer + 2 == len(kept):
        return jnp.ones(kept[-1].shape[1], bool)
    return jnp.any(kept[layer + 2][:-1], axis=1)


def _visit_unit(
    key: Key, search: Search, place: _Place, state: _State, unit: jax.Array, options: Options
) -> _State:
    """Puts the best design in the place of a unit, or leaves it as it is."""
    choose_key, beam_key, noise_key = jax.random.split(key, 3)
    n, terms = search.first_samples, search.terms
    alive = jnp.any(state.kept_in, axis=0) & jnp.any(state.kept_out, axis=1)
    own_in, own_out = state.kept_in[:, unit], state.kept_out[unit]
    total = place.elsewhere + subnetwork.count((state.kept_in, state.kept_out))
    others = (total - subnetwork.count((own_in, own_out))).astype(jnp.float32)
    old = jax.nn.relu(matmul(place.fed, jnp.where(own_in, place.weights_in[:, unit], 0.0)[:, None]))
    old = old * jnp.where(own_out, place.weights_out[unit], 0.0)[None, :]  # [N, K]
    without = state.following - old
    model = linear.model(search.goal, terms.aim, state.following[:n], place.rest, search.first)
    chosen = _candidates(choose_key, alive, unit, options.beam.breadth)
    site = Site(
        place.fed[:n],
        place.weights_in[:, chosen],
        place.weights_out[chosen],
        place.usable,
        place.reachable,
        ~alive[chosen] | (chosen == unit),
        linear.moved(model, -old[:n]),
        price.slope(terms, others + TYPICAL),
    )
    designs = beam.search(beam_key, site, options.beam)
    moves = _Moves(chosen[designs.unit], designs.kept_in, out_edges(site, designs))
    moves = _with_old_and_none(moves, unit, own_in, own_out)

    def outcome(move: jax.Array, samples: int | None) -> jax.Array:
        new = moves.unit[move]
        into = jnp.where(moves.kept_in[move], place.weights_in[:, new], 0.0)
        out = jnp.where(moves.kept_out[move], place.weights_out[new], 0.0)
        activation = jax.nn.relu(matmul(place.fed[:samples], into[:, None]))
        return without[:samples] + activation * out[None, :]

    def outputs_of(move: jax.Array, samples: int | None) -> jax.Array:
        return subnetwork.through(place.rest, outcome(move, samples))

    totals = others + predictions.sizes(moves.kept_in) + predictions.sizes(moves.kept_out)
    totals = totals.at[2:].set(jnp.where(jnp.isfinite(designs.score), totals[2:], jnp.inf))
    best = search.best(noise_key, outputs_of, jnp.arange(totals.shape[0], dtype=jnp.int32), totals)
    full = ~alive[unit] & (jnp.sum(alive) >= options.units)
    best = jnp.where(full, 0, best)
    new = moves.unit[best]
    kept_in = state.kept_in.at[:, unit].set(False).at[:, new].set(moves.kept_in[best])
    kept_out = state.kept_out.at[unit].set(False).at[new].set(moves.kept_out[best])
    return _State(kept_in, kept_out, outcome(best, None))


def _candidates(key: Key, alive: jax.Array, unit: jax.Array, n: int) -> jax.Array:
    """The unit, and random ones that are not alive (or are, if there are too few); int [n]."""
    priority = jax.random.uniform(key, alive.shape, jnp.float32) - 2.0 * alive.astype(jnp.float32)
    return jax.lax.top_k(priority.at[unit].set(3.0), min(n, alive.shape[0]))[1]


def _with_old_and_none(
    moves: _Moves, unit: jax.Array, own_in: jax.Array, own_out: jax.Array
) -> _Moves:
    """Puts the unit as it is first, and no unit second."""
    whole = jnp.any(own_in) & jnp.any(own_out)
    kept_in = jnp.stack([own_in & whole, jnp.zeros_like(own_in)])
    kept_out = jnp.stack([own_out & whole, jnp.zeros_like(own_out)])
    return _Moves(
        jnp.concatenate([jnp.stack([unit, unit]), moves.unit]),
        jnp.concatenate([kept_in, moves.kept_in]),
        jnp.concatenate([kept_out, moves.kept_out]),
    )


def out_edges(site: Site, designs: beam.Designs) -> jax.Array:
    """Out-edges of designs by greedy flips on the quadratic model, bool [P, K]; never none.

    Each flip is the one that lowers the predicted objective most; the first is always made.
    """
    f = jax.nn.relu(designs.drive)  # [P, N]
    weights = site.weights_out[designs.unit]  # [P, K]
    slope = weights * matmul(f, site.model.gradient)
    n, k = site.model.gradient.shape
    gram = jnp.einsum(
        "onk,onl->nkl", site.model.roots, site.model.roots, precision="highest"
    ).reshape(n, k * k)
    square = matmul(jnp.square(f), gram).reshape(-1, k, k)
    square = square * weights[:, :, None] * weights[:, None, :]
    own = jnp.diagonal(square, axis1=1, axis2=2)

    def flip(_: int, kept: jax.Array) -> jax.Array:
        inter = jnp.einsum("pkl,pl->pk", square, kept.astype(jnp.float32), precision="highest")
        add = slope + 0.5 * own + inter + site.price
        drop = 0.5 * own - slope - inter - site.price
        change = jnp.where(kept, drop, add)
        change = jnp.where(site.reachable[None, :], change, jnp.inf)
        best = jnp.argmin(change, axis=1).astype(jnp.int32)
        made = (jnp.min(change, axis=1) < 0) | ~jnp.any(kept, axis=1)
        return kept ^ (made[:, None] & (jnp.arange(k, dtype=jnp.int32)[None, :] == best[:, None]))

    return jax.lax.fori_loop(0, FLIPS, flip, jnp.zeros(weights.shape, bool))
