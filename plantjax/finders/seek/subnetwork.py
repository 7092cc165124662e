"""Small dense networks inside a large sparse one: its live units, and some dead ones.

A sparse ticket has few live units. Weights and masks are stacked per layer [I + 1, O], with the
bias as last row. Then a few units per hidden layer, the slots, are gathered: the live ones first,
then random dead ones. Searches run in the network of these slots, whose shape does not depend on
the density.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from plantjax import masks, nets
from plantjax.types import Key, Params

Stack: TypeAlias = tuple[jax.Array, ...]
"""One array [I + 1, O] per layer, kernel above bias: weights (float) or a mask (bool)."""

Slots: TypeAlias = tuple[jax.Array, ...]
"""Indices of units, int [U], per hidden layer."""


def stack(params: Params) -> Stack:
    """Joins kernel and bias of every layer of a chain."""
    return tuple(
        jnp.concatenate([layer["kernel"], layer["bias"][None, :]], axis=0)
        for layer in nets.layers(params)
    )


def unstack(stacked: Stack) -> Params:
    """Turns a stack into a chain with plantjax's layer names."""
    return {
        nets.layer_name(index): {"kernel": layer[:-1], "bias": layer[-1]}
        for index, layer in enumerate(stacked)
    }


def live(weights: Stack, kept: Stack) -> Stack:
    """The live part of a mask, see `masks.live`."""
    return stack(masks.live(unstack(weights), unstack(kept)))


def count(kept: Stack) -> jax.Array:
    """Number of kept parameters, int32."""
    return sum((jnp.sum(layer, dtype=jnp.int32) for layer in kept), start=jnp.int32(0))


def edges(kept: Stack, layer: int) -> jax.Array:
    """Kept in-edges, biases and out-edges of every unit of a hidden layer, int32 [U]."""
    into = jnp.sum(kept[layer], axis=0, dtype=jnp.int32)
    return into + jnp.sum(kept[layer + 1][:-1], axis=1, dtype=jnp.int32)


def slots(key: Key, kept: Stack, units: int) -> Slots:
    """Chooses up to `units` slots per hidden layer, most edges first; ties are random."""
    chosen = []
    for layer in range(len(kept) - 1):
        width = kept[layer].shape[1]
        noise = jax.random.uniform(jax.random.fold_in(key, layer), (width,), jnp.float32)
        priority = edges(kept, layer).astype(jnp.float32) + noise
        chosen.append(jax.lax.top_k(priority, min(units, width))[1])
    return tuple(chosen)


def gather(stacked: Stack, chosen: Slots) -> Stack:
    """The part of a stack that belongs to the slots."""
    return tuple(
        layer[rows(stacked, chosen, i)[:, None], columns(stacked, chosen, i)[None, :]]
        for i, layer in enumerate(stacked)
    )


def scatter(small: Stack, like: Stack, chosen: Slots) -> Stack:
    """Puts a mask of the slots back into the large network, and prunes everything else."""
    result = []
    for i, (part, layer) in enumerate(zip(small, like, strict=True)):
        into = rows(like, chosen, i)[:, None], columns(like, chosen, i)[None, :]
        result.append(jnp.zeros_like(layer).at[into].set(part))
    return tuple(result)


def with_one(hidden: jax.Array) -> jax.Array:
    """Appends a column of ones, which feeds the biases: [N, I] to [N, I + 1]."""
    return jnp.concatenate([hidden, jnp.ones_like(hidden[:, :1])], axis=1)


def matmul(left: jax.Array, right: jax.Array) -> jax.Array:
    """Matrix product in full float32 on every device."""
    return jnp.matmul(left, right, precision="highest")


def through(weights: Stack, values: jax.Array) -> jax.Array:
    """Runs the (masked) layers that follow pre-activations `values` [N, O_0]."""
    for layer in weights:
        values = matmul(with_one(jax.nn.relu(values)), layer)
    return values


def run(weights: Stack, kept: Stack, x: jax.Array) -> jax.Array:
    """Outputs [N, O] of the masked network."""
    last = len(weights) - 1
    fed = with_one(inputs(weights, kept, x, last))
    return matmul(fed, jnp.where(kept[last], weights[last], 0.0))


def inputs(weights: Stack, kept: Stack, x: jax.Array, layer: int) -> jax.Array:
    """Inputs of a layer of the masked network, [N, I]."""
    for part in masked(weights[:layer], kept[:layer]):
        x = jax.nn.relu(matmul(with_one(x), part))
    return x


def masked(weights: Sequence[jax.Array], kept: Sequence[jax.Array]) -> Stack:
    """Sets pruned weights to zero."""
    return tuple(jnp.where(m, w, 0.0) for w, m in zip(weights, kept, strict=True))


def rows(stacked: Stack, chosen: Slots, layer: int) -> jax.Array:
    """Indices of the slots' rows of a layer, and of its bias."""
    inputs = stacked[layer].shape[0] - 1
    if layer == 0:
        return jnp.arange(inputs + 1, dtype=jnp.int32)
    return jnp.append(chosen[layer - 1], inputs)


def columns(stacked: Stack, chosen: Slots, layer: int) -> jax.Array:
    """Indices of the slots' columns of a layer."""
    if layer < len(chosen):
        return chosen[layer]
    return jnp.arange(stacked[layer].shape[1], dtype=jnp.int32)
