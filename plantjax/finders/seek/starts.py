"""Starts of a search by discrete moves: sparse networks of few units, and a fallback."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from plantjax import draws, nets
from plantjax.finders.seek import sampling, subnetwork
from plantjax.finders.seek.loss import Goal
from plantjax.finders.seek.subnetwork import Chain, Kept
from plantjax.types import Apply, Batch, Finder, Key, Params

PATHS, SAMPLES = 1024, 512  # number of random paths, and of samples to evaluate them
ALIKE = 1e-3  # log errors that differ by less are equal but for rounding, as all paths of ReLU are


def learned(
    key: Key,
    make: Callable[[Apply], Finder],
    chain: Chain,
    data: Batch,
    k: jax.Array,
    pool: int,
    units: int,
) -> Kept:
    """The mask of another finder in a random part of the mother, cut to its busiest units.

    The other finder gets all parameters in one array, which compiles in much less time than a tree.
    A part of half the width has a quarter of the parameters, so the other finder takes a third of
    the time, and starts differ more from one another.

    Args:
      key: consumed.
      make: `(apply) -> the other finder`.
      chain: the mother.
      data: training samples.
      k: number of parameters to look for, float.
      pool: number of random units per hidden layer that the part has.
      units: largest number of units per hidden layer that are kept, those with most edges.

    Returns:
      A live mask; it may be empty.
    """
    slot_key, find_key = jax.random.split(key)
    nothing = jnp.zeros(chain.weights.shape, bool)
    noise = draws.uniform(slot_key, [subnetwork.hidden(chain.widths)] * 2)
    slots = subnetwork.slots(noise[0], nothing, chain.widths, pool)
    small = subnetwork.small(chain, slots)
    flat, unravel = ravel_pytree(subnetwork.unstack(small.weights, small.widths))

    def apply(params: Params, x: jax.Array) -> jax.Array:
        return nets.apply(unravel(params["flat"]), x)

    density = jnp.minimum(k / flat.size, 1.0)
    found = make(apply)(find_key, {"flat": flat}, data, density).mask["flat"]
    kept = subnetwork.stacked(unravel(found.astype(flat.dtype))) > 0
    kept = subnetwork.live(chain, subnetwork.scatter(kept, slots, chain))
    slots = subnetwork.slots(noise[1], kept, chain.widths, units)
    kept = subnetwork.scatter(subnetwork.gather(kept, slots, chain), slots, chain)
    return subnetwork.live(chain, kept)


def safe(key: Key, goal: Goal, chain: Chain, data: Batch, k: jax.Array) -> Kept:
    """The best of many random paths from an input to an output; a constant if k is below L.

    A path has one weight per layer. With fewer parameters than layers only biases of outputs can be
    live, and the best of these is kept.

    Args:
      key: consumed.
      goal: what to lower.
      chain: the mother.
      data: training samples.
      k: int32, the budget.

    Returns:
      A mask that keeps L parameters, or one.
    """
    sample = sampling.first(sampling.whole(data), SAMPLES)
    n_layers, n_out = len(chain.widths) - 1, chain.widths[-1]
    sizes = jnp.asarray(chain.widths, jnp.float32)[:, None]
    drawn = sizes * jax.random.uniform(key, (n_layers + 1, PATHS), jnp.float32)
    units = jnp.minimum(drawn, sizes - 1).astype(jnp.int32)  # [L + 1, PATHS]
    lines = jax.vmap(lambda layer, i, j: layer[i, j])(chain.weights, units[:-1], units[1:])

    def step(values: jax.Array, line: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.relu(values) * line[None, :], None

    values, _ = jax.lax.scan(step, sample.x[:, units[0]] * lines[:1], lines[1:])  # [N, PATHS]
    biases = jnp.broadcast_to(chain.weights[-1, -1, :n_out][None, :], (values.shape[0], n_out))
    outputs = jnp.arange(n_out, dtype=jnp.int32)

    def judge(column: jax.Array, output: jax.Array) -> jax.Array:
        return goal.log_error(jnp.where(outputs[None, :] == output, column[:, None], 0.0), sample)

    errors = jax.vmap(judge, (1, 0))(
        jnp.concatenate([values, biases], axis=1), jnp.append(units[-1], outputs)
    )
    path = units[:, _first_best(errors[:PATHS])]
    nothing = jnp.zeros(chain.weights.shape, bool)
    layers = jnp.arange(n_layers, dtype=jnp.int32)
    best = nothing.at[layers, path[:-1], path[1:]].set(True)
    constant = nothing.at[-1, -1, _first_best(errors[PATHS:])].set(True)
    return jnp.where(k >= n_layers, best, constant)


def _first_best(errors: jax.Array) -> jax.Array:
    """The index of the first error that is as good as the best, up to rounding."""
    return jnp.argmax(errors <= jnp.min(errors) + ALIKE).astype(jnp.int32)
