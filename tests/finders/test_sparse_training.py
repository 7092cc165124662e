"""SET and RigL: the transformation against a hand-computed case and numpy; the finders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import finders, masks, nets, tasks, training
from plantjax.finders.sparse_training import _move
from plantjax.losses import cross_entropy
from plantjax.masks import allocations
from plantjax.types import Batch

CIRCLE = tasks.TASKS["circle"]
KEY = jax.random.key(5)


def tree(values):
    return {"layer": {"w": jnp.asarray(values)}}


W = tree([5.0, 0.1, 0.0, -3.0, 0.0, 0.2, 0.0, 4.0])
MASK = tree([True, True, False, True, False, True, False, True])
G = tree([0.0, 1.0, -9.0, 2.0, 3.0, 0.5, 0.1, 0.0])


def steps_of(grow, n, inner=None, gradient=G, start=W, **options):
    """Parameters and states after each of n updates with the same gradient."""
    change = finders.rewire(inner or optax.sgd(0.1), KEY, MASK, grow=grow, **options)
    state, params, seen = change.init(start), start, []
    update = jax.jit(change.update)
    for _ in range(n):
        with jax.numpy_dtype_promotion("standard"):  # optax does not run under "strict"
            updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        seen.append((params, state))
    return seen


def test_rigl_by_hand():
    """Step 2 of 40, until 30: 0.4 (1 + cos(2 pi / 30)) of 5 is 3.9: three are dropped."""
    options = {"steps": 40, "every": 2, "fraction": 0.8}
    first, second, third, fourth = steps_of("gradient", 4, **options)
    # two steps of SGD on what is kept: nothing else moves
    after = np.array([5.0, 0.1 - 0.2, 0.0, -3.4, 0.0, 0.2 - 0.1, 0.0, 4.0], np.float32)
    np.testing.assert_allclose(second[0]["layer"]["w"], after, rtol=1e-5)
    np.testing.assert_array_equal(first[1].mask["layer"]["w"], MASK["layer"]["w"])
    # the smallest are 1, 5 (0.1 each) and 3; the largest gradients of all but 0 and 7 are
    # those of 2, 4 and 3, which is dropped and grown at once and keeps its weight
    wanted = np.array([5.0, 0.0, 0.0, -3.4, 0.0, 0.0, 0.0, 4.0])
    np.testing.assert_allclose(third[0]["layer"]["w"], wanted, rtol=1e-5)
    kept = np.array([1, 0, 1, 1, 1, 0, 0, 1], bool)
    np.testing.assert_array_equal(third[1].mask["layer"]["w"], kept)
    # the grown ones start at zero and are trained from then on
    wanted = np.array([5.0, 0.0, 0.9, -3.6, -0.3, 0.0, 0.0, 4.0])
    np.testing.assert_allclose(fourth[0]["layer"]["w"], wanted, rtol=1e-5)


def test_the_mask_changes_every_so_many_steps_until_the_stop():
    rng = np.random.default_rng(0)
    start = tree(np.float32(rng.normal(size=8) * np.asarray(MASK["layer"]["w"])))
    seen = steps_of("random", 24, start=start, steps=24, every=3, stop=0.5, fraction=1.0)
    rows = [np.asarray(MASK["layer"]["w"]), *(np.asarray(s.mask["layer"]["w"]) for _, s in seen)]
    changes = [i for i in range(24) if (rows[i] != rows[i + 1]).any()]
    assert set(changes) <= {3, 6, 9}  # steps count from 0; 12 is the stop
    assert changes
    assert all(row.sum() == 5 for row in rows)
    for params, state in seen:
        pruned = ~np.asarray(state.mask["layer"]["w"])
        assert (np.asarray(params["layer"]["w"])[pruned] == 0).all()


def test_the_share_falls_as_a_cosine_and_the_counts_of_layers_stay():
    """Counts of what is dropped, in a layer of 1,000 of which 500 are kept, random growth."""
    rng = np.random.default_rng(1)
    kept = rng.permutation(np.arange(1000) < 500)
    params = tree(jnp.asarray(np.where(kept, rng.normal(size=1000), 0), jnp.float32))
    mask = tree(jnp.asarray(kept))
    move = jax.jit(functools.partial(_move, prunable=None))
    for share in (0.0, 0.15, 0.3, 1.0):
        moved = np.asarray(move(KEY, params, mask, tree(jnp.zeros(1000)), share)["layer"]["w"])
        assert moved.sum() == 500
        dropped = int(np.floor(np.float32(share) * 500))
        stays = np.argsort(-np.abs(np.asarray(params["layer"]["w"])))[: 500 - dropped]
        assert moved[stays].all()
        new = moved & ~kept
        chance = dropped * 500 / (500 + dropped)  # of dropped among 500 + dropped candidates
        assert abs(new.sum() - chance) <= 5 * np.sqrt(chance + 1e-9)


def test_growth_is_random_by_key_or_by_gradient():
    move = jax.jit(jax.vmap(functools.partial(_move, prunable=None), (0, None, None, None, None)))
    keys = jax.random.split(KEY, 20)
    by_chance = np.asarray(move(keys, W, MASK, tree(jnp.zeros(8)), 0.5)["layer"]["w"])
    assert len(np.unique(by_chance, axis=0)) > 3
    by_gradient = np.asarray(move(keys, W, MASK, G, 0.7)["layer"]["w"])
    np.testing.assert_array_equal(by_gradient, [np.array([1, 0, 1, 1, 1, 0, 0, 1], bool)] * 20)


def test_grown_parameters_have_a_fresh_state_of_the_inner_optimizer():
    options = {"steps": 40, "every": 2, "fraction": 0.8}
    seen = steps_of("gradient", 3, inner=optax.adam(0.1), **options)
    before, after = (state.inner[0] for _, state in seen[1:])
    for moments in ("mu", "nu"):
        old, new = (np.asarray(getattr(s, moments)["layer"]["w"]) for s in (before, after))
        both = np.array([1, 0, 0, 1, 0, 0, 0, 1], bool)
        np.testing.assert_array_equal(new[both], old[both])
        assert (new[~both] == 0).all()
    assert int(before.count) == int(after.count) == 2


@pytest.mark.slow
def test_before_the_first_change_it_is_masked_training():
    params = nets.init(jax.random.key(0), (2, 8, 4))
    data = CIRCLE.sample(jax.random.key(1), 64)
    mask = masks.select(KEY, params, 0.5)
    common = {"epochs": 2, "batch_size": 16}
    fitted, losses = training.fit(
        jax.random.key(2), params, mask, data,
        apply=nets.apply, loss=cross_entropy, optimizer=optax.adam(0.01), **common,
    )  # fmt: skip

    def objective(params, carry, batch, step):
        return cross_entropy(nets.apply(params, batch.x), batch.y), carry

    moved, _, values, state = training.minimize(
        jax.random.key(2), masks.apply(params, mask), None, data, objective,
        optimizer=finders.rewire(optax.adam(0.01), KEY, mask, grow="gradient", steps=8), **common,
    )  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), fitted, moved)
    np.testing.assert_allclose(values, losses, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state.mask, mask)
    assert int(state.step) == 8


@functools.cache
def found(name):
    params = nets.init(jax.random.key(0), (2, 20, 4))
    data = CIRCLE.sample(jax.random.key(1), 640)
    finder = finders.FINDERS[name](CIRCLE, search_epochs=3, every=5)
    densities = jnp.asarray([0.05, 0.3, 1.0], jnp.float32)
    search = jax.jit(jax.vmap(lambda d: finder(KEY, params, data, d)))
    return params, densities, jax.device_get(search(densities))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["set", "rigl"])
def test_finders_keep_the_budgets_of_erk_and_end_where_training_ends(name):
    params, densities, result = found(name)
    assert finders.FINDERS[name](CIRCLE).exact_counts
    assert finders.FINDERS[name](CIRCLE).scope == "oracle"
    for index, density in enumerate(densities):
        mask, trained = (
            jax.tree.map(lambda leaf, i=index: leaf[i], t) for t in (result.mask, result.params)
        )
        counts = allocations.erk(params, density)
        np.testing.assert_array_equal(masks.group_counts(mask), counts)
        for kept, weights in zip(jax.tree.leaves(mask), jax.tree.leaves(trained), strict=True):
            assert (weights[~kept] == 0).all()
    left = result.info["kept_of_start"]
    assert (left[:2] < 1).all()
    assert left[2] == 1
    assert (result.info["losses"][1:, -1] < result.info["losses"][1:, 0]).all()


@pytest.mark.slow
def test_set_and_rigl_start_alike_and_grow_apart():
    (_, _, by_chance), (_, _, by_gradient) = found("set"), found("rigl")
    first, second = (jax.tree.leaves(f.mask)[1][1] for f in (by_chance, by_gradient))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grow": "all"}, "grow must be one of random, gradient, got 'all'"),
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
        ({"fraction": -0.1}, r"fraction must lie in \[0, 1\]"),
        ({"allocation": "even"}, "allocation must be one of erk"),
        ({"search_epochs": 0}, "search_epochs must be an integer of at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        finders.sparse_training(CIRCLE, **{"grow": "random"} | options)


def test_a_batch_larger_than_the_data_is_refused():
    params = nets.init(jax.random.key(0), (2, 3, 4))
    data = Batch(jnp.ones((20, 2)), jnp.zeros(20, jnp.int32))
    with pytest.raises(ValueError, match=r"batch_size must be an integer .* and at most 20"):
        finders.sparse_training(CIRCLE, grow="random")(KEY, params, data, 0.5)
