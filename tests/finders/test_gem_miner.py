"""Gem-Miner: the schedule of freezes by hand, and every step from what the optimizer is given."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import finders, masks, nets, tasks
from plantjax.finders.gem_miner import freeze
from shared import flat

CIRCLE, RELU = tasks.TASKS["circle"], tasks.TASKS["relu"]
KEY = jax.random.key(6)
freezing = jax.jit(freeze)
SAMPLES, BATCH, PER_EPOCH = 120, 40, 3


@functools.cache
def mother(widths=(2, 12, 12, 4)):
    return nets.init(jax.random.key(2), widths)


@functools.cache
def data(task=CIRCLE):
    return task.sample(jax.random.key(1), SAMPLES)


@pytest.mark.parametrize(
    ("density", "freezes", "counts"),
    [
        (0.25, 2, [50, 25]),  # r = 1/2, 100 to 50 to 25
        (0.1, 2, [31, 9]),  # r = 0.684: off are ceil(68.4) = 69, then ceil(21.2) = 22
        (0.1, 3, [46, 21, 9]),  # r = 0.536: off are 54, then 25, then 12
        (0.01, 4, [31, 9, 2, 1]),  # r = 0.684: 69, 22, 7; ceil(1.4) = 2 would leave none
        (1.0, 2, [100, 100]),
    ],
)
def test_freezes_leave_the_highest_of_counts_by_hand(density, freezes, counts):
    rng = np.random.default_rng(0)
    values = rng.permutation(100) / 100
    p = {"bias": jnp.asarray(values[:20]), "kernel": jnp.asarray(values[20:]).reshape(8, 10)}
    active, share = masks.full(p), 1.0 - jnp.float32(density) ** (1.0 / freezes)
    for wanted in counts:
        active = freezing(KEY, p, active, share)
        np.testing.assert_array_equal(flat(active), values >= np.sort(values)[100 - wanted])


def test_the_lowest_of_the_active_are_frozen_whatever_is_off():
    p = {"a": jnp.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.8])}
    active = {"a": jnp.array([False, True, True, True, False, True])}
    frozen = freezing(KEY, p, active, 0.3)["a"]  # ceil(0.3 * 4) = 2 of 4
    assert frozen.tolist() == [False, False, False, True, False, True]


@functools.cache
def spied(density=0.25, learning_rate=0.5, penalty=1e-4):
    """A search, and the p, gradients and masked parameters of its steps; E = 11, T = 5."""
    forward, backward = [], []

    def apply(params, x):
        jax.debug.callback(lambda *seen: forward.append(seen), params, x, ordered=True)
        return nets.apply(params, x)

    base = optax.sgd(learning_rate)

    def update(gradient, state, params):
        jax.debug.callback(lambda *seen: backward.append(seen), params, gradient, ordered=True)
        return base.update(gradient, state, params)

    finder = finders.gem_miner(
        CIRCLE,
        apply=apply,
        search_epochs=11,
        batch_size=BATCH,
        optimizer=optax.GradientTransformation(base.init, update),
        loss="plain",
        penalty=penalty,
    )
    found = jax.device_get(jax.jit(finder.search)(KEY, mother(), data(), density))
    jax.effects_barrier()
    steps = zip(forward, backward, strict=True)
    return found, [jax.tree.map(np.asarray, (*seen, *given)) for seen, given in steps]


@pytest.mark.slow
def test_every_step_runs_what_is_active_and_above_a_half():
    _, steps = spied()
    theta = flat(mother())
    assert len(steps) == 11 * PER_EPOCH
    active = np.ones(244, bool)
    for index, (masked, _, learned, _) in enumerate(steps):
        p = flat(learned["p"])
        assert (p >= 0).all()
        assert (p <= 1).all()
        if index in (5 * PER_EPOCH, 10 * PER_EPOCH):  # r = 1/2
            half = active.sum() // 2
            lowest = np.argsort(np.where(active, p, 2.0), kind="stable")[:half]
            assert (p[active] == p[lowest[-1]]).sum() == 1  # no tie at the cut
            active[lowest] = False
        np.testing.assert_array_equal(flat(masked), np.where(active & (p > 0.5), theta, 0.0))
    assert active.sum() == 61


@pytest.mark.slow
def test_the_gradient_is_straight_through_with_the_penalty():
    _, steps = spied()
    rows = {tuple(x): y for x, y in zip(np.asarray(data().x), np.asarray(data().y), strict=True)}
    slope = jax.jit(jax.grad(lambda params, x, y: CIRCLE.loss(nets.apply(params, x), y)))
    for masked, x, learned, gradient in steps[: PER_EPOCH + 1]:
        y = jnp.asarray([rows[tuple(row)] for row in x])
        wanted = flat(mother()) * flat(slope(masked, x, y)) + 2e-4 * flat(learned["p"])
        np.testing.assert_allclose(flat(gradient["p"]), wanted, rtol=1e-4, atol=1e-6)
    # What is frozen feels the penalty alone.
    _, _, learned, gradient = steps[-1]
    p, found = flat(learned["p"]), flat(gradient["p"])
    frozen = np.isclose(found, 2e-4 * p, rtol=1e-5, atol=1e-10)
    assert frozen.sum() >= 244 - 61


def test_values_start_uniform_and_the_mask_is_the_rounded_one():
    found, steps = spied()
    first = flat(steps[0][2]["p"])
    assert 0.4 < first.mean() < 0.6
    assert first.min() < 0.05
    assert first.max() > 0.95
    assert found.info["active"] == 61
    assert found.info["native_kept"] == flat(found.mask).sum() <= 61
    last = steps[-1]
    p = np.clip(flat(last[2]["p"]) - 0.5 * flat(last[3]["p"]), 0, 1)
    kept = flat(found.mask)
    assert (p[kept] > 0.5 - 1e-6).all()
    chex.assert_trees_all_equal(found.params, jax.device_get(mother()))


@functools.cache
def at_densities():
    """Searches at four densities, and the same in a mother whose last layer is zero."""
    dead = mother() | {"layer_02": jax.tree.map(jnp.zeros_like, mother()["layer_02"])}
    mothers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[mother()] * 4, *[dead] * 4)
    finder = finders.gem_miner(CIRCLE, search_epochs=11, batch_size=BATCH)
    samples = data()  # outside of the trace: a cache must not keep tracers
    search = jax.jit(jax.vmap(lambda params, density: finder(KEY, params, samples, density)))
    return jax.device_get(search(mothers, jnp.float32([1 / 244, 0.1, 0.5, 1.0] * 2)))


@pytest.mark.slow
def test_no_more_than_k_are_kept():
    found = at_densities()
    chex.assert_tree_all_finite(found.info)
    kept = np.sum([leaf.reshape(8, -1).sum(axis=1) for leaf in jax.tree.leaves(found.mask)], axis=0)
    np.testing.assert_array_equal(kept, found.info["native_kept"])
    assert (kept <= found.info["active"]).all()
    assert (found.info["active"] <= [1, 24, 122, 244] * 2).all()
    assert (found.info["active"][[3, 7]] == 244).all()


@pytest.mark.slow
def test_the_search_learns_what_is_alive():
    losses = at_densities().info["losses"]
    assert (losses[1:4, -1] < losses[1:4, 0]).all()
    np.testing.assert_allclose(losses[4:], np.log(4), rtol=1e-5)


@pytest.mark.slow
def test_without_a_freeze_the_mask_is_cut_to_k():
    finder = finders.gem_miner(CIRCLE, search_epochs=1, batch_size=BATCH)
    found = jax.jit(finder.search)(KEY, mother(), data(), 0.1)
    assert found.info["active"] == 244
    assert found.info["native_kept"] > 24
    assert flat(found.mask).sum() == 24
    assert not finder.exact_counts


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"loss": "mse"}, r"loss must be one of scale-free, plain, robust, got 'mse'"),
        ({"period": 0}, r"period must be an integer of at least 1, got 0"),
        ({"penalty": -1.0}, r"penalty must lie in \[0, 1\], got -1.0"),
    ],
)
def test_bad_options_are_refused(static, message):
    with pytest.raises(ValueError, match=message):
        finders.gem_miner(CIRCLE, **static)
