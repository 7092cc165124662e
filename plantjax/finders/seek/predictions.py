"""Predicted effects of moves at one unit: single flips and pairs in its inputs, and its out-edges.

The prediction is of second order (Gauss-Newton), except that the unit's own ReLU is exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek.loss import Aim, Goal
from plantjax.finders.seek.subnetwork import Stack, matmul, through
from plantjax.types import Key


class Lines(NamedTuple):
    """The parameters of one unit, into it [I + 1] and out of it [K], and which are kept."""

    weights_in: jax.Array
    weights_out: jax.Array
    kept_in: jax.Array
    kept_out: jax.Array


class Around(NamedTuple):
    """The network after a unit: pre-activations of the next layer [N, K], later layers, labels."""

    following: jax.Array
    rest: Stack
    y: jax.Array


def predict(
    goal: Goal, aim: Aim, unit: Lines, before: jax.Array, after: jax.Array, around: Around
) -> jax.Array:
    """Predicts the change of the log loss by every move.

    Args:
      goal: the loss.
      aim: its traced parts.
      unit: the unit.
      before: its present activations [N, 1].
      after: its activations after each of C changes of its inputs [N, C].
      around: the network after it.

    Returns:
      Changes of the log loss [C, K + 1]: with no out-edge flipped, and with each one flipped.
    """
    outputs, pull = jax.vjp(lambda values: through(around.rest, values), around.following)
    slope = jax.grad(goal.log_loss)(outputs, around.y, aim)  # [N, O]
    curved = goal.curvature(outputs, around.y, aim)
    units = jnp.eye(outputs.shape[1])
    jacobian = jax.vmap(lambda row: pull(jnp.broadcast_to(row[None, :], outputs.shape))[0])(units)
    line = jnp.where(unit.kept_out, unit.weights_out, 0.0)[:, None]
    flip = jnp.where(unit.kept_out, -unit.weights_out, unit.weights_out)[None, :]  # [1, K]
    along = matmul(jacobian, line)[:, :, 0]  # [O, N]
    change = after - before  # [N, C]
    gradient = jnp.einsum("no,onk->nk", slope, jacobian, precision="highest")
    square = jnp.einsum("no,onk->nk", curved, jnp.square(jacobian), precision="highest")
    mixed = jnp.einsum("no,on,onk->nk", curved, along, jacobian, precision="highest")
    bend = jnp.einsum("no,on->n", curved, jnp.square(along), precision="highest")[:, None]
    none = matmul(change.T, matmul(gradient, line)) + 0.5 * matmul(jnp.square(change).T, bend)
    one = matmul(after.T, gradient) * flip + matmul((after * change).T, mixed) * flip
    one = one + 0.5 * matmul(jnp.square(after).T, square) * jnp.square(flip)
    return jnp.concatenate([none, none + one], axis=1)


def flips(n: int, partner: jax.Array) -> jax.Array:
    """No flip, every single flip, and every flip together with the partner: bool [2 n + 1, n]."""
    single = jnp.eye(n, dtype=bool)
    return jnp.concatenate([jnp.zeros((1, n), bool), single, single ^ single[partner][None, :]])


def partner(key: Key, mask: jax.Array) -> jax.Array:
    """The index of the bias or, with probability 1/2, of a random kept entry."""
    coin_key, pick_key = jax.random.split(key)
    coin = jax.random.bernoulli(coin_key)
    return jnp.where(coin, mask.shape[0] - 1, random_kept(pick_key, mask))


def random_kept(key: Key, mask: jax.Array) -> jax.Array:
    """The index of a random True entry, or of any entry if none is True."""
    return jnp.argmax(jnp.where(mask, 1.0, 0.0) + jax.random.uniform(key, mask.shape))


def sizes(kept: jax.Array) -> jax.Array:
    """The number of True entries in every row, float32."""
    return jnp.sum(kept, axis=1, dtype=jnp.int32).astype(jnp.float32)
