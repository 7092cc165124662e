"""Learners of gates: distributions against sampling, prices and schedules by hand, counts."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import finders, losses, nets, tasks
from plantjax.finders import FINDERS, gates
from plantjax.finders.concrete_ticket import balanced_price as balance
from plantjax.finders.hard_concrete import stretch
from shared import flat

CIRCLE, RELU = tasks.TASKS["circle"], tasks.TASKS["relu"]
KEY = jax.random.key(5)
LEARNERS = ("bernoulli_gates", "concrete_ticket", "continuous_sparsification", "hard_concrete")
RUN = [
    pytest.param(name, marks=[] if name == "concrete_ticket" else [pytest.mark.slow])
    for name in LEARNERS
]
DRAWS = 200_000
SAMPLES, BATCH, PER_EPOCH = 120, 40, 3


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))


def assert_share(events, probability):
    """The share of true events is the probability, within 5 standard deviations."""
    spread = np.sqrt(probability * (1 - probability) / np.size(events))
    assert abs(np.mean(events) - probability) <= 5 * spread + 1e-9


@functools.cache
def mother():
    return nets.init(jax.random.key(2), (2, 12, 12, 4))


@functools.cache
def data():
    return CIRCLE.sample(jax.random.key(1), SAMPLES)


def relaxation_of(name, **static):
    return FINDERS[name](CIRCLE, **static).search.plain.relaxation


# Distributions.


@pytest.mark.parametrize(
    ("name", "logits"),
    [("hard_concrete", [-4.0, -1.0, 0.0, 2.0]), ("bernoulli_gates", [-0.8, 0.0, 0.5, 1.2])],
)
def test_gates_are_open_as_often_as_told(name, logits):
    relaxation = relaxation_of(name)
    draw = jax.jit(relaxation.draw)
    for logit in logits:
        drawn = draw(KEY, jnp.full(DRAWS, logit), jnp.int32(0))
        assert (drawn >= 0).all()
        assert (drawn <= 1).all()
        wanted = float(relaxation.kept(jnp.float32(logit), jnp.int32(0)))
        assert 0.01 < wanted < 0.999
        assert_share(drawn > 0, wanted)


def test_hard_concrete_by_hand():
    # 0.25 and 0.75 become 0.25 * 1.2 - 0.1 = 0.2 and 0.8; below 1/12 is 0, above 11/12 is 1.
    stretched = stretch(jnp.array([0.0, 0.083, 0.25, 0.75, 0.917]))
    np.testing.assert_allclose(stretched, [0.0, 0.0, 0.2, 0.8, 1.0], atol=1e-6)
    relaxation = relaxation_of("hard_concrete")
    kept = relaxation.kept(jnp.float32(0.3), jnp.int32(0))
    np.testing.assert_allclose(kept, sigmoid(0.3 + 2 / 3 * np.log(11)), rtol=1e-6)
    edge = np.log(1 / 11)  # of sigmoid 1/12
    native = relaxation.native(jnp.array([edge - 1e-3, edge + 1e-3]))
    assert native.tolist() == [False, True]
    start = relaxation.start(KEY, {"a": jnp.ones(DRAWS)}, jnp.float32(0.1))["a"]
    np.testing.assert_allclose(jnp.std(start), 0.01, rtol=0.01)


def test_bernoulli_gates_by_hand():
    relaxation = relaxation_of("bernoulli_gates", sigma=0.25)
    means = jnp.full(DRAWS, 0.5)
    phi = 0.5 * (1 + math.erf(2 / 2**0.5))  # of 0.5 / 0.25
    np.testing.assert_allclose(relaxation.kept(means[0], jnp.int32(0)), phi, rtol=1e-6)
    drawn = relaxation.draw(KEY, means, jnp.int32(0))
    assert_share(drawn == 1.0, 1 - phi)
    assert_share(drawn < 0.75, 0.841345)  # one standard deviation above the mean


def test_concrete_gates_by_hand():
    relaxation = relaxation_of("concrete_ticket")
    drawn = relaxation.draw(KEY, jnp.full(DRAWS, -1.2), jnp.int32(0))
    assert_share(drawn > 0.5, sigmoid(-1.2 * 2 / 3))
    assert_share(drawn > 0.9, sigmoid(2 / 3 * (-1.2 - np.log(9))))
    start = relaxation.start(KEY, mother(), jnp.float32(0.2))
    np.testing.assert_allclose(flat(start), np.log(0.25), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"continuous_sparsification"}))
def test_the_count_starts_as_wanted(name):
    relaxation = relaxation_of(name)
    like = {"a": jnp.ones((300, 100)), "b": jnp.ones(70)}
    for density in (0.003, 0.2, 0.9):
        start = relaxation.start(KEY, like, jnp.float32(density))
        chex.assert_trees_all_equal_shapes_and_dtypes(start, like)
        share = np.mean(relaxation.kept(jnp.asarray(flat(start)), jnp.int32(0)))
        np.testing.assert_allclose(share, density, rtol=2e-3)
    full = relaxation.start(KEY, like, jnp.float32(1.0))
    chex.assert_tree_all_finite(full)
    assert (flat(jax.tree.map(lambda s: relaxation.kept(s, jnp.int32(0)), full)) > 0.99).all()


def test_the_temperature_of_continuous_sparsification():
    relaxation = relaxation_of("continuous_sparsification", rounds=2, search_epochs=5, start=0.1)
    logits = jnp.array([-0.3, 0.0, 0.02, 0.4])
    for epoch in range(10):  # 200^0, 200^(1/4), ..., 200^1, and again from 1
        beta = 200.0 ** ((epoch % 5) / 4)
        for soft in (
            relaxation.draw(KEY, logits, jnp.int32(epoch)),
            relaxation.kept(logits, jnp.int32(epoch)),
        ):
            np.testing.assert_allclose(soft, sigmoid(beta * np.array(logits)), rtol=1e-4)
        after = relaxation.after(logits, jnp.int32(epoch))
        # Between rounds s <- min(200 s, s0); never within one, nor after the last.
        wanted = [-60.0, 0.0, 0.1, 0.1] if epoch == 4 else logits
        np.testing.assert_allclose(after, wanted, rtol=1e-5)


def test_one_epoch_of_continuous_sparsification_is_soft():
    relaxation = relaxation_of("continuous_sparsification", search_epochs=1)
    np.testing.assert_allclose(relaxation.kept(jnp.float32(0.3), jnp.int32(0)), sigmoid(0.3))


# The price of the count.


def test_dual_ascent_by_hand():
    rule, memory = gates.dual_ascent(rate=0.1, damping=2.0), jnp.float32(0.5)
    nothing = jnp.float32(jnp.nan)  # the slopes are not looked at
    for excess, price, after in ((3.0, 6.5, 0.8), (-1.0, -1.2, 0.7), (0.0, 0.7, 0.7)):
        told, memory = rule(memory, jnp.int32(0), jnp.float32(excess), nothing, nothing)
        np.testing.assert_allclose([told, memory], [price, after], rtol=1e-5)


def test_balance_by_hand():
    def priced(price, step, excess, task, count):
        told, memory = balance(*(jnp.float32(x) for x in (price, step, excess, task, count)))
        assert told == memory
        return float(told)

    assert priced(0.0, 0, 0.5, 3.0, 2.0) == 1.5  # starts where the gradients are of one length
    assert priced(0.0, 0, -0.5, 3.0, 2.0) == 0.0
    np.testing.assert_allclose(priced(1.0, 7, 0.1, 3.0, 2.0), 1.005, rtol=1e-6)
    np.testing.assert_allclose(priced(1.0, 7, -0.1, 3.0, 2.0), 0.99, rtol=1e-6)
    assert priced(0.0, 0, 1.0, 3.0, 0.0) == 0.0  # gates that are all shut or open


def test_the_price_steers_along_the_gradient_of_the_excess():
    logits = {"a": jnp.array([0.5, -1.0]), "b": jnp.array([[2.0]])}
    seen = []

    def rule(memory, step, excess, task, count):
        seen.append((memory, step, excess, task, count))
        return 3.0 * excess, memory + 1.0

    def expected(logits, epoch):
        return optax.tree.sum(jax.tree.map(jax.nn.sigmoid, logits)) + epoch.astype(jnp.float32)

    steered = gates.steer(expected, 2.5, rule, 7.0, 2, optax.identity())
    learned = {"logits": logits, "log_scale": jnp.float32(0.0)}
    gradient = {"logits": optax.tree.full_like(logits, 0.25), "log_scale": jnp.float32(9.0)}
    state = steered.init(learned)
    for step in range(3):
        found, state = steered.update(gradient, state, learned)
        share = sigmoid(flat(logits))
        excess = (share.sum() + step // 2) / 2.5 - 1.0
        slope = share * (1 - share) / 2.5
        wanted = 0.25 + 3.0 * excess * slope
        np.testing.assert_allclose(flat(found["logits"]), wanted, rtol=1e-5)
        assert found["log_scale"] == 9.0
        np.testing.assert_allclose(
            seen[step],
            [7.0 + step, step, excess, 0.25 * 3**0.5, np.linalg.norm(slope)],
            rtol=1e-5,
        )


@functools.cache
def learned(name):
    """Searches at three densities, and three in a mother whose last layer is zero."""
    finder = FINDERS[name](CIRCLE, search_epochs=100, batch_size=BATCH)
    dead = mother() | {"layer_02": jax.tree.map(jnp.zeros_like, mother()["layer_02"])}
    mothers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[mother()] * 3, *[dead] * 3)
    samples = data()  # outside of the trace: a cache must not keep tracers
    search = jax.jit(jax.vmap(lambda params, density: finder(KEY, params, samples, density)))
    return jax.device_get(search(mothers, jnp.float32([0.3, 0.5, 0.7, 1 / 244, 0.3, 1.0])))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_the_expected_count_is_reached(name):
    wanted = np.array([73, 122, 171])  # of 244
    share = learned(name).info["expected_kept"][:3] / wanted
    if name == "concrete_ticket":  # only what is above 1.1 has a price
        assert (share < 1.2).all()
        assert (share > 0.7).all()
    else:
        np.testing.assert_allclose(share, 1.0, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_counts_are_exact_in_living_and_dead_networks(name):
    found = learned(name)
    chex.assert_tree_all_finite(found.info)
    counts = [leaf.reshape(6, -1).sum(axis=1) for leaf in jax.tree.leaves(found.mask)]
    np.testing.assert_array_equal(np.sum(counts, axis=0), [73, 122, 171, 1, 73, 244])


@pytest.mark.parametrize("name", RUN)
def test_the_search_learns_and_the_parameters_stay(name):
    found = learned(name)
    values = found.info["losses"]
    assert (values[:3, -1] < values[:3, 0] - 0.1).all()
    np.testing.assert_allclose(values[3:], np.log(4), rtol=1e-5)  # dead
    for leaf, wanted in zip(jax.tree.leaves(found.params), jax.tree.leaves(mother()), strict=True):
        np.testing.assert_array_equal(leaf[:3], np.stack([wanted] * 3))


@pytest.mark.slow
def test_the_highest_logits_are_kept_and_the_native_counted():
    """One linear layer without noise, kernel and bias apart: the search by hand."""
    params = {"layer_00": {"kernel": jnp.array([[1.5, -2.0, 0.5, 1.0]]), "bias": jnp.zeros(4)}}
    start = {"layer_00": {"kernel": jnp.array([[0.3, 0.9, 0.1, 0.7]]), "bias": jnp.full(4, 0.2)}}
    relaxation = gates.Relaxation(
        start=lambda key, params, density: start,
        draw=lambda key, logits, epoch: logits,
        kept=lambda logit, epoch: logit,
        native=lambda logit: logit > 0.25,
        after=lambda logit, epoch: logit + 0.01,
    )
    seen = []

    def criterion(dense, outputs, batch, log_scale):
        jax.debug.callback(seen.append, outputs, ordered=True)
        return jnp.sum(outputs) * 0.0 + log_scale

    finder = gates.search_gates(
        RELU,
        relaxation,
        lambda memory, *rest: (jnp.float32(0.0), memory),
        criterion,
        gates.GateOptions(scope="local", epochs=2, batch_size=BATCH),
        apply=nets.apply,
        optimizer=lambda steps: optax.sgd(0.5),
    )
    found = jax.jit(finder.search)(KEY, params, RELU.sample(KEY, SAMPLES), 0.5)
    assert found.mask["layer_00"]["kernel"].tolist() == [[False, True, False, True]]
    assert found.mask["layer_00"]["bias"].sum() == 2
    assert found.info["native_kept"] == 3
    # Each of two epochs adds 0.01 to all 8, whose sum was 2.8.
    np.testing.assert_allclose(found.info["expected_kept"], 2.8 + 8 * 0.02, rtol=1e-5)
    np.testing.assert_allclose(found.info["scale"], np.exp(-0.5 * 6), rtol=1e-5)
    np.testing.assert_allclose(found.info["losses"], [-0.5, -2.0], rtol=1e-5)  # means of 0 to -2.5
    jax.effects_barrier()
    ratio = np.asarray(seen[0])[:, 1] / np.asarray(seen[0])[:, 0]
    np.testing.assert_allclose(ratio, -2.0 * 0.9 / (1.5 * 0.3), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("task", [CIRCLE, RELU])
def test_a_dense_target_is_what_the_mother_computes(task):
    params, batch = nets.init(KEY, (task.n_in, 12, task.n_out)), task.sample(KEY, 20)
    run = jax.jit(functools.partial(nets.apply, params))
    dense = run(batch.x)
    other = jax.random.normal(KEY, dense.shape)
    criterion = finders.concrete_ticket(task, target="dense").search.plain.criterion
    assert abs(float(criterion(run, 3.0 * dense, batch, 0.0))) < 1e-5
    wanted = (
        losses.scale_free_divergence(other, dense, 0.4)
        if task is CIRCLE
        else losses.scale_free_squared_error(other, dense)
    )
    assert wanted > 0.01
    np.testing.assert_allclose(criterion(run, other, batch, 0.4), wanted, rtol=1e-6)
    labels = finders.concrete_ticket(task).search.plain.criterion
    search_loss = losses.SEARCH_LOSSES["scale-free"](task)(other, batch.y, 0.4)
    np.testing.assert_allclose(labels(run, other, batch, 0.4), search_loss, rtol=1e-6)


def test_finders_tell_their_scope_and_rounds():
    finder = finders.bernoulli_gates(CIRCLE, scope="layer")
    assert (finder.scope, finder.exact_counts) == ("layer", False)
    for name in LEARNERS:
        assert FINDERS[name](CIRCLE).exact_counts
        assert FINDERS[name](CIRCLE, scope="oracle").exact_counts
    assert finders.continuous_sparsification(CIRCLE, rounds=3).rounds == 3


@pytest.mark.parametrize(
    ("name", "static", "message"),
    [
        *((name, {"search_epochs": 0}, "search_epochs must be an integer") for name in LEARNERS),
        ("hard_concrete", {"scope": "all"}, r"scope must be one of global, .*, got 'all'"),
        (
            "hard_concrete",
            {"loss": "mse"},
            "loss must be one of scale-free, .*, got 'mse'",
        ),
        ("hard_concrete", {"dual_rate": 0.0}, r"dual_rate must lie in \(0, .*got 0.0"),
        ("hard_concrete", {"damping": -1.0}, r"damping must lie in \[0, inf\], got -1.0"),
        ("bernoulli_gates", {"sigma": 0.0}, r"sigma must lie in \(0, .*got 0.0"),
        ("concrete_ticket", {"target": "x"}, r"target must be one of labels, dense, got 'x'"),
        ("continuous_sparsification", {"rounds": 0}, r"rounds must be an integer .*got 0"),
        ("continuous_sparsification", {"penalty": -1.0}, r"penalty must lie in .*got -1.0"),
    ],
)
def test_bad_options_are_refused(name, static, message):
    with pytest.raises(ValueError, match=message):
        FINDERS[name](CIRCLE, **static)


def test_batches_larger_than_the_data_are_refused():
    finder = finders.hard_concrete(CIRCLE, batch_size=SAMPLES + 1)
    with pytest.raises(ValueError, match=r"batch_size must be .* at most 120, got 121"):
        finder(KEY, mother(), data(), 0.5)
