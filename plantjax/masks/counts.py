"""Counts: how many parameters a density allows, in total and in each group of a scope."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks


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
    """The number of parameters that each group keeps, int32 [G].

    >>> kept_per_group(0.5, "local", [4, 10], None).tolist()
    [2, 5]
    """
    if (counts is not None) != (scope == "oracle"):
        raise ValueError(f"counts go with scope 'oracle' and with no other, got scope {scope!r}.")
    if counts is None:
        return jnp.stack([number_kept(density, n) for n in sizes])
    if jnp.shape(counts) != (len(sizes),):
        raise ValueError(f"counts must be [{len(sizes)}], one per layer, got {jnp.shape(counts)}.")
    if checks.is_concrete(counts) and (np.asarray(counts) < 0).any():
        raise ValueError(f"counts must not be negative, got {counts}.")
    return apportion(jnp.asarray(counts), sizes, number_kept(density, sum(sizes)))


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
    over = k > jnp.sum(jnp.where(named, capacity, 0))
    counts = jnp.where(over, capacity, counts)

    def cap(_: jax.Array, capped: jax.Array) -> jax.Array:
        share, _ = _shares(counts, capped, capacity, k)
        return capped | (share >= capacity)  # each pass caps one more layer at least, or none

    capped = jax.lax.fori_loop(0, len(sizes), cap, over & named)
    share, remainder = _shares(counts, capped, capacity, k)
    kept = jnp.where(capped, capacity, share)
    order = jnp.argsort(jnp.argsort(jnp.where(capped, 1, -remainder), stable=True))
    return kept + (order < k - jnp.sum(kept)).astype(jnp.int32)


def _shares(
    counts: jax.Array, capped: jax.Array, capacity: jax.Array, k: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Quotient and remainder of counts * rest / total over the layers that are not capped.

    Multiplies and divides bit by bit, because the product would not fit into 32 bits.
    """
    rest = k - jnp.sum(jnp.where(capped, capacity, 0))
    counts = jnp.where(capped, 0, counts)
    total = jnp.maximum(jnp.sum(counts), 1)

    def add_bit(
        index: jax.Array, state: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        share, remainder = state
        bit = (rest >> (30 - index)) & 1
        remainder = 2 * remainder + bit * counts
        return 2 * share + remainder // total, remainder % total

    zero = jnp.zeros_like(counts)
    return jax.lax.fori_loop(0, 31, add_bit, (zero, zero))
