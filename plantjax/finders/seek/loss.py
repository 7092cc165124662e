"""The objective of discrete moves: the logarithm of a scale-free loss, and its curvature.

The logarithm makes gains relative, so that one price per parameter fits all stages of a search.
For classification an exponent q leads from cross entropy to the expected error. The loss
(1 - p^q) / q of the label's probability p is -log p at q = 0 and 1 - p at q = 1; the latter is
robust to mislabelled samples and far outliers.

Source: Zhang and Sabuncu 2018, https://arxiv.org/abs/1805.07836 (the loss of exponent q).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax import losses
from plantjax.types import Task

_SMALLEST = 1e-12  # added to a loss before the logarithm
_DEAD = 1e6  # log loss if the loss is not finite


class Aim(NamedTuple):
    """The traced parameters of a goal: log scale of the logits, and the exponent q in [0, 1]."""

    log_scale: jax.Array
    power: jax.Array


class Goal(NamedTuple):
    """The log loss, `(outputs [N, O], y, aim) -> scalar`, and its curvature [N, O].

    The curvature is positive (Gauss-Newton) and diagonal, per output; it serves predictions.
    """

    log_loss: Callable[[jax.Array, jax.Array, Aim], jax.Array]
    curvature: Callable[[jax.Array, jax.Array, Aim], jax.Array]


def verdict() -> Aim:
    """The aim that selects the best mask: nearly the share of wrong labels; the MSE as it is."""
    return Aim(jnp.float32(8.0), jnp.float32(1.0))


def goal_of(task: Task) -> Goal:
    """The goal for the metric of a task."""
    return classification() if task.metric == "accuracy" else regression()


def classification() -> Goal:
    """The loss of probabilities, for logits of unit size times exp(log_scale)."""

    def loss(outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
        log_p = jax.nn.log_softmax(_logits(outputs, aim)[0], axis=1)
        log_p = jnp.take_along_axis(log_p, y[:, None], axis=1)
        power = jnp.maximum(aim.power, 1e-3)
        return jnp.mean(-jnp.expm1(power * log_p) / power)

    def curvature(outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
        logits, factor = _logits(outputs, aim)
        share = jax.nn.softmax(logits, axis=1)
        weight = jnp.power(jnp.take_along_axis(share, y[:, None], axis=1), aim.power)
        curved = jnp.square(factor) * weight * share * (1.0 - share)
        return curved / y.shape[0] / (loss(outputs, y, aim) + _SMALLEST)

    return Goal(_log_of(loss), curvature)


def regression() -> Goal:
    """The squared error after the least-squares factor per output."""

    def loss(outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
        del aim
        return losses.scale_free_squared_error(outputs, y)

    def curvature(outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
        factors = jnp.square(losses.output_factors(outputs, y))
        curved = jnp.broadcast_to(2.0 / y.size * factors[None, :], outputs.shape)
        return curved / (loss(outputs, y, aim) + _SMALLEST)

    return Goal(_log_of(loss), curvature)


def fit_scale(goal: Goal, outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
    """The best log_scale near the present one, within [-2, 5]."""
    near = jnp.clip(aim.log_scale + jnp.linspace(-0.4, 0.4, 9), -2.0, 5.0)
    return _best_scale(goal, outputs, y, aim, near)


def first_scale(goal: Goal, outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
    """The best log_scale within [-2, 5], regardless of the present one."""
    return _best_scale(goal, outputs, y, aim, jnp.linspace(-2.0, 5.0, 29))


def _best_scale(
    goal: Goal, outputs: jax.Array, y: jax.Array, aim: Aim, scales: jax.Array
) -> jax.Array:
    def value(scale: jax.Array) -> jax.Array:
        return goal.log_loss(outputs, y, aim._replace(log_scale=scale))

    return scales[jnp.argmin(jax.lax.map(value, scales))]


def _logits(outputs: jax.Array, aim: Aim) -> tuple[jax.Array, jax.Array]:
    """Centred outputs, scaled to unit size times exp(log_scale), and the factor that scales."""
    centred = outputs - jnp.mean(outputs, axis=1, keepdims=True)
    square = jnp.mean(jnp.square(centred))
    alive = square > 0
    factor = jnp.exp(aim.log_scale) / jnp.sqrt(jnp.where(alive, square, 1.0))
    factor = jnp.where(alive, factor, 0.0)
    return factor * centred, factor


def _log_of(
    loss: Callable[[jax.Array, jax.Array, Aim], jax.Array],
) -> Callable[[jax.Array, jax.Array, Aim], jax.Array]:
    def log_loss(outputs: jax.Array, y: jax.Array, aim: Aim) -> jax.Array:
        value = jnp.log(loss(outputs, y, aim) + _SMALLEST)
        return jnp.where(jnp.isfinite(value), value, _DEAD)

    return log_loss
