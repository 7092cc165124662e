"""Targets: equal to the reference's arrays, exact at their knots, good at their tasks."""

from pathlib import Path

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from plantjax import nets, targets
from plantjax.tasks import PAPER_TASKS, TASKS

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "targets.npz")
DEPTHS = range(3, 13)
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)

NONZERO = {  # (weights, biases) per layer: shared/reference/figures.md, without rounding noise
    ("relu", 3): ([1, 1], [0, 0]),
    ("relu", 10): ([1] * 9, [0] * 9),
    ("circle", 3): ([20, 80], [20, 4]),
    ("circle", 4): ([4, 40, 80], [0, 18, 4]),
    ("circle", 5): ([4, 4, 20, 80], [0, 0, 18, 4]),
    ("circle", 6): ([4, 4, 6, 25, 80], [0, 0, 0, 18, 4]),
    ("circle", 8): ([4, 4, 6, 9, 9, 23, 80], [0, 0, 0, 0, 0, 18, 4]),
    ("circle", 10): ([4, 4, 6, 9, 9, 9, 9, 23, 80], [0, 0, 0, 0, 0, 0, 0, 18, 4]),
    ("helix", 3): ([30, 61], [30, 3]),
    ("helix", 4): ([1, 30, 61], [1, 29, 3]),
    ("helix", 5): ([1, 30, 61, 3], [1, 29, 3, 3]),
    ("helix", 10): ([1, 30, 61, 3, 3, 3, 3, 3, 3], [1, 29, 3, 0, 0, 0, 0, 0, 3]),
}
CIRCLE_ACCURACY = {3: 0.9626, 4: 0.9906, 5: 0.9906, 6: 0.9890, 8: 0.9961, 10: 0.9984}


def run64(params, x):
    """A chain in float64 numpy."""
    x = np.asarray(x, np.float64)
    for index, layer in enumerate(nets.layers(params)):
        x = np.maximum(x, 0) if index else x
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
    return x


def class_scores(g):
    """Scores [N, 4] with slopes 5, 10, 20, 40, neighbours equal at g = 0.2, 0.5 and 0.7."""
    return 50 * np.stack([0.1 * g, 0.2 * g - 0.02, 0.4 * g - 0.12, 0.8 * g - 0.40], axis=1)


def helix(x):
    u = 5 * np.pi + 3 * np.pi * x
    return np.stack([u * np.cos(u), u * np.sin(u), u], axis=1) / (8 * np.pi)


@pytest.mark.parametrize("name", PAPER_TASKS)
@pytest.mark.parametrize("depth", [3, 4, 5, 10])
def test_equals_the_reference_without_its_rounding_noise(name, depth):
    chain = nets.layers(TASKS[name].target(depth))
    assert len(chain) == depth - 1
    for index, layer in enumerate(chain):
        for letter, array in (("w", layer["kernel"]), ("b", layer["bias"])):
            golden = GOLDEN[f"{name}_d{depth}_{letter}{index}"]
            size = np.abs(golden).max()
            golden = np.where(np.abs(golden) < 1e-9 * size, 0.0, golden)
            assert array.dtype == jnp.float32
            np.testing.assert_array_equal(np.asarray(array) != 0, golden != 0)
            np.testing.assert_allclose(array, golden, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "depth"), NONZERO)
def test_nonzero_counts(name, depth):
    chain = nets.layers(TASKS[name].target(depth))
    weights, biases = NONZERO[name, depth]
    assert [np.count_nonzero(layer["kernel"]) for layer in chain] == weights
    assert [np.count_nonzero(layer["bias"]) for layer in chain] == biases


@pytest.mark.parametrize("depth", DEPTHS)
def test_widths(depth):
    circle = {3: (2, 20, 4), 4: (2, 4, 20, 4), 5: (2, 4, 2, 20, 4)}
    deep = (2, 4, 2, *[3] * (depth - 5), 20, 4)
    helix = {3: (1, 30, 3)}
    assert nets.widths(targets.relu(depth)) == (1,) * depth
    assert nets.widths(targets.circle(depth)) == circle.get(depth, deep)
    assert nets.widths(targets.helix(depth)) == helix.get(depth, (1, 1, 30, *[3] * (depth - 3)))


@pytest.mark.parametrize("depth", DEPTHS)
def test_relu_is_exact(depth):
    x = np.linspace(-1, 1, 1001, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(nets.apply(targets.relu(depth), jnp.asarray(x)), np.maximum(x, 0))


@pytest.mark.parametrize("depth", DEPTHS)
def test_helix_error_is_that_of_thirty_knots(depth):
    x = np.linspace(-1, 1, 20_001)
    outputs = nets.apply(targets.helix(depth), jnp.asarray(x[:, None], jnp.float32))
    assert np.mean((np.asarray(outputs) - helix(x)) ** 2) == pytest.approx(0.000215839, rel=0.01)


@pytest.mark.parametrize("depth", DEPTHS)
def test_circle_accuracy(depth):
    x = np.random.default_rng(0).uniform(-1, 1, (20_000, 2))
    labels = np.digitize((x**2).sum(axis=1), [0.2, 0.5, 0.7])
    outputs = nets.apply(targets.circle(depth), jnp.asarray(x, jnp.float32))
    accuracy = np.mean(np.argmax(outputs, axis=1) == labels)
    assert accuracy >= CIRCLE_ACCURACY.get(depth, 0.989) - 0.005


@PROPERTY
@given(
    n=st.integers(2, 200),
    start=st.floats(-2, 2),
    length=st.floats(0.1, 3),
    last_sign=st.sampled_from([None, 1, -1]),
    frequency=st.floats(0.1, 10),
)
def test_univariate_interpolates_linearly_between_knots(n, start, length, last_sign, frequency):
    def curve(x):
        return np.stack([np.cos(frequency * x), x**2, 3 * x - 1], axis=1)

    knots = np.linspace(start, start + length, n)
    block = targets.univariate(curve, knots, last_sign)
    x = np.concatenate([knots, (knots[1:] + knots[:-1]) / 2])
    values = np.maximum(block.sign * x[:, None] + block.bias, 0) @ block.outer + block.offset
    wanted = np.stack([np.interp(x, knots, column) for column in curve(knots).T], axis=1)
    scale = 1 + np.abs(block.outer).max()
    np.testing.assert_allclose(values, wanted, atol=1e-8 * scale)


@PROPERTY
@given(knots=st.integers(2, 60), depth=st.sampled_from([3, 4, 5, 7]))
def test_helix_is_exact_at_any_number_of_knots(knots, depth):
    x = np.linspace(-1, 1, knots)
    params = targets.helix(depth, knots)
    assert knots in nets.widths(params)
    largest = max(np.abs(np.asarray(leaf)).max() for leaf in jax.tree.leaves(params))
    np.testing.assert_allclose(run64(params, x[:, None]), helix(x), atol=3e-6 * (1 + largest))


@PROPERTY
@given(knots=st.integers(2, 30), depth=st.sampled_from([3, 4, 5]))
def test_circle_scores_are_exact_at_any_number_of_knots(knots, depth):
    axis = np.linspace(-1 if depth == 3 else 0, 1, knots)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    params = targets.circle(depth, knots)
    wanted = class_scores((x**2).sum(axis=1))
    largest = max(np.abs(np.asarray(leaf)).max() for leaf in jax.tree.leaves(params))
    np.testing.assert_allclose(run64(params, x), wanted, atol=3e-6 * (1 + largest))
    if depth > 3:  # by symmetry in all four quadrants
        np.testing.assert_allclose(run64(params, -x), wanted, atol=3e-6 * (1 + largest))


@pytest.mark.parametrize("depth", [6, 8, 11])
@pytest.mark.parametrize("knots", [3, 4, 7])
def test_deep_circle_depends_on_the_radius_ever_more_exactly(depth, knots):
    """On the circle of any radius up to sqrt 0.7 the squares are over- but never underestimated."""
    angle = np.linspace(0, 2 * np.pi, 97)[:, None]
    radius = np.linspace(0.05, np.sqrt(0.7), 20)[None, :]
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1, 2)
    g = (x**2).sum(axis=1)
    excess = run64(targets.circle(depth, knots), x)[:, 0] / 5 - g
    n_along = min(int(np.ceil(2 * knots * 2**0.5 / (2**0.5 + reach(depth)))), 2 * knots - 3)
    n_across = max(2 * knots - n_along, 3)
    bound = (2**0.5 / (n_along - 1)) ** 2 / 4 + (reach(depth) / (n_across - 1)) ** 2 / 4
    assert excess.min() >= -1e-4
    assert excess.max() <= bound + 1e-4  # the chord of x^2 over a step h is h^2 / 4 too high


def reach(depth):
    """The greatest component across the last mirror line, with the method's margin."""
    return np.sin(np.pi / 2 ** (depth - 4)) * np.sqrt(0.7) + 0.01


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("depth", [2, 0, -3, 5.0, "5", True])
def test_bad_depth(name, depth):
    with pytest.raises(ValueError, match=r"depth must be an integer of at least 3"):
        TASKS[name].target(depth)


@pytest.mark.parametrize(
    ("target", "depth", "knots", "least"),
    [
        (targets.helix, 3, 1, 2),
        (targets.helix, 5, 0, 2),
        (targets.circle, 3, 1, 2),
        (targets.circle, 5, 1, 2),
        (targets.circle, 6, 2, 3),
        (targets.circle, 12, 2, 3),
    ],
)
def test_bad_knots(target, depth, knots, least):
    with pytest.raises(ValueError, match=rf"knots must be an integer of at least {least}.*{knots}"):
        target(depth, knots)


@pytest.mark.parametrize("name", ["circle", "teacher"])
def test_callable_inside_jit(name):
    eager = TASKS[name].target(5)
    chex.assert_trees_all_equal(jax.jit(lambda: TASKS[name].target(5))(), eager)
