"""PHEW: keeps the edges of random walks that prefer large weights."""

from typing import NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, masks, nets
from plantjax.finders import common
from plantjax.nets.chains import with_layers
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Task

_BIAS = -1  # the source of an edge that is a bias, where a backward walk ends
Edges: TypeAlias = list[tuple[jax.Array, jax.Array]]
"""One edge (from, to) per layer; from is a unit, `_BIAS`, or less after the end of the walk."""


class _Walked(NamedTuple):
    walks: jax.Array
    kept: jax.Array
    mask: Mask
    full: jax.Array  # the next walk would exceed k


@common.on_floats
def phew(task: Task, *, apply: Apply = nets.apply, max_walks: int | None = None) -> Finder:
    """Keeps the edges of random walks, alternately forward and backward, with P = |w| / sum |w|.

    A forward walk starts at a random input and ends at an output; a backward walk goes from an
    output to an input. A bias is an edge from a unit that is always on: a backward walk may take
    it, with |b| among the weights of P, and then ends. Walks stop before the first one that would
    exceed k.

    Args:
      task: only used for checks.
      apply: must compute what `nets.apply` does: a chain of dense layers with ReLU.
      max_walks: largest number of walks; by default the number of parameters. Walks seldom find the
        last small weights, so densities above about 0.7 are not reached.

    Returns:
      A Finder with `exact_counts` False: it keeps at most k parameters, and none if not even one
      walk fits. `Found.info` holds "walks", the number of walks.

    Raises:
      ValueError: if max_walks is below 1; in a search, if params or apply are not a chain.

    Source: Patil and Dovrolis 2021, section 4, https://arxiv.org/abs/2010.11354, for networks
    without biases. That walks start at uniformly drawn units is our reading.
    """
    if max_walks is not None:
        checks.integer("max_walks", max_walks, 1)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density)
        common.check_chain("phew", apply, params)
        sizes = [jax.tree.map(jnp.abs, layer) for layer in nets.layers(params)]
        n = masks.size(params)
        k = masks.number_kept(density, n)
        most = n if max_walks is None else max_walks

        def walk(state: _Walked) -> _Walked:
            walk_key = jax.random.fold_in(key, state.walks)
            forward, backward = _forward(walk_key, sizes), _backward(walk_key, sizes)
            is_forward = state.walks % 2 == 0
            edges = jax.tree.map(lambda f, b: jnp.where(is_forward, f, b), forward, backward)
            mask, new = _add(state.mask, edges)
            full = state.kept + new > k
            mask = jax.tree.map(
                lambda old, with_it: jnp.where(full, old, with_it), state.mask, mask
            )
            kept = jnp.where(full, state.kept, state.kept + new)
            return _Walked(state.walks + jnp.where(full, 0, 1), kept, mask, full)

        empty = jax.tree.map(jnp.zeros_like, masks.full(params))
        start = _Walked(jnp.int32(0), jnp.int32(0), empty, jnp.asarray(False))
        walked = jax.lax.while_loop(
            lambda state: ~state.full & (state.walks < most) & (state.kept < k), walk, start
        )
        return Found(walked.mask, params, {"walks": walked.walks})

    return Finder(search, exact_counts=False)


def _forward(key: Key, sizes: list[dict[str, jax.Array]]) -> Edges:
    draws = jax.random.uniform(key, (len(sizes) + 1,), jnp.float32)
    unit = _pick(draws[-1], jnp.ones(sizes[0]["kernel"].shape[0], jnp.float32))
    edges = []
    for layer, draw in zip(sizes, draws[:-1], strict=True):
        after = _pick(draw, layer["kernel"][unit])
        edges.append((unit, after))
        unit = after
    return edges


def _backward(key: Key, sizes: list[dict[str, jax.Array]]) -> Edges:
    draws = jax.random.uniform(key, (len(sizes) + 1,), jnp.float32)
    unit = _pick(draws[-1], jnp.ones(sizes[-1]["bias"].shape[0], jnp.float32))
    ended = jnp.asarray(False)
    edges: Edges = []
    for layer, draw in zip(sizes[::-1], draws[:-1], strict=True):
        before = _pick(draw, jnp.append(layer["kernel"][:, unit], layer["bias"][unit]))
        is_bias = before == layer["kernel"].shape[0]
        source = jnp.where(ended, _BIAS - 1, jnp.where(is_bias, _BIAS, before))
        edges.append((source, unit))
        ended = ended | is_bias
        unit = jnp.where(ended, 0, before)
    return edges[::-1]


def _pick(draw: jax.Array, weights: jax.Array) -> jax.Array:
    """Turns a draw in [0, 1) into an index with probability proportional to the weights [W]."""
    sums = jnp.cumsum(weights)
    index = jnp.sum(sums <= draw.astype(sums.dtype) * sums[-1], dtype=jnp.int32)
    return jnp.minimum(index, weights.size - 1)


def _add(mask: Mask, edges: Edges) -> tuple[Mask, jax.Array]:
    """Adds the edges of a walk to the mask; also returns how many of them are new."""
    result, new = [], jnp.int32(0)
    for layer, (source, unit) in zip(nets.layers(mask), edges, strict=True):
        kernel, bias = layer["kernel"], layer["bias"]
        is_weight, is_bias = source >= 0, source == _BIAS
        row = jnp.maximum(source, 0)
        is_new = (is_weight & ~kernel[row, unit]) | (is_bias & ~bias[unit])
        new = new + is_new.astype(jnp.int32)
        result.append(
            {
                "kernel": kernel.at[row, unit].max(is_weight),
                "bias": bias.at[unit].max(is_bias),
            }
        )
    return with_layers(mask, result), new
