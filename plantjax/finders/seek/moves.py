"""Refinement of a mask, unit by unit: many flips are predicted, the best of them evaluated exactly.

A visit to a unit considers every flip of one in-edge or bias, alone or together with a partner (a
swap, or an edge and its bias), each with every flip of one out-edge: so edges come and go, and dead
units join with an edge in and an edge out at once. Their effect on the loss is predicted to second
order (Gauss-Newton, the unit's own kink exact) by a few matrix products; the best are evaluated
exactly, on a part of the samples, the best of those on all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek import loss, subnetwork
from plantjax.finders.seek.loss import Aim, Goal
from plantjax.finders.seek.subnetwork import Stack
from plantjax.types import Batch, Key

ROUNDS = 4  # moves at every output per sweep


class Effort(NamedTuple):
    """How hard a visit looks: samples of the first evaluation, and candidates of both."""

    samples: int
    candidates: int
    finalists: int


class Terms(NamedTuple):
    """What a move is judged by: log loss + price * parameters."""

    aim: Aim
    price: jax.Array


def visit_all(
    key: Key, goal: Goal, weights: Stack, kept: Stack, batch: Batch, terms: Terms, effort: Effort
) -> tuple[Stack, jax.Array]:
    """Visits all units, from the first layer to the outputs, and fits the logits' scale.

    Args:
      key: consumed.
      goal: what to lower.
      weights: of the small network.
      kept: its mask.
      batch: N samples.
      terms: what moves cost.
      effort: how hard to look.

    Returns:
      (a live mask, log scale).
    """
    last = len(weights) - 1
    for layer in range(last):
        layer_key = jax.random.fold_in(key, layer)
        hidden = _feed(weights, kept, batch.x, layer)
        kept = refine_layer(layer_key, goal, weights, kept, layer, batch, hidden, terms, effort)
        kept = subnetwork.live(weights, kept)
    hidden = _feed(weights, kept, batch.x, last)
    layer_key = jax.random.fold_in(key, last)
    ends = refine_outputs(layer_key, goal, weights[-1], kept[-1], batch, hidden, terms, effort)
    kept = subnetwork.live(weights, (*kept[:-1], ends))
    return kept, loss.fit_scale(goal, run(weights, kept, batch.x), batch.y, terms.aim)


def run(weights: Stack, kept: Stack, x: jax.Array) -> jax.Array:
    """Outputs [N, O] of the masked network."""
    first, *rest = subnetwork.masked(weights, kept)
    return subnetwork.through(tuple(rest), subnetwork.matmul(subnetwork.with_one(x), first))


def _feed(weights: Stack, kept: Stack, x: jax.Array, layer: int) -> jax.Array:
    """What feeds a layer, [N, I]."""
    for part in subnetwork.masked(weights[:layer], kept[:layer]):
        x = jax.nn.relu(subnetwork.matmul(subnetwork.with_one(x), part))
    return x


def refine_layer(
    key: Key,
    goal: Goal,
    weights: Stack,
    kept: Stack,
    layer: int,
    batch: Batch,
    hidden: jax.Array,
    terms: Terms,
    effort: Effort,
) -> Stack:
    """Visits every unit of a hidden layer once, in random order.

    Args:
      key: consumed.
      goal: what to lower.
      weights: of all layers.
      kept: mask of all layers.
      layer: index of the hidden layer, 0 to L - 2.
      batch: N samples.
      hidden: [N, I], what feeds the layer.
      terms: what moves cost.
      effort: how hard to look.

    Returns:
      The mask after the visits.
    """
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
        lines, following = _visit(
            visit_key, goal, lines, fed, state.following, rest, batch.y, terms, effort
        )
        kept_in = state.kept_in.at[:, unit].set(lines.kept_in)
        kept_out = state.kept_out.at[unit].set(lines.kept_out)
        return _State(kept_in, kept_out, following), None

    order = jax.random.permutation(order_key, width)
    state = _State(kept[layer], kept[layer + 1], following)
    state, _ = jax.lax.scan(visit, state, (order, jax.random.split(step_key, width)))
    return (*kept[:layer], state.kept_in, state.kept_out, *kept[layer + 2 :])


def refine_outputs(
    key: Key,
    goal: Goal,
    weights: jax.Array,
    kept: jax.Array,
    batch: Batch,
    hidden: jax.Array,
    terms: Terms,
    effort: Effort,
) -> jax.Array:
    """Flips edges and biases of the output layer, the best of all for one output at a time."""
    fed = subnetwork.with_one(hidden)
    outputs = subnetwork.matmul(fed, jnp.where(kept, weights, 0.0))
    n_in, n_out = weights.shape

    def visit(
        state: tuple[jax.Array, jax.Array], item: tuple[jax.Array, Key]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        kept, outputs = state
        out, partner_key = item
        column, mask = weights[:, out], kept[:, out]
        flips = _flips(n_in, _one_of(partner_key, mask))  # [C, I + 1]
        masks = mask[None, :] ^ flips
        changes = jnp.where(flips, jnp.where(mask, -column, column)[None, :], 0.0)

        def judge(chosen: jax.Array, samples: int | None) -> jax.Array:
            def value(move: jax.Array) -> jax.Array:
                moved = outputs[:samples].at[:, out].add(move)
                return goal.log_loss(moved, batch.y[:samples], terms.aim)

            moves = subnetwork.matmul(fed[:samples], changes[chosen].T)
            return jax.vmap(value, 1)(moves) + terms.price * _sizes(masks[chosen])

        first = judge(jnp.arange(flips.shape[0]), effort.samples).at[0].set(-jnp.inf)
        _, finalists = jax.lax.top_k(-first, min(effort.finalists, first.size))
        best = finalists[jnp.argmin(judge(finalists, None))]
        outputs = outputs.at[:, out].add(subnetwork.matmul(fed, changes[best][:, None])[:, 0])
        return (kept.at[:, out].set(masks[best]), outputs), None

    order = jnp.tile(jnp.arange(n_out), ROUNDS)
    (kept, _), _ = jax.lax.scan(
        visit, (kept, outputs), (order, jax.random.split(key, ROUNDS * n_out))
    )
    return kept


class Lines(NamedTuple):
    """The parameters of one unit, into it [I + 1] and out of it [K], and which are kept."""

    weights_in: jax.Array
    weights_out: jax.Array
    kept_in: jax.Array
    kept_out: jax.Array


class _State(NamedTuple):
    kept_in: jax.Array  # [I + 1, U]
    kept_out: jax.Array  # [U + 1, K]
    following: jax.Array  # [N, K] pre-activations of the layer after


def _visit(
    key: Key,
    goal: Goal,
    unit: Lines,
    fed: jax.Array,
    following: jax.Array,
    rest: Stack,
    y: jax.Array,
    terms: Terms,
    effort: Effort,
) -> tuple[Lines, jax.Array]:
    """Makes the best move at one unit, if any is better than none."""
    n = effort.samples
    partner = _partner(key, unit.kept_in)
    flips = _flips(unit.kept_in.shape[0], partner)  # [C, I + 1]
    masks_in = unit.kept_in[None, :] ^ flips
    n_out = unit.kept_out.shape[0]
    masks_out = unit.kept_out[None, :] ^ jnp.eye(n_out + 1, n_out, -1, dtype=bool)  # first: none
    before = jax.nn.relu(
        subnetwork.matmul(fed, jnp.where(unit.kept_in, unit.weights_in, 0.0)[:, None])
    )
    after = jax.nn.relu(
        subnetwork.matmul(fed[:n], jnp.where(masks_in, unit.weights_in[None, :], 0.0).T)
    )  # [n, C]
    predicted = _predict(goal, unit, before[:n], after, following[:n], rest, y[:n], terms)
    sizes = _sizes(masks_in)[:, None] + _sizes(masks_out)[None, :]
    dead = ~(jnp.any(masks_in, 1)[:, None] & jnp.any(masks_out, 1)[None, :])
    sizes = jnp.where(dead, 0.0, sizes)
    promise = (predicted + terms.price * sizes).at[0, 0].set(-jnp.inf)  # none is always there
    _, chosen = jax.lax.top_k(-jnp.ravel(promise), min(effort.candidates, promise.size))

    def outcome(chosen: jax.Array, samples: int | None) -> jax.Array:
        """The pre-activations of the next layer if a move is made."""
        mask_in, mask_out = masks_in[chosen // (n_out + 1)], masks_out[chosen % (n_out + 1)]
        line = jnp.where(mask_in, unit.weights_in, 0.0)[:, None]
        new = jax.nn.relu(subnetwork.matmul(fed[:samples], line))
        old = before[:samples] * jnp.where(unit.kept_out, unit.weights_out, 0.0)[None, :]
        return following[:samples] - old + new * jnp.where(mask_out, unit.weights_out, 0.0)[None, :]

    def judge(chosen: jax.Array, samples: int | None) -> jax.Array:
        def value(move: jax.Array) -> jax.Array:
            outputs = subnetwork.through(rest, outcome(move, samples))
            return goal.log_loss(outputs, y[:samples], terms.aim)

        return jax.vmap(value)(chosen) + terms.price * jnp.ravel(sizes)[chosen]

    first = judge(chosen, n).at[0].set(-jnp.inf)
    _, finalists = jax.lax.top_k(-first, min(effort.finalists, first.size))
    last = judge(chosen[finalists], None)
    move = chosen[finalists[jnp.argmin(last)]]
    alive = ~jnp.ravel(dead)[move]
    kept_in = masks_in[move // (n_out + 1)] & alive
    kept_out = masks_out[move % (n_out + 1)] & alive
    return unit._replace(kept_in=kept_in, kept_out=kept_out), outcome(move, None)


def _predict(
    goal: Goal,
    unit: Lines,
    before: jax.Array,
    after: jax.Array,
    following: jax.Array,
    rest: Stack,
    y: jax.Array,
    terms: Terms,
) -> jax.Array:
    """Predicted changes of the log loss, [C, K + 1]: C activations, no or one out-edge flipped."""
    outputs, pull = jax.vjp(lambda values: subnetwork.through(rest, values), following)
    slope = jax.grad(goal.log_loss)(outputs, y, terms.aim)  # [n, O]
    curved = goal.curvature(outputs, y, terms.aim)
    units = jnp.eye(outputs.shape[1])
    jacobian = jax.vmap(lambda row: pull(jnp.broadcast_to(row[None, :], outputs.shape))[0])(units)
    line = jnp.where(unit.kept_out, unit.weights_out, 0.0)[:, None]
    flip = jnp.where(unit.kept_out, -unit.weights_out, unit.weights_out)[None, :]  # [1, K]
    along = subnetwork.matmul(jacobian, line)[:, :, 0]  # [O, n]
    change = after - before  # [n, C]
    total = subnetwork.matmul
    gradient = jnp.einsum("no,onk->nk", slope, jacobian, precision="highest")
    square = jnp.einsum("no,onk->nk", curved, jnp.square(jacobian), precision="highest")
    mixed = jnp.einsum("no,on,onk->nk", curved, along, jacobian, precision="highest")
    bend = jnp.einsum("no,on->n", curved, jnp.square(along), precision="highest")[:, None]
    none = total(change.T, total(gradient, line)) + 0.5 * total(
        jnp.square(change).T, bend
    )  # [C, 1]
    one = total(after.T, gradient) * flip + total((after * change).T, mixed) * flip
    one = one + 0.5 * total(jnp.square(after).T, square) * jnp.square(flip)
    return jnp.concatenate([none, none + one], axis=1)


def _partner(key: Key, mask: jax.Array) -> jax.Array:
    """The bias, or with probability 1/2 a random kept entry, as index."""
    coin_key, pick_key = jax.random.split(key)
    coin = jax.random.bernoulli(coin_key)
    return jnp.where(coin, mask.shape[0] - 1, _one_of(pick_key, mask))


def _one_of(key: Key, mask: jax.Array) -> jax.Array:
    """A random True entry, or any where none is True."""
    return jnp.argmax(jnp.where(mask, 1.0, 0.0) + jax.random.uniform(key, mask.shape))


def _flips(n: int, partner: jax.Array) -> jax.Array:
    """No flip, every single one, and every one with the partner: bool [2 n + 1, n]."""
    single = jnp.eye(n, dtype=bool)
    return jnp.concatenate([jnp.zeros((1, n), bool), single, single ^ single[partner][None, :]])


def _sizes(kept: jax.Array) -> jax.Array:
    """Number of True entries of every row, float32."""
    return jnp.sum(kept, axis=1, dtype=jnp.int32).astype(jnp.float32)
