"""Thresholds: the largest numbers that mark at least k entries, for many arrays at once.

Each step counts the entries above the thresholds, in O(n) time and memory. The search interpolates
and stops as soon as a threshold separates exactly k; that takes about ten steps for evenly spread
keys, and at most 33 * 4. It starts near an expected threshold if the caller gives one.

Accelerators wait for the host in every pass of a loop whose length they decide themselves. There we
find the same thresholds digit by digit, in a fixed number of passes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Count: TypeAlias = Callable[[jax.Array], jax.Array]
"""`thresholds [G] -> number of entries at or above them [G]`."""

Marks: TypeAlias = list[jax.Array]
"""Bool arrays: the entries that are kept."""

Split: TypeAlias = tuple[Marks, Marks, jax.Array]
"""Entries that are certainly kept, ties of which some are, and the number of both [G]."""

_Tree = TypeVar("_Tree")

_ALL = np.uint32(0xFFFFFFFF)  # above every float
_REACH = np.uint32(1 << 14)  # size of the first step away from an expected threshold, in keys
_GROWTH = np.uint32(8)  # factor by which further steps grow
_LARGEST = np.float32(2**32 - 2**8)  # the largest float32 below 2^32
_DIGIT = 4  # bits that `by_digits` finds in a pass


def if_needed(needed: jax.Array, change: Callable[[_Tree], _Tree], tree: _Tree) -> _Tree:
    """The changed tree where that is needed, else the tree as it is.

    On CPUs a loop that runs at most once skips the work, under vmap too, where a branch would not.
    Accelerators do the work in any case, because they would wait for the host.

    Args:
      needed: bool [].
      change: `tree -> tree` of the same shapes and dtypes.
      tree: pytree of arrays.
    """

    def skipping(needed: jax.Array, tree: _Tree) -> _Tree:
        def step(state: tuple[jax.Array, _Tree]) -> tuple[jax.Array, _Tree]:
            return jnp.zeros((), bool), change(state[1])

        return jax.lax.while_loop(lambda state: state[0], step, (needed, tree))[1]

    def always(needed: jax.Array, tree: _Tree) -> _Tree:
        return jax.tree.map(lambda new, old: jnp.where(needed, new, old), change(tree), tree)

    found: _Tree = jax.lax.platform_dependent(needed, tree, cpu=skipping, default=always)
    return found


def refined(
    count_of: Callable[[Sequence[jax.Array]], Count],
    ranks: Sequence[Sequence[jax.Array]],
    spread: Callable[[jax.Array], Sequence[jax.Array]],
    k: jax.Array,
    marked: Split,
) -> Split:
    """Splits ties by one rank after the other, until exactly k entries are marked.

    Args:
      count_of: `keys -> Count` of uint32 arrays like the marks.
      ranks: uint32 arrays like the marks, those of the rank that counts most first.
      spread: `thresholds [G] -> arrays` that compare with those of a rank.
      k: int32 [G].
      marked: (marks above the ties, marks of the ties, number of both [G], at least k).

    Returns:
      The same, with fewer ties: none of them is a tie by the last rank.
    """
    above, tied, count = marked
    zero = jnp.zeros(k.shape, jnp.uint32)
    for rank in ranks:
        parts = list(zip(above, tied, rank, strict=True))
        keys = [jnp.where(a, _ALL, jnp.where(t, r, np.uint32(0))) for a, t, r in parts]
        lowest, count = search(count_of(keys), k, zero, count, None)
        ends = spread(lowest)
        above = [a | (t & (r > end)) for (a, t, r), end in zip(parts, ends, strict=True)]
        tied = [t & (r == end) for (_, t, r), end in zip(parts, ends, strict=True)]
    return above, tied, count


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

    Args:
      count_at: counts the entries that thresholds mark.
      k: int32 [G].
      low: uint32 [G], thresholds that mark at least k entries.
      count: int32 [G], the number that they mark.
      near: uint32 [G], expected thresholds, or 0.

    Returns:
      (thresholds uint32 [G], number of entries that they mark int32 [G]).
    """
    near = jnp.zeros_like(low) if near is None else near
    found: tuple[jax.Array, jax.Array] = jax.lax.platform_dependent(
        *(k, low, count, near),
        cpu=partial(interpolated, count_at),
        default=partial(by_digits, count_at),
    )
    return found


def by_digits(
    count_at: Count, k: jax.Array, low: jax.Array, count: jax.Array, near: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """See `search`: from the highest digit to the lowest, all values of a digit in one pass."""
    del low, near
    values = jnp.arange(1, 1 << _DIGIT, dtype=jnp.uint32)[:, None]

    def find(place: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        threshold, marked = found
        shift = np.uint32(32) - np.uint32(_DIGIT) * (place.astype(jnp.uint32) + 1)
        counts = jax.vmap(count_at)(threshold[None, :] + (values << shift))
        enough = counts >= k[None, :]
        digit = jnp.sum(enough.astype(jnp.int32), axis=0).astype(jnp.uint32)
        fewest = jnp.min(jnp.where(enough, counts, marked[None, :]), axis=0)
        return threshold + (digit << shift), fewest

    return jax.lax.fori_loop(0, 32 // _DIGIT, find, (jnp.zeros(k.shape, jnp.uint32), count))


def interpolated(
    count_at: Count, k: jax.Array, low: jax.Array, count: jax.Array, near: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """See `search`: between the counts at both ends of a bracket.

    `low` marks `count` entries, at least k. The weight of an end that stays twice is halved (the
    Illinois rule), so that both ends close in. The bracket is bisected after a step that separated
    nothing, and in every fourth step. Where `near` is above 0, steps away from it grow until the
    threshold is bracketed.
    """
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
            moved=jnp.where(told, jnp.where(rise, 1, -1), 0).astype(jnp.int32),
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
