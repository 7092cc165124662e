"""IteRand, AC/DC, Sign-In, HAM and Aligned: their formulas and invariants, on small networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import finders, masks, nets, optim, tasks
from plantjax.finders.ac_dc import alternating
from plantjax.finders.aligned import carried, hidden, matching
from plantjax.finders.ham import mirrored
from plantjax.finders.iterand import redrawn
from plantjax.finders.sign_in import split
from shared import chain, circle, flat

CIRCLE = tasks.TASKS["circle"]
KEY = jax.random.key(5)
PARAMS = chain(2, 12, 10, 4)
DATA = circle(128)
SIZE = masks.size(PARAMS)


def found(name, density=0.3, **options):
    finder = finders.FINDERS[name](CIRCLE, **options)
    return jax.device_get(jax.jit(finder)(KEY, PARAMS, DATA, density))


@pytest.mark.slow
def test_redrawn_changes_a_share_of_the_pruned_to_entries_of_their_array():
    source = {"a": jnp.arange(1.0, 2001.0), "b": jnp.full((4, 5), 7.0)}
    current = jax.tree.map(jnp.zeros_like, source)
    mask = {"a": jnp.arange(2000) % 2 == 0, "b": jnp.zeros((4, 5), bool)}
    new = jax.device_get(redrawn(KEY, source, current, mask, 0.3))
    changed = new["a"] != 0
    assert not changed[::2].any()
    assert abs(changed.sum() - 300) < 5 * np.sqrt(300 * 0.7)
    assert set(new["a"][changed]) <= set(range(1, 2001))
    assert len(set(new["a"][changed])) > 200
    assert set(new["b"].ravel()) <= {0.0, 7.0}


@pytest.mark.slow
def test_iterand_without_draws_is_edge_popup_on_the_mother():
    options = {"search_epochs": 2, "scope": "local", "init": "fan_in"}
    kept = found("iterand", rate=0.0, **options)
    assert kept.info["drawn"] == 0
    jax.tree.map(np.testing.assert_array_equal, kept.params, jax.device_get(PARAMS))
    drawn = found("iterand", rate=0.5, every=2, **options)
    assert 0.1 < drawn.info["drawn"] < 1.0
    for before, after in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(drawn.params), strict=True):
        assert set(np.ravel(after)) <= set(np.ravel(before))


def test_phases_alternate_and_the_last_one_is_sparse():
    """Eight steps in four phases on a tree of numbers: dense, sparse, dense, sparse."""
    params = {"w": jnp.array([4.0, 3.0, 2.0, 1.0])}
    rule = alternating(optax.sgd(1.0), KEY, 0.5, 4, 8, masks.select, None)
    gradient, state, kept = {"w": jnp.array([0.0, 0.0, -0.5, -0.5])}, rule.init(params), []
    update = jax.jit(rule.update)
    for _ in range(8):
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        kept.append(optim.mask(state)["w"].astype(int).tolist())
    # After two dense steps w is [4, 3, 3, 2]: two of the three largest stay.
    first = kept[2]
    assert sum(first) == 2
    assert first[3] == 0
    assert kept == [[1] * 4] * 2 + [first] * 2 + [[1] * 4] * 2 + [kept[-1]] * 2
    assert sum(kept[-1]) == 2
    assert (np.asarray(params["w"])[np.array(kept[-1]) == 0] == 0).all()


@pytest.mark.parametrize(("steps", "phases"), [(1, 2), (7, 6), (5, 2)])
def test_the_end_is_sparse_however_many_steps(steps, phases):
    params = {"w": jnp.arange(1.0, 5.0)}
    rule = alternating(optax.sgd(0.0), KEY, 0.5, phases, steps, masks.select, None)
    update, state = jax.jit(rule.update), rule.init(params)
    for _ in range(steps):
        _, state = update(params, state, params)
    assert optim.mask(state)["w"].tolist() == [False, False, True, True]


def test_products_keep_their_balance_under_gradient_flow():
    """d(m^2 - w^2) = 2 m dm - 2 w dw vanishes for dm = -w g and dw = -m g."""
    theta, beta, rate = jnp.array([0.5, -2.0, 0.0]), 1.5, 1e-4
    learned = split({"t": theta}, beta)
    np.testing.assert_allclose(learned["m"]["t"] * learned["w"]["t"], theta, atol=1e-6)
    m, w = learned["m"]["t"], learned["w"]["t"]
    np.testing.assert_allclose(m**2 - w**2, beta, rtol=1e-5)

    def loss(m, w):
        return jnp.sum(jnp.square(m * w - jnp.array([-1.0, 1.0, 2.0])))

    def step(state, _):
        slopes = jax.grad(loss, (0, 1))(*state)
        return tuple(p - rate * g for p, g in zip(state, slopes, strict=True)), None

    (m, w), _ = jax.lax.scan(step, (m, w), length=20_000)
    np.testing.assert_allclose(m * w, [-1.0, 1.0, 2.0], atol=1e-2)  # two signs have changed
    np.testing.assert_allclose(m**2 - w**2, beta, rtol=1e-2)


def test_a_mirror_step_by_hand():
    params = {"k": jnp.array([[2.0, -1.0, 0.0]]), "b": jnp.array([1.0])}
    gradient = {"k": jnp.array([[0.1, 0.1, 9.0]]), "b": jnp.array([1.0])}
    rule = mirrored(optax.sgd(1.0), 0.5, alpha=4.0, beta=0.2)
    updates, _ = rule.update(gradient, rule.init(params), params)
    after = optax.apply_updates(params, updates)
    # the optimizer gives [1.9, -1.1, -9]; exponents -0.5 (4 sign g + 0.2), the last is bounded
    wanted = [1.9 * np.exp(-0.3), -1.1 * np.exp(0.1), -9.0 * np.exp(5.0)]
    np.testing.assert_allclose(after["k"][0], wanted, rtol=1e-5)
    assert after["b"][0] == 0.0  # biases take the optimizer's step alone


@functools.cache
def permuted_twin():
    """A chain with the same function, its hidden units in another order."""
    orders = [jax.random.permutation(jax.random.fold_in(KEY, n), n) for n in (12, 10)]
    return carried(PARAMS, orders), orders


@pytest.mark.slow
def test_units_of_a_permuted_twin_are_found_and_masks_carried_over():
    twin, orders = permuted_twin()
    np.testing.assert_allclose(nets.apply(twin, DATA.x), nets.apply(PARAMS, DATA.x), rtol=1e-4)
    matched, correlation = jax.jit(matching)(twin, PARAMS, DATA.x)
    alive = [np.asarray(h).any(0) for h in hidden(twin, DATA.x)]
    for order, wanted, live in zip(matched, orders, alive, strict=True):
        np.testing.assert_array_equal(np.asarray(order)[live], np.asarray(wanted)[live])
        assert sorted(order.tolist()) == list(range(order.size))
    np.testing.assert_allclose(correlation, np.mean(np.concatenate(alive)), rtol=1e-3)
    rng = np.random.default_rng(0)
    mask = jax.tree.map(lambda leaf: rng.random(leaf.shape) < 0.4, PARAMS)
    moved = carried(mask, orders)
    outputs = (nets.apply(masks.apply(p, m), DATA.x) for p, m in ((twin, moved), (PARAMS, mask)))
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sign_in", "ham"])
def test_they_find_exact_masks_of_networks_that_learn(name):
    result = found(name, 0.4, search_learning_rate=0.03)
    assert flat(result.mask).sum() == int(0.4 * SIZE + 0.5)
    assert (flat(result.params)[~flat(result.mask)] == 0).all()
    assert result.info["losses"][-1] < result.info["losses"][0]
    assert 0 < result.info["flipped"] < 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("iterand", {"rate": 1.5}, r"rate must lie in \[0, 1\], got 1.5"),
        ("iterand", {"every": 0}, "every must be an integer of at least 1"),
        ("ac_dc", {"phases": 3}, "phases must be even, so that the last one is sparse, got 3"),
        ("sign_in", {"beta": 0.0}, "beta must lie in"),
        ("ham", {"alpha": -1.0}, "alpha must lie in"),
        ("aligned", {"align_epochs": -1}, "align_epochs must be an integer of at least 0"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        finders.FINDERS[name](CIRCLE, **options)
