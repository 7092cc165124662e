"""The seeker as a whole: its small network, its schedule, its budget, its tickets."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets, tasks
from plantjax.finders import FINDERS, seek
from plantjax.finders.seek import loss, schedule, starts, subnetwork, teacher
from plantjax.sweeps import worlds
from plantjax.types import Batch
from shared import chain, circle

WIDTHS = (2, 9, 7, 3)
PARAMS = chain(*WIDTHS)
CHAIN = subnetwork.stack(PARAMS)
X = circle(64).x
BRIEF = {
    **{
        "restarts": 2,
        "sweeps": 1,
        "rungs": 2,
        "cycles": 1,
        "cycle_sweeps": 2,
        "units": 8,
        "wide_units": 8,
        "search_epochs": 2,
    },
    **{"breadth": 6, "in_edges": 3, "redesigned": 4, "teachers": 0},
}
STAGES = 2 * 1 + 1 * 3 + (2 + 2)


def random_mask(key, share):
    return jax.random.bernoulli(key, share, CHAIN.weights.shape) & subnetwork.real(WIDTHS)


def live_mask(key, share):
    return subnetwork.live(CHAIN, random_mask(key, share))


@pytest.mark.slow
def test_stacks_compute_what_the_chain_computes():
    kept = random_mask(jax.random.key(3), 0.5)
    wanted = nets.apply(masks.apply(PARAMS, subnetwork.unstack(kept, WIDTHS)), X)
    np.testing.assert_allclose(subnetwork.run(CHAIN, kept, X), wanted, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(subnetwork.unstack(CHAIN.weights, WIDTHS), PARAMS)
    assert int(jnp.sum(CHAIN.weights != 0)) == subnetwork.real(WIDTHS).sum() == masks.size(PARAMS)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.4])
def test_live_stacks_are_live_masks(share):
    for seed in range(5):
        kept = random_mask(jax.random.key(seed), share)
        wanted = masks.live(PARAMS, subnetwork.unstack(kept, WIDTHS))
        found = subnetwork.live(CHAIN, kept)
        chex.assert_trees_all_equal(subnetwork.unstack(found, WIDTHS), wanted)
        assert not (found & ~subnetwork.real(WIDTHS)).any()


@pytest.mark.slow
@pytest.mark.parametrize("units", [6, 20])
def test_slots_hold_all_live_units_so_that_nothing_is_lost(units):
    """The widths differ, so slots are padded if there are more than a layer has units."""
    kept = live_mask(jax.random.key(5), 0.12)
    assert 0 < (subnetwork.edges(kept, 9) > 0).sum(axis=1).max() <= 6

    @jax.jit
    def there_and_back(key):
        noise = jax.random.uniform(key, (2, 9))
        places = subnetwork.slots(noise, kept, WIDTHS, units)
        small, part = subnetwork.small(CHAIN, places), subnetwork.gather(kept, places, CHAIN)
        outputs = subnetwork.run(small, part, X)
        padding = jnp.any(part & ~subnetwork.real(small.widths))
        return places, outputs, subnetwork.scatter(part, places, CHAIN), padding

    wanted = subnetwork.run(CHAIN, kept, X)
    for seed in range(5):
        places, outputs, back, padding = there_and_back(jax.random.key(seed))
        assert len(set(places[1, :7].tolist())) == min(units, 7)
        assert not padding
        chex.assert_trees_all_equal(back, kept)
        np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-6)


def test_the_schedule_is_a_race_and_then_cycles():
    plan = schedule.Plan(7, 3, 3, 2, 7)
    table = schedule.table(plan, noise=0.01)
    assert len(table.load) == 7 * 3 + 2 * 9 + 1 * 27 + 2 * (2 + 7)
    begins = np.flatnonzero(table.load >= 0)
    np.testing.assert_array_equal(table.load[begins], [0, 1, 2, 3, 4, 5, 6, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(begins[1:] - 1, np.flatnonzero(table.store)[:-1])
    np.testing.assert_array_equal(np.flatnonzero(table.rank), [0, 21, 39, 66, 75])
    np.testing.assert_allclose(table.noise[:3], [0.01, 0.01 / 6**0.5, 0.01 / 6], rtol=1e-5)
    assert (np.flatnonzero(table.swell > 1) == [66, 67, 75, 76]).all()
    np.testing.assert_array_equal(table.robust, np.arange(len(table.load)) < 7 * 3 + 2 * 9)
    assert len(schedule.table(schedule.Plan(1, 1, 1, 0, 1), noise=0.01).load) == 1


@pytest.mark.slow
def test_teachers_remove_the_noise_of_labels():
    task = tasks.TASKS["circle"]
    noisy = task.sample(jax.random.key(0), 2000, noise=0.1)
    found = jax.jit(lambda key, data: teacher.relabelled(key, data, 4, 2))(jax.random.key(1), noisy)
    np.testing.assert_array_equal(found.x[:2000], noisy.x)
    assert found.x.shape == (2000 * (1 + teacher.COPIES), 2)
    assert found.y.dtype == noisy.y.dtype
    assert jnp.abs(found.x).max() <= jnp.abs(noisy.x).max() + 1e-6
    truth = jnp.digitize(jnp.sum(jnp.square(found.x), axis=1), jnp.array([0.2, 0.5, 0.7]))
    wrong = [(labels != truth[: len(labels)]).mean() for labels in (noisy.y, found.y)]
    assert wrong[0] > 0.08
    assert wrong[1] < 0.03


@pytest.mark.slow
def test_below_one_path_a_constant_is_kept():
    task = tasks.TASKS["circle"]
    params = nets.init(jax.random.key(0), (2, 8, 8, 4))
    data = task.sample(jax.random.key(1), 200)
    args = (loss.goal_of(task), subnetwork.stack(params), data)
    safe = jax.jit(lambda k: starts.safe(jax.random.key(0), *args, k))
    for k, wanted in ((1, 1), (2, 1), (3, 3)):
        kept = safe(jnp.int32(k))
        assert int(subnetwork.count(kept)) == wanted


@pytest.mark.slow
def test_masks_of_classes_are_live_and_within_the_budget():
    task = tasks.TASKS["circle"]
    params, data = nets.init(jax.random.key(0), (2, 12, 12, 4)), task.sample(jax.random.key(1), 200)
    search = jax.jit(seek(task, **BRIEF).search)
    for k in (3, 20, 90):
        found = search(jax.random.key(2), params, data, np.float32(k / masks.size(params)))
        assert 1 <= int(masks.count(found.mask)) <= k
        chex.assert_trees_all_equal(found.mask, masks.live(params, found.mask))
        chex.assert_trees_all_equal(found.params, params)
    outputs = nets.apply(masks.apply(params, found.mask), data.x)
    wanted = 1.0 - task.evaluate(outputs, data.y)["accuracy"]
    np.testing.assert_allclose(found.info["error"], wanted, rtol=0.02, atol=2e-3)


@pytest.mark.slow
def test_the_relu_ticket_is_found_and_no_budget_is_exceeded():
    task = tasks.TASKS["relu"]
    make = functools.partial(worlds.make_world, task=task, depth=4, width=20, samples=400)
    world = jax.jit(make)(worlds.cell_key(task, 5))
    finder, params = seek(task, **BRIEF), world.planted.params
    density = np.float32(worlds.ticket_density(task, 4, 20))

    def error(mask):
        outputs = nets.apply(masks.apply(params, mask), world.test.x)
        return float(task.evaluate(outputs, world.test.y)["mse"])

    search = jax.jit(finder.search)
    found = search(jax.random.key(3), params, world.train, density)
    assert int(masks.count(found.mask)) <= 3
    assert error(found.mask) < 1.2 * error(world.planted.mask)
    assert not finder.exact_counts
    for k in (20, 90):
        found = search(jax.random.key(2), params, world.train, np.float32(k / masks.size(params)))
        assert 1 <= int(masks.count(found.mask)) <= k
        chex.assert_trees_all_equal(found.mask, masks.live(params, found.mask))
        chex.assert_trees_all_equal(found.params, params)
        assert found.info["errors"].shape == found.info["live"].shape == (STAGES,)
    outputs = nets.apply(masks.apply(params, found.mask), world.train.x)
    wanted = task.evaluate(outputs, world.train.y)["mse"]
    np.testing.assert_allclose(found.info["error"], wanted, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"sweeps": 0}, "sweeps must be an integer of at least 1, got 0"),
        ({"restarts": 0}, "restarts must be an integer of at least 1, got 0"),
        ({"finalists": 1}, "finalists must be an integer of at least 2, got 1"),
        ({"teachers": 1}, "teachers must be an integer of at least 0 and at most 0, got 1"),
        ({"breadth": 0}, "breadth must be an integer of at least 1, got 0"),
        ({"focus": 1.0}, r"focus must lie in \[0, 0.99\], got 1"),
        ({"power": 2.0}, r"power must lie in \[0, 1\], got 2"),
    ],
)
def test_bad_options_are_refused(static, message):
    with pytest.raises(ValueError, match=message):
        FINDERS["seek"](tasks.TASKS["relu"], **static)


def test_only_chains_are_taken():
    data = Batch(jnp.ones((40, 2)), jnp.ones((40, 3)))
    with pytest.raises(ValueError, match="params must be a chain of dense layers"):
        FINDERS["seek"](tasks.TASKS["relu"])(jax.random.key(0), {"a": jnp.ones(3)}, data, 0.5)
