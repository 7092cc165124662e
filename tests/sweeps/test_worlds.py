"""Worlds: what all finders and densities of a seed share."""

import functools
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets, sweeps, tasks
from plantjax.sweeps import worlds

DEPTH, WIDTH = 4, 30
SEEDS = (0, 1, 0, 7)
TASKS = ["circle", *(pytest.param(n, marks=pytest.mark.slow) for n in ("relu", "circle_hidden"))]
"""Labels, values, and a target of every key."""


@functools.cache
def world_of(task, samples=200):
    """One compiled program of a task's world, batched over keys and noise."""
    make = functools.partial(worlds.make_world, samples=samples)
    return jax.jit(jax.vmap(lambda key, noise: make(key, tasks.TASKS[task], DEPTH, WIDTH, noise)))


@functools.cache
def some_worlds(task):
    """The worlds of SEEDS, on the host."""
    keys = jnp.stack([worlds.cell_key(tasks.TASKS[task], seed) for seed in SEEDS])
    return jax.device_get(world_of(task)(keys, jnp.asarray([0.01] * len(SEEDS))))


def at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_seed_decides_the_world_bit_by_bit(task):
    found = some_worlds(task)
    chex.assert_trees_all_equal(at(found, 0), at(found, 2))
    for name in ("kernel", "bias"):
        draws = found.planted.params["layer_01"][name]
        assert (draws[0] != draws[1]).mean() > 0.9
        assert (draws[0] != draws[3]).mean() > 0.9
    assert (found.train.x[0] != found.train.x[1]).all()
    assert (found.test.x[0] != found.train.x[0, : found.test.x.shape[1]]).all()


def test_tasks_of_one_seed_do_not_share_their_draws():
    keys = [worlds.cell_key(task, 0) for task in tasks.TASKS.values()]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)


def test_purposes_of_one_cell_do_not_share_their_draws():
    key = worlds.cell_key(tasks.TASKS["relu"], 0)
    folds = [worlds.key_for(key, purpose) for purpose in worlds.PURPOSES]
    assert len({tuple(jax.random.key_data(fold).tolist()) for fold in folds}) == len(folds)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_noise_changes_labels_alone(task):
    keys = jnp.stack([worlds.cell_key(tasks.TASKS[task], 0)] * len(SEEDS))
    found = jax.device_get(world_of(task)(keys, jnp.asarray([0.01, 0.0, 0.01, 1.0])))
    chex.assert_trees_all_equal(at(found, 0), at(found, 2))
    chex.assert_trees_all_equal(at(found.planted, 0), at(found.planted, 3))
    np.testing.assert_array_equal(found.train.x[0], found.train.x[3])
    assert (found.train.y[1] != found.train.y[3]).all()  # noise 1 moves every label and value


@pytest.mark.parametrize("task", TASKS)
def test_the_planted_mask_computes_the_target_on_held_out_data(task):
    world = at(some_worlds(task), 1)
    assert len(world.train.x) == 180
    assert len(world.test.x) == 20
    planted = masks.apply(world.planted.params, world.planted.mask)
    wanted = np.asarray(nets.apply(world.target, world.test.x))
    outputs = nets.apply(planted, world.test.x) / world.planted.scale[None, :]
    np.testing.assert_allclose(outputs, wanted, atol=1e-4 * np.ptp(wanted))
    density = worlds.ticket_density(tasks.TASKS[task], DEPTH, WIDTH)
    np.testing.assert_allclose(masks.density(world.planted.mask), density, rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "ticket", "parameters", "ticket_weights", "weights"),
    [
        ("circle", 130, 20904, 108, 20600),
        ("relu", 4, 20501, 4, 20200),
        ("helix", 131, 20703, 95, 20400),
    ],
)
def test_ticket_densities_of_depth_5_and_width_100(
    task, ticket, parameters, ticket_weights, weights
):
    task = tasks.TASKS[task]
    assert worlds.ticket_density(task, 5, 100) == ticket / parameters
    wanted = ticket_weights / weights
    assert worlds.ticket_density(task, 5, 100, weights_only=True) == wanted
    kept = masks.number_kept(worlds.ticket_density(task, 5, 100), parameters)
    assert int(kept) == ticket  # exactly the planted mask fits


@pytest.mark.parametrize(
    ("task", "depth", "width", "message"),
    [
        ("circle", 5, 19, r"at least 20, .* circle target of depth 5 in layer_02, got 19"),
        ("circle", 5, 3, r"at least 4, .* in layer_00, got 3"),
        ("helix", 3, 29, r"at least 30, .* helix target of depth 3 in layer_00, got 29"),
        ("relu", 5, 0, r"width must be an integer of at least 1, got 0"),
        ("relu", 2, 10, r"depth must be an integer of at least 3, got 2"),
    ],
)
def test_mothers_too_small_for_the_target_are_refused(task, depth, width, message):
    with pytest.raises(ValueError, match=message):
        worlds.make_world(jax.random.key(0), tasks.TASKS[task], depth, width, samples=20)
    with pytest.raises(ValueError, match=message):
        worlds.ticket_density(tasks.TASKS[task], depth, width)


@pytest.mark.parametrize("noise", [-0.1, 1.1, float("nan")])
def test_noise_out_of_range_is_refused(noise):
    def make(key):
        return worlds.make_world(key, tasks.TASKS["relu"], 3, 4, noise, samples=20)

    with pytest.raises(ValueError, match=r"noise must lie in \[0, 1\]"):
        jax.eval_shape(make, jax.random.key(0))


def test_keys_are_of_one_generator_whatever_the_default_is():
    wanted = jax.random.key_data(worlds.cell_key(tasks.TASKS["relu"], 3))
    with jax.default_prng_impl("rbg"):
        key = worlds.cell_key(tasks.TASKS["relu"], 3)
    assert jax.random.key_impl(key) == worlds.PRNG
    np.testing.assert_array_equal(jax.random.key_data(key), wanted)


def test_tickets_that_fill_their_mother_are_told_once():
    def told(task, depth, width):
        make = functools.partial(worlds.make_world, samples=100)
        task = tasks.TASKS[task]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(2):
                sweeps.make_run(task, depth, width, "snip", epochs=0, samples=100)
                jax.eval_shape(lambda key: make(key, task, depth, width), jax.random.key(0))
        return [str(warning.message) for warning in caught]

    (message,) = told("circle", 3, 20)
    share = sweeps.ticket_density(tasks.TASKS["circle"], 3, 20)
    assert share > 0.5
    assert f"ticket of circle is {share:.0%} of a mother of depth 3 and width 20" in message
    assert "\n" not in message
    assert told("circle", 3, 60) == []
