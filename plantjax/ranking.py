"""The exact top k of a flat array of floats, for a traced k, without a sort.

Floats become order-preserving uint32 keys; bisection over the bits of the key finds the k-th
largest in at most 32 counting passes, O(32 n) time and O(n) memory, and stops as soon as a
threshold separates exactly k. Only then, a second bisection over a random priority breaks the ties.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from plantjax.types import Key

_BARRED = 0  # below every float
_NAN = 1  # below -inf, whose key is 0x007fffff
_SIGN = 0x80000000


def order_keys(values: jax.Array) -> jax.Array:
    """Maps floats to uint32 keys with the same order.

    +0 equals -0, denormals are distinct (only bits are compared), NaN comes after -inf.

    Args:
      values: float array of any shape.

    Returns:
      uint32 array of the same shape; larger is higher, 0 is not used.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(_SIGN)
    size = bits & ~sign
    keys = jnp.where(bits >= sign, ~bits, bits | sign)
    keys = jnp.where(size == 0, sign, keys)
    return jnp.where(size > jnp.uint32(0x7F800000), jnp.uint32(_NAN), keys)


def priorities(key: Key, start: int, n: int) -> jax.Array:
    """Distinct random uint32 numbers [n] for the positions start, ..., start + n - 1.

    A keyed bijection of the position (rounds of xor, shift and odd multiplication), so that no two
    positions share a priority and no sort or collision handling is needed.
    """
    words = jax.random.bits(key, (6,), jnp.uint32)
    x = jax.lax.iota(jnp.uint32, n) + jnp.uint32(start)
    for word, odd in zip(words[:3], words[3:], strict=True):
        x = (x ^ word) * (odd | jnp.uint32(1))
        x = x ^ (x >> 16)
        x = x * jnp.uint32(0x85EBCA6B)
        x = x ^ (x >> 13)
    return x


def top(
    values: jax.Array, priority: jax.Array, k: jax.Array, within: jax.Array | None = None
) -> jax.Array:
    """Marks the k largest values; ties go to the higher priority.

    Args:
      values: float [n].
      priority: uint32 [n], distinct.
      k: int32 scalar, 0 <= k; may be traced.
      within: bool [n]; entries that are False are never marked. If fewer than k remain, all of
        them are marked.

    Returns:
      bool [n] with exactly min(k, number of allowed entries) True.
    """
    keys = order_keys(values)
    allowed = jnp.int32(keys.size)
    if within is not None:
        keys = jnp.where(within, keys, jnp.uint32(_BARRED))
        allowed = jnp.sum(within, dtype=jnp.int32)
    k = jnp.minimum(k, allowed)
    threshold, count = _bisect(lambda t: keys >= t, k, keys.size)
    above, tied = keys > threshold, keys == threshold
    lowest, _ = _bisect(lambda p: above | (tied & (priority >= p)), k, count)
    return above | (tied & (priority >= lowest))


def _bisect(
    marks: Callable[[jax.Array], jax.Array], k: jax.Array, count: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """The largest uint32 t that marks at least k entries, or any t that marks exactly k.

    `marks(t)` shrinks as t grows; `count` is the number of entries that marks(0) holds.
    """

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        bit, _, count = state
        return (bit > 0) & (count != k)

    def halve(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        bit, threshold, count = state
        candidate = threshold | bit
        marked = jnp.sum(marks(candidate), dtype=jnp.int32)
        enough = marked >= k
        return (
            bit >> 1,
            jnp.where(enough, candidate, threshold),
            jnp.where(enough, marked, count),
        )

    start = (jnp.uint32(_SIGN), jnp.uint32(0), jnp.asarray(count, jnp.int32))
    _, threshold, count = jax.lax.while_loop(unfinished, halve, start)
    return threshold, count
