"""PHEW: random walks along large weights, whose edges are kept."""

from typing import NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, masks, nets
from plantjax.finders import common
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Task

_BIAS = -1  # where a backward walk ends that has taken a bias
Edges: TypeAlias = list[tuple[jax.Array, jax.Array]]
"""One edge per layer, (from, to): from is a unit, `_BIAS`, or lower where the walk had ended."""


class _Walked(NamedTuple):
    walks: jax.Array
    kept: jax.Array
    mask: Mask
    full: jax.Array  # the next walk would overshoot


def phew(task: Task, *, apply: Apply = nets.apply, max_walks: int | None = None) -> Finder:
    """Keeps the edges of random walks, alternately forward and backward, with P = |w| / sum |w|.

    A forward walk starts at a random input and ends at an output, a backward walk the other way
    round. A bias is an edge from a unit that is always on: a backward walk may take it, P counting
    |b| with the weights, and ends there. The walks stop before the first that would exceed k.

    Args:
      task: only for checks.
      apply: not used; the network must be a chain of dense layers.
      max_walks: at most so many walks; by default as many as there are parameters. Walks seldom
        find the last small weights: densities above about 0.7 are not reached.

    Returns:
      A Finder with `exact_counts` False: k or fewer are kept, none where not even one walk fits.
      `Found.info` holds "walks", how many were made.

    Raises:
      ValueError: if max_walks is below 1; when it searches, if the network is no chain.

    Source: Patil and Dovrolis 2021, section 4, https://arxiv.org/abs/2010.11354, for networks
    without biases. Which unit a walk starts from, uniform here, is our reading.

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.phew(task))
    >>> found = find(keys[2], mother, data, 0.1)
    >>> bool(pj.masks.count(found.mask) <= 14), int(found.info["walks"]) > 0
    (True, True)
    """
    del apply
    if max_walks is not None:
        checks.integer("max_walks", max_walks, 1)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density)
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
    draws = jax.random.uniform(key, (len(sizes) + 1,))
    unit = _pick(draws[-1], jnp.ones(sizes[0]["kernel"].shape[0]))
    edges = []
    for layer, draw in zip(sizes, draws[:-1], strict=True):
        after = _pick(draw, layer["kernel"][unit])
        edges.append((unit, after))
        unit = after
    return edges


def _backward(key: Key, sizes: list[dict[str, jax.Array]]) -> Edges:
    draws = jax.random.uniform(key, (len(sizes) + 1,))
    unit = _pick(draws[-1], jnp.ones(sizes[-1]["bias"].shape[0]))
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
    """An index with probability proportional to the weights [W], from a draw in [0, 1)."""
    sums = jnp.cumsum(weights)
    index = jnp.sum(sums <= draw * sums[-1], dtype=jnp.int32)
    return jnp.minimum(index, weights.size - 1)


def _add(mask: Mask, edges: Edges) -> tuple[Mask, jax.Array]:
    """The mask with the edges of a walk, and how many of them are new."""
    result, new = {}, jnp.int32(0)
    for name, (source, unit) in zip(sorted(mask), edges, strict=True):
        kernel, bias = mask[name]["kernel"], mask[name]["bias"]
        is_weight, is_bias = source >= 0, source == _BIAS
        row = jnp.maximum(source, 0)
        is_new = (is_weight & ~kernel[row, unit]) | (is_bias & ~bias[unit])
        new = new + is_new.astype(jnp.int32)
        result[name] = {
            "kernel": kernel.at[row, unit].max(is_weight),
            "bias": bias.at[unit].max(is_bias),
        }
    return result, new
