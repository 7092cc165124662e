"""Concrete ticket search: binary concrete gates, the gradients of task and count in balance."""

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, losses, nets
from plantjax.finders import gates
from plantjax.types import Apply, Batch, Finder, Key, Params, Task

TEMPERATURE = 2.0 / 3.0
SLACK, SMOOTHING = 1.1, 0.01
"""Of the balance: multiple of the count that is aimed at; how fast the price follows."""
TARGETS = ("labels", "dense")


def concrete_ticket(
    task: Task,
    *,
    apply: Apply = nets.apply,
    scope: str = "global",
    search_epochs: int = 20,
    batch_size: int = 32,
    search_learning_rate: float = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    loss: str = "scale-free",
    target: str = "labels",
    invert: bool = False,
) -> Finder:
    """Learns the logits alpha of gates z = sigmoid(logit(u) / tau + alpha) of frozen parameters.

    u ~ U(0, 1) for every gate and step, tau = 2/3. alpha starts at logit(density), so that the
    count sum sigmoid(alpha) starts as wanted. Gradients are balanced by our reading of the rule in
    the authors' code: where the count is above 1.1 density n, its price aims at
    |task gradient| / |count gradient|, else at 0; it starts at that aim and closes 1% of the
    distance in every step. The mask keeps the highest alpha.

    Args:
      task: gives the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: of the final selection, see `masks.select`.
      search_epochs: passes over the data E.
      batch_size: samples per step.
      search_learning_rate: of Adam, a tenth of it after 88% of the run.
      optimizer: any optax optimizer instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", or "plain", the task's.
      target: "labels": the loss; "dense": reverse KL divergence from the unmasked network's class
        probabilities, both of unit size (`losses.scale_free_divergence`); for regression the
        scale-free squared error to its outputs. It keeps what an untrained mother computes, so it
        is for tickets that are trained.
      invert: keep the lowest logits in the end, as a control.

    Returns:
      A Finder; `Found.info` as of `gates.search_gates`. Natively kept: alpha > 0.

    Raises:
      ValueError: if a name is unknown or a number out of range.

    Source: Arora and Teuscher 2025, https://arxiv.org/abs/2512.07142

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.concrete_ticket(task, search_epochs=2))
    >>> found = find(keys[2], mother, data, 0.5)
    >>> int(pj.masks.count(found.mask)), found.info["losses"].shape
    (71, (2,))
    """
    checks.choice("target", target, TARGETS)
    checks.positive("search_learning_rate", search_learning_rate)
    to_labels = gates.to_labels(task, loss)
    return gates.search_gates(
        task,
        gates.Relaxation(_start, _draw, _kept, lambda alpha: alpha > 0),
        balanced_price,
        to_labels if target == "labels" else _to_dense(task, apply),
        apply=apply,
        optimizer=lambda steps: optimizer or _adam(search_learning_rate, steps),
        epochs=search_epochs,
        batch_size=batch_size,
        scope=scope,
        invert=invert,
        slack=SLACK,
    )


def balanced_price(
    price: jax.Array, step: jax.Array, excess: jax.Array, task: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The price that makes the gradient of the count as long as that of the task, followed slowly.

    Args:
      price: the last one.
      step: from 0.
      excess: count / aim - 1; the price falls where it is negative.
      task: length of the task's gradient.
      count: length of the excess's gradient.

    Returns:
      The price of this step, 0 or more, twice: it is also what is remembered.
    """
    ratio = task / checks.divisor(count)
    aim = jnp.where((excess >= 0) & (count > 0), ratio, 0.0)
    price = jnp.where(step == 0, aim, price + SMOOTHING * (aim - price))
    return price, price


def _adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    drop = {round(0.88 * steps): 0.1}
    return optax.adam(optax.piecewise_constant_schedule(learning_rate, drop))


def _to_dense(task: Task, apply: Apply) -> gates.Criterion:
    def criterion(
        params: Params, outputs: jax.Array, batch: Batch, log_scale: chex.Numeric
    ) -> jax.Array:
        dense = apply(params, batch.x)
        if task.metric == "accuracy":
            return losses.scale_free_divergence(outputs, dense, log_scale)
        return losses.scale_free_squared_error(outputs, dense)

    return criterion


def _start(key: Key, params: Params, density: chex.Numeric) -> Params:
    del key
    return optax.tree.full_like(params, jax.scipy.special.logit(gates.below_one(density)))


def _draw(key: Key, logits: Params, epoch: jax.Array) -> Params:
    del epoch
    return jax.tree.map(
        lambda alpha, noise: jax.nn.sigmoid(noise / TEMPERATURE + alpha),
        logits,
        draws.logistic(key, logits),
    )


def _kept(alpha: jax.Array, epoch: jax.Array) -> jax.Array:
    del epoch
    return jax.nn.sigmoid(alpha)
