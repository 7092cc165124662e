"""Edge-popup: every step replayed in numpy from what network and optimizer are given."""

import functools
import itertools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import finders, losses, nets, tasks
from plantjax.finders import FINDERS
from plantjax.finders.edge_popup_scores import sgd
from plantjax.types import Batch, Found
from shared import flat, shares

CIRCLE, RELU = tasks.TASKS["circle"], tasks.TASKS["relu"]
COUNTS = np.array([4, 40 + 18, 80 + 4])  # of the circle target at depth 4, weights and biases
KEY = jax.random.key(3)
SAMPLES, BATCH, PER_EPOCH, EPOCHS = 120, 40, 3, 3
STEPS = EPOCHS * PER_EPOCH


def falling(density, step, steps):
    """A schedule of one's own."""
    share = jnp.asarray(step, jnp.float32) / steps
    return jnp.asarray(density, jnp.float32) * (2.0 - jnp.square(share))


CASES = {
    "circle": {"task": CIRCLE, "widths": (2, 12, 12, 4), "optimizer": sgd(0.1, STEPS)},
    "relu": {
        **{"task": RELU, "widths": (1, 12, 12, 1), "scope": "layer", "anneal": "epoch"},
        **{"loss": "plain", "init": "equal", "optimizer": optax.adam(0.01)},
    },
    "relu_step": {
        **{"task": RELU, "widths": (1, 12, 12, 1), "scope": "global", "anneal": "step"},
        **{"anneal_share": 0.55, "schedule": "linear", "optimizer": optax.sgd(1.0)},
    },
    "circle_oracle": {
        **{"task": CIRCLE, "widths": (2, 20, 20, 4), "scope": "oracle", "anneal": "step"},
        **{"schedule": falling, "loss": "plain", "optimizer": optax.sgd(1.0, momentum=0.5)},
    },
}
DENSITIES = {"circle": 0.3, "relu": 0.1, "relu_step": 0.2, "circle_oracle": 0.1}
QUICK = ("circle",)
RUN = [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in CASES]
REPLAYS = [
    *(pytest.param(*case.values, DENSITIES[case.values[0]], marks=case.marks) for case in RUN),
    *(("circle", density) for density in (1 / 244, 0.05, 1.0)),
]


def wanted_densities(case, density):
    """The density of every step."""
    steps = np.arange(1, STEPS + 1)
    return {
        "circle": np.full(STEPS, density),
        "relu": density ** (np.repeat(np.arange(1, EPOCHS + 1), PER_EPOCH) / EPOCHS),
        "relu_step": 1 - (1 - density) * np.minimum(steps, 5) / 5,  # 55% of 9 steps
        "circle_oracle": density * (2 - (steps / STEPS) ** 2),
    }[case]


class Step(NamedTuple):
    """What the network and the optimizer saw in one step, and what the optimizer said."""

    masked: dict  # the parameters that the network ran with
    x: np.ndarray
    scores: dict
    gradient: dict
    log_scale: np.ndarray
    log_scale_gradient: np.ndarray
    update: dict


@functools.cache
def mother(case):
    return nets.init(jax.random.key(2), CASES[case]["widths"])


@functools.cache
def data(case):
    return CASES[case]["task"].sample(jax.random.key(1), SAMPLES)


def spied(task, optimizer, apply=nets.apply, **static):
    """A compiled search, and the lists in which its network and its optimizer record."""
    forward, backward = [], []

    def recorded_apply(params, x):
        jax.debug.callback(lambda *seen: forward.append(seen), params, x, ordered=True)
        return apply(params, x)

    def update(gradient, state, params):
        updates, state = optimizer.update(gradient, state, params)
        jax.debug.callback(
            lambda *seen: backward.append(seen), params, gradient, updates, ordered=True
        )
        return updates, state

    finder = finders.edge_popup(
        task,
        apply=recorded_apply,
        optimizer=optax.GradientTransformation(optimizer.init, update),
        **static,
    )
    return jax.jit(finder.search), forward, backward


@functools.cache
def program(case):
    static = {"search_epochs": EPOCHS, "batch_size": BATCH} | CASES[case]
    del static["widths"]
    return spied(**static)


def run_spied(compiled, params, samples, density):
    search, forward, backward = compiled
    forward.clear()
    backward.clear()
    found = jax.device_get(search(KEY, params, samples, density))
    jax.effects_barrier()
    steps = [
        Step(
            masked=jax.tree.map(np.asarray, masked),
            x=np.asarray(x),
            scores=jax.tree.map(np.asarray, learned["scores"]),
            gradient=jax.tree.map(np.asarray, gradient["scores"]),
            log_scale=np.asarray(learned["log_scale"]),
            log_scale_gradient=np.asarray(gradient["log_scale"]),
            update=jax.tree.map(np.asarray, updates["scores"]),
        )
        for (masked, x), (learned, gradient, updates) in zip(forward, backward, strict=True)
    ]
    return found, steps


@functools.cache
def ran(case, density=None) -> tuple[Found, list[Step]]:
    density = DENSITIES[case] if density is None else density
    return run_spied(program(case), mother(case), data(case), density)


def groups_of(case, tree):
    """The arrays that compete with one another, as vectors."""
    scope = CASES[case].get("scope", "local")
    if scope == "global":
        return [flat(tree)]
    if scope == "local":
        return [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return [flat(tree[name]) for name in sorted(tree)]


def budgets(case, density, sizes):
    if CASES[case].get("scope") != "oracle":
        return shares(int(np.clip(np.floor(density * sum(sizes) + 0.5), 1, sum(sizes))), sizes)
    share = np.floor(density * sum(sizes) + 0.5) * COUNTS / COUNTS.sum()
    kept = np.floor(share)  # largest remainder
    kept[np.argsort(kept - share)[: round(share.sum() - kept.sum())]] += 1
    return kept


def top(case, scores, density):
    """One vector of bools per group: the highest |s|, by a sort in numpy."""
    groups = groups_of(case, scores)
    kept = []
    for values, budget in zip(
        groups, budgets(case, density, [len(g) for g in groups]), strict=True
    ):
        rank = np.argsort(np.argsort(-np.abs(values)))
        kept.append(rank < budget)
    return np.concatenate(kept)


def in_order(case, tree):
    return np.concatenate(groups_of(case, tree))


@functools.cache
def slope(task, loss):
    """Gradient of a loss by the masked parameters and the scale of the logits."""
    if loss == "plain":
        search_loss = lambda outputs, y, log_scale: task.loss(outputs, y)  # noqa: E731
    elif task is CIRCLE:
        search_loss = losses.scale_free_cross_entropy
    else:
        search_loss = lambda f, y, log_scale: losses.scale_free_squared_error(f, y)  # noqa: E731

    def objective(params, log_scale, x, y):
        return search_loss(nets.apply(params, x), y, log_scale)

    return jax.jit(jax.value_and_grad(objective, (0, 1)))


def slopes(case, step, loss):
    """Value and gradients of a step, its labels looked up in the data."""
    x, y = (np.asarray(part) for part in data(case))
    rows = [int(np.flatnonzero((x == row).all(axis=1))[0]) for row in step.x]
    assert len(set(rows)) == BATCH
    return slope(CASES[case]["task"], loss)(step.masked, step.log_scale, step.x, y[rows])


@pytest.mark.slow
@pytest.mark.parametrize(("case", "density"), REPLAYS)
def test_every_step_runs_the_highest_scores_of_its_density(case, density):
    _, steps = ran(case, density)
    theta = in_order(case, mother(case))
    assert len(steps) == STEPS
    for step, at in zip(steps, wanted_densities(case, density), strict=True):
        kept = top(case, step.scores, at)
        np.testing.assert_array_equal(in_order(case, step.masked), np.where(kept, theta, 0.0))


@pytest.mark.parametrize(("case", "density"), REPLAYS)
def test_the_mask_is_the_highest_scores_at_the_end(case, density):
    found, steps = ran(case, density)
    scores = jax.tree.map(np.add, steps[-1].scores, steps[-1].update)
    np.testing.assert_array_equal(in_order(case, found.mask), top(case, scores, density))
    chex.assert_trees_all_equal(found.params, jax.device_get(mother(case)))


@pytest.mark.parametrize(("case", "density"), REPLAYS)
def test_the_gradient_is_straight_through_for_kept_and_pruned(case, density):
    _, steps = ran(case, density)
    theta, loss = flat(mother(case)), CASES[case].get("loss", "scale-free")
    reached = 0
    for step in steps:
        _, (gradient, by_scale) = slopes(case, step, loss)
        scores, found = flat(step.scores), flat(step.gradient)
        assert np.isfinite(found).all()
        wanted = theta * np.where(scores >= 0, 1.0, -1.0) * flat(gradient)
        scale = max(np.abs(wanted).max(), 1e-30)
        np.testing.assert_allclose(found / scale, wanted / scale, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(step.log_scale_gradient, by_scale, rtol=1e-3, atol=1e-6)
        reached += (found[flat(step.masked) == 0] != 0).sum()
    if 0.05 <= density < 1:
        assert reached > 0  # pruned parameters learn, too


@pytest.mark.parametrize("case", RUN)
def test_losses_are_epoch_means_of_the_search_loss(case):
    found, steps = ran(case)
    loss = CASES[case].get("loss", "scale-free")
    other = {"plain": "scale-free", "scale-free": "plain"}[loss]
    values = np.array([slopes(case, step, loss)[0] for step in steps])
    assert found.info["losses"].shape == (EPOCHS,)
    np.testing.assert_allclose(
        found.info["losses"], values.reshape(EPOCHS, PER_EPOCH).mean(axis=1), rtol=1e-4
    )
    others = np.array([slopes(case, step, other)[0] for step in steps])
    assert (np.abs(others - values) > 0.05 * values).any()


@pytest.mark.parametrize("case", RUN)
def test_the_scale_of_logits_is_learned_where_it_counts(case):
    found, steps = ran(case)
    assert found.info["scale"].shape == ()
    assert steps[0].log_scale == 0.0
    if case == "circle":
        assert abs(float(found.info["scale"]) - 1) > 1e-3
        path = np.array([step.log_scale for step in steps])
        assert (path[1:] != 0).all()
    else:
        assert found.info["scale"] == 1.0


def test_scores_start_within_the_fan_in_biases_like_weights():
    scores = ran("circle")[1][0].scores
    for name, fan_in in zip(sorted(scores), (2, 12, 12), strict=True):
        for leaf in scores[name].values():
            sizes = np.abs(leaf) * np.sqrt(fan_in)
            assert 0.6 < sizes.max() <= 1.0
    values = flat(scores)
    assert 0.4 < (values > 0).mean() < 0.6
    assert np.unique(values).size == values.size


class Started(Exception):  # noqa: N818 - no error
    """Carries what the optimizer is to learn out of a search."""


def test_fan_in_is_that_of_the_largest_array_of_a_layer():
    def start(learned):
        raise Started(learned["scores"])

    params = {
        "first": {"kernel": jnp.ones((3, 3, 2, 50)), "shift": jnp.ones(50)},  # fan-in 18
        "second": {"gain": jnp.ones(40), "kernel": jnp.ones((100, 40))},
    }
    optimizer = optax.GradientTransformation(start, None)
    finder = finders.edge_popup(RELU, apply=None, optimizer=optimizer)
    with pytest.raises(Started) as caught:
        finder(KEY, params, data("relu"), 0.5)
    (scores,) = caught.value.args
    for name, fan_in in (("first", 18), ("second", 100)):
        for leaf in scores[name].values():
            assert 0.9 < np.abs(leaf).max() * np.sqrt(fan_in) <= 1.0


@pytest.mark.slow
def test_equal_scores_start_alike_in_all_arrays():
    scores = ran("relu")[1][0].scores
    assert (flat(scores) >= 0).all()
    assert flat(scores).max() <= 0.1
    assert 0.04 < flat(scores).mean() < 0.06
    for leaf in jax.tree.leaves(scores):
        assert leaf.max() > (0.08 if leaf.size > 4 else 0.0)
    assert np.unique(flat(scores)).size == flat(scores).size


def test_scores_of_biases_are_learned():
    found, steps = ran("circle")
    changed = 0
    for name, layer in steps[0].scores.items():
        moved = np.abs(steps[-1].scores[name]["bias"] - layer["bias"])
        assert moved.max() > 0.02  # weight decay alone: below 1e-3
        changed += ((steps[0].masked[name]["bias"] != 0) != found.mask[name]["bias"]).sum()
    assert changed > 0


def test_the_next_scores_are_the_optimizers():
    _, steps = ran("circle")
    for step, after in itertools.pairwise(steps):
        wanted = flat(step.scores) + flat(step.update)
        np.testing.assert_allclose(flat(after.scores), wanted, rtol=1e-6, atol=1e-7)


# The hand-written case: one linear layer, mean squared error, all samples in one step.

LINE = {
    "layer_00": {
        "kernel": jnp.array([[0.5, -1.0, 0.0], [2.0, 0.25, -0.75]]),
        "bias": jnp.array([0.1, -0.4, 0.3]),
    }
}


def line_data():
    x = np.random.default_rng(0).uniform(-1, 1, (10, 2)).astype(np.float32)
    y = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    return Batch(jnp.asarray(x), jnp.asarray(y))


@functools.cache
def line():
    """Two steps in a linear layer: the optimizer sets all scores to zero after the first."""
    erase = optax.GradientTransformation(
        lambda params: (), lambda g, state, params: (jax.tree.map(jnp.negative, params), state)
    )
    compiled = spied(RELU, erase, search_epochs=3, batch_size=10, loss="plain")
    return {density: run_spied(compiled, LINE, line_data(), density) for density in (0.5, 1.0)}


def line_gradient(masked):
    """dL/d(m theta) of the linear layer in float64."""
    x, y = (np.asarray(part, np.float64) for part in line_data())
    error = x @ masked["layer_00"]["kernel"] + masked["layer_00"]["bias"] - y
    return {"kernel": 2 * x.T @ error / error.size, "bias": 2 * error.sum(axis=0) / error.size}


@pytest.mark.parametrize("density", [0.5, 1.0])
def test_the_gradient_of_a_linear_layer_by_hand(density):
    _, steps = line()[density]
    for index, step in enumerate(steps):
        for name, wanted in line_gradient(step.masked).items():
            sign = 1.0 if index else np.where(step.scores["layer_00"][name] >= 0, 1.0, -1.0)
            wanted = np.asarray(LINE["layer_00"][name], np.float64) * sign * wanted
            np.testing.assert_allclose(step.gradient["layer_00"][name], wanted, atol=1e-6)
    assert (flat(steps[0].scores) < 0).any()


def test_a_score_of_zero_counts_as_positive():
    for _, steps in line().values():
        np.testing.assert_array_equal(flat(steps[1].scores), 0.0)
        wanted = flat(LINE) * flat(line_gradient(steps[1].masked))
        np.testing.assert_allclose(flat(steps[1].gradient), wanted, atol=1e-6)
        assert (flat(steps[1].gradient) != 0).sum() == 8  # all but theta = 0


def test_ties_keep_exact_counts_at_random():
    found, steps = line()[0.5]
    for step in steps[1:]:
        assert (step.masked["layer_00"]["bias"] != 0).sum() == 2
        assert (step.masked["layer_00"]["kernel"] != 0).sum() in (2, 3)  # one weight is zero
    assert found.mask["layer_00"]["kernel"].sum() == 3
    assert found.mask["layer_00"]["bias"].sum() == 2


# Default settings, several mothers at once.

FACTORS = np.float32([1.0, 2.0**-40, 1e-12, 0.0])


@functools.cache
def scaled():
    """Searches in mothers whose last layer is multiplied by FACTORS."""
    last = nets.layer_name(2)
    mothers = jax.tree.map(
        lambda leaf: jnp.stack([leaf] * len(FACTORS)), jax.device_get(mother("circle"))
    )
    mothers[last] = jax.tree.map(
        lambda leaf: leaf * FACTORS.reshape(-1, *[1] * (leaf.ndim - 1)), mothers[last]
    )
    finder = finders.edge_popup(CIRCLE, search_epochs=EPOCHS, batch_size=BATCH)
    samples = data("circle")  # outside of the trace: a cache must not keep tracers
    search = jax.jit(jax.vmap(lambda params: finder(KEY, params, samples, jnp.float32(0.3))))
    return jax.device_get(search(mothers)), mothers


def mask_of(found, index):
    return flat(jax.tree.map(lambda leaf: leaf[index], found.mask))


@pytest.mark.slow
def test_the_search_does_not_see_the_scale_of_the_outputs():
    found, _ = scaled()
    np.testing.assert_array_equal(mask_of(found, 1), mask_of(found, 0))
    np.testing.assert_allclose(found.info["losses"][1], found.info["losses"][0], rtol=1e-6)
    assert (mask_of(found, 2) != mask_of(found, 0)).sum() <= 2  # 1e-12 is rounded
    np.testing.assert_allclose(found.info["losses"][2], found.info["losses"][0], rtol=1e-3)


@pytest.mark.slow
def test_dead_networks_have_finite_losses_and_exact_counts():
    found, mothers = scaled()
    chex.assert_tree_all_finite(found.info)
    np.testing.assert_allclose(found.info["losses"][3], np.log(4), rtol=1e-5)
    leaves = [leaf.reshape(len(FACTORS), -1) for leaf in jax.tree.leaves(found.mask)]
    wanted = budgets("circle", 0.3, [leaf.shape[1] for leaf in leaves])
    for kept, budget in zip(leaves, wanted, strict=True):
        np.testing.assert_array_equal(kept.sum(axis=1), [budget] * len(FACTORS))
    chex.assert_trees_all_equal(found.params, jax.device_get(mothers))


@pytest.mark.slow
def test_the_default_optimizer_is_sgd_with_momentum_and_cosine():
    found, _ = scaled()
    wanted, _ = ran("circle")
    np.testing.assert_allclose(found.info["losses"][0], wanted.info["losses"], rtol=1e-3)
    assert (mask_of(found, 0) != flat(wanted.mask)).sum() <= 2
    np.testing.assert_allclose(found.info["scale"][0], wanted.info["scale"], rtol=1e-3)


def test_sgd_by_hand():
    optimizer, rng = sgd(0.1, 7), np.random.default_rng(0)
    scores, trace = np.array([1.0, -2.0, 0.0]), np.zeros(3)
    params = jnp.asarray(scores, jnp.float32)
    state = optimizer.init(params)
    for step in range(7):
        gradient = rng.normal(size=3)
        trace = 0.9 * trace + gradient + 5e-4 * scores
        scores = scores - 0.1 * 0.5 * (1 + np.cos(np.pi * step / 7)) * trace
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params, scores, rtol=1e-5)


def test_the_key_decides():
    search = program("circle")[0]
    arguments = (mother("circle"), data("circle"), DENSITIES["circle"])
    again, other = search(KEY, *arguments), search(jax.random.key(4), *arguments)
    jax.effects_barrier()
    chex.assert_trees_all_equal(jax.device_get(again.mask), ran("circle")[0].mask)
    assert (flat(other.mask) != flat(again.mask)).any()


# The head of the paper's code.


@functools.cache
def headed():
    compiled = spied(
        RELU, sgd(0.1, 2), search_epochs=2, batch_size=SAMPLES, head="reference", loss="plain"
    )
    return run_spied(compiled, nets.init(KEY, (1, 9, 1)), data("relu"), 0.3)


@pytest.mark.slow
def test_a_softmax_of_one_output_learns_nothing():
    found, steps = headed()
    for step in steps:
        np.testing.assert_array_equal(flat(step.gradient), 0.0)
    wanted = np.mean((1 - np.asarray(data("relu").y, np.float64)) ** 2)
    np.testing.assert_allclose(found.info["losses"], [wanted] * 2, rtol=1e-5)
    local = [np.ravel(leaf) for leaf in jax.tree.leaves(steps[0].scores)]
    ranks = [np.argsort(np.argsort(-np.abs(scores))) for scores in local]
    wanted = shares(8, [len(rank) for rank in ranks])  # 0.3 of 28
    kept = [rank < budget for rank, budget in zip(ranks, wanted, strict=True)]
    np.testing.assert_array_equal(flat(found.mask), np.concatenate(kept))  # as they started


def test_finders_tell_their_head_and_scope():
    finder = finders.edge_popup(RELU, head="reference")
    outputs = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
    wanted = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(finder.head(jnp.asarray(outputs)), wanted, rtol=1e-6)
    assert (finder.scope, finder.rounds, finder.exact_counts) == ("local", 1, False)
    for name in ("edge_popup", "edge_popup_annealed", "edge_popup_global"):
        finder = FINDERS[name](RELU)
        assert finder.head is None
        assert finder.scope == ("global" if name == "edge_popup_global" else "local")
        assert finder.exact_counts == (name == "edge_popup_global")
    assert FINDERS["edge_popup"](CIRCLE, scope="oracle").exact_counts


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"anneal": "yes"}, r"anneal must be one of none, epoch, step, got 'yes'"),
        ({"head": "softmax"}, r"head must be one of none, reference, got 'softmax'"),
        ({"init": "zero"}, r"init must be one of fan_in, equal, got 'zero'"),
        ({"anneal_share": 0.0}, r"anneal_share must lie in \(0, 1\], got 0.0"),
        ({"search_epochs": 0}, r"search_epochs must be an integer of at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(static, message):
    with pytest.raises(ValueError, match=message):
        finders.edge_popup(CIRCLE, **static)


def test_batches_larger_than_the_data_are_refused():
    finder = finders.edge_popup(CIRCLE, batch_size=SAMPLES + 1)
    with pytest.raises(ValueError, match=r"batch_size must be .* at most 120, got 121"):
        finder(KEY, mother("circle"), data("circle"), 0.5)
