"""Small dense networks inside a large sparse one: its live units, and some dead ones.

A sparse ticket has few live units. A few units per hidden layer, the slots, are gathered: the live
ones first, then random dead ones. Searches run in the network of these slots, whose shape does not
depend on the density.

All layers have one shape: they are stacked into one array, and padded with zeros. So a sweep is a
loop over layers, whose body compiles once, however deep the network is. Padding is never kept.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import nets
from plantjax.types import Params

Kept: TypeAlias = jax.Array
"""The mask of a chain, bool [L, R, C], shaped like its weights."""

Slots: TypeAlias = jax.Array
"""Indices of units, int32 [L - 1, S], S per hidden layer."""

_Two: TypeAlias = tuple[jax.Array, jax.Array]

_NOWHERE = 2**30  # an index out of bounds: gathered as 0, and never scattered


@partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["widths"])
@dataclass(frozen=True)
class Chain:
    """A chain of L dense layers in one array.

    Attributes:
      weights: [L, R, C], kernels [I, O] in the upper left, biases [O] in the last row, else 0.
      widths: (I, ..., O), static; R - 1 is the largest but the last, C the largest but the first.
    """

    weights: jax.Array
    widths: tuple[int, ...]


def stack(params: Params) -> Chain:
    """Stacks the layers of a chain."""
    widths = nets.widths(params)
    return Chain(stacked(params), widths)


def stacked(params: Params) -> jax.Array:
    """The arrays of a chain, or of its mask, as one [L, R, C]."""
    widths = nets.widths(params)
    rows, columns = max(widths[:-1]), max(widths[1:])
    layers = []
    for layer in nets.layers(params):
        n_in, n_out = layer["kernel"].shape
        kernel = jnp.pad(layer["kernel"], ((0, rows - n_in), (0, columns - n_out)))
        bias = jnp.pad(layer["bias"], (0, columns - n_out))
        layers.append(jnp.concatenate([kernel, bias[None, :]], axis=0))
    return jnp.stack(layers)


def unstack(array: jax.Array, widths: tuple[int, ...]) -> Params:
    """The chain of an array [L, R, C], with plantjax's layer names."""
    return {
        nets.layer_name(index): {
            "kernel": array[index, :n_in, :n_out],
            "bias": array[index, -1, :n_out],
        }
        for index, (n_in, n_out) in enumerate(pairwise(widths))
    }


def real(widths: tuple[int, ...]) -> np.ndarray:
    """Which entries of a stack are parameters, no padding; bool [L, R, C]."""
    rows, columns = np.arange(max(widths[:-1]) + 1), np.arange(max(widths[1:]))
    n_in, n_out = np.array(widths[:-1])[:, None], np.array(widths[1:])[:, None]
    is_row = (rows[None, :] < n_in) | (rows[None, :] == rows[-1])
    return is_row[:, :, None] & (columns[None, :] < n_out)[:, None, :]


def masked(chain: Chain, kept: Kept) -> jax.Array:
    """The weights with pruned ones set to zero."""
    return jnp.where(kept, chain.weights, 0.0)


def count(kept: jax.Array) -> jax.Array:
    """Number of kept parameters, int32."""
    return jnp.sum(kept, dtype=jnp.int32)


def live(chain: Chain, kept: Kept) -> Kept:
    """The live part of a mask, see `masks.live`."""
    n_layers, rows, columns = kept.shape

    def up(
        fed: jax.Array, item: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        layer, biases = item
        reached = jnp.any(layer[:-1] & fed[:, None], axis=0) | biases
        return resized(reached, rows - 1), (fed, reached)

    def down(read: jax.Array, item: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        layer, fed, reached = item
        used = layer & (read & reached)[None, :]
        return resized(jnp.any(used[:-1], axis=1), columns), used & jnp.append(fed, True)[:, None]

    positive = kept[:, -1] & (chain.weights[:, -1] > 0)
    _, (fed, reached) = jax.lax.scan(up, jnp.ones(rows - 1, bool), (kept, positive))
    reached = reached.at[n_layers - 1].set(True)
    items = (kept, fed, reached)
    return jax.lax.scan(down, jnp.ones(columns, bool), items, reverse=True)[1]


def edges(kept: Kept, units: int) -> jax.Array:
    """Kept in-edges, biases and out-edges of the units of hidden layers, int32 [L - 1, units]."""
    into = jnp.sum(kept[:-1, :, :units], axis=1, dtype=jnp.int32)
    return into + jnp.sum(kept[1:, :units], axis=2, dtype=jnp.int32)


def hidden(widths: tuple[int, ...]) -> np.ndarray:
    """Which units of hidden layers are real, bool [L - 1, W] for W in the widest of them."""
    inner = np.array(widths[1:-1], int)
    return np.arange(max(inner, default=0))[None, :] < inner[:, None]


def slots(noise: jax.Array, kept: Kept, widths: tuple[int, ...], units: int) -> Slots:
    """Chooses up to `units` slots per hidden layer, most edges first.

    Args:
      noise: in [0, 1), decides ties; [L - 1, W] for W in the widest hidden layer.
      kept: a mask.
      widths: of the chain.
      units: number of slots; a layer of fewer units has all of them, and padding behind.
    """
    priority = edges(kept, noise.shape[1]).astype(jnp.float32) + noise
    priority = jnp.where(hidden(widths), priority, -1.0)
    return jax.lax.top_k(priority, min(units, noise.shape[1]))[1]


def narrow(widths: tuple[int, ...], units: int) -> tuple[int, ...]:
    """The widths of the network of up to `units` slots per hidden layer."""
    return (widths[0], *(min(units, width) for width in widths[1:-1]), widths[-1])


def rows(chosen: Slots, chain: Chain) -> jax.Array:
    """Indices of the slots' rows of every layer, and of its bias; int32 [L, max(I, S) + 1]."""
    n_in, size = chain.widths[0], max(chain.widths[0], chosen.shape[1])
    index = jnp.arange(size, dtype=jnp.int32)
    first = jnp.where(index < n_in, index, _NOWHERE)[None, :]
    inputs = jnp.concatenate([first, resized(chosen, size, _NOWHERE)])
    return resized(inputs, size + 1, chain.weights.shape[1] - 1)


def columns(chosen: Slots, chain: Chain) -> jax.Array:
    """Indices of the slots' columns of every layer, int32 [L, max(S, O)]."""
    n_out, size = chain.widths[-1], max(chain.widths[-1], chosen.shape[1])
    index = jnp.arange(size, dtype=jnp.int32)
    last = jnp.where(index < n_out, index, _NOWHERE)[None, :]
    return jnp.concatenate([resized(chosen, size, _NOWHERE), last])


def gather(array: jax.Array, chosen: Slots, chain: Chain) -> jax.Array:
    """The part of a mask or of weights [L, R, C] that belongs to the slots."""
    return jax.vmap(pick)(array, rows(chosen, chain), columns(chosen, chain))


def pick(layer: jax.Array, into: jax.Array, out: jax.Array) -> jax.Array:
    """The entries of a layer [R, C] at some rows and columns; 0 at those that do not exist."""
    return layer.at[into[:, None], out[None, :]].get(mode="fill", fill_value=0)


def small(chain: Chain, chosen: Slots) -> Chain:
    """The network of the slots."""
    return Chain(gather(chain.weights, chosen, chain), narrow(chain.widths, chosen.shape[1]))


def scatter(part: Kept, chosen: Slots, chain: Chain) -> Kept:
    """Puts a mask of the slots back into the large network, and prunes everything else."""

    def put(layer: jax.Array, into: jax.Array, out: jax.Array) -> jax.Array:
        empty = jnp.zeros(chain.weights.shape[1:], bool)
        return empty.at[into[:, None], out[None, :]].set(layer, mode="drop")

    return jax.vmap(put)(part, rows(chosen, chain), columns(chosen, chain))


def fed(values: jax.Array, rows: int) -> jax.Array:
    """What R rows of a layer are fed: values [N, C], padded or cut, and a one for the bias."""
    return resized(resized(values, rows - 1), rows, 1)


def matmul(left: jax.Array, right: jax.Array) -> jax.Array:
    """Matrix product in full float32 on every device."""
    return jnp.matmul(left, right, precision="highest")


def forward(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Pre-activations [N, C] after a masked layer [R, C], from those before it [N, ...]."""
    hidden = resized(jax.nn.relu(values), weights.shape[0] - 1)
    return matmul(hidden, weights[:-1]) + weights[-1][None, :]


def inputs(weights: jax.Array, x: jax.Array, layer: jax.Array | int) -> jax.Array:
    """What a layer of the masked network [L, R, C] is fed, with a column of ones; [N, R]."""
    size = weights.shape[1]

    def step(index: jax.Array, values: jax.Array) -> jax.Array:
        return fed(jax.nn.relu(matmul(values, weights[index])), size)

    return jax.lax.fori_loop(0, layer, step, fed(x, size))


def through(weights: jax.Array, values: jax.Array, layer: jax.Array | int, n_out: int) -> jax.Array:
    """Outputs [N, O] of the masked layers from `layer` on, at the pre-activations [N, C] before it.

    The last layer is outside of the loop, as it has fewer units than the array has columns.
    """
    last = weights.shape[0]
    values = jax.lax.fori_loop(layer, last - 1, lambda i, z: forward(weights[i], z), values)
    end = partial(forward, weights[-1, :, :n_out])
    return jax.lax.cond(layer < last, end, lambda values: values[:, :n_out], values)


def run(chain: Chain, kept: Kept, x: jax.Array) -> jax.Array:
    """Outputs [N, O] of the masked network."""
    weights = masked(chain, kept)
    first = matmul(x, weights[0, : x.shape[1]]) + weights[0, -1][None, :]
    return through(weights, first, 1, chain.widths[-1])


def resized(values: jax.Array, size: int, fill: int = 0) -> jax.Array:
    """Cuts the last axis to a size, or fills it up."""
    missing = size - values.shape[-1]
    if missing <= 0:
        return values[..., :size]
    padding = [(0, 0)] * (values.ndim - 1) + [(0, missing)]
    return jnp.pad(values, padding, constant_values=fill)
