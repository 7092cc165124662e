"""The seeker: its small network, its moves against brute force, its budget, its tickets."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import losses, masks, nets, tasks
from plantjax.finders import FINDERS, seek
from plantjax.finders.seek import loss, moves, starts, subnetwork
from plantjax.finders.seek.loss import Aim
from plantjax.finders.seek.moves import Effort, Terms
from plantjax.sweeps import worlds
from plantjax.types import Batch

WIDTHS = (2, 9, 7, 3)
WEIGHTS = subnetwork.stack(nets.init(jax.random.key(0), WIDTHS))
X = jax.random.normal(jax.random.key(1), (64, 2))
LABELS = Batch(X, jax.random.randint(jax.random.key(2), (64,), 0, 3))
VALUES = Batch(X, jax.random.normal(jax.random.key(2), (64, 3)))
CASES = {"circle": (loss.classification(), LABELS), "helix": (loss.regression(), VALUES)}
AIM = Aim(jnp.float32(0.3), jnp.float32(0.6))
EFFORT = Effort(samples=64, candidates=12, finalists=3)
BRIEF = {"sweeps": 4, "restarts": 2, "units": 6, "search_epochs": 2}


def random_mask(key, share):
    kept = [
        jax.random.bernoulli(jax.random.fold_in(key, i), share, w.shape)
        for i, w in enumerate(WEIGHTS)
    ]
    return subnetwork.live(WEIGHTS, tuple(kept))


def log_loss(name, kept):
    goal, batch = CASES[name]
    return goal.log_loss(moves.run(WEIGHTS, kept, batch.x), batch.y, AIM)


@pytest.mark.slow
def test_stacks_compute_what_the_chain_computes():
    params = nets.init(jax.random.key(0), WIDTHS)
    kept = random_mask(jax.random.key(3), 0.5)
    wanted = nets.apply(masks.apply(params, subnetwork.unstack(kept)), X)
    np.testing.assert_allclose(moves.run(WEIGHTS, kept, X), wanted, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(subnetwork.unstack(subnetwork.stack(params)), params)


def test_slots_hold_all_live_units_so_that_nothing_is_lost():
    kept = random_mask(jax.random.key(5), 0.12)
    busy = [int((subnetwork.edges(kept, layer) > 0).sum()) for layer in range(2)]
    assert 0 < max(busy) < 9
    for seed in range(5):
        places = subnetwork.slots(jax.random.key(seed), kept, max(busy))
        small = subnetwork.gather(kept, places)
        chex.assert_trees_all_equal(subnetwork.scatter(small, kept, places), kept)
        wanted = moves.run(WEIGHTS, kept, X)
        found = moves.run(subnetwork.gather(WEIGHTS, places), small, X)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_loss_of_probabilities_goes_from_cross_entropy_to_error():
    outputs = jax.random.normal(jax.random.key(4), (64, 3))
    goal, batch = CASES["circle"]
    entropy = losses.scale_free_cross_entropy(outputs, batch.y, AIM.log_scale)
    found = goal.log_loss(outputs, batch.y, AIM._replace(power=jnp.float32(0.0)))
    np.testing.assert_allclose(jnp.exp(found), entropy, rtol=2e-3)
    sharp = goal.log_loss(outputs, batch.y, loss.verdict())
    error = jnp.mean(jnp.argmax(outputs, axis=1) != batch.y)
    np.testing.assert_allclose(jnp.exp(sharp), error, rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_curvature_is_the_second_derivative_at_a_fixed_scale(name):
    goal, batch = CASES[name]
    aim = AIM._replace(power=jnp.float32(0.0))
    outputs = jax.random.normal(jax.random.key(4), (64, 3)) + 0.5 * VALUES.y
    centred = outputs - outputs.mean(axis=1, keepdims=True)
    factor = jnp.exp(aim.log_scale) / jnp.sqrt(jnp.mean(centred**2))

    def loss(step):
        moved = outputs.at[7, 1].add(step)
        if name == "circle":
            return losses.cross_entropy(factor * moved, batch.y)
        return jnp.mean((losses.output_factors(outputs, batch.y)[None, :] * moved - batch.y) ** 2)

    exact = jax.grad(jax.grad(loss))(0.0) / jnp.exp(goal.log_loss(outputs, batch.y, aim))
    np.testing.assert_allclose(goal.curvature(outputs, batch.y, aim)[7, 1], exact, rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("circle", 0.02),
        ("circle", 0.0),
        ("helix", 0.0),
    ],
)
def test_a_sweep_never_loses(name, price):
    """Log loss plus price falls or stays, whatever the mask; and the loss is that of the mask."""
    goal, batch = CASES[name]
    terms = Terms(AIM, jnp.float32(price))
    sweep = jax.jit(
        lambda key, kept: moves.visit_all(key, goal, WEIGHTS, kept, batch, terms, EFFORT)
    )
    gains = []
    for seed in range(5):
        kept = random_mask(jax.random.key(seed), 0.4)
        after, _ = sweep(jax.random.key(seed), kept)
        before = log_loss(name, kept) + price * subnetwork.count(kept).astype(jnp.float32)
        gains.append(
            before - log_loss(name, after) - price * subnetwork.count(after).astype(jnp.float32)
        )
        chex.assert_trees_all_equal(after, subnetwork.live(WEIGHTS, after))
    assert min(gains) >= -1e-4
    assert np.median(gains) > 0.02


@pytest.mark.slow
def test_a_sweep_leaves_no_single_flip_of_the_outputs_that_gains_much():
    """The last visits are the outputs': brute force over all their flips finds at most little."""
    goal, batch = CASES["helix"]
    terms = Terms(AIM, jnp.float32(0.0))
    kept = random_mask(jax.random.key(1), 0.5)
    args = (goal, WEIGHTS, kept, batch, terms, EFFORT)
    after, _ = jax.jit(lambda key: moves.visit_all(key, *args))(jax.random.key(0))
    value = log_loss("helix", after)
    flips = [
        log_loss("helix", (*after[:-1], after[-1].at[i, j].set(~after[-1][i, j])))
        for i in range(WIDTHS[-2] + 1)
        for j in range(WIDTHS[-1])
    ]
    assert min(flips) > value - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("task", ["circle", pytest.param("helix", marks=pytest.mark.slow)])
def test_only_live_parameters_are_kept_and_never_more_than_the_budget(task):
    task = tasks.TASKS[task]
    params = nets.init(jax.random.key(0), (task.n_in, 12, 12, task.n_out))
    data = task.sample(jax.random.key(1), 200)
    n = masks.size(params)
    finder = seek(task, **BRIEF)
    assert not finder.exact_counts
    search = jax.jit(finder.search)
    for k in (3, 20, 90):
        found = search(jax.random.key(2), params, data, np.float32(k / n))
        assert 1 <= int(masks.count(found.mask)) <= k
        chex.assert_trees_all_equal(found.mask, masks.live(params, found.mask))
        chex.assert_trees_all_equal(found.params, params)
        assert found.info["errors"].shape == found.info["live"].shape == (8,)


@pytest.mark.slow
def test_below_one_path_a_constant_is_kept():
    task = tasks.TASKS["circle"]
    params = nets.init(jax.random.key(0), (2, 8, 8, 4))
    data = task.sample(jax.random.key(1), 200)
    args = (loss.goal_of(task), subnetwork.stack(params), data)
    for k, wanted in ((1, 1), (2, 1), (3, 3)):
        kept = starts.safe(jax.random.key(0), *args, jnp.int32(k), AIM)
        assert int(subnetwork.count(kept)) == wanted


@pytest.mark.slow
def test_the_relu_ticket_is_found_with_the_planted_number_of_weights():
    task = tasks.TASKS["relu"]
    world = worlds.make_world(worlds.cell_key(task, 5), task, 4, 20, samples=400)
    finder = seek(task, **BRIEF)
    density = np.float32(worlds.ticket_density(task, 4, 20))

    def error(mask):
        outputs = nets.apply(masks.apply(world.planted.params, mask), world.test.x)
        return float(task.evaluate(outputs, world.test.y)["mse"])

    found = jax.jit(finder.search)(jax.random.key(3), world.planted.params, world.train, density)
    assert int(masks.count(found.mask)) <= 3
    assert error(found.mask) < 1.2 * error(world.planted.mask)


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"sweeps": 0}, "sweeps must be an integer of at least 1, got 0"),
        ({"restarts": 0}, "restarts must be an integer of at least 1, got 0"),
        ({"finalists": 1}, "finalists must be an integer of at least 2, got 1"),
        ({"swell": 0.5}, r"swell must lie in \[1, 100\], got 0.5"),
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
