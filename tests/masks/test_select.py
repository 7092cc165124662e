"""Selection against a brute-force oracle, exact counts, ties, live paths, errors."""

import functools
import itertools

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from plantjax import draws, masks, nets
from plantjax.masks.counts import apportion, kept_per_group
from shared import chain, shares

TREE = chain(3, 5, 2)
N = 32
GROUPS = {  # slices of the leaves b0, k0, b1, k1, laid out one after the other
    "global": [slice(0, 32)],
    "local": [slice(0, 5), slice(5, 20), slice(20, 22), slice(22, 32)],
    "layer": [slice(0, 20), slice(20, 32)],
    "channel": [  # column c of bias and kernel
        *(np.array([c, *range(5 + c, 20, 5)]) for c in range(5)),
        *(np.array([20 + c, *range(22 + c, 32, 2)]) for c in range(2)),
    ],
}
DENSITIES = [1e-7, 1 / N, 0.04, 0.046875, 0.1, 0.25, 1 / 3, 0.5, 0.734375, 0.9, 0.98, 0.999, 1.0]
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
KEY = jax.random.key(7)


def scores(seed, *special):
    """N scores, about a third of them replaced by each of the special values in turn."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=N).astype(np.float32)
    for number in special:
        values[rng.random(N) < 0.35] = number
    return values


CASES = {
    "distinct": scores(0),
    "rounded": np.round(scores(1)),
    "zeros": np.zeros(N, np.float32),
    "zeros of both signs": scores(2, 0.0, -0.0),
    "only zeros of both signs": np.where(scores(3) > 0, np.float32(0), np.float32(-0.0)),
    "equal": np.full(N, -3.5, np.float32),
    "-inf": scores(4, -np.inf),
    "all -inf": np.full(N, -np.inf, np.float32),
    "inf": scores(5, np.inf, 0.0),
    "nan": scores(6, np.nan, -np.inf),
    "all nan": np.full(N, np.nan, np.float32),
    "denormals": (np.random.default_rng(7).integers(-9, 9, N) * 1.4e-45).astype(np.float32),
    "denormals and zeros": scores(8, 1e-45, 0.0, -1e-45),
    "huge": scores(9) * np.float32(1e38),
}


def unflatten(flat):
    """N numbers as a tree of the network's shapes."""
    leaves, structure = jax.tree.flatten(TREE)
    parts = np.split(np.asarray(flat), np.cumsum([leaf.size for leaf in leaves])[:-1])
    return structure.unflatten([p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True)])


def flatten(tree):
    """A tree of masks [D, ...] as a numpy array [D, N]."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def ranks(values):
    """Dense ranks in float64: equal for equal floats, +0 and -0 alike, NaN below all."""
    values = np.where(np.isnan(values), np.nan, np.asarray(values, np.float64) + 0.0)
    ordered = np.unique(values[~np.isnan(values)])
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(ordered, values))


def number(density, n):
    """The exact count of the method, in float32."""
    k = np.floor(np.float32(density) * np.float32(n) + np.float32(0.5))
    return int(np.clip(k, 1, n))


def numbers(density, scope):
    """What each of the GROUPS of a scope keeps."""
    if scope != "channel":
        return shares(number(density, N), [len(np.arange(N)[part]) for part in GROUPS[scope]])
    layers = shares(number(density, N), [20, 12])
    return [
        (c + 1) * (k % n) // n - c * (k % n) // n + k // n
        for k, n in zip(layers, (5, 2), strict=True)
        for c in range(n)
    ]


@functools.cache
def selector(scope, fenced):
    """Selection under jit and vmap over density."""

    def select(key, values, density, within):
        return masks.select(key, values, density, scope, within if fenced else None)

    return jax.jit(jax.vmap(select, (None, None, 0, None)))


def select(flat, densities, scope="global", within=None, key=KEY):
    """Masks [D, N] of flat scores [N]; one program per scope for up to len(DENSITIES) densities."""
    fence = unflatten(np.ones(N, bool) if within is None else within)
    padded = np.resize(np.float32(densities), len(DENSITIES))
    found = selector(scope, within is not None)(key, unflatten(flat), padded, fence)
    return flatten(found)[: len(densities)]


def assert_best(kept, flat, k, allowed):
    """Exactly min(k, allowed) are kept, all allowed, and none that was refused is better."""
    rank = ranks(flat)
    assert kept.sum() == min(k, allowed.sum())
    assert not (kept & ~allowed).any()
    refused = rank[allowed & ~kept]
    assert not (refused.size and kept.any()) or rank[kept].min() >= refused.max()


@pytest.mark.parametrize("scope", GROUPS)
@pytest.mark.parametrize("flat", CASES.values(), ids=CASES)
def test_select_against_brute_force(scope, flat):
    for density, kept in zip(DENSITIES, select(flat, DENSITIES, scope), strict=True):
        assert kept.sum() == number(density, N)
        for group, k in zip(GROUPS[scope], numbers(density, scope), strict=True):
            assert_best(kept[group], flat[group], k, np.ones(flat[group].size, bool))


@pytest.mark.slow
@pytest.mark.parametrize("scope", GROUPS)
@pytest.mark.parametrize("flat", CASES.values(), ids=CASES)
def test_select_within_against_brute_force(scope, flat):
    for share in (0.0, 0.1, 0.6):
        within = np.random.default_rng(int(share * 10)).random(N) < share
        for density, kept in zip(DENSITIES, select(flat, DENSITIES, scope, within), strict=True):
            for group, k in zip(GROUPS[scope], numbers(density, scope), strict=True):
                assert_best(kept[group], flat[group], k, within[group])


@pytest.mark.slow
@PROPERTY
@given(
    flat=arrays(np.float32, N, elements=st.floats(width=32, allow_nan=True)),
    rounds=st.lists(st.floats(2**-20, 1, width=32), min_size=3, max_size=3),
    scope=st.sampled_from(sorted(GROUPS)),
    seed=st.integers(0, 2**31),
)
def test_masks_are_nested_over_rounds_with_exact_counts(flat, rounds, scope, seed):
    """What was pruned stays pruned, whatever the scores of the next round say."""
    within, rng = np.ones(N, bool), np.random.default_rng(seed)
    for step, density in enumerate(sorted(rounds, reverse=True)):
        key = jax.random.fold_in(jax.random.key(seed), step)
        kept = select(rng.permutation(flat), [density], scope, within, key)[0]
        assert not (kept & ~within).any()
        for group, k in zip(GROUPS[scope], numbers(density, scope), strict=True):
            assert kept[group].sum() == min(k, within[group].sum())
        within = kept


def test_fewer_left_than_asked_keeps_them_all():
    within = np.zeros(N, bool)
    within[[0, 11, 31]] = True
    np.testing.assert_array_equal(select(CASES["nan"], [0.9], "global", within)[0], within)


@pytest.mark.parametrize("n", [1, 2, 7, 1000, 20_904, 10**6, 2**24 + 3, 30_000_001])
def test_number_kept_is_the_float32_formula(n):
    rng = np.random.default_rng(0)
    halves = (np.arange(2000) + 0.5) / n  # where rounding matters
    densities = np.concatenate(
        [rng.random(2000), 10 ** (-7 * rng.random(2000)), halves, 1 - halves]
    )
    densities = np.append(densities[(densities > 0) & (densities < 1)], [1.0]).astype(np.float32)
    found = np.asarray(jax.jit(jax.vmap(lambda d: masks.number_kept(d, n)))(densities))
    rounded = np.floor(densities * np.float32(n) + np.float32(0.5)).astype(np.float64)
    wanted = np.where(densities >= 1, n, np.clip(rounded, 1, n))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("density", [0.0001, 0.1, 0.123456789, 1 / 3, 0.99999, 1])
def test_number_kept_eagerly(density):
    for n in (1, 3, 20_904):
        assert int(masks.number_kept(density, n)) == number(density, n)


@functools.cache
def tie_masks():
    """Half of the equal scores of a network, for many keys: [keys, N]."""
    keys = jax.random.split(jax.random.key(1), 10_000)
    tree = unflatten(np.zeros(N, np.float32))
    return flatten(jax.jit(jax.vmap(lambda key: masks.select(key, tree, 0.5)))(keys))


def test_ties_are_broken_uniformly_over_positions_and_pairs():
    kept = tie_masks().astype(float)
    keys, half, pair = len(kept), 1 / 2, 16 * 15 / (32 * 31)
    together = kept.T @ kept / keys
    off = ~np.eye(N, dtype=bool)
    assert np.abs(np.diag(together) - half).max() < 5 * np.sqrt(half * (1 - half) / keys)
    assert np.abs(together[off] - pair).max() < 5 * np.sqrt(pair * (1 - pair) / keys)


def test_the_same_key_gives_the_same_mask():
    first, again = (select(CASES["zeros"], [0.5], key=jax.random.key(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.unique(tie_masks(), axis=0).shape[0] > 9_900  # and other keys give others


@pytest.mark.parametrize("sizes", [[1, 1, 500], [3, 10**6, 4, 2 * 10**7], [64] * 9, [7, 5, 3]])
def test_local_shares_are_exact_for_all_sizes(sizes):
    n = sum(sizes)
    ks = sorted({1, len(sizes), n // 3, n - 1, *(2**i for i in range(n.bit_length() - 1))})
    found = jax.jit(jax.vmap(lambda d: kept_per_group(d, "local", sizes, None)))
    for row, k in zip(found(np.float32(ks) / np.float32(n)), ks, strict=True):
        k = number(np.float32(k) / np.float32(n), n)
        assert row.tolist() == shares(k, sizes)


SIZES = [15, 60, 8, 120, 36]  # kernel [n - 1 or so] and bias of five layers, together
LAYERS = {
    f"layer_{i:02d}": {"kernel": np.zeros(size - 2, np.float32), "bias": np.zeros(2, np.float32)}
    for i, size in enumerate(SIZES)
}


CELLS = 400


@jax.jit
@jax.vmap
def oracle_cell(seed, density, counts):
    key = jax.random.key(seed)
    values = draws.normal(key, LAYERS)
    return masks.group_counts(masks.select(key, values, density, "oracle", counts=counts))


def oracle(density, counts):
    """Kept per layer [cells, 5] at scope "oracle" with random scores, for up to CELLS cells."""
    n = len(density)
    density, counts = np.resize(density, CELLS), np.resize(counts, (CELLS, len(SIZES)))
    return np.asarray(oracle_cell(np.arange(CELLS), density.astype(np.float32), counts))[:n]


def quotas(counts, k):
    """Shares of k in proportion to counts, none above its size, in float64 (water filling)."""
    counts, sizes, capped = counts.astype(float), np.array(SIZES, float), np.zeros(5, bool)
    while True:
        spare = k - sizes[capped].sum()
        share = np.where(capped, sizes, counts * spare / max(counts[~capped].sum(), 1e-300))
        if not (over := ~capped & (share > sizes)).any():
            return share
        capped |= over


@pytest.mark.slow
def test_oracle_scope_is_largest_remainder_with_caps():
    rng = np.random.default_rng(0)
    counts = np.minimum(rng.integers(1, 60, (CELLS, 5)), SIZES).astype(np.int32)
    density = np.concatenate([rng.random(CELLS // 2), 10 ** (-2 * rng.random(CELLS // 2))])
    kept = oracle(density, counts)
    for row, d, share in zip(kept, density, counts, strict=True):
        k = number(d, sum(SIZES))
        quota = quotas(share, k)
        assert row.sum() == k
        assert (row <= SIZES).all()
        np.testing.assert_array_less(np.abs(row - quota), 1 + 1e-3)
        remainder, up = quota - np.floor(quota + 1e-4), row > quota + 1e-4
        down = row < quota - 1e-4
        if up.any() and down.any():  # whoever was rounded up had the larger remainder
            assert remainder[up].min() >= remainder[down].max() - 1e-3


def test_oracle_scope_at_the_own_density_keeps_the_own_counts():
    rng = np.random.default_rng(1)
    counts = np.minimum(rng.integers(0, 130, (100, 5)), SIZES).astype(np.int32)
    counts[:, 0] += counts.sum(axis=1) == 0
    density = (counts.sum(axis=1) / sum(SIZES)).astype(np.float32)
    np.testing.assert_array_equal(oracle(density, counts), counts)


@pytest.mark.parametrize("counts", [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [15, 0, 8, 0, 0]])
def test_oracle_scope_fills_other_layers_last(counts):
    density = np.array([1 / 239, 0.1, 0.2, 0.6, 1.0], np.float32)
    kept = oracle(density, np.array([counts] * 5, np.int32))
    np.testing.assert_array_equal(kept.sum(axis=1), [number(d, 239) for d in density])
    assert (kept <= SIZES).all()
    named = np.array(counts) > 0
    spill = kept[:, ~named].sum(axis=1)
    room = np.array(SIZES)[named].sum() - kept[:, named].sum(axis=1)
    assert not named.any() or not (spill[room > 1] > 0).any()


@pytest.mark.slow
def test_oracle_scope_keeps_the_best_of_each_layer():
    flat, counts = CASES["rounded"], jnp.array([3, 7])
    kept = masks.select(KEY, unflatten(flat), 10 / N, "oracle", counts=counts)
    kept = flatten(jax.tree.map(lambda m: m[None], kept))[0]
    for group, k in zip(GROUPS["layer"], (3, 7), strict=True):
        assert_best(kept[group], flat[group], k, np.ones(flat[group].size, bool))


@pytest.mark.slow
def test_a_layer_may_have_a_count_of_zero():
    tree = {name: {"kernel": jnp.ones((2, 2))} for name in ("a", "b")}
    mask = masks.select(KEY, tree, 0.25, "oracle", counts=np.array([0, 2]))
    assert masks.group_counts(mask).tolist() == [0, 2]


def test_oracle_counts_are_exact_in_networks_of_many_millions():
    """VGG16 has 15 million parameters, nearly all of them in a few layers."""
    sizes = [14_000_000, 1_000]
    for density in (0.1, 0.9):
        k = number(density, sum(sizes))
        found = np.asarray(apportion(jnp.array([2**29, 2**15], jnp.int32), sizes, jnp.int32(k)))
        assert found.sum() == k
        share = np.minimum(np.round(k * 2**15 / (2**29 + 2**15)), sizes[1])
        assert found.tolist() == [k - share, share]


def kernels_only(path):
    return path.endswith("kernel")


@pytest.mark.parametrize("scope", GROUPS)
def test_there_is_a_threshold_for_every_group(scope):
    first = masks.unknown(TREE, scope)
    assert first.shape == (len(GROUPS[scope]),)
    near = jax.eval_shape(lambda: masks.reselect(KEY, TREE, 0.3, first, scope)[1])
    assert near.shape == first.shape


@pytest.mark.slow
def test_former_thresholds_change_nothing():
    search = jax.jit(functools.partial(masks.reselect, scope="channel"))
    tree = unflatten(CASES["distinct"])
    mask, near = search(KEY, tree, 0.3, masks.unknown(TREE, "channel"))
    chex.assert_trees_all_equal(search(KEY, tree, 0.3, near)[0], mask)


def test_a_channel_needs_no_bias():
    assert masks.unknown({"dense": {"kernel": jnp.ones((2, 3))}}, "channel").shape == (3,)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["global", "channel"])
def test_what_is_not_prunable_is_kept_and_not_counted(scope):
    tree = unflatten(CASES["distinct"])
    search = functools.partial(masks.select, scope=scope, prunable=kernels_only)
    mask = jax.jit(search)(KEY, tree, 0.2)
    assert mask["layer_00"]["bias"].all()
    assert mask["layer_01"]["bias"].all()
    wanted = number(0.2, 25)
    assert int(masks.count(mask, kernels_only)) == wanted
    assert masks.size(tree, kernels_only) == 25
    assert float(masks.density(mask, kernels_only)) == pytest.approx(wanted / 25)
    assert int(masks.count(mask)) == wanted + 7


@pytest.mark.parametrize(
    "tree",
    [
        (jnp.arange(12.0).reshape(2, 3, 2), {"a": jnp.arange(4.0)}, [jnp.float32(3.0)]),
        {"a": {"b": {"c": np.arange(3.0, dtype=np.float32)}}, "d": jnp.zeros((0, 2))},
    ],
)
def test_any_tree_of_arrays(tree):
    mask = masks.select(KEY, tree, 0.5)
    chex.assert_trees_all_equal_shapes(mask, tree)
    assert all(leaf.dtype == bool for leaf in jax.tree.leaves(mask))
    assert int(masks.count(mask)) == number(0.5, masks.size(tree))


def test_apply_sets_pruned_entries_to_zero_even_where_they_are_not_finite():
    params = {"a": jnp.array([1.0, jnp.nan, jnp.inf, -2.0]), "b": jnp.array([[-jnp.inf]])}
    mask = {"a": jnp.array([True, False, False, True]), "b": jnp.array([[False]])}
    applied = masks.apply(params, mask)
    chex.assert_trees_all_equal(
        applied, {"a": jnp.array([1.0, 0, 0, -2.0]), "b": jnp.zeros((1, 1))}
    )
    slopes = jax.grad(lambda p: jnp.sum(masks.apply(p, mask)["a"] ** 2))(params)["a"]
    np.testing.assert_array_equal(slopes, [2.0, 0.0, 0.0, -4.0])


def test_counts_densities_and_overlap():
    mask = unflatten(np.arange(N) < 8)  # b0 whole, three of k0
    other = unflatten(np.arange(N) >= 6)
    assert int(masks.count(mask)) == 8
    assert masks.size(TREE) == N
    assert float(masks.density(mask)) == 0.25
    assert int(masks.overlap(mask, other)) == 2
    assert masks.group_counts(mask).tolist() == [8, 0]
    assert masks.group_counts(mask, "local").tolist() == [5, 3, 0, 0]
    assert masks.group_counts(mask, "channel").tolist() == [2, 2, 2, 1, 1, 0, 0]
    assert masks.group_counts(other, "global").tolist() == [26]
    assert int(masks.count(masks.full(TREE))) == N
    chex.assert_trees_all_equal(
        masks.nonzero(unflatten(CASES["zeros of both signs"])),
        unflatten(CASES["zeros of both signs"] != 0),
    )


CHAIN = (2, 3, 2, 3, 2)
live = jax.jit(masks.live)
run = jax.jit(nets.apply)


def random_chain(seed, share):
    """Parameters and a mask that keeps each entry with probability `share`, as numpy trees."""
    rng = np.random.default_rng(seed)
    params, mask = {}, {}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(CHAIN)):
        shapes = {"kernel": (n_in, n_out), "bias": (n_out,)}
        params[f"layer_{i:02d}"] = {k: rng.normal(size=s).astype("f4") for k, s in shapes.items()}
        mask[f"layer_{i:02d}"] = {k: rng.random(s) < share for k, s in shapes.items()}
    return params, mask


def live_by_paths(params, mask):
    """What lies on a path of kept weights from an input or a kept positive bias to an output."""
    found = jax.tree.map(np.zeros_like, mask)
    names, last = sorted(params), len(CHAIN) - 1
    for start in range(last + 1):
        for path in itertools.product(*[range(width) for width in CHAIN[start:]]):
            steps = list(zip(names[start:], path[:-1], path[1:], strict=True))
            if not all(mask[name]["kernel"][i, j] for name, i, j in steps):
                continue
            if start > 0:  # a hidden or output unit can only begin a path by its bias
                bias = names[start - 1]
                alive = mask[bias]["bias"][path[0]] and params[bias]["bias"][path[0]] > 0
                if not alive and start < last:
                    continue
            for name, i, j in steps:
                found[name]["kernel"][i, j] = True
            for name, unit in zip(names[max(start - 1, 0) :], path[start == 0 :], strict=True):
                found[name]["bias"][unit] |= mask[name]["bias"][unit]
    return found


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(25))
def test_live_against_path_enumeration(seed, share):
    params, mask = random_chain(seed, share)
    chex.assert_trees_all_equal(live(params, mask), live_by_paths(params, mask))


@PROPERTY
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9))
def test_dead_parameters_do_not_change_the_function(seed, share):
    params, mask = random_chain(seed, share)
    kept = live(params, mask)
    x = np.random.default_rng(seed).uniform(-3, 3, (50, 2)).astype("f4")
    before, after = (run(masks.apply(params, m), x) for m in (mask, kept))
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_equal(live(params, kept), kept)
    smaller = jax.tree.map(np.logical_and, mask, random_chain(seed + 1, 0.7)[1])
    lost = jax.tree.map(lambda a, b: np.asarray(a) & ~np.asarray(b), live(params, smaller), kept)
    assert not any(leaf.any() for leaf in jax.tree.leaves(lost))  # monotone in the mask


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": jnp.float32(2)}, r"density must lie in \(0, 1\], got"),
        ({"scope": "everywhere"}, "scope must be one of global, .*, oracle, N:M, .*, got 'every"),
        ({"scope": "oracle"}, "counts go with scope 'oracle'"),
        (
            {"scope": "channel", "scores": {"a": jnp.ones((2, 3)), "b": jnp.ones(2)}},
            r"scope 'channel' wants arrays of equal last axes in a layer: \[\(2, 3\), \(2,\)\]",
        ),
        ({"counts": jnp.array([1, 2])}, "counts go with scope 'oracle' .* got scope 'global'"),
        ({"scope": "oracle", "counts": jnp.array([1, 2, 3])}, r"counts must be \[2\]"),
        ({"scope": "oracle", "counts": jnp.array([1, -2])}, "counts must not be negative"),
        ({"within": {"layer_00": TREE["layer_00"]}}, "within must have the tree structure of"),
    ],
)
def test_bad_selections(arguments, message):
    with pytest.raises(ValueError, match=message):
        masks.select(KEY, **({"scores": TREE, "density": 0.5} | arguments))


def test_scores_must_be_floats():
    with pytest.raises(ValueError, match=r"scores\[layer_00/bias\] must be floats, got"):
        masks.select(KEY, jax.tree.map(lambda p: jnp.ones(p.shape, jnp.int32), TREE), 0.5)


@pytest.mark.parametrize("function", [masks.apply, masks.live])
def test_masks_must_match_the_parameters(function):
    with pytest.raises(ValueError, match="mask must have the tree structure of params"):
        function(TREE, {"layer_00": masks.full(TREE)["layer_00"]})


def test_overlap_needs_matching_masks_and_live_a_chain():
    with pytest.raises(ValueError, match="other must have the tree structure of mask"):
        masks.overlap(masks.full(TREE), {"a": jnp.ones(2, bool)})
    with pytest.raises(ValueError, match="params must be a chain of dense layers"):
        masks.live({"a": jnp.ones(2)}, {"a": jnp.ones(2, bool)})
