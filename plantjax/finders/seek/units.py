"""Redesign of whole units: a unit is taken out, and the best other one is put in its place.

A visit considers the unit itself, random dead ones of the mother, sets of in-edges, and for each
set some out-edges (`designs`). These designs, the unit as it is and no unit at all are evaluated
exactly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax import draws
from plantjax.finders.seek import beam, designs, linear, predictions, price, subnetwork
from plantjax.finders.seek.beam import Site
from plantjax.finders.seek.linear import Rest
from plantjax.finders.seek.search import Search
from plantjax.finders.seek.subnetwork import Chain, Kept, matmul
from plantjax.types import Key

TYPICAL = 7.0  # parameters of a new unit, for the price of the predictions


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


class _Noise(NamedTuple):
    """Random numbers in (0, 1) of the visits to a layer of W units, drawn for all at once."""

    slots: jax.Array  # [L - 1, W]
    visits: jax.Array  # [2, W]
    candidates: jax.Array  # [visits, W]
    choice: jax.Array  # [visits, finalists]


class _Place(NamedTuple):
    """A hidden layer in full width W, between the slots of its neighbours.

    Attributes:
      fed: inputs of the layer and ones [N, R].
      weights_in: [R, W].
      weights_out: [W, K].
      usable: live units below, and the bias [R].
      reachable: live units above [K].
      real: which units are no padding [W].
      rest: the layers after the next.
      elsewhere: number of live parameters that belong to no unit of the layer.
      most: number of rows that are no padding, float.
    """

    fed: jax.Array
    weights_in: jax.Array
    weights_out: jax.Array
    usable: jax.Array
    reachable: jax.Array
    real: jax.Array
    rest: Rest
    elsewhere: jax.Array
    most: jax.Array


class _State(NamedTuple):
    kept_in: jax.Array  # [R, W]
    kept_out: jax.Array  # [W, K]
    following: jax.Array  # [N, K] pre-activations of the next layer


class _Moves(NamedTuple):
    """P designs: which unit of the mother, its in-edges, its out-edges; all may be empty."""

    unit: jax.Array
    kept_in: jax.Array
    kept_out: jax.Array


def sweep(key: Key, search: Search, chain: Chain, kept: Kept, options: Options) -> Kept:
    """Visits units of all hidden layers, from the first to the last.

    Args:
      key: consumed.
      search: the goal, its samples, and what moves are judged by.
      chain: the mother.
      kept: a live mask; only the `units` units with most edges per hidden layer are kept.
      options: how hard to search.

    Returns:
      A live mask.
    """
    real = subnetwork.hidden(chain.widths)
    n_hidden, width = real.shape
    if not n_hidden:
        return kept
    visits = min(options.visits, width)
    shapes = (n_hidden, width), (2, width), (visits, width), (visits, search.finalists)
    empty = _Noise(*(jnp.zeros((n_hidden, *shape), jnp.float32) for shape in shapes))

    def visit(kept: Kept, item: tuple[jax.Array, jax.Array, _Noise]) -> tuple[Kept, None]:
        return _visit_layer(*item, search, chain, kept, options), None

    items = jnp.arange(n_hidden, dtype=jnp.int32), jnp.asarray(real), draws.uniform(key, empty)
    return jax.lax.scan(visit, kept, items)[0]


def _visit_layer(
    layer: jax.Array,
    real: jax.Array,
    noise: _Noise,
    search: Search,
    chain: Chain,
    kept: Kept,
    options: Options,
) -> Kept:
    """Redesigns units of a hidden layer, and keeps what is live."""
    width = real.shape[0]
    slots = subnetwork.slots(noise.slots, kept, chain.widths, options.units)
    kept = subnetwork.scatter(subnetwork.gather(kept, slots, chain), slots, chain)
    kept = subnetwork.live(chain, kept)
    below = subnetwork.rows(slots, chain)[layer]
    above = subnetwork.columns(slots, chain)[layer + 1]
    place = _place(layer, real, search, chain, kept, slots)
    every = jnp.arange(width, dtype=jnp.int32)
    kept_in = subnetwork.pick(kept[layer], below, every)
    kept_out = subnetwork.pick(kept[layer + 1], every, above)
    ends = kept[layer + 1][-1]
    bias = jnp.where(ends, chain.weights[layer + 1][-1], 0.0)
    hidden = jax.nn.relu(matmul(place.fed, jnp.where(kept_in, place.weights_in, 0.0)))
    following = matmul(hidden, jnp.where(kept_out, place.weights_out, 0.0))
    following = following + bias.at[above].get(mode="fill", fill_value=0.0)[None, :]

    def visit(state: _State, item: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[_State, None]:
        return _visit_unit(*item, search, place, state, options), None

    order = _visiting_order(noise.visits, jnp.any(kept_in, axis=0), real, noise.choice.shape[0])
    state, _ = jax.lax.scan(
        visit, _State(kept_in, kept_out, following), (order, noise.candidates, noise.choice)
    )
    empty = jnp.zeros_like(kept[0])
    into = empty.at[below[:, None], every[None, :]].set(state.kept_in, mode="drop")
    out = empty.at[every[:, None], above[None, :]].set(state.kept_out, mode="drop").at[-1].set(ends)
    return subnetwork.live(chain, kept.at[layer].set(into).at[layer + 1].set(out))


def _place(
    layer: jax.Array,
    real: jax.Array,
    search: Search,
    chain: Chain,
    kept: Kept,
    slots: jax.Array,
) -> _Place:
    small, small_kept = subnetwork.small(chain, slots), subnetwork.gather(kept, slots, chain)
    weights = subnetwork.masked(small, small_kept)
    below = subnetwork.rows(slots, chain)[layer]
    above = subnetwork.columns(slots, chain)[layer + 1]
    every = jnp.arange(real.shape[0], dtype=jnp.int32)
    own = subnetwork.count(kept[layer]) + subnetwork.count(kept[layer + 1][:-1])
    return _Place(
        fed=subnetwork.inputs(weights, search.sample.x, layer),
        weights_in=subnetwork.pick(chain.weights[layer], below, every),
        weights_out=subnetwork.pick(chain.weights[layer + 1], every, above),
        usable=_usable(small, small_kept, layer),
        reachable=_reachable(small, small_kept, layer),
        real=real,
        rest=Rest(weights, layer + 2, chain.widths[-1]),
        elsewhere=subnetwork.count(kept) - own,
        most=jnp.asarray(small.widths, jnp.float32)[layer] + 1.0,
    )


def _visiting_order(noise: jax.Array, alive: jax.Array, real: jax.Array, visits: int) -> jax.Array:
    """Indices of units, live ones first where not all fit, in random order; int32 [visits]."""
    priority = jnp.where(real, noise[0] + alive.astype(jnp.float32), -1.0)
    chosen = jax.lax.top_k(priority, visits)[1]
    return chosen[jnp.argsort(noise[1][chosen])]


def _usable(small: Chain, kept: Kept, layer: jax.Array) -> jax.Array:
    """Which in-edges of a layer come from a live unit or an input, or are the bias; bool [R]."""
    size = kept.shape[1] - 1
    units = subnetwork.resized(jnp.any(kept[layer - 1], axis=0), size)
    inputs = jnp.arange(size, dtype=jnp.int32) < small.widths[0]
    return jnp.append(jnp.where(layer == 0, inputs, units), True)


def _reachable(small: Chain, kept: Kept, layer: jax.Array) -> jax.Array:
    """Which units of the layer after a hidden one lead to an output; bool [K]."""
    size = kept.shape[2]
    units = subnetwork.resized(jnp.any(kept[layer + 2][:-1], axis=1), size)
    outputs = jnp.arange(size, dtype=jnp.int32) < small.widths[-1]
    return jnp.where(layer + 2 == kept.shape[0], outputs, units)


def _visit_unit(
    unit: jax.Array,
    candidates: jax.Array,
    choice: jax.Array,
    search: Search,
    place: _Place,
    state: _State,
    options: Options,
) -> _State:
    """Puts the best design in the place of a unit, or leaves it as it is."""
    n, terms = search.first_samples, search.terms
    alive = jnp.any(state.kept_in, axis=0) & jnp.any(state.kept_out, axis=1)
    own_in, own_out = state.kept_in[:, unit], state.kept_out[unit]
    total = place.elsewhere + subnetwork.count(state.kept_in) + subnetwork.count(state.kept_out)
    own = subnetwork.count(own_in) + subnetwork.count(own_out)
    others = (total - own).astype(jnp.float32)
    old = jax.nn.relu(matmul(place.fed, jnp.where(own_in, place.weights_in[:, unit], 0.0)[:, None]))
    old = old * jnp.where(own_out, place.weights_out[unit], 0.0)[None, :]  # [N, K]
    without = state.following - old
    model = linear.model(search.goal, terms.aim, state.following[:n], place.rest, search.first)
    chosen = _candidates(candidates, alive, place.real, unit, options.beam.breadth)
    site = Site(
        place.fed[:n],
        place.weights_in[:, chosen],
        place.weights_out[chosen],
        place.usable,
        place.reachable,
        (~alive[chosen] | (chosen == unit)) & place.real[chosen],
        linear.moved(model, -old[:n]),
        price.slope(terms, others + TYPICAL),
        place.most,
    )
    found, kept_out = designs.find(site, place.rest, options.beam)
    moves = _Moves(chosen[found.unit], found.kept_in, kept_out)
    moves = _with_old_and_none(moves, unit, own_in, own_out)

    def outcome(move: jax.Array, samples: int | None) -> jax.Array:
        new = moves.unit[move]
        into = jnp.where(moves.kept_in[move], place.weights_in[:, new], 0.0)
        out = jnp.where(moves.kept_out[move], place.weights_out[new], 0.0)
        activation = jax.nn.relu(matmul(place.fed[:samples], into[:, None]))
        return without[:samples] + activation * out[None, :]

    def outputs_of(move: jax.Array, samples: int | None) -> jax.Array:
        return place.rest.outputs(outcome(move, samples))

    totals = others + predictions.sizes(moves.kept_in) + predictions.sizes(moves.kept_out)
    allowed = jnp.concatenate([jnp.ones(2, bool), jnp.isfinite(found.score)])
    every = jnp.arange(totals.shape[0], dtype=jnp.int32)
    best = search.best(choice, outputs_of, every, totals, allowed)
    full = ~alive[unit] & (jnp.sum(alive) >= options.units)
    best = jnp.where(full, 0, best)
    new = moves.unit[best]
    kept_in = state.kept_in.at[:, unit].set(False).at[:, new].set(moves.kept_in[best])
    kept_out = state.kept_out.at[unit].set(False).at[new].set(moves.kept_out[best])
    return _State(kept_in, kept_out, outcome(best, None))


def _candidates(
    noise: jax.Array, alive: jax.Array, real: jax.Array, unit: jax.Array, n: int
) -> jax.Array:
    """The unit, and random ones that are not alive (or are, if there are too few); int [n]."""
    priority = jnp.where(real, noise - 2.0 * alive.astype(jnp.float32), -3.0)
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
