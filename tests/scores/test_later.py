"""LAMP, NTK-SAP and ProsPr against brute force, finite differences and their papers' invariants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import draws, finders, losses, masks, nets, scores, tasks
from plantjax.finders import FINDERS
from plantjax.scores import SCORES
from plantjax.scores.ntk_sap import _redrawn, ntk_sap
from plantjax.scores.prospr import prospr
from plantjax.types import Batch
from shared import chain, flat

CIRCLE = tasks.TASKS["circle"]
KEY = jax.random.key(3)
PARAMS = chain(2, 6, 5, 4)


def batch_of(n=40):
    return CIRCLE.sample(jax.random.key(1), n)


def half(params, seed=2):
    """A mask of half of the parameters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.random(p.shape) < 0.5, params)


lamp_score = jax.jit(SCORES["lamp"](nets.apply, None))


def lamp(params, mask):
    return lamp_score(KEY, params, mask, None)


@functools.cache
def ntk_sap_score(resample):
    return jax.jit(ntk_sap(nets.apply, None, resample=resample))


@pytest.mark.parametrize("mask", [masks.full(PARAMS), half(PARAMS)])
def test_lamp_against_its_formula(mask):
    found = lamp(PARAMS, mask)
    for name, layer in masks.apply(PARAMS, mask).items():
        squares = (
            np.concatenate([np.ravel(layer[k]) for k in ("bias", "kernel")]).astype(float) ** 2
        )
        wanted = [s / squares[squares >= s].sum() for s in squares]
        got = np.concatenate([np.ravel(found[name][k]) for k in ("bias", "kernel")])
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_lamp_by_hand_with_ties_zeros_and_tiny_weights():
    params = {
        "a": {"w": jnp.array([1.0, -2.0, 1.0, 0.0]), "b": jnp.array([2.0])},
        "b": {"w": jnp.array([3e-20, 4e-20])},
        "c": {"w": jnp.zeros(2)},
    }
    found = lamp(params, masks.full(params))
    # 4 / 8 for both largest; 1 / 10 for the equal ones
    np.testing.assert_allclose(found["a"]["w"], [0.1, 0.5, 0.1, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found["a"]["b"], [0.5], rtol=1e-6)
    np.testing.assert_allclose(found["b"]["w"], [9 / 25, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(found["c"]["w"], 0.0)


def test_lamp_does_not_see_the_scale_of_a_layer_and_keeps_every_layer_alive():
    scaled = {name: jax.tree.map(lambda p, i=i: p * 10.0**-i, layer)
              for i, (name, layer) in enumerate(PARAMS.items())}  # fmt: skip
    first, second = (lamp(params, masks.full(params)) for params in (PARAMS, scaled))
    np.testing.assert_allclose(flat(first), flat(second), rtol=1e-5)
    for layer in second.values():  # the three highest scores are in three layers
        assert (flat(layer) == 1).sum() == 1


def distance(gates, theta, change, x):
    """The sum that NTK-SAP differentiates, in float64 numpy."""
    outputs = []
    for weights in (theta, jax.tree.map(lambda p, n: p + 0.01 * n, theta, change)):
        h = np.asarray(x, np.float64)
        for index, name in enumerate(sorted(weights)):
            h = np.maximum(h, 0) if index else h
            layer, gate = weights[name], gates[name]
            h = h @ (layer["kernel"] * gate["kernel"]) + layer["bias"] * gate["bias"]
        outputs.append(h)
    return np.square(outputs[0] - outputs[1]).sum()


def normal64(key, params):
    drawn = jax.jit(draws.normal)(key, params)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), drawn)


@pytest.mark.slow
@pytest.mark.parametrize("resample", [pytest.param(True, marks=pytest.mark.slow), False])
def test_ntk_sap_is_the_derivative_of_a_change_of_the_outputs(resample):
    mask, batch = half(PARAMS), batch_of()
    found = flat(ntk_sap_score(resample)(KEY, PARAMS, mask, batch))
    x_key, change_key, theta_key = jax.random.split(KEY, 3)
    x, change = jax.random.normal(x_key, batch.x.shape), normal64(change_key, PARAMS)
    theta = jax.tree.map(lambda p, m: np.where(m, np.float64(p), 0), PARAMS, mask)
    if resample:
        kept = jax.tree.map(np.count_nonzero, mask)
        size = jax.tree.map(lambda p, n: np.sqrt((p**2).sum() / max(n, 1)), theta, kept)
        theta = jax.tree.map(lambda s, n: s * n, size, normal64(theta_key, PARAMS))
    gates, step = flat(mask).astype(np.float64), 1e-4

    def value(gates):
        parts = np.split(gates, np.cumsum([leaf.size for leaf in jax.tree.leaves(PARAMS)])[:-1])
        leaves, structure = jax.tree.flatten(PARAMS)
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return distance(structure.unflatten(shaped), theta, change, x)

    for index in range(len(gates)):
        tip = step * (np.arange(len(gates)) == index)
        slope = (value(gates + tip) - value(gates - tip)) / (2 * step)
        wanted = abs(gates[index] * slope)
        assert abs(found[index] - wanted) <= 2e-3 * wanted + 1e-4 * found.max()


@pytest.mark.slow
def test_ntk_sap_does_not_see_labels_and_without_resampling_sees_the_mother():
    batch, mask = batch_of(), masks.full(PARAMS)
    other = batch._replace(x=2 * batch.x, y=batch.y * 0)
    score, fixed = ntk_sap_score(True), ntk_sap_score(False)
    np.testing.assert_array_equal(*(flat(score(KEY, PARAMS, mask, b)) for b in (batch, other)))
    # of the same sizes, but other parameters: the same scores when they are drawn anew
    flipped = jax.tree.map(lambda p: p[::-1], PARAMS)
    new, old = (flat(score(KEY, p, mask, batch)) for p in (PARAMS, flipped))
    np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4 * new.max())
    new, old = (flat(fixed(KEY, p, mask, batch)) for p in (PARAMS, flipped))
    assert np.abs(new - old).max() > 0.01 * new.max()
    other_key = flat(score(jax.random.key(9), PARAMS, mask, batch))
    assert np.abs(other_key - flat(score(KEY, PARAMS, mask, batch))).max() > 0


def test_ntk_sap_redraws_normal_numbers_of_the_size_of_the_kept_ones():
    params = {"a": draws.normal(jax.random.key(0), jnp.zeros((80, 50))), "b": 3.0 * jnp.ones(4000)}
    mask = {"a": jnp.abs(params["a"]) > 1.0, "b": jnp.arange(4000) < 100}
    drawn = _redrawn(jax.random.key(1), masks.apply(params, mask), mask)
    for name, kept in (("a", params["a"][mask["a"]]), ("b", params["b"][mask["b"]])):
        size = np.sqrt(np.mean(np.square(kept)))
        found = np.asarray(drawn[name])
        np.testing.assert_allclose(np.std(found), size, rtol=0.05)
        np.testing.assert_allclose(np.mean(np.abs(found)), size * np.sqrt(2 / np.pi), rtol=0.05)


def test_prospr_without_steps_is_snip():
    mask, batch = half(PARAMS), batch_of()
    now, snip = (
        flat(jax.jit(make(nets.apply, losses.cross_entropy))(KEY, PARAMS, mask, batch))
        for make in (functools.partial(prospr, steps=0), SCORES["snip"])
    )
    kept = flat(mask)
    np.testing.assert_allclose(now[kept], snip[kept], rtol=1e-5, atol=1e-7)
    assert (now[~kept] == 0).all()


@pytest.mark.parametrize(("masked", "n"), [(True, 40), (False, 3)])
def test_prospr_is_the_derivative_of_the_loss_after_training(masked, n):
    """Of a linear least-squares model, by central differences of plain numpy steps in float64."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 3)).astype(np.float32), rng.normal(size=(n, 1)).astype(np.float32)
    params = {"w": rng.normal(size=(3, 1)).astype(np.float32)}
    mask = {"w": np.array([[True], [not masked], [True]])}

    def apply(p, x):
        return jnp.matmul(x, p["w"], precision="highest")

    make = prospr(apply, losses.mean_squared_error, steps=3, learning_rate=0.1)
    found = jax.jit(make)(KEY, params, mask, Batch(x, y))["w"]
    parts = [slice(i * 10, (i + 1) * 10) if n == 40 else slice(None) for i in range(4)]

    def trained(gates):
        w = gates * params["w"].astype(np.float64)
        for part in parts[:-1]:
            error = x[part] @ w - y[part]
            w = w - mask["w"] * 0.1 * 2 * x[part].T @ error / len(error)
        return np.square(x[parts[-1]] @ w - y[parts[-1]]).mean()

    gates = mask["w"].astype(np.float64)
    for index in range(3):
        tip = 1e-5 * (np.arange(3) == index)[:, None]
        slope = (trained(gates + tip) - trained(gates - tip)) / 2e-5
        wanted = abs(slope) if mask["w"][index, 0] else 0.0
        np.testing.assert_allclose(found[index, 0], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prospr(nets.apply, None, steps=-1), "steps must be an integer of at least 0"),
        (lambda: prospr(nets.apply, None, learning_rate=0.0), "learning_rate must lie in"),
        (lambda: ntk_sap(nets.apply, None, epsilon=0.0), "epsilon must lie in"),
        (lambda: scores.get("snap"), "score must be one of random, .*, got 'snap'"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_finders_take_a_score_function_and_several_batches():
    data, seen = batch_of(300), []

    def spy(apply, loss):
        def score(key, params, mask, batch):
            seen.append(batch.x.shape)
            return params

        return score

    jax.eval_shape(finders.singleshot(CIRCLE, score=spy, batches=3), KEY, PARAMS, data, 0.3)
    assert set(seen) == {(120, 2)}
    with pytest.raises(ValueError, match="batches must be an integer of at least 1"):
        finders.singleshot(CIRCLE, score="snip", batches=0)


def test_iterated_finders_are_registered_with_their_rounds():
    rounds = {
        name: FINDERS[name](CIRCLE).rounds for name in ("snip", "snip100", "ntk_sap", "prospr")
    }
    assert rounds == {"snip": 1, "snip100": 100, "ntk_sap": 100, "prospr": 1}
