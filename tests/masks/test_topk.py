"""The exact top k: float order, distinct priorities, and a brute-force oracle."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from plantjax.masks import thresholds, topk

N = 23
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
POOL = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan])
VALUES = arrays(np.float32, N, elements=st.one_of(POOL, FLOATS))
groups_top = jax.jit(topk.top)


@jax.jit
def top(key, values, k, within=None, near=None):
    """One array."""
    (marks,), _ = topk.top(key, [values], k[None], None if within is None else [within], near)
    return marks


def ranks(values):
    """Dense ranks in float64: equal for equal floats, +0 and -0 alike, NaN below all."""
    values = np.where(np.isnan(values), np.nan, np.asarray(values, np.float64) + 0.0)
    ordered = np.unique(values[~np.isnan(values)])
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(ordered, values))


def brute_force(values, priority, k, within):
    """The first k allowed positions by rank, then by priority."""
    order = np.lexsort((priority, ranks(values)))[::-1]
    chosen = [i for i in order if within[i]][:k]
    return np.isin(np.arange(values.size), chosen)


@PROPERTY
@given(values=VALUES)
def test_keys_have_the_order_of_the_floats(values):
    keys = np.asarray(jax.jit(topk.order_keys)(values))
    assert keys.dtype == np.uint32
    assert keys.min() > 0
    np.testing.assert_array_equal(np.unique(keys, return_inverse=True)[1], dense(ranks(values)))


def dense(numbers):
    return np.unique(numbers, return_inverse=True)[1]


def test_keys_of_the_whole_range_of_floats():
    bits = np.linspace(0, 0x7F800000, 100_001).astype(np.uint32)
    positive = bits.view(np.float32)
    values = np.concatenate([-positive[:0:-1], positive])
    keys = np.asarray(topk.order_keys(jnp.asarray(values))).astype(np.int64)
    assert (np.diff(keys) > 0).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_keys_of_half_precision(dtype):
    values = jnp.array([jnp.nan, -jnp.inf, -2.0, -1e-7, 0.0, 1e-7, 3.0, jnp.inf], dtype)
    assert (np.diff(np.asarray(topk.order_keys(values)).astype(np.int64)) > 0).all()


@PROPERTY
@given(
    values=VALUES,
    k=st.integers(0, N + 2),
    within=arrays(bool, N),
    seed=st.integers(0, 1000),
)
def test_top_against_brute_force(values, k, within, seed):
    key = jax.random.key(seed)
    priority = np.asarray(topk.priorities(key, 0, N))
    found = top(key, values, jnp.int32(k), within)
    np.testing.assert_array_equal(found, brute_force(values, priority, k, within))
    everything = top(key, values, jnp.int32(k))
    np.testing.assert_array_equal(everything, brute_force(values, priority, k, np.ones(N, bool)))


@pytest.mark.parametrize("n", [1, 50_000])
def test_top_of_many_sizes(n):
    rng = np.random.default_rng(n)
    values = np.round(rng.normal(size=n), 2).astype(np.float32)  # many ties
    key = jax.random.key(n)
    priority = np.asarray(topk.priorities(key, 0, n))
    ks = np.unique([0, 1, n // 100, n // 2, n - 1, n])
    found = jax.vmap(top, (None, None, 0))(key, values, jnp.asarray(ks, jnp.int32))
    for k, mask in zip(ks, np.asarray(found), strict=True):
        np.testing.assert_array_equal(mask, brute_force(values, priority, k, np.ones(n, bool)))


@pytest.mark.parametrize("start", [0, 1, 12_345, 2**31 - 10, 2**32 - 70_000])
def test_priorities_are_distinct(start):
    for seed in range(3):
        found = np.asarray(topk.priorities(jax.random.key(seed), start, 60_000))
        assert found.dtype == np.uint32
        assert np.unique(found).size == 60_000


def test_priorities_belong_to_the_position():
    key = jax.random.key(0)
    whole = topk.priorities(key, 0, 100)
    np.testing.assert_array_equal(topk.priorities(key, 30, 20), whole[30:50])
    assert (np.asarray(topk.priorities(jax.random.key(1), 0, 100)) != whole).all()


@functools.cache
def tie_masks(keys=20_000, n=12, k=4):
    """Which of n equal values are kept, for many keys: bool [keys, n]."""
    split = jax.random.split(jax.random.key(0), keys)
    kept = jax.vmap(lambda key: top(key, jnp.zeros(n), jnp.int32(k)))(split)
    return np.asarray(kept, np.float64)


def test_ties_are_broken_uniformly():
    """Every position and every pair of positions is kept equally often, at 5 sigma."""
    masks = tie_masks()
    keys, n = masks.shape
    assert (masks.sum(axis=1) == 4).all()
    single, pair = 4 / n, 4 * 3 / (n * (n - 1))
    together = masks.T @ masks / keys
    off = ~np.eye(n, dtype=bool)
    assert np.abs(np.diag(together) - single).max() < 5 * np.sqrt(single * (1 - single) / keys)
    assert np.abs(together[off] - pair).max() < 5 * np.sqrt(pair * (1 - pair) / keys)


@PROPERTY
@given(values=VALUES, k=st.integers(0, N), near=st.integers(0, 2**32 - 1))
def test_an_expected_threshold_changes_nothing(values, k, near):
    key = jax.random.key(0)
    found = top(key, values, jnp.int32(k), None, jnp.array([near], jnp.uint32))
    np.testing.assert_array_equal(found, top(key, values, jnp.int32(k)))


@pytest.mark.slow
@PROPERTY
@given(
    values=st.lists(VALUES, min_size=3, max_size=3),
    k=st.lists(st.integers(0, N + 1), min_size=3, max_size=3),
)
def test_arrays_are_ranked_apart(values, k):
    key = jax.random.key(0)
    found, former = groups_top(key, values, jnp.asarray(k, jnp.int32))
    again, _ = groups_top(key, values, jnp.asarray(k, jnp.int32), near=former)
    priority = np.asarray(topk.priorities(key, 0, 3 * N)).reshape(3, N)
    everything = np.ones(N, bool)
    for one, other, v, p, most in zip(found, again, values, priority, k, strict=True):
        np.testing.assert_array_equal(one, brute_force(v, p, most, everything))
        np.testing.assert_array_equal(other, one)


def passes(keys, k, near=0):
    """How often the search counts entries, and the threshold that it finds."""
    keys, counted = np.sort(np.asarray(keys, np.uint32)), []

    def count_at(least):
        counted.append(least)
        return jnp.asarray(len(keys) - np.searchsorted(keys, np.asarray(least)), jnp.int32)

    lowest, near = jnp.zeros(1, jnp.uint32), jnp.asarray([near], jnp.uint32)
    with jax.disable_jit():
        found, number = thresholds.interpolated(
            count_at, jnp.array([k], jnp.int32), lowest, jnp.array([len(keys)], jnp.int32), near
        )
    assert int(number[0]) >= k
    return len(counted), int(found[0])


def test_a_search_takes_few_passes():
    random = np.random.default_rng(0)
    even = random.integers(0, 2**32, 2000, np.uint32)
    for k in (20, 500, 1000, 1990):
        first, least = passes(even, k)
        moved = even + random.integers(0, 2**16, even.size, np.uint32)
        again, _ = passes(moved, k, near=least)
        assert first <= 12
        assert again <= 8
    clustered = np.concatenate([np.full(2000, 7, np.uint32), np.uint32([2**31])])
    assert passes(clustered, 10)[0] <= 33 * 4


def test_accelerators_take_a_pass_for_each_of_eight_digits():
    search = functools.partial(thresholds.by_digits, lambda values: values.astype(jnp.int32))
    zeros = jnp.zeros(3, jnp.uint32)
    loops = jax.make_jaxpr(search)(jnp.ones(3, jnp.int32), zeros, jnp.ones(3, jnp.int32), zeros)
    assert [e.params["length"] for e in loops.eqns if e.primitive.name == "scan"] == [8]


@pytest.mark.slow
def test_accelerators_mark_the_same(monkeypatch):
    """They search digit by digit, in a fixed number of passes."""
    key, sizes, rng = jax.random.key(5), (1, 40, 300), np.random.default_rng(5)
    drawn = [rng.normal(size=(4, n)).astype("f4") for n in sizes]
    with np.errstate(over="ignore"):  # random, tied and infinite values
        values = [np.concatenate([a, np.round(a), np.exp(60 * a)]) for a in drawn]
    within = [array < 1.0 for array in values]
    k = np.tile(np.int32([[0, 0, 0], [1, 7, 100], [1, 40, 300], [0, 1, 299]]), (3, 1))
    near = jnp.full(3, 1 << 31, jnp.uint32)

    def marks():
        """A new function each time, so that none is compiled for the other device."""
        return jax.vmap(jax.jit(lambda *arguments: topk.top(key, *arguments, near)[0]))(
            values, k, within
        )

    here = marks()
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    for one, other in zip(here, marks(), strict=True):
        np.testing.assert_array_equal(one, other)
