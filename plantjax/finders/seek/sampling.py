"""The samples of a sweep: mostly those that matter, weighted so that no mean is biased."""

import jax
import jax.numpy as jnp

from plantjax.finders.seek.loss import Sample
from plantjax.types import Batch, Key


def whole(data: Batch) -> Sample:
    """All samples, of weight 1."""
    return Sample(data.x, data.y, jnp.ones(data.x.shape[0], jnp.float32))


def draw(key: Key, data: Batch, chances: jax.Array, n: int) -> Sample:
    """Systematic sampling: sample i is drawn n chances_i times, rounded up or down at random.

    If all chances are equal and n is at most N, no sample is drawn twice.

    Args:
      key: consumed.
      data: N samples.
      chances: [N], positive, of sum 1.
      n: how many samples to draw.

    Returns:
      n samples in random order, equal ones side by side, with weights 1 / (N chances); so a
      weighted sum over them divided by n is an unbiased estimate of the mean over all N.
    """
    total = chances.shape[0]
    noise = jax.random.uniform(key, (total + 1,), jnp.float32)
    order = jnp.argsort(noise[:total])
    ends = jnp.cumsum(chances[order]) * n
    ticks = jnp.arange(n, dtype=jnp.float32) + noise[total]
    found = jnp.clip(jnp.searchsorted(ends, ticks, side="right"), 0, total - 1)
    chosen = order[found]
    return Sample(data.x[chosen], data.y[chosen], 1.0 / (total * chances[chosen]))


def first(sample: Sample, n: int) -> Sample:
    """The first n samples, which are a fair part of all."""
    return Sample(sample.x[:n], sample.y[:n], sample.weight[:n])
