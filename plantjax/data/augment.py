"""Normalisation, random crops and flips of images on device, as pure functions of key and batch.

`augment` can be the `transform` of `training.fit`, which draws it again in every step of the scan.
"""

import chex
import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.types import Key


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation [C] of each channel of images [N, H, W, C].

    >>> import jax.numpy as jnp
    >>> [moment.tolist() for moment in moments(jnp.ones((5, 4, 4, 1)))]
    [[1.0], [0.0]]
    """
    chex.assert_rank(x, 4)
    return jnp.mean(x, axis=(0, 1, 2)), jnp.std(x, axis=(0, 1, 2))


def normalise(x: jax.Array, mean: chex.Numeric = 0.5, std: chex.Numeric = 0.5) -> jax.Array:
    """(x - mean) / std per channel; the default maps [0, 1] to [-1, 1].

    Args:
      x: float [N, H, W, C].
      mean: scalar or [C].
      std: scalar or [C], positive; use 1 for a channel that does not vary.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: if a (concrete) std is not positive.

    >>> import jax.numpy as jnp
    >>> normalise(jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)).ravel().tolist()
    [-1.0, 1.0]
    """
    chex.assert_rank(x, 4)
    checks.positive("std", std)
    shape = (1, 1, 1, x.shape[3])
    mean, std = (jnp.broadcast_to(jnp.asarray(v, x.dtype), shape[3:]) for v in (mean, std))
    return (x - mean.reshape(shape)) / std.reshape(shape)


def crop(key: Key, x: jax.Array, pad: int = 4) -> jax.Array:
    """Pads each image with zeros and cuts a window of the original size at a random place.

    Args:
      key: consumed.
      x: [N, H, W, C].
      pad: pixels on each side, 0 or more; all offsets 0, ..., 2 pad are equally likely.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: if pad is negative.

    >>> import jax, jax.numpy as jnp
    >>> crop(jax.random.key(0), jnp.ones((5, 8, 8, 3)), pad=1).shape
    (5, 8, 8, 3)
    """
    chex.assert_rank(x, 4)
    checks.integer("pad", pad, 0)
    wide = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corners = jax.random.randint(key, (x.shape[0], 2), 0, 2 * pad + 1, jnp.int32)

    def window(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), x.shape[1:])

    return jax.vmap(window)(wide, corners)


def flip(key: Key, x: jax.Array) -> jax.Array:
    """Mirrors each image of x [N, H, W, C] left to right with probability 1/2.

    >>> import jax, jax.numpy as jnp
    >>> flipped = flip(jax.random.key(0), jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1))
    >>> flipped.ravel().tolist() in ([1.0, 2.0], [2.0, 1.0])
    True
    """
    chex.assert_rank(x, 4)
    chosen = jax.random.bernoulli(key, jnp.float32(0.5), (x.shape[0], 1, 1, 1))
    return jnp.where(chosen, x[:, :, ::-1], x)


def augment(key: Key, x: jax.Array, pad: int = 4) -> jax.Array:
    """Random crop, then random flip: the usual augmentation for CIFAR.

    For digits use `crop` alone.

    Args:
      key: consumed.
      x: [N, H, W, C].
      pad: padding of the crop.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: if pad is negative.
    """
    crop_key, flip_key = jax.random.split(key)
    return flip(flip_key, crop(crop_key, x, pad))
