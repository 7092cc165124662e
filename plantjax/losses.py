"""Training losses: plain functions of outputs [N, O] and y."""

import jax
import jax.numpy as jnp
import optax

from plantjax import checks


def cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean softmax cross entropy.

    Args:
      outputs: float [N, O], class scores.
      y: int [N], labels in [0, O).

    Returns:
      A scalar.

    Raises:
      ValueError: on wrong shapes or dtypes, or (concrete) labels out of range.
    """
    checks.outputs_and_labels(outputs, y)
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(outputs, y))


def mean_squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean of (outputs - y)^2 over samples and outputs.

    Args:
      outputs: float [N, O].
      y: float [N, O].

    Returns:
      A scalar.

    Raises:
      ValueError: on wrong shapes or dtypes.
    """
    checks.outputs_and_values(outputs, y)
    return jnp.mean(jnp.square(outputs - y))


def output_factors(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Least-squares factor of every output, s_j = max(0, <y_j, f_j> / <f_j, f_j>).

    A planted regression ticket computes its target up to a positive factor per output; this finds
    the factor. An output that is zero on all samples gets factor 1.

    Args:
      outputs: float [N, O], the outputs f; they may be tiny (1e-13), their squares are not formed.
      y: float [N, O].

    Returns:
      Factors [O].

    Raises:
      ValueError: on wrong shapes or dtypes.
    """
    checks.outputs_and_values(outputs, y)
    size = jnp.max(jnp.abs(outputs), axis=0)  # [O]
    size = jnp.where(size > 0, size, 1.0)
    unit = outputs / size[None, :]
    norm = jnp.sum(jnp.square(unit), axis=0)
    ratio = jnp.sum(y * unit, axis=0) / jnp.where(norm > 0, norm, 1.0)
    return jnp.where(norm > 0, jnp.maximum(ratio, 0.0) / size, 1.0)
