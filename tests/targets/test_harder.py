"""Harder targets: exact against float64 recomputations, sparse, alike at all depths."""

from functools import partial
from itertools import pairwise

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from plantjax import masks, nets, targets, tasks
from plantjax.sweeps import worlds

PROBES = 4096
"""Inputs by which a teacher is scaled."""
PROPERTY = settings(max_examples=30, deadline=None, derandomize=True)
HARDER = ("xor", "product", "piecewise", "teacher")


def run64(params, x):
    """A chain in float64 numpy."""
    for index, layer in enumerate(nets.layers(params)):
        x = np.maximum(x, 0) if index else x
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
    return x


def uniform(n, d, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, d))


def counts(params):
    """(weights, biases) that are not zero, layer by layer."""
    return [
        (np.count_nonzero(layer["kernel"]), np.count_nonzero(layer["bias"]))
        for layer in nets.layers(params)
    ]


@PROPERTY
@given(k=st.integers(2, 9), more=st.integers(0, 4), deeper=st.integers(0, 3))
def test_parity_of_signs_is_exact(k, more, deeper):
    least = 2 + int(np.ceil(np.log2(k)))
    params = targets.parity(least + deeper, k, k + more)
    assert len(params) == least + deeper - 1
    x = uniform(500, k + more, seed=k)
    scores = run64(params, x)
    np.testing.assert_array_equal(np.argmax(scores, axis=1), np.sum(x[:, :k] < 0, axis=1) % 2)
    margin = np.abs(scores[:, 1] - scores[:, 0])
    np.testing.assert_allclose(margin, 2 * np.abs(x[:, :k]).min(axis=1), rtol=1e-6, atol=1e-12)


def test_parity_reads_the_first_inputs_alone():
    params = targets.parity(5, k=3, d=7)
    x = uniform(50, 7)
    other = np.concatenate([x[:, :3], uniform(50, 4, seed=1)], axis=1)
    np.testing.assert_array_equal(run64(params, x), run64(params, other))


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(3, [8, 4]), (4, [8, 4, 2]), (5, [8, 4, 2, 2]), (10, [8, 4, *[2] * 7])],
)
def test_xor_has_few_weights_and_no_biases(depth, layers):
    assert counts(targets.parity(depth)) == [(n, 0) for n in layers]


@pytest.mark.parametrize("depth", [3, 4, 5, 6, 9])
@pytest.mark.parametrize("knots", [3, 4, 10, 11])
def test_the_product_errs_by_the_chords_of_two_squares_alone(depth, knots):
    params = targets.product(depth, knots)
    low = -2 if depth == 3 else 0
    axis = np.linspace(low, 2, knots)
    plus, minus = (grid.ravel() for grid in np.meshgrid(axis, axis))
    inside = (np.abs(plus + minus) <= 2) & (np.abs(plus - minus) <= 2)
    x = np.stack([(plus + minus) / 2, (plus - minus) / 2], axis=1)[inside]
    np.testing.assert_allclose(run64(params, x)[:, 0], x[:, 0] * x[:, 1], atol=1e-5)
    x = uniform(5000, 2)
    error = run64(params, x)[:, 0] - x[:, 0] * x[:, 1]
    step = (2 - low) / (knots - 1)
    assert 0.2 * step**2 / 16 < np.abs(error).max() <= step**2 / 16 + 1e-6


def test_units_without_a_weight_are_left_out():
    assert nets.widths(targets.product(3, 10)) == (2, 16, 1)  # symmetry spares two of ten units
    assert nets.widths(targets.product(5, 10)) == (2, 4, 2, 18, 1)
    assert nets.widths(targets.product(7, 10)) == (2, 4, 2, 2, 2, 18, 1)
    assert nets.widths(targets.piecewise(5, 10)) == (1, 1, 9, 1, 1)
    assert counts(targets.product(5, 10)) == [(8, 0), (4, 0), (18, 16), (18, 0)]


@PROPERTY
@given(knots=st.integers(2, 60), depth=st.integers(3, 8), seed=st.integers(0, 1000))
def test_piecewise_functions_are_exact_everywhere(knots, depth, seed):
    values = targets.random_function(knots, seed)
    assert np.abs(values).max() <= 1
    params = targets.piecewise(depth, knots, seed)
    x = uniform(300, 1, seed)
    wanted = np.interp(x[:, 0], np.linspace(-1, 1, knots), values)
    size = max(np.abs(np.asarray(layer["kernel"])).max() for layer in nets.layers(params))
    np.testing.assert_allclose(run64(params, x)[:, 0], wanted, atol=1e-6 * (1 + size))


@pytest.mark.slow
@PROPERTY
@given(
    widths=st.lists(st.integers(1, 12), min_size=3, max_size=6),
    density=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
def test_teachers_have_any_width_and_density_and_no_dead_unit(widths, density, seed):
    params = targets.teacher(len(widths), widths, density, seed)
    assert nets.widths(params) == tuple(widths)
    for (n_in, n_out), layer in zip(pairwise(widths), nets.layers(params), strict=True):
        kept = np.asarray(layer["kernel"]) != 0
        assert kept.sum() == max(n_in, n_out, round(density * n_in * n_out))
        assert kept.any(axis=0).all()
        assert kept.any(axis=1).all()
    x = uniform(20_000, widths[0], seed=seed + 1)
    outputs = run64(params, x)
    probes = np.random.default_rng(seed).uniform(-1.0, 1.0, (PROBES, widths[0]))
    np.testing.assert_allclose(run64(params, probes).std(axis=0), 1 / 3, rtol=1e-4)
    standard = (outputs - outputs.mean(axis=0)) / outputs.std(axis=0)
    error = np.sqrt((np.mean(standard**4, axis=0) - 1) / (4 * PROBES))  # of a deviation, relative
    assert (np.abs(3 * outputs.std(axis=0) - 1) < 6 * error).all()
    hidden = x
    for layer in nets.layers(params)[:-1]:
        hidden = np.maximum(hidden @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
        assert (hidden > 0).any(axis=0).all()  # no unit is dead
        assert (hidden == 0).any(axis=0).all()  # none is linear
    deeper = targets.teacher(len(widths) + 3, widths, density, seed)
    np.testing.assert_allclose(run64(deeper, x), outputs, atol=1e-4)


@pytest.mark.parametrize("name", HARDER)
def test_targets_solve_their_tasks_without_noise(name):
    task = tasks.TASKS[name]
    x, y = jax.device_get(task.sample(worlds.cell_key(task, 1), 4000, noise=0.0))
    for depth in (3, 5, 8):
        outputs = run64(task.target(depth), x)
        if task.metric == "accuracy":
            np.testing.assert_array_equal(np.argmax(outputs, axis=1), y)
        else:
            assert np.mean((outputs - y) ** 2) < (4e-5 if name == "product" else 1e-11)
            assert np.var(y) > 0.05


@pytest.mark.parametrize("name", HARDER)
@pytest.mark.parametrize("depth", [5, pytest.param(10, marks=pytest.mark.slow)])
def test_every_parameter_of_a_target_is_live(name, depth):
    params = tasks.TASKS[name].target(depth)
    kept = masks.nonzero(params)
    assert int(masks.count(masks.live(params, kept))) == int(masks.count(kept))


@pytest.mark.slow
def test_further_tasks_take_one_line():
    """Other sizes than the registry's: planted exactly, and right without noise."""
    more = [
        tasks.parity("parity", k=4, d=6),
        tasks.product("rough product", knots=5),
        tasks.teacher("deep teacher", widths=(3, 6, 4, 1), density=0.2, seed=7),
    ]
    for task in more:
        make = partial(worlds.make_world, task=task, depth=5, width=26, noise=0.0, samples=200)
        world = jax.device_get(jax.jit(make)(worlds.cell_key(task, 0)))
        planted, target, data = world.planted, world.target, world.train
        wanted = run64(target, np.asarray(data.x, np.float64))
        strong = run64(masks.apply(planted.params, planted.mask), np.asarray(data.x, np.float64))
        error = np.abs(strong / planted.scale - wanted).max()
        assert error <= 1e-4 * np.ptp(wanted)
        if task.metric == "accuracy":
            np.testing.assert_array_equal(np.argmax(wanted, axis=1), data.y)
        else:
            np.testing.assert_allclose(wanted, data.y, atol=0.03)  # the rough product's chords


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: targets.parity(3, k=3), "depth must be an integer of at least 4, got 3"),
        (lambda: targets.parity(5, k=1), "k must be an integer of at least 2, got 1"),
        (lambda: targets.parity(5, k=4, d=3), "d must be an integer of at least 4, got 3"),
        (lambda: targets.product(4, knots=2), "knots must be an integer of at least 3, got 2"),
        (lambda: targets.piecewise(4, knots=1), "knots must be an integer of at least 2, got 1"),
        (lambda: targets.piecewise(4, seed=-1), "seed must be an integer of at least 0, got -1"),
        (lambda: targets.teacher(4, (2, 1)), "widths must name at least three layers"),
        (lambda: targets.teacher(4, (2, 0, 1)), "widths must be an integer of at least 1, got 0"),
        (lambda: targets.teacher(3, (2, 5, 5, 1)), "depth must be an integer of at least 4, got 3"),
        (lambda: targets.teacher(4, density=0.0), r"density must lie in \(0, 1\], got 0"),
        (lambda: targets.teacher(4, density=1.5), r"density must lie in \(0, 1\], got 1.5"),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels_flip_at_the_noise_rate():
    key = worlds.cell_key(tasks.TASKS["xor"], 0)
    x, y = tasks.TASKS["xor"].sample(key, 100_000, noise=0.2)
    assert y.dtype == jnp.int32
    assert set(np.unique(y)) == {0, 1}
    flipped = np.asarray(y) != (np.asarray(x)[:, 0] * np.asarray(x)[:, 1] < 0)
    assert abs(flipped.mean() - 0.2) < 5 * np.sqrt(0.16 / 100_000)
