"""The exact top k of arrays of floats, for a traced k, without a sort.

Floats are mapped to order-preserving uint32 keys. Then we search for a threshold per array, for all
arrays at once. Each step counts the entries above the thresholds, in O(n) time and memory. The
search interpolates and stops as soon as a threshold separates exactly k; that takes about ten steps
for evenly spread keys, and at most 33 * 4. It starts near an expected threshold if the caller gives
one. Only if scores tie, a second search runs over random priorities.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from plantjax.types import Key

Count: TypeAlias = Callable[[jax.Array], jax.Array]
"""`thresholds [G] -> number of entries at or above them [G]`."""

_BARRED = np.uint32(0)  # below every float
_NAN = np.uint32(1)  # below -inf, whose key is 0x007fffff
_SIGN = np.uint32(0x80000000)
_INFINITY = np.uint32(0x7F800000)
_ALL = np.uint32(0xFFFFFFFF)  # above every float
_REACH = np.uint32(1 << 14)  # size of the first step away from an expected threshold, in keys
_GROWTH = np.uint32(8)  # factor by which further steps grow
_LARGEST = np.float32(2**32 - 2**8)  # the largest float32 below 2^32


def order_keys(values: jax.Array) -> jax.Array:
    """Maps floats to uint32 keys with the same order.

    +0 equals -0, denormals are distinct (only bits are compared), NaN is below -inf.

    Args:
      values: float array of any shape.

    Returns:
      uint32 array of the same shape; larger is higher, 0 is not used.

    >>> import jax.numpy as jnp
    >>> order_keys(jnp.array([jnp.nan, -jnp.inf, -1.0, 0.0, 2.0])).argsort().tolist()
    [0, 1, 2, 3, 4]
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    size = bits & ~_SIGN
    keys = jnp.where(bits >= _SIGN, ~bits, bits | _SIGN)
    keys = jnp.where(size == 0, _SIGN, keys)
    return jnp.where(size > _INFINITY, _NAN, keys)


def priorities(key: Key, start: int, n: int) -> jax.Array:
    """Distinct random uint32 numbers [n] for the positions start, ..., start + n - 1.

    They are a keyed bijection of the position (rounds of xor, shift and odd multiplication), so no
    two positions share a priority, and neither sorting nor collision handling is needed.

    >>> import jax
    >>> len(set(priorities(jax.random.key(0), 0, 100).tolist()))
    100
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
    key: Key,
    values: Sequence[jax.Array],
    k: jax.Array,
    within: Sequence[jax.Array] | None = None,
    near: jax.Array | None = None,
) -> tuple[list[jax.Array], jax.Array]:
    """Marks the k_g largest values of each array; ties go to the higher of `priorities`.

    Args:
      key: key of the priorities, for the positions in the concatenated arrays; consumed.
      values: G float arrays [n_g].
      k: int32 [G], 0 <= k; may be traced.
      within: G bool arrays [n_g]; entries that are False are never marked. If fewer than k_g are
        True, all of these are marked.
      near: uint32 [G], thresholds of an earlier call on similar values, or 0. They save time and do
        not change the result.

    Returns:
      (G bool arrays [n_g] with exactly min(k_g, number of allowed entries) True, thresholds [G]).

    >>> import jax, jax.numpy as jnp
    >>> marks, _ = top(jax.random.key(0), [jnp.array([3.0, 1.0, 2.0])], jnp.array([2]))
    >>> marks[0].tolist()
    [True, False, True]
    """
    keys = [order_keys(value) for value in values]
    allowed = jnp.array([value.size for value in values], jnp.int32)
    if within is not None:
        keys = [jnp.where(w, ranked, _BARRED) for w, ranked in zip(within, keys, strict=True)]
        allowed = totals(within)
    k = jnp.minimum(k, allowed)

    def at_least(threshold: jax.Array) -> list[jax.Array]:
        return [ranked >= threshold[g] for g, ranked in enumerate(keys)]

    low = jnp.full(len(values), _NAN, jnp.uint32)  # marks all allowed entries
    threshold, count = search(lambda t: totals(at_least(t)), k, low, allowed, near)

    # This loop runs at most once. Unlike a branch it also skips the work under vmap.
    _, marks = jax.lax.while_loop(
        lambda state: jnp.any(state[0] != k),
        lambda state: (k, _break_ties(key, keys, threshold, k, state[0])),
        (count, at_least(threshold)),
    )
    return marks, threshold


def top_of_rows(
    key: Key,
    values: Sequence[jax.Array],
    k: Sequence[jax.Array],
    within: Sequence[jax.Array] | None = None,
    near: jax.Array | None = None,
) -> tuple[list[jax.Array], jax.Array]:
    """Marks the largest values of each row of each matrix, like `top` for arrays.

    Args:
      key: consumed.
      values: G float matrices [r_g, n_g].
      k: G arrays int32 [r_g], the number of each row.
      within: G bool matrices [r_g, n_g].
      near: uint32 [sum of r_g].

    Returns:
      (G bool matrices [r_g, n_g], thresholds [sum of r_g]).
    """
    ends = np.cumsum([value.shape[0] for value in values])
    near = jnp.zeros(int(ends[-1]), jnp.uint32) if near is None else near
    starts = jnp.split(near, ends[:-1])
    marks, thresholds = [], []
    for g, value in enumerate(values):

        def one(
            key: Key, row: jax.Array, number: jax.Array, allowed: jax.Array, start: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            (marked,), threshold = top(key, [row], number[None], [allowed], start[None])
            return marked, threshold[0]

        keys = jax.random.split(jax.random.fold_in(key, g), value.shape[0])
        allowed = jnp.ones(value.shape, bool) if within is None else within[g]
        marked, threshold = jax.vmap(one)(keys, value, k[g], allowed, starts[g])
        marks.append(marked)
        thresholds.append(threshold)
    return marks, jnp.concatenate(thresholds)


def _break_ties(
    key: Key, keys: Sequence[jax.Array], threshold: jax.Array, k: jax.Array, count: jax.Array
) -> list[jax.Array]:
    """Marks exactly k_g entries, by priority, where the thresholds mark `count_g` > k_g.

    It works on the concatenated arrays, which compiles faster; ties are rare.
    """
    ends = np.cumsum([part.size for part in keys])
    parts = [slice(int(end) - part.size, int(end)) for end, part in zip(ends, keys, strict=True)]

    def spread(numbers: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.full(part.size, numbers[g]) for g, part in enumerate(keys)])

    flat, least = jnp.concatenate(keys), spread(threshold)
    rank = priorities(key, 0, flat.size)

    def mark(lowest: jax.Array) -> list[jax.Array]:
        marks = (flat > least) | ((flat == least) & (rank >= spread(lowest)))
        return [marks[part] for part in parts]

    zero = jnp.zeros(len(keys), jnp.uint32)
    lowest, _ = search(lambda p: totals(mark(p)), k, zero, count, None)
    return mark(lowest)


class _Bracket(NamedTuple):
    """Thresholds `low`, which mark at least k entries, and `high`, which mark fewer; all [G]."""

    low: jax.Array  # uint32
    high: jax.Array
    reach: jax.Array  # uint32, how far from `near` the next step may go
    marked: jax.Array  # int32, number of entries that `low` marks
    excess: jax.Array  # float32, number of entries that `low` marks beyond k
    lack: jax.Array  # float32, number of entries that `high` marks less than k
    moved: jax.Array  # int32, the last step: 1 moved `low`, -1 moved `high`, 0 separated nothing
    steps: jax.Array  # int32


_DTYPES = (*3 * [jnp.uint32], jnp.int32, *2 * [jnp.float32], *2 * [jnp.int32])


def search(
    count_at: Count, k: jax.Array, low: jax.Array, count: jax.Array, near: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The largest thresholds [G] that mark at least k entries, or any that mark exactly k.

    `low` marks `count` entries, at least k. Steps interpolate between the counts at the ends of the
    bracket; the weight of an end that stays twice is halved (the Illinois rule), so that both ends
    close in. The bracket is bisected after a step that separated nothing, and in every fourth step.
    Where `near` is above 0, steps away from it grow until the threshold is bracketed.

    Returns:
      (thresholds uint32 [G], number of entries that they mark int32 [G]).
    """
    near = jnp.zeros_like(low) if near is None else near
    bracket = _Bracket(
        low=low,
        high=jnp.full_like(low, _ALL),
        reach=jnp.where(near > 0, np.uint32(0), _ALL),
        marked=count,
        excess=(count - k).astype(jnp.float32),
        lack=k.astype(jnp.float32),
        moved=jnp.zeros_like(count),
        steps=jnp.zeros_like(count),
    )

    def unfinished(b: _Bracket) -> jax.Array:
        return (b.marked != k) & (b.high - b.low > 1)

    def step(b: _Bracket) -> _Bracket:
        gap = b.high - b.low
        ahead = jnp.minimum(gap.astype(jnp.float32) * (b.excess / (b.excess + b.lack)), _LARGEST)
        halve = (b.moved == 0) | (b.steps % 4 == 3)
        candidate = b.low + jnp.where(halve, gap // 2, ahead.astype(jnp.uint32))
        least = jnp.where(b.reach < near, near - b.reach, np.uint32(0))
        most = jnp.where(b.reach < _ALL - near, near + b.reach, _ALL)
        candidate = jnp.clip(jnp.clip(candidate, least, most), b.low + 1, b.high - 1)
        marked = count_at(candidate)
        beyond, rise = (marked - k).astype(jnp.float32), marked >= k
        told = jnp.where(rise, beyond < b.excess, -beyond < b.lack)
        half = jnp.float32(0.5)
        return _Bracket(
            low=jnp.where(rise, candidate, b.low),
            high=jnp.where(rise, b.high, candidate),
            reach=jnp.where(b.reach < _ALL // _GROWTH, _GROWTH * b.reach + _REACH, _ALL),
            marked=jnp.where(rise, marked, b.marked),
            excess=jnp.where(rise, beyond, jnp.where(b.moved < 0, half * b.excess, b.excess)),
            lack=jnp.where(rise, jnp.where(b.moved > 0, half * b.lack, b.lack), -beyond),
            moved=jnp.where(told, jnp.where(rise, 1, -1), 0),
            steps=b.steps + 1,
        )

    def advance(packed: jax.Array) -> jax.Array:
        b = _unpack(packed)
        return jnp.where(unfinished(b)[None, :], _pack(step(b)), packed)

    packed = jax.lax.while_loop(
        lambda packed: jnp.any(unfinished(_unpack(packed))), advance, _pack(bracket)
    )
    b = _unpack(packed)
    return b.low, b.marked


def _pack(bracket: _Bracket) -> jax.Array:
    """One array [8, G] instead of eight, for each of which a loop would run a tiny kernel."""
    return jnp.stack([jax.lax.bitcast_convert_type(part, jnp.uint32) for part in bracket])


def _unpack(packed: jax.Array) -> _Bracket:
    parts = [jax.lax.bitcast_convert_type(p, d) for p, d in zip(packed, _DTYPES, strict=True)]
    return _Bracket(*parts)


def totals(marks: Sequence[jax.Array]) -> jax.Array:
    """The number of True entries of each of G bool arrays, int32 [G].

    We add floats, whose sums are exact up to 2^24 and several times as fast as those of integers.

    >>> import jax.numpy as jnp
    >>> totals([jnp.array([True, False]), jnp.array([True, True, True])]).tolist()
    [1, 3]
    """
    one = jnp.float32(1.0) if all(mark.size <= 1 << 24 for mark in marks) else jnp.int32(1)
    totals = [jnp.sum(jnp.where(mark, one, jnp.zeros_like(one))) for mark in marks]
    return jnp.stack(totals).astype(jnp.int32)
