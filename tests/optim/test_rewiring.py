"""SET and RigL around an optimizer, against a hand-computed case and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import masks, nets, optim, tasks, training
from plantjax.losses import cross_entropy
from plantjax.optim.rewiring import move

CIRCLE = tasks.TASKS["circle"]
KEY = jax.random.key(5)


def tree(values):
    return {"layer": {"w": jnp.asarray(values)}}


W = tree([5.0, 0.1, 0.0, -3.0, 0.0, 0.2, 0.0, 4.0])
MASK = tree([True, True, False, True, False, True, False, True])
G = tree([0.0, 1.0, -9.0, 2.0, 3.0, 0.5, 0.1, 0.0])


def steps_of(grow, n, inner=None, gradient=G, start=W, **options):
    """Parameters and states after each of n updates with the same gradient."""
    inner = inner or optax.sgd(0.1)
    change = optim.rewire(inner, mask=MASK, key=KEY, grow=grow, **options)
    state, params, seen = change.init(start), start, []
    update = jax.jit(change.update)
    for _ in range(n):
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        seen.append((params, state))
    return seen


def test_rigl_by_hand():
    """Step 2, until 30: 0.4 (1 + cos(2 pi / 30)) of 5 is 3.9: three are dropped."""
    options = {"end": 30, "every": 2, "fraction": 0.8}
    first, second, third, fourth = steps_of("gradient", 4, **options)
    # two steps of SGD on what is kept: nothing else moves
    after = np.array([5.0, 0.1 - 0.2, 0.0, -3.4, 0.0, 0.2 - 0.1, 0.0, 4.0], np.float32)
    np.testing.assert_allclose(second[0]["layer"]["w"], after, rtol=1e-5)
    np.testing.assert_array_equal(optim.mask(first[1])["layer"]["w"], MASK["layer"]["w"])
    # the smallest are 1, 5 (0.1 each) and 3; the largest gradients of all but 0 and 7 are
    # those of 2, 4 and 3, which is dropped and grown at once and keeps its weight
    wanted = np.array([5.0, 0.0, 0.0, -3.4, 0.0, 0.0, 0.0, 4.0])
    np.testing.assert_allclose(third[0]["layer"]["w"], wanted, rtol=1e-5)
    kept = np.array([1, 0, 1, 1, 1, 0, 0, 1], bool)
    np.testing.assert_array_equal(optim.mask(third[1])["layer"]["w"], kept)
    # the grown ones start at zero and are trained from then on
    wanted = np.array([5.0, 0.0, 0.9, -3.6, -0.3, 0.0, 0.0, 4.0])
    np.testing.assert_allclose(fourth[0]["layer"]["w"], wanted, rtol=1e-5)


def test_the_mask_changes_every_so_many_steps_until_the_stop():
    rng = np.random.default_rng(0)
    start = tree(np.float32(rng.normal(size=8) * np.asarray(MASK["layer"]["w"])))
    seen = steps_of("random", 24, start=start, end=12, every=3, fraction=1.0)
    rows = [
        np.asarray(MASK["layer"]["w"]),
        *(np.asarray(optim.mask(s)["layer"]["w"]) for _, s in seen),
    ]
    changes = [i for i in range(24) if (rows[i] != rows[i + 1]).any()]
    assert set(changes) <= {3, 6, 9}  # steps count from 0; 12 is the stop
    assert changes
    assert all(row.sum() == 5 for row in rows)
    for params, state in seen:
        pruned = ~np.asarray(optim.mask(state)["layer"]["w"])
        assert (np.asarray(params["layer"]["w"])[pruned] == 0).all()


def test_the_share_falls_as_a_cosine_and_the_counts_of_layers_stay():
    """Counts of what is dropped, in a layer of 1,000 of which 500 are kept, random growth."""
    rng = np.random.default_rng(1)
    kept = rng.permutation(np.arange(1000) < 500)
    params = tree(jnp.asarray(np.where(kept, rng.normal(size=1000), 0), jnp.float32))
    mask = tree(jnp.asarray(kept))
    jitted = jax.jit(move)
    for share in (0.0, 0.15, 0.3, 1.0):
        moved = np.asarray(jitted(KEY, params, mask, tree(jnp.zeros(1000)), share)["layer"]["w"])
        assert moved.sum() == 500
        dropped = int(np.floor(np.float32(share) * 500))
        stays = np.argsort(-np.abs(np.asarray(params["layer"]["w"])))[: 500 - dropped]
        assert moved[stays].all()
        new = moved & ~kept
        chance = dropped * 500 / (500 + dropped)  # of dropped among 500 + dropped candidates
        assert abs(new.sum() - chance) <= 5 * np.sqrt(chance + 1e-9)


@pytest.mark.slow
def test_growth_is_random_by_key_or_by_gradient():
    moved = jax.jit(jax.vmap(move, (0, None, None, None, None)))
    keys = jax.random.split(KEY, 20)
    by_chance = np.asarray(moved(keys, W, MASK, tree(jnp.zeros(8)), 0.5)["layer"]["w"])
    assert len(np.unique(by_chance, axis=0)) > 3
    by_gradient = np.asarray(moved(keys, W, MASK, G, 0.7)["layer"]["w"])
    np.testing.assert_array_equal(by_gradient, [np.array([1, 0, 1, 1, 1, 0, 0, 1], bool)] * 20)


def test_grown_parameters_have_a_fresh_state_of_the_inner_optimizer():
    options = {"end": 30, "every": 2, "fraction": 0.8}
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
        optimizer=optim.rewire(optax.adam(0.01), mask=mask, key=KEY, end=6), **common,
    )  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), fitted, moved)
    np.testing.assert_allclose(values, losses, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, optim.mask(state), mask)
    assert int(state.step) == 8


@pytest.mark.slow
def test_the_first_mask_is_random_with_the_counts_of_the_allocation():
    params = nets.init(jax.random.key(0), (2, 20, 20, 4))

    @jax.jit
    def first(key, density):
        state = optim.rewire(optax.adam(0.1), density=density, end=9, key=key).init(params)
        return optim.mask(state)

    mask, other = first(jax.random.key(0), 0.2), first(KEY, 0.2)
    counts = masks.group_counts(mask)
    np.testing.assert_array_equal(counts, jax.jit(masks.erk)(params, 0.2))
    assert int(masks.overlap(mask, other)) < int(counts.sum())


@pytest.mark.slow
def test_zeros_stay_where_the_mask_is():
    params = nets.init(jax.random.key(0), (2, 16, 4))
    x, y = jax.random.normal(KEY, (24, 2)), jnp.arange(24) % 4
    inner = optax.contrib.schedule_free_adamw(0.01)
    rule = optim.rewire(inner, density=0.3, end=12, every=4)

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(lambda p: cross_entropy(nets.apply(p, x), y))(params)
        updates, state = rule.update(gradient, state, params)
        carry = optax.apply_updates(params, updates), state
        return carry, carry

    start = (params, rule.init(params))
    seen, states = jax.jit(lambda start: jax.lax.scan(step, start, length=15)[1])(start)
    kept = optim.mask(states)
    jax.tree.map(lambda p, m: np.testing.assert_array_equal(p[~m], 0.0), seen, kept)
    np.testing.assert_allclose(optim.density(states), optim.density(states)[0])
    changes = [(leaf[3] != leaf[4]).any() for leaf in jax.tree.leaves(kept)]
    assert any(changes)  # the fifth update moves


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grow": "all"}, "grow must be one of random, gradient, got 'all'"),
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
        ({"fraction": -0.1}, r"fraction must lie in \[0, 1\]"),
        ({"mask": MASK}, "density or mask must be given, and not both"),
        ({"density": None}, "density or mask must be given, and not both"),
        ({"density": 0.0}, r"density must lie in \(0, 1\]"),
        ({"allocation": "even"}, "allocation must be one of uniform, erk"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        optim.rewire(optax.sgd(0.1), **{"density": 0.5, "end": 10} | options)
