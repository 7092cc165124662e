"""Losses of searches: against float64 numpy, whatever the scale of the outputs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantjax import losses, tasks

N, O = 12, 3  # noqa: E741 - the axis letter
RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(N, O)).astype(np.float32)
LABELS = RNG.integers(0, O, N).astype(np.int32)
VALUES = RNG.normal(size=(N, O)).astype(np.float32)
TINY = [1.0, 1e-13, 1e-30]

entropy = jax.jit(losses.scale_free_cross_entropy)
entropy_slopes = jax.jit(jax.grad(losses.scale_free_cross_entropy, (0, 2)))
error = jax.jit(losses.scale_free_squared_error)
error_slope = jax.jit(jax.grad(losses.scale_free_squared_error))
plain_entropy = jax.jit(losses.cross_entropy)


@functools.cache
def factors():
    return jax.jit(losses.output_factors)


seeds = st.integers(0, 2**32 - 1)
exponents = st.floats(-30.0, 10.0)


def draw(seed, correlated=0.0):
    """Random outputs and values, the values leaning on the outputs."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(N, O)).astype(np.float32)
    y = (correlated * outputs + rng.normal(size=(N, O))).astype(np.float32)
    return outputs, y


def entropy_64(outputs, y, log_scale):
    f = np.asarray(outputs, np.float64)
    f = f - f.mean(axis=1, keepdims=True)
    f = np.exp(log_scale) * f / np.sqrt(np.mean(f**2))
    f = f - f.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(f).sum(axis=1)) - f[np.arange(len(f)), y])


def error_64(outputs, y):
    """Mean over outputs of (1 - cos |cos|) mean(y^2)."""
    f, y = (np.asarray(a, np.float64) for a in (outputs, y))
    cos = (f * y).sum(axis=0) / np.sqrt((f**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.mean((1 - cos * np.abs(cos)) * np.mean(y**2, axis=0))


def slope_64(function, outputs, step=1e-6):
    """Central differences in float64."""
    outputs = np.asarray(outputs, np.float64)
    slope = np.zeros_like(outputs)
    for index in np.ndindex(outputs.shape):
        nudge = np.zeros_like(outputs)
        nudge[index] = step
        slope[index] = (function(outputs + nudge) - function(outputs - nudge)) / (2 * step)
    return slope


@settings(deadline=None, max_examples=50)
@given(seeds, exponents, st.floats(-3.0, 3.0))
def test_cross_entropy_of_any_scale_against_numpy(seed, exponent, log_scale):
    outputs, _ = draw(seed)
    outputs = outputs * np.float32(10.0**exponent)
    found = entropy(outputs, LABELS, np.float32(log_scale))
    np.testing.assert_allclose(found, entropy_64(outputs, LABELS, log_scale), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.0, 10.0))
def test_cross_entropy_ignores_shifts_of_a_sample(seed, size):
    outputs, _ = draw(seed)
    shifts = size * np.random.default_rng(seed + 1).normal(size=(N, 1)).astype(np.float32)
    found = entropy(outputs + shifts, LABELS, np.float32(0.5))
    np.testing.assert_allclose(found, entropy_64(outputs, LABELS, 0.5), rtol=1e-3)


def test_cross_entropy_has_unit_logits_without_a_scale():
    centred = OUTPUTS - OUTPUTS.mean(axis=1, keepdims=True)
    unit = centred / np.sqrt(np.mean(centred**2))
    wanted = plain_entropy(unit, LABELS)
    np.testing.assert_allclose(losses.scale_free_cross_entropy(OUTPUTS, LABELS), wanted, rtol=1e-5)
    twice = plain_entropy(2 * unit, LABELS)
    np.testing.assert_allclose(entropy(OUTPUTS, LABELS, np.float32(np.log(2))), twice, rtol=1e-5)
    assert abs(twice - wanted) > 0.01


@pytest.mark.parametrize("size", TINY)
def test_gradients_of_cross_entropy_against_differences(size):
    by_outputs, by_scale = entropy_slopes(OUTPUTS * np.float32(size), LABELS, np.float32(0.7))
    wanted = slope_64(lambda f: entropy_64(f, LABELS, 0.7), OUTPUTS)
    found = np.asarray(by_outputs, np.float64) * size
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    step = 1e-6
    rise = entropy_64(OUTPUTS, LABELS, 0.7 + step) - entropy_64(OUTPUTS, LABELS, 0.7 - step)
    np.testing.assert_allclose(by_scale, rise / (2 * step), rtol=1e-3)
    # neither a shift of a sample nor a factor of all outputs changes anything
    assert np.abs(found.sum(axis=1)).max() < 1e-5 * np.abs(found).max() * N
    assert abs((found * OUTPUTS).sum()) < 1e-5 * np.abs(found).max() * N


DEAD = {
    "zero": np.zeros((N, O), np.float32),
    "constant": np.full((N, O), -0.5, np.float32),
    "alike in all classes": np.ldexp(np.ones((N, O)), np.arange(N)[:, None] - 9).astype(np.float32),
}


@pytest.mark.parametrize("outputs", DEAD.values(), ids=DEAD)
def test_outputs_without_a_ranking_have_the_loss_of_a_guess_and_no_gradient(outputs):
    np.testing.assert_allclose(entropy(outputs, LABELS, np.float32(2.0)), np.log(O), rtol=1e-6)
    for slope in entropy_slopes(outputs, LABELS, np.float32(2.0)):
        np.testing.assert_array_equal(slope, 0.0)


def test_outputs_alike_in_all_classes_up_to_rounding_have_no_gradient():
    outputs = np.tile(OUTPUTS[:, :1], (1, O))
    np.testing.assert_allclose(entropy(outputs, LABELS, np.float32(0.0)), np.log(O), rtol=1e-6)
    assert np.abs(entropy_slopes(outputs, LABELS, np.float32(0.0))[0]).max() < 10


def test_outputs_that_do_not_vary_over_samples_have_finite_gradients():
    constant = np.tile(np.float32([1e-30, -2e-30, 3e-30]), (N, 1))
    found = entropy(constant, LABELS, np.float32(0.0))
    np.testing.assert_allclose(found, entropy_64(constant, LABELS, 0.0), rtol=1e-5)
    chex.assert_tree_all_finite(entropy_slopes(constant, LABELS, np.float32(0.0)))


@settings(deadline=None, max_examples=50)
@given(seeds, exponents, st.floats(-2.0, 2.0))
def test_squared_error_of_any_scale_against_numpy(seed, exponent, correlated):
    outputs, y = draw(seed, correlated)
    outputs = outputs * np.float32(10.0**exponent)
    np.testing.assert_allclose(error(outputs, y), error_64(outputs, y), rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seeds, st.floats(-25.0, 10.0))
def test_squared_error_is_the_evaluations_where_factors_are_positive(seed, exponent):
    outputs, y = draw(seed, 1.5)
    outputs = outputs * np.float32(10.0**exponent)
    best = factors()(outputs, y)
    value = losses.mean_squared_error(outputs * np.asarray(best)[None, :], jnp.asarray(y))
    same = (np.asarray(best) > 0).all()
    assert same or error(outputs, y) > value
    if same:
        np.testing.assert_allclose(error(outputs, y), value, rtol=1e-4)
        metrics = tasks.TASKS["helix"].evaluate(jnp.asarray(outputs), jnp.asarray(y))
        np.testing.assert_allclose(error(outputs, y), metrics["mse"], rtol=1e-4)


def test_squared_error_of_outputs_of_different_scales():
    sizes = np.float32([1e-30, 1.0, 1e8])
    positive = np.abs(OUTPUTS) * np.sign(VALUES)
    found = error(positive * sizes, VALUES)
    np.testing.assert_allclose(found, error_64(positive, VALUES), rtol=1e-4)
    by_outputs = np.asarray(error_slope(positive * sizes, VALUES), np.float64) * sizes
    wanted = slope_64(lambda f: error_64(f, VALUES), positive)
    np.testing.assert_allclose(by_outputs, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("size", TINY)
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_of_squared_error_against_differences(size, sign):
    outputs = (sign * VALUES + 0.5 * OUTPUTS).astype(np.float32)
    cos = (outputs * VALUES).sum(axis=0)
    assert (np.sign(cos) == sign).all()
    found = np.asarray(error_slope(outputs * np.float32(size), VALUES), np.float64) * size
    wanted = slope_64(lambda f: error_64(f, VALUES), outputs)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    along = (found * outputs).sum(axis=0)  # a factor of any output changes nothing
    assert np.abs(along).max() < 1e-5 * np.abs(found).max() * N


def test_descent_turns_a_negative_correlation_into_a_positive_one():
    y = VALUES[:, :1]
    outputs = jnp.asarray(-y + 0.3 * OUTPUTS[:, :1])

    def cos(f):
        return float((f * y).sum() / np.sqrt((f**2).sum() * (y**2).sum()))

    path = [cos(np.asarray(outputs, np.float64))]
    assert path[0] < -0.9
    for _ in range(200):
        slope = error_slope(outputs, y)
        outputs = outputs - 0.3 * slope / jnp.linalg.norm(slope)
        path.append(cos(np.asarray(outputs, np.float64)))
        if path[-1] > 0.9:
            break
    assert path[-1] > 0.9
    assert (np.diff(path) > 0).all()


def test_one_dead_output_leaves_the_others_alone():
    outputs = VALUES + 0.5 * OUTPUTS
    outputs[:, 1] = 0.0
    alive = error_64(outputs[:, [0, 2]], VALUES[:, [0, 2]])
    dead = np.mean(VALUES[:, 1] ** 2)
    np.testing.assert_allclose(error(outputs, VALUES), (2 * alive + dead) / 3, rtol=1e-5)
    slope = np.asarray(error_slope(outputs, VALUES))
    np.testing.assert_array_equal(slope[:, 1], 0.0)
    assert (slope[:, [0, 2]] != 0).all()


def test_dead_outputs_have_the_loss_of_zero_and_no_gradient():
    np.testing.assert_allclose(error(DEAD["zero"], VALUES), np.mean(VALUES**2), rtol=1e-6)
    np.testing.assert_array_equal(error_slope(DEAD["zero"], VALUES), 0.0)


def test_values_of_zero_are_fitted_by_nothing():
    assert error(OUTPUTS, 0 * VALUES) == 0.0
    np.testing.assert_array_equal(error_slope(OUTPUTS, 0 * VALUES), 0.0)


def divergence_64(outputs, reference, log_scale=0.0):
    log_p, log_q = (
        np.log(np.exp(f) / np.exp(f).sum(axis=1, keepdims=True))
        for f in (np.exp(log_scale) * unit_64(outputs), unit_64(reference))
    )
    return np.mean((np.exp(log_p) * (log_p - log_q)).sum(axis=1))


def unit_64(outputs):
    f = np.asarray(outputs, np.float64)
    f = f - f.mean(axis=1, keepdims=True)
    return f / np.sqrt(np.mean(f**2))


@pytest.mark.parametrize("size", TINY)
def test_divergence_is_that_of_unit_logits(size):
    found = losses.scale_free_divergence(size * OUTPUTS, VALUES, 0.7)
    np.testing.assert_allclose(found, divergence_64(OUTPUTS, VALUES, 0.7), rtol=1e-5)
    shifted = 3.0 * OUTPUTS + np.arange(N, dtype=np.float32)[:, None]
    assert abs(float(losses.scale_free_divergence(shifted, OUTPUTS))) < 1e-6
    dead = losses.scale_free_divergence(jnp.zeros((N, O)), VALUES)
    np.testing.assert_allclose(
        dead, np.mean(-np.log(3) - np.log(np.exp(log_q_64())).mean(axis=1)), rtol=1e-5
    )


def log_q_64():
    f = unit_64(VALUES)
    return f - np.log(np.exp(f).sum(axis=1, keepdims=True))


SLOPES = [
    (jax.jit(jax.value_and_grad(loss)), y)
    for loss, y in (
        (losses.scale_free_cross_entropy, LABELS),
        (losses.scale_free_squared_error, VALUES),
        (losses.scale_free_divergence, VALUES),
    )
]


@pytest.mark.parametrize("size", [1e-34, 1e-36, 1e-40, 0.0])
def test_outputs_too_small_to_divide_by_have_finite_slopes(size):
    outputs = jnp.asarray(OUTPUTS) * size
    for loss, y in SLOPES:
        value, slope = loss(outputs, jnp.asarray(y))
        chex.assert_tree_all_finite((value, slope))
        assert (np.abs(slope).max() > 1e30) == (size == 1e-34)  # below: as good as none
        assert (np.abs(slope).max() < 1e-30) == (size < 1e-34)


def test_search_losses_by_name():
    circle, helix = tasks.TASKS["circle"], tasks.TASKS["helix"]
    assert list(losses.SEARCH_LOSSES) == ["scale-free", "plain", "robust"]
    scale = jnp.float32(0.4)
    wanted = {
        ("scale-free", circle): entropy_64(OUTPUTS, LABELS, 0.4),
        ("plain", circle): float(plain_entropy(OUTPUTS, LABELS)),
        ("scale-free", helix): error_64(OUTPUTS, VALUES),
        ("plain", helix): np.mean((OUTPUTS - VALUES) ** 2),
    }
    assert len({round(value, 3) for value in wanted.values()}) == 4
    for (name, task), value in wanted.items():
        y = jnp.asarray(LABELS if task is circle else VALUES)
        found = losses.SEARCH_LOSSES[name](task)(jnp.asarray(OUTPUTS), y, scale)
        np.testing.assert_allclose(found, value, rtol=1e-5)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0, 3]), r"labels y must lie in \[0, 3\), got 0 to 3"),
        (np.array([0.0, 1.0]), "labels y must be integers"),
        (np.array([[0], [1]]), r"outputs must be \[N, O\] and labels y \[N\]"),
    ],
)
def test_bad_labels_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        losses.scale_free_cross_entropy(jnp.ones((2, 3)), y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones((2, 1), np.float32), r"outputs and y must both be \[N, O\]"),
        (np.ones(2, np.float32), r"outputs and y must both be \[N, O\]"),
        (np.ones((2, 3), np.int32), "y must be a float array, got int32"),
    ],
)
def test_bad_values_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        losses.scale_free_squared_error(jnp.ones((2, 3)), y)
