"""What a search lowers: the logarithm of a loss of weighted samples, and its curvature.

The logarithm makes gains relative, so that one price per parameter fits all stages of a search.
For classification an exponent q leads from cross entropy to the expected error: the loss
(1 - p^q) / q of the label's probability p is -log p at q = 0 and 1 - p at q = 1. The latter does
not care how wrong a wrong answer is, so it is robust to mislabelled samples and near to the error.

Source: Zhang and Sabuncu 2018, https://arxiv.org/abs/1805.07836 (the loss of exponent q).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from plantjax import losses
from plantjax.types import Task

_SMALLEST = 1e-12  # added to a loss before the logarithm
_DEAD = 1e6  # log loss if the loss is not finite
_REACH = 4.0  # margin at which a sample is drawn e times less often than at a boundary
_VERDICT = 8.0  # log scale at which the expected error is nearly the share of wrong labels


class Sample(NamedTuple):
    """Samples x [N, I] with labels or values y, and their weights [N], 1 on average."""

    x: jax.Array
    y: jax.Array
    weight: jax.Array


class Aim(NamedTuple):
    """The traced parameters of a goal: log scale of the logits, and the exponent q in [0, 1]."""

    log_scale: jax.Array
    power: jax.Array


class Goal(Protocol):
    """A loss of outputs [N, O] on N samples, its curvature, and which samples matter to it."""

    def log_loss(self, outputs: jax.Array, sample: Sample, aim: Aim) -> jax.Array:
        """The logarithm of the loss, a finite scalar."""

    def roots(self, outputs: jax.Array, sample: Sample, aim: Aim) -> jax.Array:
        """R [N, O, O]; R^T R approximates the log loss's second derivative in a sample's outputs.

        It is positive (Gauss-Newton), and ignores that the scale depends on all outputs.
        """

    def log_error(self, outputs: jax.Array, sample: Sample) -> jax.Array:
        """The logarithm of what masks are chosen by: nearly the error rate, or the MSE."""

    def chances(self, outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
        """In what proportions to draw samples [N]: positive, of sum 1."""


def goal_of(task: Task, focus: float = 0.0) -> Goal:
    """The goal for the metric of a task; `focus` as in `Classification`."""
    return Classification(focus) if task.metric == "accuracy" else Regression()


@dataclass(frozen=True)
class Classification:
    """The loss of probabilities, for logits of unit size times exp(log_scale).

    Attributes:
      focus: share of the draws that prefers samples near class boundaries, in proportion to
        exp(-|margin| / 4), where the margin is the distance of the label's logit from the next.
    """

    focus: float = 0.0

    def log_loss(self, outputs: jax.Array, sample: Sample, aim: Aim) -> jax.Array:
        """See `Goal`."""
        return _log(self._loss(outputs, sample, aim))

    def _loss(self, outputs: jax.Array, sample: Sample, aim: Aim) -> jax.Array:
        logits, _ = _logits(outputs, sample.weight, aim)
        log_p = _of_label(logits, sample.y) - jax.nn.logsumexp(logits, axis=0)
        power = jnp.maximum(aim.power, 1e-3)
        return _mean(-jnp.expm1(power * log_p) / power, sample.weight)

    def roots(self, outputs: jax.Array, sample: Sample, aim: Aim) -> jax.Array:
        """See `Goal`: diag(p) - p p^T of the softmax, times p_label^q."""
        logits, factor = _logits(outputs, sample.weight, aim)
        p = jax.nn.softmax(logits, axis=0).T
        label = _of_label(p.T, sample.y)
        share = sample.weight / jnp.sum(sample.weight)
        square = share * jnp.power(label, aim.power)
        square = square / (self._loss(outputs, sample, aim) + _SMALLEST)
        contrast = jnp.eye(p.shape[1], dtype=jnp.float32)[None] - p[:, None, :]
        return (factor * jnp.sqrt(square))[:, None, None] * jnp.sqrt(p)[:, :, None] * contrast

    def log_error(self, outputs: jax.Array, sample: Sample) -> jax.Array:
        """See `Goal`: the expected error of very sharp probabilities."""
        return self.log_loss(outputs, sample, Aim(jnp.float32(_VERDICT), jnp.float32(1.0)))

    def chances(self, outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
        """See `Goal`."""
        logits, _ = _logits(outputs, jnp.ones(y.shape[0], jnp.float32), aim)
        others = jnp.where(_is_label(logits, y), -jnp.inf, logits)
        margin = _of_label(logits, y) - jnp.max(others, axis=0)
        near = jax.nn.softmax(-jnp.abs(margin) / _REACH)
        return (1.0 - self.focus) / y.shape[0] + self.focus * near


@dataclass(frozen=True)
class Regression:
    """The mean squared error after the least-squares factor of every output."""

    def log_loss(self, outputs: jax.Array, sample: Sample, aim: Aim) -> jax.Array:
        """See `Goal`."""
        del aim
        return _log(self._loss(outputs, sample))

    def _loss(self, outputs: jax.Array, sample: Sample) -> jax.Array:
        root = _unit_root(sample)
        return losses.scale_free_squared_error(root * outputs, root * sample.y)

    def roots(self, outputs: jax.Array, sample: Sample, aim: Aim) -> jax.Array:
        """See `Goal`."""
        del aim
        root = _unit_root(sample)
        factors = losses.output_factors(root * outputs, root * sample.y)  # [O]
        square = 2.0 / sample.y.size / (self._loss(outputs, sample) + _SMALLEST)
        return root[:, :, None] * jnp.sqrt(square) * jnp.diag(factors)[None]

    def log_error(self, outputs: jax.Array, sample: Sample) -> jax.Array:
        """See `Goal`."""
        return _log(self._loss(outputs, sample))

    def chances(self, outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
        """See `Goal`: all alike."""
        del outputs, aim
        return jnp.full(y.shape[0], 1.0 / y.shape[0], jnp.float32)


def fit_scale(goal: Goal, outputs: jax.Array, sample: Sample, log_scale: jax.Array) -> jax.Array:
    """The log scale of least cross entropy near the present one, within [-2, 5]."""
    near = jnp.clip(log_scale + jnp.linspace(-0.4, 0.4, 9, dtype=jnp.float32), -2.0, 5.0)
    return _best_scale(goal, outputs, sample, near)


def first_scale(goal: Goal, outputs: jax.Array, sample: Sample) -> jax.Array:
    """The log scale of least cross entropy within [-2, 5]."""
    return _best_scale(goal, outputs, sample, jnp.linspace(-2.0, 5.0, 29, dtype=jnp.float32))


def _best_scale(goal: Goal, outputs: jax.Array, sample: Sample, scales: jax.Array) -> jax.Array:
    def value(scale: jax.Array) -> jax.Array:
        return goal.log_loss(outputs, sample, Aim(scale, jnp.float32(0.0)))

    return scales[jnp.argmin(jax.lax.map(value, scales))]


def _logits(outputs: jax.Array, weight: jax.Array, aim: Aim) -> tuple[jax.Array, jax.Array]:
    """Centred outputs [O, N], scaled to unit size times exp(log_scale), and the factor that scales.

    Samples are last, since vectors of them are long.
    """
    centred = outputs.T - jnp.mean(outputs.T, axis=0, keepdims=True)
    square = _mean(jnp.mean(jnp.square(centred), axis=0), weight)
    alive = square > 0
    factor = jnp.exp(aim.log_scale) / jnp.sqrt(jnp.where(alive, square, 1.0))
    factor = jnp.where(alive, factor, 0.0)
    return factor * centred, factor


def _is_label(values: jax.Array, y: jax.Array) -> jax.Array:
    """Bools of the shape of values [O, N], True at the labels y [N]."""
    return jnp.arange(values.shape[0], dtype=jnp.int32)[:, None] == y[None, :]


def _of_label(values: jax.Array, y: jax.Array) -> jax.Array:
    """The values [N] of the labels, from values [O, N]."""
    return jnp.sum(jnp.where(_is_label(values, y), values, 0.0), axis=0)


def _mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.sum(weight * values) / jnp.sum(weight)


def _unit_root(sample: Sample) -> jax.Array:
    """Roots of the weights, which are scaled to a mean of 1; [N, 1]."""
    return jnp.sqrt(sample.weight / jnp.mean(sample.weight))[:, None]


def _log(value: jax.Array) -> jax.Array:
    value = jnp.log(value + _SMALLEST)
    return jnp.where(jnp.isfinite(value), value, _DEAD)
