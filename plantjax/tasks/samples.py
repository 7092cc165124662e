"""Samples of the tasks: inputs, uniform on [-1, 1], and noisy labels or values to be learned.

Source: Fischer and Burkholz, ICLR 2022, section 3.2, https://arxiv.org/abs/2111.11153
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, targets
from plantjax.types import Batch, Key


def relu(key: Key, n: int, noise: chex.Numeric = 0.01) -> Batch:
    """Samples y = max(x, 0) + N(0, noise).

    Args:
      key: consumed.
      n: number of samples N.
      noise: standard deviation of the noise, in [0, 1]; may be traced.

    Returns:
      Batch of x [N, 1], uniform on [-1, 1], and y [N, 1].

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].

    >>> data = relu(jax.random.key(0), 100, noise=0.0)
    >>> data.x.shape, bool((data.y == jax.nn.relu(data.x)).all())
    ((100, 1), True)
    """
    return values(key, n, noise, truth=jax.nn.relu, n_in=1)


def circle(key: Key, n: int, noise: chex.Numeric = 0.01) -> Batch:
    """Samples ring labels of g = x1^2 + x2^2; noise replaces some by their second-best class.

    Args:
      key: consumed.
      n: number of samples N.
      noise: probability that a label becomes its second-best class, in [0, 1]; may be traced.

    Returns:
      Batch of x [N, 2], uniform on [-1, 1], and labels y int32 [N] in [0, 4).

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].

    >>> data = circle(jax.random.key(0), 100)
    >>> data.x.shape, sorted(set(data.y.tolist()))
    ((100, 2), [0, 1, 2, 3])
    """
    x, noise_key = _inputs(key, n, 2, noise)
    radius = jnp.sum(jnp.square(x), axis=1)  # [N]
    boundaries = jnp.asarray(targets.CIRCLE_BOUNDARIES, jnp.float32)
    label = jnp.sum(radius[:, None] > boundaries[None, :], axis=1, dtype=jnp.int32)
    slopes = jnp.asarray(targets.CIRCLE_SLOPES, jnp.float32)
    offsets = jnp.asarray(targets.circle_offsets(), jnp.float32)
    scores = radius[:, None] * slopes[None, :] + offsets[None, :]
    others = jnp.where(jax.nn.one_hot(label, 4, dtype=bool), -jnp.inf, scores)
    second = jnp.argmax(others, axis=1).astype(jnp.int32)
    return Batch(x, jnp.where(_flips(noise_key, noise, n), second, label))


def helix(key: Key, n: int, noise: chex.Numeric = 0.01) -> Batch:
    """Samples the Helix curve (`targets.helix_curve`) plus N(0, noise) per output.

    Args:
      key: consumed.
      n: number of samples N.
      noise: standard deviation of the noise, in [0, 1]; may be traced.

    Returns:
      Batch of x [N, 1], uniform on [-1, 1], and y [N, 3].

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].

    >>> data = helix(jax.random.key(0), 100, noise=0.0)
    >>> data.y.shape, bool(jnp.allclose(jnp.hypot(data.y[:, 0], data.y[:, 1]), data.y[:, 2]))
    ((100, 3), True)
    """
    return values(key, n, noise, truth=lambda x: targets.helix_curve(x[:, 0]), n_in=1)


def parity(key: Key, n: int, noise: chex.Numeric = 0.01, *, k: int = 2, d: int = 10) -> Batch:
    """Samples whether an odd number of the first k of d inputs is negative.

    Args:
      key: consumed.
      n: number of samples N.
      noise: probability that a label is flipped, in [0, 1]; may be traced.
      k: number of inputs whose signs count.
      d: number of inputs.

    Returns:
      Batch of x [N, d], uniform on [-1, 1], and labels y int32 [N], 0 or 1.

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].

    >>> data = parity(jax.random.key(0), 100, noise=0.0)
    >>> bool(((data.x[:, 0] * data.x[:, 1] < 0) == (data.y == 1)).all())
    True
    """
    x, noise_key = _inputs(key, n, d, noise)
    label = jnp.sum(x[:, :k] < 0, axis=1, dtype=jnp.int32) % 2
    return Batch(x, jnp.where(_flips(noise_key, noise, n), 1 - label, label))


def values(
    key: Key,
    n: int,
    noise: chex.Numeric = 0.01,
    *,
    truth: Callable[[jax.Array], jax.Array],
    n_in: int,
) -> Batch:
    """Samples y = truth(x) + N(0, noise) per output.

    Args:
      key: consumed.
      n: number of samples N.
      noise: standard deviation of the noise, in [0, 1]; may be traced.
      truth: `x [N, I] -> [N, O]`.
      n_in: number of inputs I.

    Returns:
      Batch of x [N, I], uniform on [-1, 1], and y [N, O].

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].

    >>> data = values(jax.random.key(0), 100, truth=lambda x: x[:, :1] ** 2, n_in=3)
    >>> data.x.shape, data.y.shape
    ((100, 3), (100, 1))
    """
    x, noise_key = _inputs(key, n, n_in, noise)
    y = truth(x)
    size = jnp.asarray(noise, jnp.float32)
    return Batch(x, y + size * jax.random.normal(noise_key, y.shape, jnp.float32))


def _flips(key: Key, noise: chex.Numeric, n: int) -> jax.Array:
    """Whether a label becomes another one, bool [n], with single precision of the probability."""
    return jax.random.bernoulli(key, jnp.asarray(noise, jnp.float32), (n,))


def _inputs(key: Key, n: int, width: int, noise: chex.Numeric) -> tuple[jax.Array, Key]:
    """Inputs x [n, width] and the key of the noise, after checking n and noise."""
    checks.integer("n", n, 1)
    checks.interval("noise", noise, 0.0, 1.0)
    input_key, noise_key = jax.random.split(key)
    return jax.random.uniform(
        input_key, (n, width), minval=-1.0, maxval=1.0, dtype=jnp.float32
    ), noise_key
