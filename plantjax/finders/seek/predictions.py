"""Predicted effects of moves at one unit: single flips and pairs in its inputs, and its out-edges.

The prediction is that of a quadratic model (`linear`), except that the unit's own ReLU is exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek.linear import Model
from plantjax.finders.seek.subnetwork import matmul
from plantjax.types import Key


class Lines(NamedTuple):
    """The parameters of one unit, into it [I + 1] and out of it [K], and which are kept."""

    weights_in: jax.Array
    weights_out: jax.Array
    kept_in: jax.Array
    kept_out: jax.Array


def predict(model: Model, unit: Lines, before: jax.Array, after: jax.Array) -> jax.Array:
    """Predicts the change of the log loss by every move.

    Args:
      model: at the pre-activations of the next layer, of N samples.
      unit: the unit.
      before: its present activations [N, 1].
      after: its activations after each of C changes of its inputs [N, C].

    Returns:
      Changes of the log loss [C, K + 1]: with no out-edge flipped, and with each one flipped.
    """
    line = jnp.where(unit.kept_out, unit.weights_out, 0.0)[:, None]
    flip = jnp.where(unit.kept_out, -unit.weights_out, unit.weights_out)[None, :]  # [1, K]
    along = matmul(model.roots, line)[:, :, 0]  # [O, N]
    change = after - before  # [N, C]
    square = jnp.sum(jnp.square(model.roots), axis=0)  # [N, K]
    mixed = jnp.einsum("on,onk->nk", along, model.roots, precision="highest")
    bend = jnp.sum(jnp.square(along), axis=0)[:, None]
    none = matmul(change.T, matmul(model.gradient, line)) + 0.5 * matmul(jnp.square(change).T, bend)
    one = matmul(after.T, model.gradient) * flip + matmul((after * change).T, mixed) * flip
    one = one + 0.5 * matmul(jnp.square(after).T, square) * jnp.square(flip)
    return jnp.concatenate([none, none + one], axis=1)


def flips(n: int, partner: jax.Array) -> jax.Array:
    """No flip, every single flip, and every flip together with the partner: bool [2 n + 1, n]."""
    single = jnp.eye(n, dtype=bool)
    return jnp.concatenate([jnp.zeros((1, n), bool), single, single ^ single[partner][None, :]])


def partner(key: Key, mask: jax.Array) -> jax.Array:
    """The index of the bias or, with probability 1/2, of a random kept entry."""
    coin_key, pick_key = jax.random.split(key)
    coin = jax.random.bernoulli(coin_key, jnp.float32(0.5))
    return jnp.where(coin, mask.shape[0] - 1, random_kept(pick_key, mask))


def random_kept(key: Key, mask: jax.Array) -> jax.Array:
    """The index of a random True entry, or of any entry if none is True."""
    return jnp.argmax(jnp.where(mask, 1.0, 0.0) + jax.random.uniform(key, mask.shape, jnp.float32))


def sizes(kept: jax.Array) -> jax.Array:
    """The number of True entries in every row, float32."""
    return jnp.sum(kept, axis=-1, dtype=jnp.int32).astype(jnp.float32)
