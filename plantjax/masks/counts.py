"""Counts: how many parameters a density allows, in total and in each group of a scope."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks

_LARGEST_SUM = 2**30 - 1  # of the counts that `apportion` takes


def number_kept(density: chex.Numeric, n: int) -> jax.Array:
    """clip(floor(density n + 0.5), 1, n) in float32, as int32; density may be traced.

    The minimum with n changes no value. It keeps compilers from fusing the product and the sum,
    which would round differently with and without jit.

    >>> int(number_kept(0.1, 104)), int(number_kept(0.001, 104))
    (10, 1)
    """
    product = jnp.minimum(jnp.asarray(density, jnp.float32) * n, jnp.float32(n))
    k = jnp.clip(jnp.floor(product + 0.5), 1, n).astype(jnp.int32)
    return jnp.where(jnp.asarray(density, jnp.float32) >= 1.0, n, k)


def kept_per_group(
    density: chex.Numeric, scope: str, sizes: list[int], counts: jax.Array | None
) -> jax.Array:
    """The numbers of parameters that the groups keep, int32 [G]; they sum to exactly k.

    Groups share k in proportion to their sizes, or to `counts`, by largest remainder. Without
    counts every group keeps at least one if k is at least G, so that no array dies by rounding.

    >>> kept_per_group(0.5, "local", [4, 11], None).tolist()
    [2, 6]
    >>> kept_per_group(0.1, "local", [3, 100], None).tolist()
    [1, 9]
    """
    if (counts is not None) != (scope == "oracle"):
        raise ValueError(f"counts go with scope 'oracle' and with no other, got scope {scope!r}.")
    k = number_kept(density, sum(sizes))
    if counts is None:
        return k[None] if len(sizes) == 1 else _proportional(sizes, k)
    if jnp.shape(counts) != (len(sizes),):
        raise ValueError(f"counts must be [{len(sizes)}], one per layer, got {jnp.shape(counts)}.")
    if checks.is_concrete(counts) and (np.asarray(counts) < 0).any():
        raise ValueError(f"counts must not be negative, got {counts}.")
    return apportion(jnp.asarray(counts, jnp.int32), sizes, k)


def even(total: jax.Array, parts: int) -> jax.Array:
    """Splits a total among equal parts, int32 [parts]; they differ by one at most.

    >>> even(jnp.int32(6), 4).tolist()
    [1, 2, 1, 2]
    """
    each, rest = total // parts, total % parts
    ends = jnp.arange(parts + 1, dtype=jnp.int32) * rest // parts
    return each + jnp.diff(ends)


def _proportional(sizes: list[int], k: jax.Array) -> jax.Array:
    """Splits k in proportion to the sizes; at least one each if k suffices for that."""
    n, groups = sum(sizes), len(sizes)
    order = np.argsort(sizes, kind="stable")
    smaller, place = np.empty((2, groups), np.int64)  # entries and number of smaller groups
    smaller[order] = np.concatenate([[0], np.cumsum(np.asarray(sizes)[order])[:-1]])
    place[order] = np.arange(groups)
    # Its share of what is left by smaller groups is below one.
    left = (k - jnp.asarray(place, jnp.int32)).astype(jnp.float32)
    below = jnp.asarray(sizes, jnp.float32) * left < jnp.asarray(n - smaller, jnp.float32)
    one = below & (k >= groups)
    counts = jnp.where(one, 0, jnp.asarray(sizes, jnp.int32))
    rest = k - jnp.sum(one, dtype=jnp.int32)
    share, remainder = _shares(counts, rest, n)
    kept = jnp.where(one, 1, share)
    return kept + _largest(jnp.where(one, -1, remainder), k - jnp.sum(kept, dtype=jnp.int32))


def apportion(counts: jax.Array, sizes: list[int], k: jax.Array) -> jax.Array:
    """Splits k in proportion to counts by largest remainder, capped at the sizes; int32 [L].

    It uses integers only, so it is exact for all sizes. Layers with count 0 are filled last.

    Args:
      counts: int [L], not negative, with a sum below 2^30.
      sizes: sizes of the L layers.
      k: int32, at most the sum of the sizes.

    Returns:
      Numbers int32 [L] that sum to k.

    >>> import jax.numpy as jnp
    >>> apportion(jnp.array([1, 1, 2]), [10, 10, 3], jnp.int32(8)).tolist()
    [3, 2, 3]
    """
    capacity, counts = jnp.asarray(sizes, jnp.int32), counts.astype(jnp.int32)
    named = counts > 0
    over = k > jnp.sum(jnp.where(named, capacity, 0), dtype=jnp.int32)
    counts = jnp.where(over, capacity, counts)

    def shares(capped: jax.Array) -> tuple[jax.Array, jax.Array]:
        rest = k - jnp.sum(jnp.where(capped, capacity, 0), dtype=jnp.int32)
        return _shares(jnp.where(capped, 0, counts), rest, _LARGEST_SUM)

    def cap(_: jax.Array, capped: jax.Array) -> jax.Array:
        return capped | (shares(capped)[0] >= capacity)  # each pass caps one more layer, or none

    capped = jax.lax.fori_loop(0, len(sizes), cap, over & named)
    share, remainder = shares(capped)
    kept = jnp.where(capped, capacity, share)
    return kept + _largest(jnp.where(capped, -1, remainder), k - jnp.sum(kept, dtype=jnp.int32))


def _shares(counts: jax.Array, rest: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """Quotient and remainder of counts * rest / sum(counts), which is at most `most`.

    Multiplies and divides digit by digit, because the product would not fit into 32 bits.
    """
    counts, rest = counts.astype(jnp.uint32), rest.astype(jnp.uint32)
    total = jnp.maximum(jnp.sum(counts, dtype=jnp.uint32), 1)
    bits = 31 - most.bit_length()  # of a digit: twice the product of digit and total fits
    steps = -(-31 // bits)

    def add_digit(
        index: jax.Array, state: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        share, remainder = state
        place = (bits * (steps - 1 - index)).astype(jnp.uint32)
        digit = (rest >> place) & ((1 << bits) - 1)
        product = (remainder << bits) + digit * counts
        return (share << bits) + product // total, product % total

    zero = jnp.zeros_like(counts)
    share, remainder = jax.lax.fori_loop(0, steps, add_digit, (zero, zero), unroll=steps <= 4)
    return share.astype(jnp.int32), remainder.astype(jnp.int32)


def _largest(remainders: jax.Array, number: jax.Array) -> jax.Array:
    """One for each of the `number` largest remainders, the first of equal ones; int32 [G]."""
    mine, others = remainders[:, None], remainders[None, :]
    before = jnp.tri(remainders.size, k=-1, dtype=bool)  # others that stand before mine
    rank = jnp.sum((others > mine) | ((others == mine) & before), axis=1, dtype=jnp.int32)
    return (rank < number).astype(jnp.int32)
