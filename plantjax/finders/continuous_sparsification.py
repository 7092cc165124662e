"""Continuous sparsification: sigmoid masks that a rising temperature hardens epoch by epoch."""

import math
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, nets
from plantjax.finders import common, gates
from plantjax.types import Apply, Finder, Key, Params, Task


@common.on_floats
def continuous_sparsification(
    task: Task,
    *,
    apply: Apply = nets.apply,
    scope: str = "global",
    rounds: int = 1,
    search_epochs: int = 20,
    batch_size: int = 32,
    search_learning_rate: float = 0.05,
    optimizer: optax.GradientTransformation | None = None,
    loss: str = "scale-free",
    start: float = 0.0,
    final_temperature: float = 200.0,
    penalty: float = 1e-8,
    dual_rate: float = 0.002,
    damping: float = 1.0,
    invert: bool = False,
) -> Finder:
    """Learns s of masks m = sigmoid(beta s) of frozen parameters, beta = 200^(e / (E - 1)).

    The temperature beta rises over the epochs e = 0, ..., E - 1 of every round; m is deterministic.
    Between rounds s <- min(beta s, s0) and beta <- 1, so that pruned parameters stay pruned. The
    loss has a penalty on sum m. Its weight starts at the published 1e-8 and is driven by dual
    ascent until sum m reaches density n. We omit the paper's division of m by sigmoid(s0), which
    rescales the weights. The mask keeps the highest s. Much below density 0.1 the count collapses
    before the masks differ.

    Args:
      task: defines the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: scope of the final selection, see `masks.select`.
      rounds: number of rounds R.
      search_epochs: number of passes over the data E per round.
      batch_size: samples per step.
      search_learning_rate: initial learning rate of Adam, with cosine decay over the run. The
        published SGD (rate 0.1, momentum 0.9) does as well at density 0.5, but fails at 0.1 on
        Circle.
      optimizer: optax optimizer to use instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", "robust", or "plain", the task's own.
      start: initial value s0.
      final_temperature: beta in the last epoch of a round.
      penalty: initial weight of sum m.
      dual_rate: how fast the price of the count grows, see `gates.dual_ascent`.
      damping: damps oscillations of the count, see `gates.dual_ascent`.
      invert: keep the lowest logits at the end instead, as a control.

    Returns:
      A Finder; `Found.info` is that of `gates.search_gates`. "native_kept" counts s > 0.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Savarese et al. 2020, https://arxiv.org/abs/1912.04427, algorithm 2
    """
    checks.integer("rounds", rounds, 1)
    checks.integer("search_epochs", search_epochs, 1)
    checks.positive("search_learning_rate", search_learning_rate)
    checks.positive("final_temperature", final_temperature)
    checks.interval("penalty", penalty, 0.0, math.inf)
    soft = _SoftMask(start, final_temperature, search_epochs, rounds)
    epochs = rounds * search_epochs
    return gates.search_gates(
        task,
        gates.Relaxation(soft.begin, soft.draw, soft.mask, lambda s: s > 0, soft.after),
        gates.dual_ascent(dual_rate, damping),
        gates.to_labels(task, loss),
        gates.GateOptions(scope, epochs, batch_size, rounds, penalty, invert=invert),
        apply=apply,
        optimizer=lambda steps: optimizer or gates.adam(search_learning_rate, steps),
    )


@dataclass(frozen=True)
class _SoftMask:
    """Masks sigmoid(beta s), whose temperature beta rises in every round."""

    start: float
    final_temperature: float
    epochs: int
    rounds: int

    def begin(self, key: Key, params: Params, density: chex.Numeric) -> Params:
        del key, density
        return optax.tree.full_like(params, self.start)

    def draw(self, key: Key, logits: Params, epoch: jax.Array) -> Params:
        del key
        return jax.tree.map(lambda s: self.mask(s, epoch), logits)

    def mask(self, s: jax.Array, epoch: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(self._temperature(epoch) * s)

    def after(self, s: jax.Array, epoch: jax.Array) -> jax.Array:
        """Hardens and resets s between two rounds; else returns it unchanged."""
        done = epoch + 1
        between = (done % self.epochs == 0) & (done < self.rounds * self.epochs)
        return jnp.where(between, jnp.minimum(self._temperature(epoch) * s, self.start), s)

    def _temperature(self, epoch: jax.Array) -> jax.Array:
        share = (epoch % self.epochs).astype(jnp.float32) / max(self.epochs - 1, 1)
        return jnp.power(jnp.float32(self.final_temperature), share)
