"""Hard concrete gates: a stretched concrete distribution with mass at exactly 0 and 1."""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, nets
from plantjax.finders import gates
from plantjax.types import Apply, Finder, Key, Params, Task

TEMPERATURE, LOW, HIGH = 2.0 / 3.0, -0.1, 1.1
"""Published: temperature b, and the interval (gamma, zeta) to which gates are stretched."""


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

    s = sigmoid((logit u + log a) / b), u ~ U(0, 1) for every gate and step, b = 2/3, gamma = -0.1,
    zeta = 1.1. P(z != 0) = sigmoid(log a - b log(-gamma / zeta)); its sum is held to density n by a
    price driven by dual ascent, in place of the published fixed weight. log a starts where the
    count is as wanted, plus the published N(0, 0.01^2): from the published dropout rate of 0.5 low
    densities collapse. The mask keeps the highest log a.

    Args:
      task: gives the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: of the final selection, see `masks.select`.
      search_epochs: passes over the data E.
      batch_size: samples per step.
      search_learning_rate: of Adam, cosine over the run.
      optimizer: any optax optimizer instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", or "plain", the task's.
      dual_rate: how fast the price of the count grows, see `gates.dual_ascent`.
      damping: of the count around what is wanted, likewise.
      invert: keep the lowest logits in the end, as a control.

    Returns:
      A Finder; `Found.info` as of `gates.search_gates`. Natively kept: gates whose value at test
      time, clip(sigmoid(log a) (zeta - gamma) + gamma, 0, 1), is not 0.

    Raises:
      ValueError: if a name is unknown or a number out of range.

    Source: Louizos et al. 2018, https://arxiv.org/abs/1712.01312, equations 10 to 13

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.hard_concrete(task, search_epochs=2))
    >>> found = find(keys[2], mother, data, 0.5)
    >>> int(pj.masks.count(found.mask)), found.info["losses"].shape
    (71, (2,))
    """
    checks.positive("search_learning_rate", search_learning_rate)
    checks.positive("dual_rate", dual_rate)
    checks.interval("damping", damping, 0.0, math.inf)
    return gates.search_gates(
        task,
        gates.Relaxation(_start, _draw, _kept, lambda log_a: stretch(jax.nn.sigmoid(log_a)) > 0),
        gates.dual_ascent(dual_rate, damping),
        gates.to_labels(task, loss),
        apply=apply,
        optimizer=lambda steps: optimizer or gates.adam(search_learning_rate, steps),
        epochs=search_epochs,
        batch_size=batch_size,
        scope=scope,
        invert=invert,
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
