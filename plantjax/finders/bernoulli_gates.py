"""Continuously relaxed Bernoulli gates: a learned mean plus normal noise, clipped to [0, 1]."""

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, nets
from plantjax.finders import common, gates
from plantjax.types import Apply, Finder, Key, Params, Task


@common.on_floats
def bernoulli_gates(
    task: Task,
    *,
    apply: Apply = nets.apply,
    scope: str = "global",
    search_epochs: int = 20,
    batch_size: int = 32,
    search_learning_rate: float = 0.05,
    optimizer: optax.GradientTransformation | None = None,
    loss: str = "scale-free",
    sigma: float = 0.5,
    dual_rate: float = 0.002,
    damping: float = 1.0,
    invert: bool = False,
) -> Finder:
    """Learns the means mu of gates z = clip(mu + sigma N(0, 1), 0, 1) of frozen parameters.

    The sum of P(z > 0) = Phi(mu / sigma) is held at density n by dual ascent, instead of by a
    penalty of fixed weight. mu starts at the value for which the count is density n, because low
    densities collapse from the published start of 0.5. The mask keeps the highest mu.

    Args:
      task: defines the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: scope of the final selection, see `masks.select`.
      search_epochs: number of passes over the data E.
      batch_size: samples per step.
      search_learning_rate: initial learning rate of Adam, with cosine decay over the run.
      optimizer: optax optimizer to use instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", "robust", or "plain", the task's own.
      sigma: standard deviation of the noise; the published one is 0.5.
      dual_rate: how fast the price of the count grows, see `gates.dual_ascent`.
      damping: damps oscillations of the count, see `gates.dual_ascent`.
      invert: keep the lowest logits at the end instead, as a control.

    Returns:
      A Finder; `Found.info` is that of `gates.search_gates`. "native_kept" counts mu > 0, where the
      gate without noise is not 0.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Tsayag and Lindenbaum 2026, https://arxiv.org/abs/2603.08914
    """
    checks.positive("search_learning_rate", search_learning_rate)
    checks.positive("sigma", sigma)

    def start(key: Key, params: Params, density: chex.Numeric) -> Params:
        del key
        mean = sigma * jax.scipy.stats.norm.ppf(gates.below_one(density))
        return optax.tree.full_like(params, mean)

    def draw(key: Key, means: Params, epoch: jax.Array) -> Params:
        del epoch
        noise = draws.normal(key, means)
        return jax.tree.map(lambda mu, n: jnp.clip(mu + sigma * n, 0.0, 1.0), means, noise)

    def kept(mu: jax.Array, epoch: jax.Array) -> jax.Array:
        del epoch
        return jax.scipy.stats.norm.cdf(mu / sigma)

    return gates.search_gates(
        task,
        gates.Relaxation(start, draw, kept, lambda mu: mu > 0),
        gates.dual_ascent(dual_rate, damping),
        gates.to_labels(task, loss),
        gates.GateOptions(scope, search_epochs, batch_size, invert=invert),
        apply=apply,
        optimizer=lambda steps: optimizer or gates.adam(search_learning_rate, steps),
    )
