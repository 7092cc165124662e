"""Predicted effects of moves at one unit: single flips and pairs in its inputs, and its out-edges.

The prediction is that of a quadratic model (`linear`), except that the unit's own ReLU is exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek.linear import Model
from plantjax.finders.seek.subnetwork import matmul


class Lines(NamedTuple):
    """The parameters of one unit, into it [R] and out of it [K], and which are kept.

    Some of them may be padding; `real_in` and `real_out` tell which are not.
    """

    weights_in: jax.Array
    weights_out: jax.Array
    kept_in: jax.Array
    kept_out: jax.Array
    real_in: jax.Array
    real_out: jax.Array


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


def flips(mask: jax.Array, real: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mask with no flip, every single flip, and every flip together with the partner.

    Args:
      mask: bool [R].
      real: which entries may be flipped, [R].
      partner: index of one of them.

    Returns:
      (masks [2 R + 1, R], which of them are possible [2 R + 1]).
    """
    n = mask.shape[0]
    single = jnp.eye(n, dtype=bool)
    pair = single ^ (jnp.arange(n, dtype=jnp.int32) == partner)[None, :]
    flipped = jnp.concatenate([jnp.zeros((1, n), bool), single, pair])
    return mask[None, :] ^ flipped, jnp.concatenate([jnp.ones(1, bool), real, real])


def partner(coin: jax.Array, noise: jax.Array, mask: jax.Array, real: jax.Array) -> jax.Array:
    """The index of the bias or, if the coin is below 1/2, of a random kept entry."""
    return jnp.where(coin < 0.5, random_kept(noise, mask, real), mask.shape[0] - 1)


def random_kept(noise: jax.Array, mask: jax.Array, real: jax.Array) -> jax.Array:
    """The index of a random True entry, or of any real entry if none is True.

    Args:
      noise: in [0, 1], [R].
      mask: bool [R].
      real: which entries are no padding, [R].
    """
    first = jnp.where(mask, 2.0, jnp.where(real, 1.0, -1.0))
    return jnp.argmax(first + noise).astype(jnp.int32)


def sizes(kept: jax.Array) -> jax.Array:
    """The number of True entries in every row, float32."""
    return jnp.sum(kept, axis=-1, dtype=jnp.int32).astype(jnp.float32)
