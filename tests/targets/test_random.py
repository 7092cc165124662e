"""Random targets: they solve the same tasks, keep their counts, and are planted exactly."""

import functools

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from plantjax import masks, nets, plant, targets, tasks
from plantjax.tasks import HIDDEN, TASKS
from shared import at

KEYS = jax.random.split(jax.random.key(0), 6)
MAKERS = HIDDEN | {"random_teacher": targets.random_teacher}
WIDTH = 45


@functools.cache
def members(name, depth):
    return jax.device_get(jax.jit(jax.vmap(lambda key: MAKERS[name](key, depth)))(KEYS))


@functools.cache
def errors(name, depth):
    """Values of the plain target, and of random ones [K], without noise."""
    task = TASKS[name]
    data = task.sample(jax.random.key(1), 100_000, 0.0)
    value = jax.jit(lambda p: [*task.evaluate(nets.apply(p, data.x), data.y).values()][-1])
    drawn = [float(value(at(members(name, depth), index))) for index in range(len(KEYS))]
    return float(value(task.target(depth))), np.array(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 4, 6])
def test_random_circles_are_as_accurate_as_the_plain_one(depth):
    plain, drawn = errors("circle", depth)
    assert np.abs(drawn - plain).max() < 0.003


@pytest.mark.slow
def test_random_xors_predict_the_same_classes():
    assert (errors("xor", 3)[1] == 1.0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("helix", 2.0), ("product", 2.5)])
def test_other_random_targets_err_by_chords_of_jittered_knots(name, most):
    plain, drawn = errors(name, 4)
    assert (drawn < most * plain).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_keys_change_the_values_and_never_the_counts(name):
    drawn = members(name, 4)
    for leaf in jax.tree.leaves(drawn):
        counts = (leaf != 0).reshape(len(KEYS), -1).sum(axis=1)
        assert (counts == counts[0]).all()
    assert any((leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(drawn))
    if name in ("circle", "helix"):
        plain = TASKS[name].target(4)
        assert jax.tree.map(np.count_nonzero, plain) == jax.tree.map(
            lambda leaf: np.count_nonzero(leaf[0]), drawn
        )


@functools.cache
def program(name, shared):
    """Plants a random target in a random mother; returns the relative error of the ticket."""
    widths = nets.widths(at(members(name, 4), 0))
    wide = (widths[0], *[WIDTH] * (len(widths) - 2), widths[-1])

    def one(key):
        mother_key, target_key, plant_key = jax.random.split(key, 3)
        target = MAKERS[name](target_key, 4)
        planted = plant(plant_key, target, nets.init(mother_key, wide), shared_scale=shared)
        wanted = masks.group_counts(masks.nonzero(target))
        return planted.verify(target, nets.apply), masks.group_counts(planted.mask), wanted

    return jax.jit(one)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1), name=st.sampled_from(["circle", "random_teacher"]))
def test_random_targets_are_planted_exactly(seed, name):
    error, counts, wanted = program(name, name == "circle")(jax.random.key(seed))
    assert float(error) < 2e-5
    np.testing.assert_array_equal(counts, wanted)


@pytest.mark.slow
def test_a_teacher_has_its_edges_and_uses_its_kinks():
    drawn = members("random_teacher", 4)
    x = jax.random.uniform(jax.random.key(2), (2000, 5), minval=-1.0, maxval=1.0)
    for index in range(len(KEYS)):
        for layer in nets.layers(at(drawn, index)):
            kept = layer["kernel"] != 0
            assert (kept.sum(axis=0) == 4).all()
            assert kept.any(axis=1).all()
        first = drawn["layer_00"]
        active = (x @ first["kernel"][index] + first["bias"][index][None, :] > 0).mean(axis=0)
        assert ((active > 0.03) & (active < 0.97)).mean() > 0.8


def test_a_hidden_task_has_the_data_of_its_task_and_a_target_for_each_key():
    task = tasks.hidden("circle")
    assert task == TASKS["circle_hidden"]
    samples = []

    def draw(key):
        drawn = task.draw(key, 4)
        samples.append(drawn.sample)
        return drawn.target

    found = jax.eval_shape(draw, KEYS[0])
    assert samples == [TASKS["circle"].sample]
    chex.assert_trees_all_equal_shapes_and_dtypes(found, at(members("circle", 4), 0))
    with pytest.raises(ValueError, match="name must be one of circle, relu"):
        tasks.hidden("parity")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (targets.random_relu, {"depth": 2}, "depth must be an integer of at least 3"),
        (targets.random_circle, {"depth": 6, "knots": 2}, "knots must be an integer of at least 3"),
        (targets.random_teacher, {"depth": 3, "edges": 3}, "edges must be an integer of at least"),
    ],
)
def test_bad_sizes_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(KEYS[0], **options)


@pytest.mark.slow
def test_the_samples_of_a_drawn_teacher_are_its_own():
    drawn = TASKS["random_teacher"].draw(KEYS[0], 3)
    x, y = drawn.sample(jax.random.key(1), 50, 0.0)
    np.testing.assert_allclose(y, nets.apply(drawn.target, x), atol=1e-6)
    assert jnp.std(y) > 0.05
