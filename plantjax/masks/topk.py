"""The exact top k of arrays of floats, for a traced k, without a sort.

Floats become order-preserving uint32 keys. A search over thresholds, one per array and all at once,
counts what lies above, in O(n) time and memory for each threshold: it interpolates, takes about ten
where the keys are spread evenly, at most 33 * 4, and stops as soon as a threshold separates exactly
k. It starts where the caller expects the threshold, if told. Only if scores tie, a second search
over a random priority runs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

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
_REACH = np.uint32(1 << 14)  # first step away from an expected threshold, in the last place
_GROWTH = np.uint32(8)  # of further steps
_LARGEST = np.float32(2**32 - 2**8)  # of the floats that are uint32 numbers


def order_keys(values: jax.Array) -> jax.Array:
    """Maps floats to uint32 keys with the same order.

    +0 equals -0, denormals are distinct (only bits are compared), NaN comes after -inf.

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

    A keyed bijection of the position (rounds of xor, shift and odd multiplication), so that no two
    positions share a priority and no sort or collision handling is needed.

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

    low = jnp.full(len(values), _NAN, jnp.uint32)  # marks all that is allowed
    threshold, count = search(lambda t: totals(at_least(t)), k, low, allowed, near)

    # A loop that runs once or not at all: unlike a branch, it skips the work under vmap, too.
    _, marks = jax.lax.while_loop(
        lambda state: jnp.any(state[0] != k),
        lambda state: (k, _break_ties(key, keys, threshold, k, state[0])),
        (count, at_least(threshold)),
    )
    return marks, threshold


def top_of_rows(
    key: Key,
    values: Sequence[jax.Array],
    k: jax.Array,
    within: Sequence[jax.Array] | None = None,
    near: jax.Array | None = None,
) -> tuple[list[jax.Array], jax.Array]:
    """Marks the k_g largest values of every row of every matrix, as `top` does of arrays.

    Args:
      key: consumed.
      values: G float matrices [r_g, n_g].
      k: int32 [G].
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
            key: Key, row: jax.Array, allowed: jax.Array, start: jax.Array, g: int = g
        ) -> tuple[jax.Array, jax.Array]:
            (marked,), threshold = top(key, [row], k[g][None], [allowed], start[None])
            return marked, threshold[0]

        keys = jax.random.split(jax.random.fold_in(key, g), value.shape[0])
        allowed = jnp.ones(value.shape, bool) if within is None else within[g]
        marked, threshold = jax.vmap(one)(keys, value, allowed, starts[g])
        marks.append(marked)
        thresholds.append(threshold)
    return marks, jnp.concatenate(thresholds)


def _break_ties(
    key: Key, keys: Sequence[jax.Array], threshold: jax.Array, k: jax.Array, count: jax.Array
) -> list[jax.Array]:
    """Marks k_g entries where the thresholds mark `count_g`, more than that, by priority.

    On the concatenated arrays, which compiles faster: ties are rare.
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
    """Thresholds `low`, which mark enough entries, and `high`, which do not; all [G]."""

    low: jax.Array  # uint32
    high: jax.Array
    reach: jax.Array  # uint32, how far from `near` the next step may go
    marked: jax.Array  # int32, what `low` marks
    excess: jax.Array  # float32, what `low` marks beyond k
    lack: jax.Array  # float32, what `high` lacks
    moved: jax.Array  # int32, the last step: 1 moved `low`, -1 `high`, 0 told nothing
    steps: jax.Array  # int32


_DTYPES = (*3 * [jnp.uint32], jnp.int32, *2 * [jnp.float32], *2 * [jnp.int32])


def search(
    count_at: Count, k: jax.Array, low: jax.Array, count: jax.Array, near: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The largest thresholds [G] that mark at least k entries, or any that mark exactly k.

    `low` marks `count` entries, at least k. Steps interpolate between the counts of the bracket's
    ends; an end that stays twice counts half (the Illinois rule), so that both ends close in. A
    step that separated nothing is followed by halves, as is every fourth. From `near`, where it is
    above 0, steps grow until the threshold is between two of them.
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
    """One array [8, G]: a loop that carries eight runs eight tiny kernels where one will do."""
    return jnp.stack([jax.lax.bitcast_convert_type(part, jnp.uint32) for part in bracket])


def _unpack(packed: jax.Array) -> _Bracket:
    parts = [jax.lax.bitcast_convert_type(p, d) for p, d in zip(packed, _DTYPES, strict=True)]
    return _Bracket(*parts)


def totals(marks: Sequence[jax.Array]) -> jax.Array:
    """Entries of G bool arrays that are True, int32 [G].

    Float sums are exact up to 2^24, and several times as fast as those of integers.

    >>> import jax.numpy as jnp
    >>> totals([jnp.array([True, False]), jnp.array([True, True, True])]).tolist()
    [1, 3]
    """
    one = jnp.float32(1.0) if all(mark.size <= 1 << 24 for mark in marks) else jnp.int32(1)
    totals = [jnp.sum(jnp.where(mark, one, jnp.zeros_like(one))) for mark in marks]
    return jnp.stack(totals).astype(jnp.int32)
