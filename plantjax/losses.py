"""Losses of outputs [N, O] against y: plain ones for training, scale-free ones for searches."""

from collections.abc import Callable
from typing import TypeAlias

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks
from plantjax.types import Task

_ROUNDING = 1e-6  # unit-size outputs that differ by less between classes count as equal
_SMALLEST = 1e-35  # outputs up to this size count as dead, because their reciprocal may overflow

SearchLoss: TypeAlias = Callable[[jax.Array, jax.Array, chex.Numeric], jax.Array]
"""`(outputs [N, O], y, log_scale) -> scalar`; log_scale is learned along with the scores."""


def cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean softmax cross entropy.

    Args:
      outputs: float [N, O], class scores.
      y: int [N], labels in [0, O).

    Returns:
      A scalar.

    Raises:
      ValueError: on wrong shapes or dtypes, or (concrete) labels out of range.

    >>> import jax.numpy as jnp
    >>> round(float(cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 1, 2]))), 3)  # log 4
    1.386
    """
    checks.outputs_and_labels(outputs, y)
    return jnp.mean(jax.lax.platform_dependent(outputs, y, cpu=_looked_up, default=_summed))


def _looked_up(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The cross entropy of each sample [N]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, y)


def _summed(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The same by sums over classes: accelerators scatter the gradient of a look-up by itself."""
    return optax.losses.softmax_cross_entropy(
        outputs, jax.nn.one_hot(y, outputs.shape[-1], dtype=outputs.dtype)
    )


def robust_cross_entropy(outputs: jax.Array, y: jax.Array, power: float) -> jax.Array:
    """Mean of (1 - p^q) / q, where p is the softmax probability of the label.

    It is the cross entropy for q = 0 and the expected error for q = 1. The larger q is, the less it
    cares about hopeless samples, such as mislabelled ones.

    Args:
      outputs: float [N, O], class scores.
      y: int [N], labels in [0, O).
      power: the exponent q in (0, 1].

    Returns:
      A scalar.

    Raises:
      ValueError: on wrong shapes or dtypes, or (concrete) labels out of range.

    Source: Zhang and Sabuncu 2018, https://arxiv.org/abs/1805.07836

    >>> import jax.numpy as jnp
    >>> float(robust_cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 1, 2]), 1.0))
    0.75
    """
    checks.outputs_and_labels(outputs, y)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, y)
    return jnp.mean(-jnp.expm1(-power * losses) / power)


def mean_squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean of (outputs - y)^2 over samples and outputs.

    Args:
      outputs: float [N, O].
      y: float [N, O].

    Returns:
      A scalar.

    Raises:
      ValueError: on wrong shapes or dtypes.

    >>> import jax.numpy as jnp
    >>> float(mean_squared_error(jnp.zeros((2, 1)), jnp.array([[1.0], [3.0]])))
    5.0
    """
    checks.outputs_and_values(outputs, y)
    return jnp.mean(jnp.square(outputs - y))


def output_factors(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Least-squares factor of each output, s_j = max(0, <y_j, f_j> / <f_j, f_j>).

    A planted regression ticket computes its target up to a positive factor per output; this finds
    the factor. An output that is zero on all samples gets factor 1.

    Args:
      outputs: float [N, O], the outputs f; they may be tiny (1e-13), we normalise before squaring.
      y: float [N, O].

    Returns:
      Factors [O].

    Raises:
      ValueError: on wrong shapes or dtypes.

    >>> import jax.numpy as jnp
    >>> y = jnp.array([[1.0, 1.0], [2.0, 2.0]])
    >>> output_factors(y * jnp.array([[0.5, -0.5]]), y).tolist()
    [2.0, 0.0]
    """
    checks.outputs_and_values(outputs, y)
    size = jnp.max(jnp.abs(outputs), axis=0)  # [O]
    size = checks.divisor(size)
    unit = outputs / size[None, :]
    norm = jnp.sum(jnp.square(unit), axis=0)
    ratio = jnp.sum(y * unit, axis=0) / checks.divisor(norm)
    return jnp.where(norm > 0, jnp.maximum(ratio, 0.0) / size, 1.0)


def scale_free_cross_entropy(
    outputs: jax.Array, y: jax.Array, log_scale: chex.Numeric = 0.0
) -> jax.Array:
    """Cross entropy of outputs scaled to unit size, so that their own scale does not matter.

    The logits are the outputs minus their mean over classes, divided by their root mean square over
    the batch, times exp(log_scale). Outputs may be as small as 1e-30. A dead network, or one whose
    class scores are equal up to rounding, has a finite loss and zero gradient.

    Args:
      outputs: float [N, O].
      y: int [N], labels in [0, O).
      log_scale: a scalar, which is learned as well.

    Returns:
      A scalar.

    Raises:
      ValueError: on wrong shapes or dtypes, or (concrete) labels out of range.

    >>> import jax.numpy as jnp
    >>> outputs, y = jnp.eye(3), jnp.array([0, 1, 1])
    >>> losses = [scale_free_cross_entropy(scale * outputs, y) for scale in (1.0, 1e-20)]
    >>> bool(jnp.isclose(*losses))
    True
    """
    checks.outputs_and_labels(outputs, y)
    return cross_entropy(_logits(outputs, log_scale), y)


def scale_free_divergence(
    outputs: jax.Array, reference: jax.Array, log_scale: chex.Numeric = 0.0
) -> jax.Array:
    """Mean reverse KL divergence KL(p || q) between class probabilities of unit-size logits.

    p is the softmax of the outputs, q that of the reference. Both are scaled to unit size as in
    `scale_free_cross_entropy`; only the outputs are multiplied by exp(log_scale).

    Args:
      outputs: float [N, O].
      reference: float [N, O].
      log_scale: a scalar, which is learned as well.

    Returns:
      A scalar, 0 or more.

    Raises:
      ValueError: on wrong shapes or dtypes.

    >>> import jax.numpy as jnp
    >>> outputs = jnp.eye(3)
    >>> bool(jnp.isclose(scale_free_divergence(1e-20 * outputs, outputs), 0.0, atol=1e-6))
    True
    """
    checks.outputs_and_values(outputs, reference)
    log_p = jax.nn.log_softmax(_logits(outputs, log_scale))
    log_q = jax.nn.log_softmax(_unit_logits(reference))
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1))


def scale_free_squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean squared error after the least-squares factor per output, differentiated through.

    For a positive factor this is the MSE after `output_factors`, e_j = (1 - cos^2) mean(y_j^2),
    where cos is the cosine between output and y. For a negative factor the clipped loss is flat;
    there we use (1 + cos^2) mean(y_j^2), which keeps a gradient that drives cos up.

    Args:
      outputs: float [N, O]; a dead output has a finite loss and zero gradient.
      y: float [N, O].

    Returns:
      A scalar.

    Raises:
      ValueError: on wrong shapes or dtypes.

    >>> import jax.numpy as jnp
    >>> y = jnp.array([[1.0], [2.0]])
    >>> bool(scale_free_squared_error(1e-13 * y, y) < 1e-12)
    True
    """
    checks.outputs_and_values(outputs, y)
    unit = _unit(outputs, axis=0)
    norm = jnp.sum(jnp.square(unit), axis=0)  # [O]
    factor = jnp.sum(y * unit, axis=0) / checks.divisor(norm)
    error = jnp.mean(jnp.square(y - factor[None, :] * unit), axis=0)
    beyond = 2.0 * jnp.mean(jnp.square(y), axis=0) - error
    return jnp.mean(jnp.where(factor >= 0, error, beyond))


def _unit_logits(outputs: jax.Array) -> jax.Array:
    """Outputs minus their mean over classes, scaled to RMS 1; zeros if all classes are equal."""
    unit = _unit(outputs)
    centred = unit - jnp.mean(unit, axis=1, keepdims=True)
    square = jnp.mean(jnp.square(centred))
    alive = square > _ROUNDING**2
    size = jnp.sqrt(jnp.where(alive, square, 1.0))
    return jnp.where(alive, centred / size, 0.0)


def _logits(outputs: jax.Array, log_scale: chex.Numeric) -> jax.Array:
    """Outputs of unit size, times exp(log_scale)."""
    unit, factor = _unit_logits(outputs), jnp.exp(log_scale)
    return unit * (factor.astype(unit.dtype) if unit.dtype == jnp.float64 else factor)


def _unit(outputs: jax.Array, axis: int | None = None) -> jax.Array:
    """Outputs divided by their largest absolute value, without its gradient; zeros stay zero."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(outputs), axis=axis, keepdims=True))
    return outputs / jnp.where(size > _SMALLEST, size, 1.0)


def plain(task: Task) -> SearchLoss:
    """The task's training loss as it is; log_scale is ignored.

    >>> import jax.numpy as jnp, plantjax as pj
    >>> loss = pj.losses.plain(pj.TASKS["relu"])
    >>> float(loss(jnp.zeros((2, 1)), jnp.ones((2, 1)), 0.0))
    1.0
    """
    return lambda outputs, y, log_scale: task.loss(outputs, y)


def scale_free(task: Task) -> SearchLoss:
    """The task's loss regardless of the outputs' scale, for searches that cannot change weights.

    >>> import plantjax as pj
    >>> pj.losses.scale_free(pj.TASKS["circle"]).__name__
    'scale_free_cross_entropy'
    """
    if task.metric == "accuracy":
        return scale_free_cross_entropy
    return lambda outputs, y, log_scale: scale_free_squared_error(outputs, y)


def robust(task: Task) -> SearchLoss:
    """The same as `scale_free`, with `robust_cross_entropy` of exponent 0.3 for classification.

    >>> import plantjax as pj
    >>> outputs, y = jnp.zeros((3, 4)), jnp.zeros(3, jnp.int32)
    >>> round(float(pj.losses.robust(pj.TASKS["circle"])(outputs, y, 0.0)), 3)  # (1 - 4^-0.3) / 0.3
    1.134
    """
    if task.metric != "accuracy":
        return scale_free(task)

    def loss(outputs: jax.Array, y: jax.Array, log_scale: chex.Numeric) -> jax.Array:
        return robust_cross_entropy(_unit_logits(outputs) * jnp.exp(log_scale), y, ROBUST)

    return loss


ROBUST = 0.3
"""Exponent of `robust`."""

SEARCH_LOSSES = checks.Names({"scale-free": scale_free, "plain": plain, "robust": robust})
"""Losses for searches that train masks: `(task) -> ((outputs, y, log_scale) -> scalar)`."""
