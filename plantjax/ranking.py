"""The exact top k of arrays of floats, for a traced k, without a sort.

Floats become order-preserving uint32 keys. A search over thresholds, one per array and all at once,
counts what lies above: at most 33 passes, O(33 n) time and O(n) memory; it stops as soon as a
threshold separates exactly k, after about 32 - log2(spacing of the keys) passes, and starts where
the caller expects the threshold, if told. Only if scores tie, a second search over a random
priority runs.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from plantjax.types import Key

Count: TypeAlias = Callable[[jax.Array], jax.Array]
"""`thresholds [G] -> entries [G] at or above them`."""

_BARRED = np.uint32(0)  # below every float
_NAN = np.uint32(1)  # below -inf, whose key is 0x007fffff
_SIGN = np.uint32(0x80000000)
_INFINITY = np.uint32(0x7F800000)
_ALL = np.uint32(0xFFFFFFFF)  # above every float
_REACH = np.uint32(1 << 9)  # first step away from an expected threshold, in the last place


def order_keys(values: jax.Array) -> jax.Array:
    """Maps floats to uint32 keys with the same order.

    +0 equals -0, denormals are distinct (only bits are compared), NaN comes after -inf.

    Args:
      values: float array of any shape.

    Returns:
      uint32 array of the same shape; larger is higher, 0 is not used.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    size = bits & ~_SIGN
    keys = jnp.where(bits >= _SIGN, ~bits, bits | _SIGN)
    keys = jnp.where(size == 0, _SIGN, keys)
    return jnp.where(size > _INFINITY, _NAN, keys)


def priorities(key: Key, start: int, n: int) -> jax.Array:
    """Distinct random uint32 numbers [n] for the positions start, ..., start + n - 1.

    A keyed bijection of the position (rounds of xor, shift and odd multiplication), so that no two
    positions share a priority and no sort or collision handling is needed.
    """
    return _mix(_words(key), start, n)


def top(
    key: Key,
    values: Sequence[jax.Array],
    k: jax.Array,
    within: Sequence[jax.Array] | None = None,
    near: jax.Array | None = None,
) -> tuple[list[jax.Array], jax.Array]:
    """Marks the k_g largest values of every array; ties go to the higher of `priorities`.

    Args:
      key: gives the priorities, of the positions in the concatenated arrays; consumed.
      values: G float arrays [n_g].
      k: int32 [G], 0 <= k; may be traced.
      within: G bool arrays [n_g]; entries that are False are never marked. If fewer than k_g
        remain, all of them are marked.
      near: uint32 [G], thresholds of a former call on similar values, or 0: they save time, and
        change nothing else.

    Returns:
      (G bool arrays [n_g] with exactly min(k_g, number of allowed entries) True, thresholds [G]).
    """
    ends = np.cumsum([value.size for value in values])
    parts = [
        slice(int(end) - value.size, int(end)) for end, value in zip(ends, values, strict=True)
    ]

    def totals(marks: jax.Array) -> jax.Array:
        return jnp.stack([_total(marks[part]) for part in parts])

    def spread(numbers: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.full(value.size, numbers[g]) for g, value in enumerate(values)])

    keys = order_keys(jnp.concatenate([value.astype(jnp.float32) for value in values]))
    allowed = jnp.array([value.size for value in values], jnp.int32)
    if within is not None:
        inside = jnp.concatenate(within)
        keys, allowed = jnp.where(inside, keys, _BARRED), totals(inside)
    k = jnp.minimum(k, allowed)
    low = jnp.full(len(values), _NAN, jnp.uint32)  # marks all that is allowed

    def count_at(threshold: jax.Array) -> jax.Array:
        return jnp.stack([_total(keys[part] >= threshold[g]) for g, part in enumerate(parts)])

    threshold, count = _search(count_at, k, low, allowed, near)
    least = spread(threshold)

    def break_ties(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rank = _mix(_words(key), 0, keys.size)

        def mark(lowest: jax.Array) -> jax.Array:
            return (keys > least) | ((keys == least) & (rank >= spread(lowest)))

        zero = jnp.zeros(len(values), jnp.uint32)
        lowest, _ = _search(lambda p: totals(mark(p)), k, zero, state[0], None)
        return k, mark(lowest)

    # A loop that runs once or not at all: unlike a branch, it skips the work under vmap, too.
    start = (count, keys >= least)
    _, marks = jax.lax.while_loop(lambda state: jnp.any(state[0] != k), break_ties, start)
    return [marks[part] for part in parts], threshold


def _search(
    count_at: Count, k: jax.Array, low: jax.Array, count: jax.Array, near: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The largest thresholds [G] that mark at least k entries, or any that mark exactly k.

    `low` marks `count` entries, at least k. From `near`, where it is above 0, steps grow until the
    threshold is between two of them; then every step halves the interval.
    """
    high = jnp.full_like(low, _ALL)
    near = jnp.zeros_like(low) if near is None else near
    reach = jnp.where(near > 0, np.uint32(0), _ALL)
    State: TypeAlias = tuple[jax.Array, jax.Array, jax.Array, jax.Array]

    def unfinished(state: State) -> jax.Array:
        low, high, _, count = state
        return jnp.any((count != k) & (high - low > 1))

    def step(state: State) -> State:
        low, high, reach, count = state
        middle = low + (high - low) // 2
        least = jnp.where(reach < near, near - reach, np.uint32(0))
        most = jnp.where(reach < _ALL - near, near + reach, _ALL)
        candidate = jnp.clip(middle, jnp.maximum(least, low + 1), jnp.minimum(most, high - 1))
        marked = count_at(candidate)
        done, enough = (count == k) | (high - low <= 1), marked >= k
        wider = jnp.where(reach < _SIGN // 4, 4 * reach + _REACH, _ALL)
        return (
            jnp.where(enough & ~done, candidate, low),
            jnp.where(enough | done, high, candidate),
            wider,
            jnp.where(enough & ~done, marked, count),
        )

    low, _, _, count = jax.lax.while_loop(unfinished, step, (low, high, reach, count))
    return low, count


def _total(mark: jax.Array) -> jax.Array:
    """Entries that are True, int32; float sums are exact up to 2^24, and twice as fast."""
    one = jnp.float32(1.0) if mark.size <= 1 << 24 else jnp.int32(1)
    return jnp.sum(jnp.where(mark, one, jnp.zeros_like(one))).astype(jnp.int32)


def _words(key: Key) -> jax.Array:
    return jax.random.bits(key, (6,), jnp.uint32)


def _mix(words: jax.Array, start: int, n: int) -> jax.Array:
    x = jax.lax.iota(jnp.uint32, n) + jnp.uint32(start)
    for word, odd in zip(words[:3], words[3:], strict=True):
        x = (x ^ word) * (odd | jnp.uint32(1))
        x = x ^ (x >> 16)
        x = x * jnp.uint32(0x85EBCA6B)
        x = x ^ (x >> 13)
    return x
