"""Concrete ticket search: binary concrete gates, with the gradients of loss and count balanced."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, losses, nets
from plantjax.finders import common, gates
from plantjax.types import Apply, Batch, Finder, Key, Params, Task

TEMPERATURE = 2.0 / 3.0
SLACK, SMOOTHING = 1.1, 0.01
"""The balance steers the count to SLACK density n; its price closes this share of the distance."""
TARGETS = ("labels", "dense")


@common.on_floats
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

    u ~ U(0, 1) for every gate and step, and tau = 2/3. alpha starts at logit(density), so that the
    count sum sigmoid(alpha) starts at density n. The penalty weight of the count balances two
    gradients, by our reading of the authors' code: above 1.1 density n parameters it goes to
    |task gradient| / |count gradient|, else to 0. It starts there and closes 1% of the
    distance to it per step. The mask keeps the highest alpha.

    Args:
      task: as in `bernoulli_gates`.
      apply: as in `bernoulli_gates`.
      scope: as in `bernoulli_gates`.
      search_epochs: as in `bernoulli_gates`.
      batch_size: as in `bernoulli_gates`.
      search_learning_rate: first learning rate of Adam, divided by 10 after 88% of the run.
      optimizer: optax optimizer to use instead.
      loss: as in `bernoulli_gates`.
      target: "labels": the search loss; "dense": distance to the outputs of the unmasked network.
        For classification that is the reverse KL divergence between class probabilities, both of
        unit size (`losses.scale_free_divergence`), for regression the scale-free squared error.
        "dense" preserves the function of an untrained mother, so use it for tickets that are
        trained.
      invert: as in `bernoulli_gates`.

    Returns:
      A Finder; `Found.info` is that of `gates.search_gates`. "native_kept" counts alpha > 0.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Arora and Teuscher 2025, https://arxiv.org/abs/2512.07142
    """
    checks.choice("target", target, TARGETS)
    checks.positive("search_learning_rate", search_learning_rate)
    to_labels = gates.to_labels(task, loss)
    return gates.search_gates(
        task,
        gates.Relaxation(_start, _draw, _kept, lambda alpha: alpha > 0),
        balanced_price,
        to_labels if target == "labels" else _to_dense(task),
        gates.GateOptions(scope, search_epochs, batch_size, slack=SLACK, invert=invert),
        apply=apply,
        optimizer=lambda steps: optimizer or _adam(search_learning_rate, steps),
    )


def balanced_price(
    price: jax.Array, step: jax.Array, excess: jax.Array, task: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Moves the price towards the value at which both gradients have the same length.

    Args:
      price: the last price.
      step: counts from 0.
      excess: count / aim - 1; while it is negative the price falls.
      task: length of the task's gradient.
      count: length of the gradient of the excess.

    Returns:
      (price, memory), both the price of this step, which is 0 or more.
    """
    ratio = task / checks.divisor(count)
    aim = jnp.where((excess >= 0) & (count > 0), ratio, 0.0)
    price = jnp.where(step == 0, aim, price + SMOOTHING * (aim - price))
    return price, price


def _adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    drop = {round(0.88 * steps): 0.1}
    return optax.adam(optax.piecewise_constant_schedule(learning_rate, drop))


def _to_dense(task: Task) -> gates.Criterion:
    def criterion(
        dense: Callable[[jax.Array], jax.Array],
        outputs: jax.Array,
        batch: Batch,
        log_scale: chex.Numeric,
    ) -> jax.Array:
        wanted = dense(batch.x)
        if task.metric == "accuracy":
            return losses.scale_free_divergence(outputs, wanted, log_scale)
        return losses.scale_free_squared_error(outputs, wanted)

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
