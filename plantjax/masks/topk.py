"""The exact top k of arrays of floats, for a traced k, without a sort.

Floats are mapped to order-preserving uint32 keys, doubles to those of their higher halves. Then we
search for a threshold per array, for all arrays at once (`thresholds`). Only if keys tie, a second
search runs over the lower halves of doubles, and one over random priorities.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.masks.thresholds import if_needed, refined, search, totals
from plantjax.types import Key

_BARRED = np.uint32(0)  # below every float
_NAN = np.uint32(1)  # below -inf, whose key is 0x007fffff
_SIGN = np.uint32(0x80000000)
_INFINITY = np.uint32(0x7F800000)


def order_keys(values: jax.Array) -> jax.Array:
    """Maps floats to uint32 keys with the same order; doubles that are close share a key.

    +0 equals -0, denormals are distinct (only bits are compared), NaN is below -inf.

    Args:
      values: float array of any shape.

    Returns:
      uint32 array of the same shape; larger is higher, 0 is not used. `low_keys` orders doubles
      that share a key.

    >>> import jax.numpy as jnp
    >>> order_keys(jnp.array([jnp.nan, -jnp.inf, -1.0, 0.0, 2.0])).argsort().tolist()
    [0, 1, 2, 3, 4]
    """
    if values.dtype == jnp.float64:
        low, bits = _words(values)
        size = bits & ~_SIGN
        is_zero, is_nan = (size | low) == 0, jnp.isnan(values)
    else:
        bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
        size = bits & ~_SIGN
        is_zero, is_nan = size == 0, size > _INFINITY
    keys = jnp.where(bits >= _SIGN, ~bits, bits | _SIGN)
    return jnp.where(is_nan, _NAN, jnp.where(is_zero, _SIGN, keys))


def low_keys(values: Sequence[jax.Array]) -> list[list[jax.Array]]:
    """The uint32 orders of doubles that share an order key: one list, or none for other floats."""

    def order(array: jax.Array) -> jax.Array:
        low, high = _words(array)
        keys = jnp.where(high >= _SIGN, ~low, low)
        return jnp.where((array == 0) | jnp.isnan(array), jnp.zeros_like(low), keys)

    doubles = all(array.dtype == jnp.float64 for array in values)
    return [[order(array) for array in values]] if doubles else []


def of_one_dtype(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The arrays, floats of different dtypes as double if one of them is, else as single."""
    kinds = {array.dtype for array in arrays if checks.is_float(array)}
    if len(kinds) < 2:
        return list(arrays)
    widest = jnp.float64 if np.dtype(np.float64) in kinds else jnp.float32
    return [array.astype(widest) if checks.is_float(array) else array for array in arrays]


def _words(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The lower and the higher half of doubles, uint32."""
    words = jax.lax.bitcast_convert_type(values, jnp.uint32)
    return words[..., 0], words[..., 1]


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
    values = of_one_dtype(values)
    keys = [order_keys(value) for value in values]
    allowed = jnp.array([value.size for value in values], jnp.int32)
    if within is not None:
        keys = [jnp.where(w, ranked, _BARRED) for w, ranked in zip(within, keys, strict=True)]
        allowed = totals(within)
    k = jnp.minimum(k, allowed)

    low = jnp.full(len(values), _NAN, jnp.uint32)  # marks all allowed entries
    threshold, count = search(partial(_count, keys), k, low, allowed, near)

    def broken(marks: list[jax.Array]) -> list[jax.Array]:
        del marks
        return _break_ties(key, values, keys, threshold, k, count)

    marks = if_needed(jnp.any(count != k), broken, _at_least(keys, threshold))
    return marks, threshold


def _at_least(keys: Sequence[jax.Array], thresholds: jax.Array) -> list[jax.Array]:
    return [ranked >= thresholds[g] for g, ranked in enumerate(keys)]


def _count(keys: Sequence[jax.Array], thresholds: jax.Array) -> jax.Array:
    return totals(_at_least(keys, thresholds))


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
    key: Key,
    values: Sequence[jax.Array],
    keys: Sequence[jax.Array],
    threshold: jax.Array,
    k: jax.Array,
    count: jax.Array,
) -> list[jax.Array]:
    """Marks exactly k_g entries where the thresholds mark `count_g` > k_g.

    It ranks ties by the lower halves of doubles, and by priority. It works on the concatenated
    arrays, which compiles faster; ties are rare.
    """
    ends = np.cumsum([part.size for part in keys])
    parts = [slice(int(end) - part.size, int(end)) for end, part in zip(ends, keys, strict=True)]

    def spread(numbers: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.full(part.size, numbers[g]) for g, part in enumerate(keys)])

    flat, least = jnp.concatenate(keys), spread(threshold)
    above, tied, _ = refined(
        lambda ranked: partial(_count, [ranked[0][part] for part in parts]),
        [*low_keys([jnp.concatenate(values)]), [priorities(key, 0, flat.size)]],
        lambda numbers: [spread(numbers)],
        k,
        ([flat > least], [flat == least], count),
    )
    return [(above[0] | tied[0])[part] for part in parts]
