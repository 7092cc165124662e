"""Continuously relaxed Bernoulli gates: normal noise around a learned mean, clipped to [0, 1]."""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, nets
from plantjax.finders import gates
from plantjax.types import Apply, Finder, Key, Params, Task


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

    P(z > 0) = Phi(mu / sigma); its sum is held to density n by a price driven by dual ascent, in
    place of a fixed weight. mu starts where the count is as wanted: from the published 0.5 low
    densities collapse. The mask keeps the highest mu.

    Args:
      task: gives the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: of the final selection, see `masks.select`.
      search_epochs: passes over the data E.
      batch_size: samples per step.
      search_learning_rate: of Adam, cosine over the run.
      optimizer: any optax optimizer instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", or "plain", the task's.
      sigma: of the noise; 0.5 is published.
      dual_rate: how fast the price of the count grows, see `gates.dual_ascent`.
      damping: of the count around what is wanted, likewise.
      invert: keep the lowest logits in the end, as a control.

    Returns:
      A Finder; `Found.info` as of `gates.search_gates`. Natively kept: gates without noise that are
      not 0, mu > 0.

    Raises:
      ValueError: if a name is unknown or a number out of range.

    Source: Tsayag and Lindenbaum 2026, https://arxiv.org/abs/2603.08914

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.bernoulli_gates(task, search_epochs=2))
    >>> found = find(keys[2], mother, data, 0.5)
    >>> int(pj.masks.count(found.mask)), found.info["losses"].shape
    (71, (2,))
    """
    checks.positive("search_learning_rate", search_learning_rate)
    checks.positive("sigma", sigma)
    checks.positive("dual_rate", dual_rate)
    checks.interval("damping", damping, 0.0, math.inf)

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
        apply=apply,
        optimizer=lambda steps: optimizer or gates.adam(search_learning_rate, steps),
        epochs=search_epochs,
        batch_size=batch_size,
        scope=scope,
        invert=invert,
    )
