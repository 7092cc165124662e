"""Random arrays, trees of noise and permutations.

A tree is drawn with one call of the generator, because one call per array takes seconds to compile.
`permutation` returns the same as `jax.random.permutation` in a quarter of the time on a CPU. XLA's
CPU compiler sorts one array of integers several times as fast as a pair of arrays, so sort keys and
positions are packed into one array of 64-bit integers. Training draws a permutation every epoch.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax.types import Key, Params

_LAST = 2**32 - 1


def arrays(
    key: Key, shapes: Sequence[tuple[int, ...]], uniform: bool = False, dtype: Any = jnp.float32
) -> list[jax.Array]:
    """Independent draws from N(0, 1) or U[-1, 1], one array per shape.

    Args:
      key: consumed.
      shapes: shapes of the arrays, at least one.
      uniform: draw from U[-1, 1] instead of N(0, 1).
      dtype: of the arrays.

    >>> import jax
    >>> [array.shape for array in arrays(jax.random.key(0), [(2, 3), (3,)])]
    [(2, 3), (3,)]
    """
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    flat = (
        jax.random.uniform(key, (ends[-1],), minval=-1.0, maxval=1.0, dtype=dtype)
        if uniform
        else jax.random.normal(key, (ends[-1],), dtype)
    )
    parts = jnp.split(flat, ends[:-1])
    return [jnp.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


def normal(key: Key, like: Params) -> Params:
    """Independent draws from N(0, 1), in a tree shaped like `like`; the key is consumed.

    They are float32, as all draws here, or of double precision where the leaves are.
    """
    return _tree(key, like, uniform=False)


def symmetric(key: Key, like: Params) -> Params:
    """Independent draws from U[-1, 1], in a tree shaped like `like`; the key is consumed."""
    return _tree(key, like, uniform=True)


def uniform(key: Key, like: Params) -> Params:
    """Independent draws from U[0, 1], in a tree shaped like `like`; the key is consumed."""
    return jax.tree.map(lambda draw: 0.5 + 0.5 * draw, symmetric(key, like))


def logistic(key: Key, like: Params) -> Params:
    """Independent draws of logit(u), u ~ U(0, 1), shaped like `like`; the key is consumed."""
    edge = 1.0 - 1e-6  # logit(u) = 2 artanh(2 u - 1) is finite inside the edges
    return jax.tree.map(lambda draw: 2.0 * jnp.arctanh(edge * draw), symmetric(key, like))


def permuted(key: Key, tree: Any) -> Any:
    """The tree with the entries of each array in random order; the key is consumed."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    orders = [permutation(key, leaf.size) for key, leaf in zip(keys, leaves, strict=True)]
    moved = [
        jnp.ravel(leaf)[order].reshape(leaf.shape)
        for leaf, order in zip(leaves, orders, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def permutation(key: Key, n: int) -> jax.Array:
    """A random permutation of 0, ..., n - 1, int32 [n], bit for bit `jax.random.permutation`.

    Sorts by random 32-bit numbers, often enough that ties among them do not bias the order.

    Args:
      key: consumed.
      n: at least 1.

    >>> import jax
    >>> sorted(permutation(jax.random.key(0), 4).tolist())
    [0, 1, 2, 3]
    """
    order = jnp.arange(n, dtype=jnp.int32)
    for _ in range(math.ceil(3 * math.log(max(2, n)) / math.log(_LAST))):
        key, round_key = jax.random.split(key)
        numbers = jax.random.bits(round_key, (n,), jnp.uint32)
        order = order[jax.lax.platform_dependent(numbers, cpu=_packed, default=_paired)]
    return order


def _paired(numbers: jax.Array) -> jax.Array:
    """The stable order of uint32 numbers, int32 [n], by sorting pairs."""
    return jnp.argsort(numbers, stable=True).astype(jnp.int32)


def _packed(numbers: jax.Array) -> jax.Array:
    """The stable order of uint32 numbers, int32 [n], by sorting number and position as one."""
    with jax.enable_x64(True):
        positions = jax.lax.iota(jnp.uint64, numbers.size)
        packed = jax.lax.sort((numbers.astype(jnp.uint64) << np.uint64(32)) | positions)
        return packed.astype(jnp.int32)  # the lower half


def _tree(key: Key, like: Params, uniform: bool) -> Params:
    leaves, structure = jax.tree.flatten(like)
    drawn = arrays(key, [jnp.shape(leaf) for leaf in leaves], uniform)
    wide = [
        draw.astype(jnp.float64) if jnp.result_type(leaf) == jnp.float64 else draw
        for draw, leaf in zip(drawn, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, wide)
