"""Tasks and losses: samples against the noise-free truth, evaluation against its invariances."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import losses, nets, targets, tasks
from plantjax.tasks import TASKS
from plantjax.types import Batch

N = 100_000
SHAPES = {
    "circle": ((N, 2), (N,)),
    "relu": ((N, 1), (N, 1)),
    "helix": ((N, 1), (N, 3)),
    "xor": ((N, 10), (N,)),
    "product": ((N, 2), (N, 1)),
    "piecewise": ((N, 1), (N, 1)),
    "teacher": ((N, 5), (N, 2)),
    "circle_hidden": ((N, 2), (N,)),
    "random_teacher": ((N, 5), (N, 2)),
}
CLASSES = {"circle": 4, "xor": 2, "circle_hidden": 4}
REGRESSION = [name for name in TASKS if name not in CLASSES]
KEY = jax.random.key(3)
OUTPUTS = jnp.linspace(-2.0, 1.5, 60).reshape(20, 3)  # correlated with VALUES, column by column
VALUES = OUTPUTS * jnp.array([[0.5, 2.0, 1.0]]) + jnp.sin(jnp.arange(60.0)).reshape(20, 3) / 4


def truth(name, x):
    """Labels or values without noise, in float64."""
    return TRUTHS[name](np.asarray(x, np.float64))


def helix(x):
    u = 5 * np.pi + 3 * np.pi * x
    return np.concatenate([u * np.cos(u), u * np.sin(u), u], axis=1) / (8 * np.pi)


def circle(x):
    radius = (x**2).sum(axis=1)
    return (radius > 0.2).astype(int) + (radius > 0.5) + (radius > 0.7)


def piecewise(x):
    return np.interp(x, np.linspace(-1, 1, 10), targets.random_function(10, seed=0))


def network(x, target):
    first, second = jax.device_get(nets.layers(target))
    hidden = np.maximum(x @ first["kernel"] + first["bias"], 0)
    return hidden @ second["kernel"] + second["bias"]


TRUTHS = {
    "circle": circle,
    "relu": lambda x: np.maximum(x, 0),
    "helix": helix,
    "xor": lambda x: (x[:, 0] * x[:, 1] < 0).astype(int),
    "product": lambda x: x.prod(axis=1, keepdims=True),
    "piecewise": piecewise,
    "teacher": lambda x: network(x, targets.teacher(3)),
    "circle_hidden": circle,
    "random_teacher": lambda x: network(x, TASKS["random_teacher"].target(3)),
}


def second_best(x):
    """The runner-up of Circle's class scores."""
    g = (np.asarray(x, np.float64) ** 2).sum(axis=1)[:, None]
    scores = np.array([[0.1, 0.2, 0.4, 0.8]]) * g - np.array([[0, 0.02, 0.12, 0.40]])
    return np.argsort(scores, axis=1)[:, -2]


def away_from_boundaries(x):
    g = (np.asarray(x, np.float64) ** 2).sum(axis=1)[:, None]
    return (np.abs(g - np.array([[0.2, 0.5, 0.7]])) > 1e-6).all(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_shapes_dtypes_and_inputs(name):
    task, (x_shape, y_shape) = TASKS[name], SHAPES[name]
    x, y = task.sample(KEY, N)
    chex.assert_shape([x, y], [x_shape, y_shape])
    chex.assert_type([x, y], [jnp.float32, jnp.int32 if name in CLASSES else jnp.float32])
    assert (task.n_in, task.n_out) == (x_shape[1], CLASSES.get(name) or y_shape[1])
    assert -1 <= x.min() < -0.999
    assert 0.999 < x.max() <= 1
    assert np.abs(np.mean(x, axis=0)).max() < 5 * np.sqrt(1 / 3 / N)  # 5 sigma
    spread = np.sqrt(4 / 45 / N)  # standard deviation of the mean of x^2
    assert np.abs(np.mean(np.square(x), axis=0) - 1 / 3).max() < 5 * spread


@pytest.mark.parametrize("name", TASKS)
def test_without_noise_the_truth(name):
    x, y = TASKS[name].sample(KEY, N, noise=0.0)
    sure = away_from_boundaries(x) if name.startswith("circle") else np.full(N, True)
    np.testing.assert_allclose(np.asarray(y)[sure], truth(name, x)[sure], atol=1e-5)
    assert np.mean(~sure) < 1e-3


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize("noise", [0.01, 0.5, 1.0])
def test_noise_is_normal_with_its_standard_deviation(name, noise):
    x, y = TASKS[name].sample(KEY, N, noise=noise)
    rest = (np.asarray(y) - truth(name, x)) / noise
    count = rest.size
    assert abs(rest.mean()) < 5 / np.sqrt(count)
    assert abs(rest.var() - 1) < 5 * np.sqrt(2 / count)
    assert abs(np.mean(np.abs(rest) < 1) - 0.682689) < 5 * np.sqrt(0.2166 / count)
    bound = 5 / np.sqrt(N)  # independent of the input and across outputs
    columns = np.concatenate([rest, np.asarray(x)], axis=1)
    assert np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])).max() < bound


def test_default_noise_is_one_percent():
    x, y = TASKS["relu"].sample(KEY, N)
    np.testing.assert_array_equal(y, TASKS["relu"].sample(KEY, N, 0.01).y)
    assert np.std(np.asarray(y) - truth("relu", x)) == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0])
def test_circle_labels_flip_to_the_second_best_class_at_the_noise_rate(noise):
    x, y = TASKS["circle"].sample(KEY, N, noise=noise)
    sure = away_from_boundaries(x)
    flipped = (np.asarray(y) != truth("circle", x)) & sure
    deviation = np.sqrt(noise * (1 - noise) / sure.sum())
    assert abs(flipped.sum() / sure.sum() - noise) <= 5 * deviation
    np.testing.assert_array_equal(np.asarray(y)[flipped], second_best(x)[flipped])
    assert set(np.abs(np.asarray(y) - truth("circle", x))[flipped]) == {1}  # a neighbouring ring
    assert abs(np.corrcoef(flipped, np.asarray(x)[:, 0])[0, 1]) < 5 / np.sqrt(N) or noise == 1


@pytest.mark.parametrize("name", ["circle", "helix", "xor"])  # one of each way to sample
def test_noise_is_traced_and_leaves_the_inputs_alone(name):
    sample = TASKS[name].sample
    noises = jnp.array([0.0, 0.1, 1.0])
    batches = jax.jit(jax.vmap(lambda noise: sample(KEY, N, noise)))(noises)
    for index, noise in enumerate([0.0, 0.1, 1.0]):
        single = sample(KEY, N, noise)
        np.testing.assert_array_equal(batches.x[index], single.x)
        np.testing.assert_allclose(batches.y[index], single.y, atol=1e-5)
        np.testing.assert_array_equal(single.x, batches.x[0])


@pytest.mark.parametrize("name", ["circle", "helix", "xor"])
def test_samples_are_determined_by_the_key(name):
    sample = TASKS[name].sample
    chex.assert_trees_all_equal(sample(KEY, N), sample(KEY, N))
    assert (sample(KEY, N).x != sample(jax.random.key(4), N).x).mean() > 0.99


@pytest.mark.parametrize("name", ["circle", "helix", "xor"])
@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_bad_noise(name, noise):
    with pytest.raises(ValueError, match=r"noise must lie in \[0, 1\]"):
        TASKS[name].sample(KEY, 10, noise)


@pytest.mark.parametrize("name", ["circle", "helix", "xor"])
@pytest.mark.parametrize("n", [0, 2.0])
def test_bad_number_of_samples(name, n):
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        TASKS[name].sample(KEY, n)


@pytest.mark.parametrize(("n", "held_out"), [(10_000, 1000), (10, 1), (19, 1), (20, 2)])
def test_split_holds_out_the_last_tenth(n, held_out):
    data = Batch(np.arange(n)[:, None], np.arange(n))
    train, test = tasks.split(data)
    assert test.y.tolist() == list(range(n - held_out, n))
    assert train.y.tolist() == list(range(n - held_out))
    np.testing.assert_array_equal(train.x[:, 0], train.y)
    np.testing.assert_array_equal(test.x[:, 0], test.y)


def test_split_needs_ten_samples():
    with pytest.raises(ValueError, match="at least 10 samples to be split, got 9"):
        tasks.split(Batch(jnp.ones((9, 1)), jnp.ones((9, 1))))


@pytest.mark.parametrize("name", ["relu", "helix"])
@pytest.mark.parametrize("size", [1e-25, 1e-13, 1e-3, 1.0, 1e6])
def test_mse_ignores_a_positive_factor_per_output(name, size):
    factors = size * jnp.array([[1.0, 0.3, 7.0]])
    before = TASKS[name].evaluate(OUTPUTS, VALUES)
    after = TASKS[name].evaluate(OUTPUTS * factors, VALUES)
    assert float(after["mse"]) == pytest.approx(float(before["mse"]), rel=1e-5)
    wanted = np.mean((np.asarray(OUTPUTS * factors, np.float64) - np.asarray(VALUES)) ** 2)
    assert float(after["mse_raw"]) == pytest.approx(wanted, rel=1e-5)


def test_mse_is_after_the_least_squares_factor():
    f, y = np.asarray(OUTPUTS, np.float64), np.asarray(VALUES, np.float64)
    best = [np.linalg.lstsq(f[:, [j]], y[:, j])[0][0] for j in range(3)]
    np.testing.assert_allclose(losses.output_factors(OUTPUTS, VALUES), best, rtol=1e-5)
    metrics = TASKS["helix"].evaluate(OUTPUTS, VALUES)
    assert float(metrics["mse"]) == pytest.approx(np.mean((f * best - y) ** 2), rel=1e-5)


def test_negated_outputs_are_not_rescued():
    y = jnp.maximum(jnp.linspace(-1.0, 1.0, 101), 0.0)[:, None]
    assert float(TASKS["relu"].evaluate(y, y)["mse"]) < 1e-12
    negated = float(TASKS["relu"].evaluate(-y, y)["mse"])
    assert negated == pytest.approx(float(jnp.mean(y**2)), rel=1e-5)
    np.testing.assert_array_equal(losses.output_factors(-y, y), [0.0])


def test_a_dead_output_has_factor_one():
    dead = OUTPUTS.at[:, 1].set(0.0)
    factors = losses.output_factors(dead, VALUES)
    assert factors[1] == 1
    chex.assert_trees_all_equal(factors[0], losses.output_factors(OUTPUTS, VALUES)[0])
    assert np.isfinite(float(TASKS["helix"].evaluate(dead, VALUES)["mse"]))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("name", TASKS)
def test_outputs_that_are_not_finite_never_score(name, bad):
    y = jnp.zeros(20, jnp.int32) if name in CLASSES else VALUES
    metrics = TASKS[name].evaluate(OUTPUTS.at[4, 1].set(bad), y)
    assert not any(np.isfinite(float(value)) for value in metrics.values())
    assert name not in CLASSES or np.isnan(float(metrics["accuracy"]))


def test_accuracy_is_the_share_of_right_argmaxes():
    outputs = jax.random.normal(KEY, (1000, 4))
    y = jax.random.randint(jax.random.key(1), (1000,), 0, 4)
    wanted = np.mean(np.argmax(np.asarray(outputs), axis=1) == np.asarray(y))
    evaluate = TASKS["circle"].evaluate
    assert float(evaluate(outputs, y)["accuracy"]) == pytest.approx(wanted, abs=1e-6)
    assert float(evaluate(outputs * 1e-13, y)["accuracy"]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", ["circle", "helix"])
def test_evaluation_and_loss_jit_with_labels_from_outside(name):
    task = TASKS[name]
    x, y = task.sample(KEY, 64)
    outputs = jnp.ones((64, task.n_out)) * x[:, :1]
    inside = jax.jit(lambda f: (task.evaluate(f, y), task.loss(f, y)))(outputs)
    chex.assert_trees_all_close(inside, (task.evaluate(outputs, y), task.loss(outputs, y)))


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_cross_entropy_against_numpy(shift):
    f = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * 5
    y = np.random.default_rng(1).integers(0, 4, 50)
    f64 = f.astype(np.float64)
    wanted = np.mean(np.log(np.exp(f64).sum(axis=1)) - f64[np.arange(50), y])
    found = losses.cross_entropy(jnp.asarray(f) + shift, jnp.asarray(y, jnp.int32))
    assert float(found) == pytest.approx(wanted, rel=1e-5 if shift == 0 else 1e-3)


def test_mean_squared_error_against_numpy():
    wanted = np.mean((np.asarray(OUTPUTS, np.float64) - np.asarray(VALUES)) ** 2)
    assert float(losses.mean_squared_error(OUTPUTS, VALUES)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("function", [TASKS["circle"].loss, TASKS["circle"].evaluate])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (jnp.array([0, 3]), r"labels y must lie in \[0, 3\), got 0 to 3"),
        (jnp.array([0.0, 1.0]), "labels y must be integers, got float32"),
        (jnp.array([[0], [1]]), r"outputs must be \[N, O\] and labels y \[N\]"),
    ],
)
def test_bad_labels(function, y, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.ones((2, 3)), y)


@pytest.mark.parametrize("function", [TASKS["helix"].loss, TASKS["helix"].evaluate])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (jnp.ones((2, 1)), r"outputs and y must both be \[N, O\]"),
        (jnp.ones(2), r"outputs and y must both be \[N, O\]"),
        (jnp.ones((2, 3), jnp.int32), "y must be a float array, got int32"),
    ],
)
def test_bad_values(function, y, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.ones((2, 3)), y)
