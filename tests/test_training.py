"""Masked training: against loops in numpy, and pruned parameters exactly zero throughout."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from plantjax import losses, masks, nets, optim, training
from plantjax.types import Batch
from shared import at, net

OPTIMIZERS = {  # with a state and weight decay, with noise
    "adamw": optax.adamw(1e-2, weight_decay=0.5),
    "noisy_sgd": optax.noisy_sgd(0.1, eta=0.1, key=jax.random.key(0)),
}
RNG = np.random.default_rng(0)
X = RNG.uniform(-1.0, 1.0, (22, 2)).astype(np.float32)
DATA = Batch(jnp.asarray(X), jnp.asarray(X @ [[1.0], [-2.0]] + 0.5, jnp.float32))
SLOPE = np.array([[0.3], [0.2]], np.float32)
LINEAR = {"bias": jnp.asarray([0.1]), "slope": jnp.asarray(SLOPE)}
HALF = {"bias": jnp.array([True]), "slope": jnp.array([[True], [False]])}


def linear(params, x):
    return jnp.matmul(x, params["slope"], precision="highest") + params["bias"][None, :]


def fit(key, params, mask, data, optimizer=None, apply=linear, epochs=3, batch_size=4, steps=None):
    return training.fit(
        key,
        params,
        mask,
        data,
        apply=apply,
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.1) if optimizer is None else optimizer,
        epochs=epochs,
        batch_size=batch_size,
        steps=steps,
    )


def test_numpy_arrays_train_like_those_of_jax():
    wanted, losses = fit(jax.random.key(0), LINEAR, HALF, DATA)
    given = jax.tree.map(np.asarray, (LINEAR, HALF, DATA))
    found, same = fit(jax.random.key(0), *given)
    chex.assert_trees_all_equal((found, same), (wanted, losses))


def test_half_precision_is_trained_in_single():
    """Adam's epsilon and second moments of small gradients would be zero in float16."""
    dtype = jnp.float16
    low = jax.tree.map(lambda leaf: leaf.astype(dtype), (LINEAR, DATA))

    def apply(params, x):
        assert params["slope"].dtype == dtype
        return linear(params, x)

    adam = optax.adam(1e-2)
    found, _ = fit(jax.random.key(0), low[0], HALF, low[1], adam, apply, epochs=30)
    wanted, _ = fit(jax.random.key(0), LINEAR, HALF, DATA, adam, epochs=30)
    assert found["slope"].dtype == dtype
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.float32(leaf), other, atol=0.05)


def test_leaves_that_are_no_floats_stay():
    rest = {"key": jax.random.key(1), "count": jnp.int32(3)}
    full = HALF | {"key": jnp.array(True), "count": jnp.array(True)}
    found, _ = fit(jax.random.key(0), LINEAR | rest, full, DATA)
    wanted, _ = fit(jax.random.key(0), LINEAR, HALF, DATA)
    assert int(found.pop("count")) == 3
    assert found.pop("key") == rest["key"]
    chex.assert_trees_all_equal(found, wanted)


def jitted_fit(**static):
    return jax.jit(partial(fit, **static))


def fit_adam_64(key, params, mask, data, learning_rate, epochs, batch_size):
    """Adam (b1 0.9, b2 0.999, eps 1e-8) on the linear model, in float64 numpy."""
    x, y = (np.asarray(a, np.float64) for a in data)
    theta = np.append(params["slope"][:, 0], params["bias"]).astype(np.float64)
    kept = np.append(mask["slope"][:, 0], mask["bias"]).astype(np.float64)
    theta, first, second, step, means = theta * kept, 0.0, 0.0, 0, []
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(x)))
        values = []
        for i in range(len(x) // batch_size):
            rows = order[i * batch_size : (i + 1) * batch_size]
            inputs = np.hstack([x[rows], np.ones((batch_size, 1))])
            error = inputs @ theta - y[rows, 0]
            values.append(np.mean(error**2))
            gradient = kept * (2.0 / batch_size) * (inputs.T @ error)
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            size = np.sqrt(second / (1 - 0.999**step)) + 1e-8
            theta = theta - learning_rate * (first / (1 - 0.9**step)) / size
        means.append(np.mean(values))
    return {"bias": theta[2:], "slope": theta[:2, None]}, np.array(means)


def test_equals_a_loop_in_numpy():
    key, train = jax.random.key(3), jitted_fit(optimizer=optax.adam(0.05), epochs=4, batch_size=5)
    for kept in (masks.full(LINEAR), HALF):
        found = train(key, LINEAR, kept, DATA)
        wanted = fit_adam_64(key, LINEAR, kept, DATA, 0.05, epochs=4, batch_size=5)
        chex.assert_trees_all_close(jax.device_get(found), wanted, rtol=1e-5)


def guarded(mask):
    """An apply whose outputs are NaN as soon as a pruned parameter is not exactly zero."""

    def apply(params, x):
        pruned = jax.tree.map(lambda p, m: jnp.where(m, 0.0, p), params, mask)
        broken = jnp.any(ravel_pytree(pruned)[0] != 0)
        return jnp.where(broken, jnp.nan, nets.apply(params, x))

    return apply


@pytest.fixture(scope="module")
def mother():
    """A small network, a mask of it, and the network with NaN where it is pruned."""
    params = jax.tree.map(jnp.asarray, net((2, 16), (16, 16), (16, 1)))
    params = jax.tree.map(lambda leaf: 0.3 * leaf, params)
    rng = np.random.default_rng(1)
    mask = jax.tree.map(lambda p: jnp.asarray(rng.random(p.shape) < 0.7), params)
    poisoned = jax.tree.map(lambda p, m: jnp.where(m, p, jnp.nan), params, mask)
    return params, mask, poisoned


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_parameters_are_zero_throughout(name, mother):
    params, mask, poisoned = mother
    train = jitted_fit(optimizer=OPTIMIZERS[name], apply=guarded(mask), epochs=5)
    trained, values = train(jax.random.key(1), params, mask, DATA)
    chex.assert_tree_all_finite((trained, values))
    end, start, kept = (np.asarray(ravel_pytree(tree)[0]) for tree in (trained, params, mask))
    np.testing.assert_array_equal(end[~kept], 0.0)
    assert (end[kept] != start[kept]).mean() > 0.5
    again = train(jax.random.key(1), poisoned, mask, DATA)
    chex.assert_trees_all_equal(again, (trained, values))  # NaN in pruned entries is harmless


def test_the_guard_of_the_test_above_sees_revived_parameters(mother):
    params, mask, _ = mother
    assert np.isnan(guarded(mask)(params, DATA.x)).all()
    assert np.isfinite(guarded(mask)(masks.apply(params, mask), DATA.x)).all()


def test_no_epochs_leave_the_masked_parameters():
    trained, values = fit(jax.random.key(0), LINEAR, HALF, DATA, epochs=0)
    chex.assert_trees_all_equal(trained, masks.apply(LINEAR, HALF))
    chex.assert_shape(values, (0,))


def test_losses_are_one_number_an_epoch_and_fall(mother):
    params, mask, _ = mother
    _, values = jitted_fit(apply=nets.apply, epochs=7)(jax.random.key(0), params, mask, DATA)
    chex.assert_shape(values, (7,))
    chex.assert_type(values, jnp.float32)
    assert values[-1] < 0.5 * values[0]


def test_the_last_partial_batch_is_dropped():
    """Samples beyond the last full batch of the epoch's permutation are not even looked at."""
    key, batch_size = jax.random.key(4), 4
    order = jax.random.permutation(jax.random.fold_in(key, 0), 22)
    used = 22 // batch_size * batch_size
    train = jitted_fit(epochs=1, batch_size=batch_size)
    clean = train(key, LINEAR, HALF, DATA)
    unused = DATA._replace(y=DATA.y.at[order[used:]].set(jnp.nan))
    chex.assert_trees_all_equal(train(key, LINEAR, HALF, unused), clean)
    last_used = DATA._replace(y=DATA.y.at[order[used - 1]].set(jnp.nan))
    assert np.isnan(train(key, LINEAR, HALF, last_used)[1]).all()


def test_the_key_alone_decides_the_order_of_the_data():
    train = jitted_fit()
    first, again, other = (train(jax.random.key(seed), LINEAR, HALF, DATA) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert (np.asarray(first[0]["slope"]) != np.asarray(other[0]["slope"])).any()


def test_learning_rates_vmap_with_one_trace():
    traces = []

    def counting(params, x):
        traces.append(x.shape)
        return linear(params, x)

    def train(rate):
        optimizer = optax.adam(rate)
        return fit(jax.random.key(2), LINEAR, HALF, DATA, optimizer, counting, epochs=9)

    rates = jnp.asarray([1e-3, 1e-2, 1e-1])
    together = jax.jit(jax.vmap(train))(rates)
    assert len(traces) == 1  # of the step, not one per epoch, batch or rate
    one = jax.jit(train)(rates[1])
    chex.assert_trees_all_close(one, at(together, 1), rtol=1e-5, atol=1e-6)
    assert np.unique(together[0]["bias"]).size == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 23}, r"batch_size .* at most 22, got 23"),
        ({"epochs": -1}, r"epochs must be an integer of at least 0, got -1"),
        ({"steps": 16}, r"steps must be .* at most 15, got 16"),
        ({"params": LINEAR | {"bias": jnp.array([jnp.nan])}}, r"params\[bias\] must be finite"),
        ({"mask": {"bias": HALF["bias"]}}, r"mask must have the tree structure of params"),
        ({"data": DATA._replace(y=DATA.y[:-1])}, r"data must hold .* the same N"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"params": LINEAR, "mask": HALF, "data": DATA} | options
    with pytest.raises(ValueError, match=message):
        fit(jax.random.key(0), **arguments)


@cache
def recorded_run():
    """A full run of 3 epochs of 5 steps: its end, its losses, and where every step began."""
    seen, adam = [], optax.adam(1e-2)

    def update(gradient, state, params):
        jax.debug.callback(
            lambda now: seen.append(jax.tree.map(np.asarray, now)), params, ordered=True
        )
        return adam.update(gradient, state, params)

    optimizer = optax.GradientTransformation(adam.init, update)
    trained, values = jitted_fit(optimizer=optimizer)(jax.random.key(6), LINEAR, HALF, DATA)
    jax.effects_barrier()
    return jax.device_get(trained), np.asarray(values), seen


@pytest.mark.parametrize("steps", [0, 11])
def test_so_many_steps_are_the_first_of_the_full_run(steps):
    end, values, seen = recorded_run()
    assert len(seen) == 15
    train = jitted_fit(optimizer=optax.adam(1e-2), steps=steps)
    found, losses = train(jax.random.key(6), LINEAR, HALF, DATA)
    wanted = [*seen, end][steps]
    chex.assert_trees_all_close(found, wanted, rtol=1e-6, atol=1e-7)
    whole, rest = divmod(steps, 5)
    chex.assert_shape(losses, (whole + (rest > 0),))
    np.testing.assert_allclose(losses[:whole], values[:whole], rtol=1e-6)
    if rest:  # the mean of the steps that were done
        x, y = np.asarray(DATA.x), np.asarray(DATA.y)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(jax.random.key(6), whole), 22))
        done = [
            np.mean((x[rows] @ params["slope"] + params["bias"] - y[rows]) ** 2)
            for params, rows in zip(
                seen[5 * whole : steps], order[:20].reshape(5, 4)[:rest], strict=True
            )
        ]
        np.testing.assert_allclose(losses[-1], np.mean(done), rtol=1e-5)


def minimize(objective, epochs=3, batch_size=4, **options):
    """Runs on the number w = 1.5 with plain descent."""
    return training.minimize(
        jax.random.key(7),
        {"w": jnp.float32(1.5)},
        options.pop("carry", None),
        DATA,
        objective,
        optimizer=optax.sgd(0.1),
        epochs=epochs,
        batch_size=batch_size,
        **options,
    )


@pytest.mark.parametrize("steps", [None, 7])
def test_minimising_any_objective_with_steps_counted_from_zero(steps):
    seen = []

    def objective(params, carry, batch, step):
        jax.debug.callback(lambda *a: seen.append(a), step, carry, batch.x, ordered=True)
        return params["w"] * step.astype(jnp.float32), carry + 2

    found, carry, losses, _ = minimize(objective, carry=jnp.int32(3), steps=steps)
    jax.effects_barrier()
    n = 15 if steps is None else steps
    assert [int(step) for step, _, _ in seen] == [*range(n)]
    assert [int(carry) for _, carry, _ in seen] == [3 + 2 * step for step in range(n)]
    assert int(carry) == 3 + 2 * n
    path = 1.5 - 0.1 * np.concatenate([[0], np.cumsum(np.arange(n))])  # the slope is the step
    np.testing.assert_allclose(found["w"], path[-1], rtol=1e-5)
    values = path[:-1] * np.arange(n)
    wanted = [values[start : start + 5].mean() for start in range(0, n, 5)]
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    for epoch in range(n // 5):  # batches without replacement
        rows = np.concatenate([x for _, _, x in seen[5 * epoch : 5 * epoch + 5]])
        assert len(np.unique(rows, axis=0)) == 20


def test_values_are_constrained_after_every_step():
    steps = []

    def constrain(params, step):
        jax.debug.callback(lambda s: steps.append(int(s)), step, ordered=True)
        return {"w": jnp.maximum(params["w"], 1.2 + 0.01 * step.astype(jnp.float32))}

    found, _, losses, _ = minimize(
        lambda params, carry, batch, step: (params["w"], carry), epochs=2, constrain=constrain
    )
    jax.effects_barrier()
    assert steps == [*range(10)]
    path = [1.5]
    for step in range(10):
        path.append(max(path[-1] - 0.1, 1.2 + 0.01 * step))
    np.testing.assert_allclose(found["w"], path[-1], rtol=1e-6)
    np.testing.assert_allclose(losses, np.reshape(path[:-1], (2, 5)).mean(axis=1), rtol=1e-6)


def test_projections_apply_to_gradients_and_updates():
    calls = []

    def project(tree):
        calls.append(tree)
        return jax.tree.map(lambda leaf: 0.5 * leaf, tree)

    found, *_ = minimize(
        lambda params, carry, batch, step: (params["w"], carry), epochs=1, project=project
    )
    assert len(calls) == 2  # while tracing
    np.testing.assert_allclose(found["w"], 1.5 - 5 * 0.1 * 0.5 * 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, r"epochs must be an integer of at least 0, got -1"),
        ({"batch_size": 0}, r"batch_size .* at least 1 and at most 22, got 0"),
        ({"steps": True}, r"steps must be an integer .* got True"),
    ],
)
def test_bad_options_of_minimize_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        minimize(lambda params, carry, batch, step: (params["w"], carry), **options)


@pytest.mark.parametrize("name", ["polyak", "lbfgs"])
def test_optimizers_that_need_the_loss_fit_as_well(name):
    inputs = np.hstack([X[:, :1], np.ones((22, 1), np.float32)])
    wanted, rest, *_ = np.linalg.lstsq(inputs, np.asarray(DATA.y), rcond=None)
    least = float(rest[0]) / 22
    optimizer = {
        "polyak": optax.polyak_sgd(1.0, f_min=least),
        "lbfgs": optax.lbfgs(memory_size=2),
    }[name]
    params, values = fit(jax.random.key(0), LINEAR, HALF, DATA, optimizer, epochs=12, batch_size=22)
    np.testing.assert_allclose(params["slope"], [wanted[0], [0.0]], rtol=0.05)
    np.testing.assert_allclose(values[-1], least, rtol=0.01)


def test_optimizers_that_take_only_what_they_name_fit_as_well():
    sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01))
    found = [
        fit(jax.random.key(0), LINEAR, HALF, DATA, optimizer, epochs=6, batch_size=22)
        for optimizer in (sam, optim.keep_pruned(sam, HALF))
    ]
    assert float(found[0][1][-1]) < float(found[0][1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)
