"""Hard concrete gates: a stretched concrete distribution with mass at exactly 0 and 1."""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, nets
from plantjax.finders import common, gates
from plantjax.types import Apply, Finder, Key, Params, Task

TEMPERATURE, LOW, HIGH = 2.0 / 3.0, -0.1, 1.1
"""The published temperature b, and the interval (gamma, zeta) to which gates are stretched."""


@common.on_floats
def hard_concrete(
    task: Task,
    *,
    apply: Apply = nets.apply,
    scope: str = "global",
    search_epochs: int = 20,
    batch_size: int = 32,
    search_learning_rate: float = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    loss: str = "scale-free",
    dual_rate: float = 0.002,
    damping: float = 1.0,
    invert: bool = False,
) -> Finder:
    """Learns log a of gates z = clip(s (zeta - gamma) + gamma, 0, 1) of frozen parameters.

    s = sigmoid((logit u + log a) / b) with u ~ U(0, 1) for every gate and step, b = 2/3,
    gamma = -0.1, zeta = 1.1. The sum of P(z != 0) = sigmoid(log a - b log(-gamma / zeta)) is held
    at density n by dual ascent, instead of by the published penalty of fixed weight. log a starts
    at the value for which the count is density n, plus the published N(0, 0.01^2), because low
    densities collapse from the published dropout rate of 0.5. The mask keeps the highest log a.

    The options are those of `bernoulli_gates`, without sigma.

    Returns:
      A Finder; `Found.info` is that of `gates.search_gates`. "native_kept" counts the gates whose
      value at test time, clip(sigmoid(log a) (zeta - gamma) + gamma, 0, 1), is not 0.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Louizos et al. 2018, https://arxiv.org/abs/1712.01312, equations 10 to 13
    """
    checks.positive("search_learning_rate", search_learning_rate)
    return gates.search_gates(
        task,
        gates.Relaxation(_start, _draw, _kept, lambda log_a: stretch(jax.nn.sigmoid(log_a)) > 0),
        gates.dual_ascent(dual_rate, damping),
        gates.to_labels(task, loss),
        gates.GateOptions(scope, search_epochs, batch_size, invert=invert),
        apply=apply,
        optimizer=lambda steps: optimizer or gates.adam(search_learning_rate, steps),
    )


def stretch(s: jax.Array) -> jax.Array:
    """clip(s (zeta - gamma) + gamma, 0, 1)."""
    return jnp.clip(s * (HIGH - LOW) + LOW, 0.0, 1.0)


def _start(key: Key, params: Params, density: chex.Numeric) -> Params:
    logit = jax.scipy.special.logit(gates.below_one(density))
    centre = logit + TEMPERATURE * math.log(-LOW / HIGH)
    return jax.tree.map(lambda draw: centre + 0.01 * draw, draws.normal(key, params))


def _draw(key: Key, logits: Params, epoch: jax.Array) -> Params:
    del epoch
    return jax.tree.map(
        lambda log_a, noise: stretch(jax.nn.sigmoid((noise + log_a) / TEMPERATURE)),
        logits,
        draws.logistic(key, logits),
    )


def _kept(log_a: jax.Array, epoch: jax.Array) -> jax.Array:
    del epoch
    return jax.nn.sigmoid(log_a - TEMPERATURE * math.log(-LOW / HIGH))
