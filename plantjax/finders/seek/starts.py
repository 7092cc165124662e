"""Starts of a search by discrete moves: sparse networks of few units, and a fallback."""

import jax
import jax.numpy as jnp

from plantjax.finders.seek import sampling, subnetwork
from plantjax.finders.seek.loss import Goal, Sample
from plantjax.finders.seek.subnetwork import Stack
from plantjax.types import Batch, Finder, Key

PATHS, SAMPLES = 1024, 512  # number of random paths, and of samples to evaluate them


def learned(
    key: Key,
    finder: Finder,
    weights: Stack,
    data: Batch,
    k: jax.Array,
    pool: int,
    units: int,
) -> Stack:
    """The mask of another finder in a random part of the mother, cut to its busiest units.

    A part of half the width has a quarter of the parameters, so the other finder takes a third of
    the time, and starts differ more from one another.

    Args:
      key: consumed.
      finder: the other finder.
      weights: the mother.
      data: training samples.
      k: number of parameters to look for, float.
      pool: number of random units per hidden layer that the part has.
      units: largest number of units per hidden layer that are kept, those with most edges.

    Returns:
      A live mask; it may be empty.
    """
    part_key, find_key, slot_key = jax.random.split(key, 3)
    nothing = tuple(jnp.zeros(layer.shape, bool) for layer in weights)
    part = subnetwork.slots(part_key, nothing, pool)
    small = subnetwork.gather(weights, part)
    density = jnp.minimum(k / sum(layer.size for layer in small), 1.0)
    found = finder(find_key, subnetwork.unstack(small), data, density).mask
    kept = subnetwork.scatter(subnetwork.stack(found), nothing, part)
    kept = subnetwork.live(weights, kept)
    places = subnetwork.slots(slot_key, kept, units)
    return subnetwork.live(
        weights, subnetwork.scatter(subnetwork.gather(kept, places), kept, places)
    )


def safe(key: Key, goal: Goal, weights: Stack, data: Batch, k: jax.Array) -> Stack:
    """The best of many random paths from an input to an output; a constant if k is below L.

    A path has one weight per layer. With fewer parameters than layers only biases of outputs can be
    live, and the best of these is kept.

    Args:
      key: consumed.
      goal: what to lower.
      weights: the mother.
      data: training samples.
      k: int32, the budget.

    Returns:
      A mask that keeps L parameters, or one.
    """
    sample = sampling.first(sampling.whole(data), SAMPLES)
    fits = k >= len(weights)
    path = _best_path(key, goal, weights, sample)
    kept = [line & fits for line in path]
    biases = jnp.diag(weights[-1][-1])  # one output at a time
    losses = jax.vmap(lambda row: _constant(goal, row, sample))(biases)
    best = jnp.arange(losses.shape[0], dtype=jnp.int32) == jnp.argmin(losses).astype(jnp.int32)
    kept[-1] = kept[-1].at[-1].set(best & ~fits)
    return tuple(kept)


def _best_path(key: Key, goal: Goal, weights: Stack, sample: Sample) -> Stack:
    sizes = [layer.shape[0] - 1 for layer in weights] + [weights[-1].shape[1]]
    units = [
        jax.random.randint(jax.random.fold_in(key, index), (PATHS,), 0, size, jnp.int32)
        for index, size in enumerate(sizes)
    ]
    values = sample.x[:, units[0]]  # [N, PATHS]
    for index, layer in enumerate(weights):
        line = layer[units[index], units[index + 1]]
        values = (jax.nn.relu(values) if index else values) * line[None, :]

    def judge(column: jax.Array, output: jax.Array) -> jax.Array:
        outputs = jnp.where(
            jnp.arange(sizes[-1], dtype=jnp.int32)[None, :] == output, column[:, None], 0.0
        )
        return goal.log_error(outputs, sample)

    best = jnp.argmin(jax.vmap(judge, (1, 0))(values, units[-1]))
    return tuple(
        jnp.zeros(layer.shape, bool).at[units[index][best], units[index + 1][best]].set(True)
        for index, layer in enumerate(weights)
    )


def _constant(goal: Goal, row: jax.Array, sample: Sample) -> jax.Array:
    outputs = jnp.broadcast_to(row[None, :], (sample.x.shape[0], row.shape[0]))
    return goal.log_error(outputs, sample)
