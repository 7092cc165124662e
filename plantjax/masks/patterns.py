"""Patterns: scopes whose masks suit hardware, with an exact number in every group or of groups.

An array is seen as [..., I, O], its last axes being inputs and outputs; an array of one axis has
one input. It is cut into tiles, the rows of a matrix. Either every tile keeps as many entries
("2:4", "fan_in"), or tiles are kept or pruned as a whole ("4x4", "whole_channels").
"""

import math
import re
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.masks import groups, topk
from plantjax.masks.counts import number_kept
from plantjax.types import Key, Prunable

PATTERNS = ("N:M", "AxB", "fan_in", "whole_channels")
"""Scopes that are patterns, N, M, A and B being numbers; see `masks.select`."""


class Pattern(NamedTuple):
    """How arrays are cut into tiles, and what of them is kept.

    Attributes:
      whole: tiles are kept or pruned as a whole.
      tile: inputs and outputs of a tile; None for all entries that an output has in its array.
      most: the largest number of entries that a tile keeps, or None.
      joined: the arrays of a layer are cut together.
    """

    whole: bool
    tile: tuple[int, int] | None = None
    most: int | None = None
    joined: bool = False


def parse(scope: Any) -> Pattern | None:
    """The pattern of a scope, or None if it is another scope or none at all.

    >>> parse("2:4").most, parse("4x4").tile, parse("global"), parse("3:2")
    (2, (4, 4), None, None)
    """
    if scope == "fan_in":
        return Pattern(whole=False)
    if scope == "whole_channels":
        return Pattern(whole=True, joined=True)
    found = re.fullmatch(r"([1-9]\d*)([:x])([1-9]\d*)", scope) if isinstance(scope, str) else None
    if found is None:
        return None
    first, second = int(found[1]), int(found[3])
    if found[2] == "x":
        return Pattern(whole=True, tile=(first, second))
    return Pattern(whole=False, tile=(second, 1), most=first) if first <= second else None


def check_scope(name: str, scope: Any) -> None:
    """Raises ValueError unless it is one of SCOPES or a pattern.

    >>> check_scope("scope", "5:4")
    Traceback (most recent call last):
    ValueError: scope must be one of global, local, layer, channel, oracle, N:M, AxB, fan_in, \
whole_channels, got '5:4'.
    """
    if parse(scope) is None:
        checks.choice(name, scope, (*groups.SCOPES, *PATTERNS))
        if scope in PATTERNS:
            raise ValueError(f"{name} must have numbers, as in 2:4 or 4x4, got {scope!r}.")


def tiles(
    paths: list[str], leaves: list[Any], pattern: Pattern, prunable: Prunable | None
) -> tuple[list[list[int]], list[jax.Array]]:
    """The indices of the leaves of each group, and the tiles of each group as rows [R, n].

    Where a tile reaches beyond its array it is filled with NaN, or with False.
    """
    found = groups.members(paths, "layer" if pattern.joined else "local", prunable)
    if pattern.joined:
        return found, groups.gather(leaves, found, "channel")
    return found, [_cut(leaves[group[0]], pattern) for group in found]


def select(
    key: Key,
    paths: list[str],
    leaves: list[Any],
    density: chex.Numeric,
    pattern: Pattern,
    within: list[Any] | None,
    prunable: Prunable | None,
) -> list[jax.Array]:
    """The mask of each leaf, see `masks.select`."""
    found, values = tiles(paths, topk.of_one_dtype(leaves), pattern, prunable)
    inside = [jnp.ones(jnp.shape(leaf), bool) for leaf in leaves]
    _, real = tiles(paths, inside, pattern, prunable)
    allowed = real if within is None else tiles(paths, within, pattern, prunable)[1]
    if pattern.whole:
        marks = _whole(key, values, real, allowed, density)
    else:
        marks = [
            _inside(jax.random.fold_in(key, g), value, allowed[g], density, pattern)
            for g, value in enumerate(values)
        ]
    chosen = list(inside)
    for group, part in zip(found, marks, strict=True):
        like = [leaves[i] for i in group]
        parts = groups.scatter(part, like) if pattern.joined else [_paste(part, like[0], pattern)]
        for i, leaf in zip(group, parts, strict=True):
            chosen[i] = leaf
    return chosen


def _whole(
    key: Key,
    values: list[jax.Array],
    real: list[jax.Array],
    allowed: list[jax.Array],
    density: chex.Numeric,
) -> list[jax.Array]:
    """Keeps the tiles of the highest mean score."""

    def mean(value: jax.Array, inside: jax.Array) -> jax.Array:
        size = jnp.sum(inside, axis=1, keepdims=True).astype(value.dtype)
        return jnp.sum(jnp.where(inside, value / size, jnp.zeros_like(value)), axis=1)

    means = [mean(value, inside) for value, inside in zip(values, real, strict=True)]
    kept = jnp.stack([number_kept(density, value.shape[0]) for value in values])
    marks, _ = topk.top(key, means, kept, [jnp.any(a, axis=1) for a in allowed])
    return [mark[:, None] & a for mark, a in zip(marks, allowed, strict=True)]


def _inside(
    key: Key, values: jax.Array, allowed: jax.Array, density: chex.Numeric, pattern: Pattern
) -> jax.Array:
    """Keeps as many entries of every tile, those of the highest scores."""
    rows, n = values.shape
    kept = number_kept(density, n)
    if pattern.most is None:

        def one(key: Key, row: jax.Array, free: jax.Array) -> jax.Array:
            return topk.top(key, [row], kept[None], [free])[0][0]

        return jax.vmap(one)(jax.random.split(key, rows), values, allowed)
    # Tiles are small: an entry's place is the number of entries that beat it. The loop also makes
    # all comparisons see the same bits; in one expression, a compiler may compute scores twice.
    keys = jnp.where(allowed, topk.order_keys(values), jnp.uint32(0))
    ties = jnp.reshape(topk.priorities(key, 0, rows * n), (rows, n))
    ranks = [ties, *(low for (low,) in topk.low_keys([values])), keys]

    def beaten_by(index: jax.Array, place: jax.Array) -> jax.Array:
        beats = jnp.zeros((rows, n), bool)
        for rank in ranks:  # the last one counts most
            other = jax.lax.dynamic_slice_in_dim(rank, index, 1, axis=1)
            beats = (other > rank) | ((other == rank) & beats)
        return place + beats.astype(jnp.int32)

    place = jax.lax.fori_loop(0, n, beaten_by, jnp.zeros((rows, n), jnp.int32))
    return allowed & (place < jnp.minimum(kept, pattern.most))


def _view(shape: tuple[int, ...], pattern: Pattern) -> tuple[int, int, int, int, int]:
    """Sizes [B, I, O] in which an array is seen, and inputs and outputs of a tile."""
    last = shape[-1] if shape else 1
    if pattern.tile is None:
        inputs = math.prod(shape[:-1])
        return 1, inputs, last, inputs, 1
    inputs = shape[-2] if len(shape) > 1 else 1
    return math.prod(shape[:-2]), inputs, last, *pattern.tile


def _cut(array: jax.Array, pattern: Pattern) -> jax.Array:
    """The tiles of an array as rows [R, n]."""
    batch, inputs, outputs, down, across = _view(jnp.shape(array), pattern)
    view = jnp.reshape(array, (batch, inputs, outputs))
    filled = False if view.dtype == jnp.bool_ else jnp.nan
    room = (0, 0), (0, -inputs % down), (0, -outputs % across)
    view = jnp.pad(view, room, constant_values=filled)
    high, wide = view.shape[1] // down, view.shape[2] // across
    parts = jnp.reshape(view, (batch, high, down, wide, across)).transpose(0, 1, 3, 2, 4)
    return jnp.reshape(parts, (batch * high * wide, down * across))


def _paste(rows: jax.Array, like: Any, pattern: Pattern) -> jax.Array:
    """The inverse of `_cut`."""
    shape = np.shape(like)
    batch, inputs, outputs, down, across = _view(shape, pattern)
    high, wide = -(-inputs // down), -(-outputs // across)
    parts = jnp.reshape(rows, (batch, high, wide, down, across)).transpose(0, 1, 3, 2, 4)
    whole = jnp.reshape(parts, (batch, high * down, wide * across))
    return jnp.reshape(whole[:, :inputs, :outputs], shape)
