"""Continuous sparsification: sigmoid masks whose temperature hardens them epoch by epoch."""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, nets
from plantjax.finders import gates
from plantjax.types import Apply, Finder, Key, Params, Task


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

    In epoch e = 0, ..., E - 1 of every round; m is deterministic. Between rounds
    s <- min(beta s, s0), beta <- 1: what is pruned stays so. To the loss comes a penalty on sum m;
    its weight starts at the published 1e-8 and is driven by dual ascent, so that sum m reaches
    density n. The published division of m by sigmoid(s0) would rescale the weights: left out. The
    mask keeps the highest s. Much below density 0.1 the count collapses before the masks differ.

    Args:
      task: gives the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: of the final selection, see `masks.select`.
      rounds: rounds R.
      search_epochs: passes over the data E of every round.
      batch_size: samples per step.
      search_learning_rate: of Adam, cosine over the run. The published SGD of rate 0.1 and
        momentum 0.9 does as well at density 0.5 but fails at 0.1 on Circle.
      optimizer: any optax optimizer instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", or "plain", the task's.
      start: s0.
      final_temperature: beta in the last epoch of a round.
      penalty: the first weight of sum m.
      dual_rate: how fast the price of the count grows, see `gates.dual_ascent`.
      damping: of the count around what is wanted, likewise.
      invert: keep the lowest logits in the end, as a control.

    Returns:
      A Finder; `Found.info` as of `gates.search_gates`. Natively kept: s > 0.

    Raises:
      ValueError: if a name is unknown or a number out of range.

    Source: Savarese et al. 2020, https://arxiv.org/abs/1912.04427, algorithm 2

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.continuous_sparsification(task, search_epochs=2))
    >>> found = find(keys[2], mother, data, 0.5)
    >>> int(pj.masks.count(found.mask)), found.info["losses"].shape
    (71, (2,))
    """
    checks.integer("rounds", rounds, 1)
    checks.integer("search_epochs", search_epochs, 1)
    for name, value in {
        "search_learning_rate": search_learning_rate,
        "final_temperature": final_temperature,
        "dual_rate": dual_rate,
    }.items():
        checks.positive(name, value)
    checks.interval("damping", damping, 0.0, math.inf)
    checks.interval("penalty", penalty, 0.0, math.inf)

    def temperature(epoch: jax.Array) -> jax.Array:
        share = (epoch % search_epochs).astype(jnp.float32) / max(search_epochs - 1, 1)
        return jnp.power(jnp.float32(final_temperature), share)

    def soft(s: jax.Array, epoch: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(temperature(epoch) * s)

    def draw(key: Key, logits: Params, epoch: jax.Array) -> Params:
        del key
        return jax.tree.map(lambda s: soft(s, epoch), logits)

    def after(s: jax.Array, epoch: jax.Array) -> jax.Array:
        done = epoch + 1
        between = (done % search_epochs == 0) & (done < rounds * search_epochs)
        return jnp.where(between, jnp.minimum(temperature(epoch) * s, start), s)

    def begin(key: Key, params: Params, density: chex.Numeric) -> Params:
        del key, density
        return optax.tree.full_like(params, start)

    return gates.search_gates(
        task,
        gates.Relaxation(begin, draw, soft, lambda s: s > 0, after),
        gates.dual_ascent(dual_rate, damping),
        gates.to_labels(task, loss),
        apply=apply,
        optimizer=lambda steps: optimizer or gates.adam(search_learning_rate, steps),
        epochs=rounds * search_epochs,
        batch_size=batch_size,
        scope=scope,
        invert=invert,
        rounds=rounds,
        penalty=penalty,
    )
