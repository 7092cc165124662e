"""Lemma 1, Theorem 2 and sampling, against naive versions in plain loops and exact answers."""

import math
from decimal import Decimal, localcontext
from itertools import pairwise, permutations, product

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import binom, binomtest

from plantjax import draws, nets, targets, theory
from plantjax.theory import sampled

PROPERTY = settings(max_examples=20, deadline=None, derandomize=True)
EPSILONS = (1e-6, 0.01, 0.3, 0.95)
SHAPES = ((1, 2, 1), (2, 3, 2), (2, 4, 3, 1), (3, 2), (1, 3, 1, 2))
SHIPPED = {
    f"{make.__name__}{depth}": make(depth)
    for make in (targets.relu, targets.circle, targets.helix)
    for depth in (3, 4, 5, 6)
}


def params_of(*layers):
    """A chain from (kernel, bias) pairs."""
    return {
        nets.layer_name(i): {
            "kernel": jnp.asarray(k, jnp.float32),
            "bias": jnp.asarray(b, jnp.float32),
        }
        for i, (k, b) in enumerate(layers)
    }


def random_target(seed, widths, scale=1.0):
    """Dense normal parameters of very different sizes by layer, a third of them zero."""
    rng = np.random.default_rng(seed)
    layers = []
    for n_in, n_out in pairwise(widths):
        size = scale * 10.0 ** rng.uniform(-1, 1)
        kernel = size * rng.normal(size=(n_in, n_out)) * (rng.random((n_in, n_out)) < 0.7)
        layers.append((kernel, size * rng.normal(size=n_out) * (rng.random(n_out) < 0.6)))
    return params_of(*layers)


def alike(neurons, weight, outer):
    """One hidden layer of equal neurons relu(weight x)."""
    return params_of(
        (np.full((1, neurons), weight), np.zeros(neurons)),
        (np.full((neurons, 1), outer), np.zeros(1)),
    )


def naive_layers(target):
    """Cleaned float64 [O, 1 + I]: dead units are removed one at a time until none is left."""
    layers = [
        np.concatenate([np.asarray(v["bias"], float)[:, None], np.asarray(v["kernel"], float).T], 1)
        for _, v in sorted(target.items())
    ]
    changed = True
    while changed:
        changed = False
        for theta, after in pairwise(layers):
            for unit in range(len(theta)):
                fed, read = theta[unit, 1:].any() or theta[unit, 0] > 0, after[:, 1 + unit].any()
                if not (fed and read) and (theta[unit].any() or read):
                    theta[unit], after[:, 1 + unit], changed = 0.0, 0.0, True
    return layers


def naive_tolerances(layers, epsilon, paper=False):
    intervals, sizes = [(-1.0, 1.0)] * (layers[0].shape[1] - 1), []
    for theta in layers:
        sizes.append(sum(max(abs(low), abs(high)) for low, high in intervals))
        after = []
        for row in theta:
            ends = [sorted((w * low, w * high)) for w, (low, high) in zip(row[1:], intervals)]  # noqa: B905
            low, high = (row[0] + sum(end[side] for end in ends) for side in (0, 1))
            after.append((max(low, 0.0), max(high, 0.0)))
        intervals = after
    depth, found = len(layers), [0.0] * len(layers)
    spread = [math.sqrt(max(sum(t != 0 for t in theta.flat), 1)) for theta in layers]
    for l in reversed(range(depth)):  # noqa: E741
        below = depth * spread[l] * (1 + sizes[l])
        for k in range(l + 1, depth):
            kernel = layers[k][:, 1:]
            if paper:
                below *= max(abs(w) for w in kernel.flat) + epsilon / depth
            else:
                spectral = math.sqrt(max(np.linalg.eigvalsh(kernel @ kernel.T).max(), 0.0))
                below *= spectral + found[k] * spread[k]
        found[l] = epsilon / below
    return found


def naive_bound(layers, found, widths, init, rigorous, paper, last_layer):
    """Theorem 2 for rescaled layers in plain probabilities."""
    probability = 1.0
    for l, (theta, eps) in enumerate(zip(layers, found, strict=True)):  # noqa: E741
        chances = []
        for row in theta:
            chance = 1.0
            for t in row[row != 0]:
                if init == "uniform":
                    chance *= eps
                elif paper:
                    chance *= eps / 2
                else:
                    chance *= (math.erf((t + eps) / 2**0.5) - math.erf((t - eps) / 2**0.5)) / 2
            if row.any():
                chances.append(chance)
        if l == len(layers) - 1:
            probability *= math.prod(chances) if last_layer == "in_place" else 1.0
        elif rigorous:
            for p in chances:
                probability *= 1 - (1 - p) ** (widths[l + 1] // len(chances))
        else:
            probability *= max(0.0, 1 - sum((1 - p) ** widths[l + 1] for p in chances))
    return probability


def outputs(layers, x):
    """x [N, I] to [N, O] in float64."""
    for index, theta in enumerate(layers):
        x = np.maximum(x, 0.0) if index else x
        x = x @ theta[:, 1:].T + theta[:, 0]
    return x


def gradients(layers, x, output):
    """Of one output at one point x [I], by hand, as layers [O, 1 + I]."""
    inputs = []
    for index, theta in enumerate(layers):
        x = np.maximum(x, 0.0) if index else x
        inputs.append(x)
        x = theta[:, 1:] @ x + theta[:, 0]
    back, found = np.eye(len(x))[output], []
    for theta, x in zip(layers[::-1], inputs[::-1], strict=True):
        found.append(np.outer(back, np.append(1.0, x)))
        back = (theta[:, 1:].T @ back) * (x > 0)
    return found[::-1]


def worst_error(target, found):
    """Largest change of an output under changes of the live parameters by +- their tolerance."""
    layers = naive_layers(target)
    n_in, n_out = layers[0].shape[1] - 1, len(layers[-1])
    points = 161 if n_in == 1 else 15 if n_in == 2 else 7
    grid = np.array(list(product(np.linspace(-1, 1, points), repeat=n_in)))
    rng = np.random.default_rng(0)
    changes = [[rng.choice([-1.0, 1.0], theta.shape) for theta in layers] for _ in range(20)]
    changes.append([np.sign(theta) for theta in layers])
    for x in grid[:: max(1, len(grid) // 12)]:
        for output in range(n_out):
            gradient = gradients(layers, x, output)
            changes += [[side * np.sign(g) for g in gradient] for side in (-1, 1)]
    wanted, worst = outputs(layers, grid), 0.0
    for change in changes:
        moved = [
            theta + eps * sign * (theta != 0)
            for theta, eps, sign in zip(layers, found, change, strict=True)
        ]
        worst = max(worst, np.abs(outputs(moved, grid) - wanted).max())
    return worst


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(SHAPES), st.sampled_from(EPSILONS))
def test_tolerances_equal_the_naive_ones(seed, widths, epsilon):
    target = random_target(seed, widths)
    layers = naive_layers(target)
    for norm in theory.NORMS:
        found = theory.tolerances(target, epsilon, norm)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, naive_tolerances(layers, epsilon, norm == "paper"), 1e-9)


@pytest.mark.parametrize("name", SHIPPED)
def test_tolerances_of_the_shipped_targets(name):
    layers = naive_layers(SHIPPED[name])
    for norm in theory.NORMS:
        found = theory.tolerances(SHIPPED[name], 0.05, norm)
        np.testing.assert_allclose(found, naive_tolerances(layers, 0.05, norm == "paper"), 1e-9)


def test_tolerances_by_hand():
    # relu(x), two layers: eps_2 = e / (2 (1 + 1)), eps_1 = e / (2 (1 + 1) (1 + eps_2))
    np.testing.assert_allclose(theory.tolerances(targets.relu(3), 0.1), [0.025 / 1.025, 0.025])
    # x1 and x2 in, 3 relu(x1 - x2 + 1): m = 3, 1; sups 2, 3
    target = params_of(([[1.0], [-1.0]], [1.0]), ([[3.0]], [0.0]))
    last = 0.1 / (2 * 1 * (1 + 3))
    first = 0.1 / (2 * 3**0.5 * (1 + 2) * (3 + last))
    np.testing.assert_allclose(theory.tolerances(target, 0.1), [first, last])
    first = 0.1 / (2 * 3**0.5 * (1 + 2) * (3 + 0.1 / 2))
    np.testing.assert_allclose(theory.tolerances(target, 0.1, norm="paper"), [first, last])


@pytest.mark.parametrize("epsilon", [0.01, 0.5])
@pytest.mark.parametrize("name", SHIPPED)
def test_lemma_1_holds_for_the_shipped_targets(name, epsilon):
    error = worst_error(SHIPPED[name], theory.tolerances(SHIPPED[name], epsilon))
    assert 0 < error <= epsilon


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(SHAPES), st.sampled_from(EPSILONS))
def test_lemma_1_holds_for_random_targets(seed, widths, epsilon):
    target = random_target(seed, widths)
    assert worst_error(target, theory.tolerances(target, epsilon)) <= epsilon * (1 + 1e-6)


def test_the_papers_norm_breaks_its_promise():
    target = alike(64, 1.0, 1.0)
    assert worst_error(target, theory.tolerances(target, 0.01)) <= 0.01
    error = worst_error(target, theory.tolerances(target, 0.01, norm="paper"))
    assert 1.9 < error / 0.01 < 2.2


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(SHAPES), st.sampled_from(EPSILONS))
def test_rescaling_is_a_tight_fixpoint(seed, widths, epsilon):
    target = random_target(seed, widths)
    for norm in theory.NORMS:
        found = theory.rescaled(target, epsilon, norm)
        assert found.reason == ""
        assert ((found.factors > 0) & (found.factors <= 1)).all()
        size, scaled = 1.0, []
        for theta, factor in zip(naive_layers(target), found.factors, strict=True):
            size *= factor
            scaled.append(np.concatenate([size * theta[:, :1], factor * theta[:, 1:]], axis=1))
        for mine, theirs in zip(scaled, found.layers, strict=True):
            np.testing.assert_allclose(theirs, mine, 1e-12)
        wanted = naive_tolerances(scaled, epsilon * size, norm == "paper")
        np.testing.assert_allclose(found.tolerances, wanted, 1e-9)
        for theta, factor, eps in zip(scaled, found.factors, wanted, strict=True):
            reach = np.abs(theta).max() + eps
            assert not theta.any() or reach <= 1 + 1e-12
            assert factor == 1 or reach >= 1 - 1e-8


def test_rescaling_of_a_fitting_target_changes_nothing():
    target = alike(2, 0.5, 0.3)
    found = theory.rescaled(target, 0.1)
    np.testing.assert_array_equal(found.factors, [1.0, 1.0])
    np.testing.assert_array_equal(found.tolerances, theory.tolerances(target, 0.1))


OPTIONS = list(product(theory.INITS, (True, False), (True, False), theory.LAST_LAYERS))


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(SHAPES), st.sampled_from([5, 13, 100, 3000]))
def test_bounds_equal_the_naive_ones(seed, widths, width):
    target = random_target(seed, widths, scale=0.1)  # small, so that probabilities are not tiny
    mother = (widths[0], *[width] * (len(widths) - 2), widths[-1])
    for epsilon, norm in ((0.3, "spectral"), (0.95, "spectral"), (0.95, "paper")):
        scaled = theory.rescaled(target, epsilon, norm)
        for init, rigorous, paper, last_layer in OPTIONS:
            found = theory.existence_probability(
                target,
                mother,
                epsilon,
                init,
                rigorous=rigorous,
                paper=paper,
                last_layer=last_layer,
                norm=norm,
            )
            wanted = naive_bound(
                scaled.layers, scaled.tolerances, mother, init, rigorous, paper, last_layer
            )
            assert math.isclose(found.probability, wanted, rel_tol=1e-7, abs_tol=1e-13)
            assert found.probability == math.exp(found.log_probability)
            assert (found.reason == "") == (found.probability > 0)


def test_defaults_are_rigorous_uniform_in_place():
    target = alike(3, 0.5, 0.3)
    scaled = theory.rescaled(target, 0.5)
    wanted = naive_bound(*scaled[::2], (1, 50, 1), "uniform", True, False, "in_place")
    found = theory.existence_probability(target, (1, 50, 1), 0.5)
    assert math.isclose(found.probability, wanted, rel_tol=1e-9)


@pytest.mark.parametrize("name", ["relu5", "circle5", "helix5"])
@pytest.mark.parametrize(("width", "epsilon"), [(10**9, 1e-6), (30, 1e-15), (10**9, 0.9)])
def test_extreme_widths_and_epsilons_in_exact_arithmetic(name, width, epsilon):
    target = SHIPPED[name]
    scaled = theory.rescaled(target, epsilon)
    small = nets.widths(target)
    mother = (small[0], *[width] * (len(small) - 2), small[-1])
    with localcontext(prec=900):
        log_hidden, log_last = Decimal(0), Decimal(0)
        for l, (theta, eps) in enumerate(zip(scaled.layers, scaled.tolerances, strict=True)):  # noqa: E741
            fan_in = [int(k) for k in (theta != 0).sum(axis=1)]
            candidates = width // len(fan_in)
            if l == len(small) - 2:
                log_last = sum(fan_in) * Decimal(eps).ln()
                continue
            for k in set(fan_in):
                chance = 1 - (1 - Decimal(eps) ** k) ** candidates
                log_hidden += fan_in.count(k) * chance.ln()
    trained = theory.existence_probability(target, mother, epsilon, last_layer="trained")
    assert math.isclose(trained.log_probability, log_hidden, rel_tol=1e-11, abs_tol=1e-15)
    in_place = theory.existence_probability(target, mother, epsilon)
    assert math.isclose(in_place.log_probability, log_hidden + log_last, rel_tol=1e-11)
    assert bool(in_place.reason) == (in_place.probability == 0)


def test_normal_parameters_are_exact_far_below_rounding():
    # One parameter t = 1 - eps_1: Phi(t + eps) - Phi(t - eps) = 2 eps phi(1) up to O(eps)
    found = theory.existence_probability(
        params_of(([[2.0]], [0.0])), (1, 1), 1e-9, "normal", last_layer="in_place"
    )
    eps = theory.rescaled(params_of(([[2.0]], [0.0])), 1e-9).tolerances[0]
    density = math.exp(-0.5) / math.sqrt(2 * math.pi)
    assert math.isclose(found.probability, 2 * density * eps, rel_tol=1e-8)
    paper = theory.existence_probability(
        params_of(([[2.0]], [0.0])), (1, 1), 1e-9, "normal", paper=True
    )
    assert math.isclose(paper.probability, eps / 2, rel_tol=1e-12)


@pytest.mark.parametrize("rigorous", [True, False])
@pytest.mark.parametrize("init", theory.INITS)
def test_limits_and_monotony(init, rigorous):
    target = random_target(3, (2, 4, 3, 1))
    options = {"rigorous": rigorous, "last_layer": "trained"}

    def chance(width, epsilon):
        mother = (2, width, width, 1)
        return theory.existence_probability(target, mother, epsilon, init, **options).probability

    by_width = [chance(int(10**e), 0.1) for e in np.arange(1, 30, 0.5)]
    assert by_width[-1] == 1.0
    assert by_width[0] < 1e-6
    assert (np.diff(by_width) >= 0).all()
    by_epsilon = [chance(10**9, e) for e in np.geomspace(1e-12, 0.99, 40)]
    assert by_epsilon[0] < 1e-12
    assert (np.diff(by_epsilon) >= 0).all()
    assert by_epsilon[-1] > by_epsilon[0]


@pytest.mark.parametrize("epsilon", [0.5, 1e-9, 1e-20, 1e-200])
def test_both_bounds_agree_for_single_neurons_however_unlikely(epsilon):
    found, wanted = (
        theory.existence_probability(SHIPPED["relu4"], (1, 9, 9, 1), epsilon, rigorous=rigorous)
        for rigorous in (False, True)
    )
    assert math.isclose(found.log_probability, wanted.log_probability, rel_tol=1e-14)
    assert math.isfinite(found.log_probability)


def test_dead_neurons_cost_nothing():
    lean = params_of(([[0.5]], [0.1]), ([[0.4]], [0.0]))
    dead = params_of(  # unread; and fed by nothing, with a bias that never fires
        ([[0.5, 0.3, 0.0]], [0.1, 0.2, -0.4]), ([[0.4], [0.0], [0.7]], [0.0])
    )
    for rigorous in (True, False):
        found, wanted = (
            theory.existence_probability(target, (1, 30, 1), 0.5, rigorous=rigorous)
            for target in (dead, lean)
        )
        assert found == wanted
    firing = params_of(([[0.0]], [0.5]), ([[0.4]], [0.0]))  # no input, but a positive bias
    eps = theory.tolerances(firing, 0.5)
    found = theory.existence_probability(firing, (1, 7, 1), 0.5)
    assert math.isclose(found.probability, (1 - (1 - eps[0]) ** 7) * eps[1], rel_tol=1e-9)


def test_a_target_without_parameters_always_exists():
    empty = params_of(([[0.0, 0.0]], [0.0, 0.0]), ([[0.0], [0.0]], [0.0]))
    assert np.isfinite(theory.tolerances(empty, 0.1)).all()
    assert theory.existence_probability(empty, (1, 2, 1), 0.1) == (1.0, 0.0, "")
    assert theory.width_needed(empty, 0.5, 0.1) == 2
    estimate = sampled.monte_carlo_existence(jax.random.key(0), empty, (1, 2, 1), 0.1, mothers=10)
    assert estimate.found == 10


def test_reasons_of_zero():
    clipped = theory.existence_probability(SHIPPED["circle3"], (2, 99, 4), 0.1, rigorous=False)
    assert clipped == (0.0, -math.inf, "the union bound is at most 0 in layer_00, of width 99")
    underflown = theory.existence_probability(SHIPPED["circle3"], (2, 99, 4), 0.1)
    assert underflown.probability == 0
    assert math.isfinite(underflown.log_probability)
    assert "underflows" in underflown.reason
    # Later kernels far below epsilon: the tolerance takes all of [-1, 1], and creeps.
    faint = params_of(([[0.01]], [0.01]), ([[0.5]], [0.0]), ([[1e-12]], [0.0]))
    huge = params_of(*[([[1e38]], [0.0])] * 10)
    for target, reason in ((faint, "1000 steps"), (huge, "underflow")):
        mother = (1,) * len(nets.widths(target))
        found = theory.existence_probability(target, mother, 0.999)
        assert found[:2] == (0.0, -math.inf)
        assert reason in found.reason
        with pytest.raises(ValueError, match=reason):
            theory.width_needed(target, 0.5, 0.999, last_layer="trained")
        with pytest.raises(ValueError, match=reason):
            sampled.monte_carlo_existence(jax.random.key(0), target, mother, 0.999)
    with pytest.raises(ValueError, match="moderate size"):
        theory.tolerances(huge, 0.5)


@pytest.mark.parametrize("rigorous", [True, False])
@pytest.mark.parametrize("name", ["relu5", "circle3", "helix4"])
def test_the_width_needed_is_the_smallest(name, rigorous):
    target = SHIPPED[name]
    small = nets.widths(target)
    options = {"init": "normal", "rigorous": rigorous, "last_layer": "trained"}
    width = theory.width_needed(target, 0.9, 0.2, **options)

    def chance(width):
        mother = (small[0], *[width] * (len(small) - 2), small[-1])
        return theory.existence_probability(target, mother, 0.2, **options).probability

    assert chance(width) >= 0.9 > chance(width - 1)


@pytest.mark.parametrize("rigorous", [True, False])
def test_the_width_needed_may_exceed_all_floats(rigorous):
    # neurons of 30 inputs and a bias: p = eps^31
    options = {"rigorous": rigorous, "last_layer": "trained"}
    width = theory.width_needed(SHIPPED["helix5"], 0.9, 1e-30, **options)
    assert width > 10**900
    chances = [
        theory.existence_probability(SHIPPED["helix5"], (1, w, w, w, 3), 1e-30, **options)[0]
        for w in (width // 2, width)
    ]
    assert chances[0] < 0.9 <= chances[1]


def test_the_width_needed_is_at_least_the_targets():
    options = {"rigorous": False, "last_layer": "trained"}
    assert theory.width_needed(alike(20, 0.5, 0.02), 0.1, 0.9, **options) == 20


def test_an_output_layer_in_place_caps_the_probability():
    target = targets.relu(3)
    cap = theory.rescaled(target, 0.1).tolerances[-1]
    width = theory.width_needed(target, 0.99 * cap, 0.1)
    chances = [theory.existence_probability(target, (1, w, 1), 0.1)[0] for w in (width, width - 1)]
    assert chances[0] >= 0.99 * cap > chances[1]
    with pytest.raises(ValueError, match="output layer in place"):
        theory.width_needed(target, 1.01 * cap, 0.1)


BAD_EPSILONS = (0.0, 1.0, -0.1, 2.0, math.nan, math.inf)
RELU = targets.relu(3)


@pytest.mark.parametrize("epsilon", BAD_EPSILONS)
def test_epsilon_is_open_at_both_ends(epsilon):
    for call in (
        lambda: theory.tolerances(RELU, epsilon),
        lambda: theory.rescaled(RELU, epsilon),
        lambda: theory.existence_probability(RELU, (1, 5, 1), epsilon),
        lambda: theory.width_needed(RELU, 0.5, epsilon, last_layer="trained"),
        lambda: sampled.monte_carlo_existence(jax.random.key(0), RELU, (1, 5, 1), epsilon),
    ):
        with pytest.raises(ValueError, match=r"epsilon must lie in \(0, 1\)"):
            call()


@pytest.mark.parametrize(
    "widths", [(1, 1), (1, 5, 5, 1), (), (2, 5, 1), (1, 5, 2), (1, 0, 1), (1, 5.0, 1), (1, -3, 1)]
)
def test_widths_must_fit_the_target(widths):
    with pytest.raises(ValueError, match="widths must be"):
        theory.existence_probability(RELU, widths, 0.1)
    with pytest.raises(ValueError, match="widths must be"):
        sampled.monte_carlo_existence(jax.random.key(0), RELU, widths, 0.1)


def test_a_mother_must_not_be_narrower_than_the_target():
    theory.existence_probability(SHIPPED["circle3"], (2, 20, 4), 0.1)
    with pytest.raises(ValueError, match="at least as large"):
        theory.existence_probability(SHIPPED["circle3"], (2, 19, 4), 0.1)


@pytest.mark.parametrize("name", ["init", "last_layer", "norm"])
def test_unknown_choices(name):
    for call in (
        lambda: theory.existence_probability(RELU, (1, 5, 1), 0.1, **{name: "x"}),
        lambda: theory.width_needed(RELU, 0.01, 0.1, **{name: "x"}),
        lambda: sampled.monte_carlo_existence(
            jax.random.key(0), RELU, (1, 5, 1), 0.1, **{name: "x"}
        ),
    ):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            call()
    with pytest.raises(ValueError, match="norm must be one of"):
        theory.tolerances(RELU, 0.1, norm="max")


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.nan])
def test_probabilities_must_lie_between(value):
    with pytest.raises(ValueError, match="probability must lie in"):
        theory.width_needed(RELU, value, 0.1)
    with pytest.raises(ValueError, match="confidence must lie in"):
        sampled.monte_carlo_existence(jax.random.key(0), RELU, (1, 5, 1), 0.1, confidence=value)


@pytest.mark.parametrize("mothers", [0, -1, 2.5])
def test_mothers_must_be_at_least_one(mothers):
    with pytest.raises(ValueError, match="mothers must be an integer of at least 1"):
        sampled.monte_carlo_existence(jax.random.key(0), RELU, (1, 5, 1), 0.1, mothers=mothers)


def test_targets_must_be_finite_chains():
    with pytest.raises(ValueError, match="must be finite"):
        theory.tolerances(params_of(([[math.nan]], [0.0])), 0.1)
    with pytest.raises(ValueError, match="chain of dense layers"):
        theory.existence_probability({"a": jnp.ones(3)}, (1, 1), 0.1)


def near_graphs(seed, count, rows, columns):
    rng = np.random.default_rng(seed)
    return rng.random((count, rows, columns)) < rng.uniform(0.1, 0.7, (count, 1, 1))


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (3, 3), (4, 6), (5, 5), (3, 2)])
def test_matchings_equal_brute_force(rows, columns):
    near = near_graphs(rows, 2000, rows, columns)
    wanted = np.zeros(len(near), bool)
    for places in permutations(range(columns), rows):
        wanted |= near[:, range(rows), list(places)].all(axis=1)
    found = jax.jit(jax.vmap(sampled.perfect_matching))(near)
    np.testing.assert_array_equal(found, wanted)
    assert rows > columns or 0.05 < wanted.mean() < 0.95


def test_matchings_that_need_the_longest_augmenting_path():
    rows = 12
    near = np.eye(rows, dtype=bool)
    near[np.arange(rows - 1), np.arange(1, rows)] = True
    near[-1] = np.arange(rows) == 0  # all others must move one to the right
    broken = near.copy()
    broken[5, 6] = False
    match = jax.jit(jax.vmap(sampled.perfect_matching))
    orders = np.stack([np.arange(rows), np.arange(rows)[::-1], np.roll(np.arange(rows), 5)])
    assert np.asarray(match(near[orders])).all()
    assert not np.asarray(match(broken[orders])).any()


def estimate(target, mother, epsilon, **options):
    """Sampling at 99.99% confidence, and both bounds on what it estimates."""
    found = sampled.monte_carlo_existence(
        jax.random.key(7), target, mother, epsilon, mothers=3000, confidence=0.9999, **options
    )
    bounds = [
        theory.existence_probability(target, mother, epsilon, rigorous=rigorous, **options)
        for rigorous in (True, False)
    ]
    return found, *[bound.probability for bound in bounds]


ONE = params_of(([[0.5], [-0.4]], [0.3]), ([[0.2]], [0.0]))  # one neuron with three parameters
TWO_OUT = params_of(([[0.1]], [0.0]), ([[0.5, 0.0]], [0.0, 0.3]))  # zeros in the output layer


@pytest.mark.parametrize(
    ("target", "width", "epsilon", "options"),
    [
        (targets.relu(4), 40, 0.3, {"init": "normal", "last_layer": "trained"}),
        (TWO_OUT, 40, 0.95, {}),
        (ONE, 80, 0.9, {"last_layer": "trained", "norm": "paper"}),
    ],
)
def test_sampling_agrees_with_the_exact_probability_of_single_neurons(
    target, width, epsilon, options
):
    small = nets.widths(target)
    mother = (small[0], *[width] * (len(small) - 2), small[-1])
    scaled = theory.rescaled(target, epsilon, options.get("norm", "spectral"))
    init, last_layer = options.get("init", "uniform"), options.get("last_layer", "in_place")
    exact = naive_bound(scaled.layers, scaled.tolerances, mother, init, True, False, last_layer)
    found, rigorous, printed = estimate(target, mother, epsilon, **options)
    assert 0.05 < exact < 0.95
    assert found.low <= exact <= found.high
    assert found.probability == found.found / 3000
    assert math.isclose(rigorous, exact)
    assert math.isclose(printed, exact)


@pytest.mark.parametrize(
    ("neurons", "width"),
    [(8, 16), pytest.param(20, 20, marks=pytest.mark.slow)],
)
def test_the_bound_as_printed_exceeds_the_truth_for_equal_neurons(neurons, width):
    target = alike(neurons, 0.5, {8: 0.1, 20: 0.02}[neurons])
    eps = theory.rescaled(target, 0.9).tolerances[0]
    # A mother neuron meets all of them or none, so as many as there are must be within eps.
    exact = binom.sf(neurons - 1, width, eps)
    found, rigorous, printed = estimate(target, (1, width, 1), 0.9, last_layer="trained")
    assert found.low <= exact <= found.high
    assert rigorous <= exact
    assert printed > found.high
    assert printed > 2 * exact


def test_the_rigorous_bound_never_exceeds_the_estimate():
    target = random_target(4, (2, 4, 3, 1), 0.1)
    found, rigorous, _ = estimate(target, (2, 12, 40, 1), 0.9, last_layer="trained")
    assert 0 < rigorous <= found.high


@pytest.mark.slow
def test_sampling_is_a_function_of_the_key_whatever_the_chunk(monkeypatch):
    def draw(seed):
        target = alike(4, 0.5, 0.3)
        return sampled.monte_carlo_existence(
            jax.random.key(seed), target, (1, 20, 1), 0.9, mothers=50, last_layer="trained"
        )

    whole = draw(0)
    monkeypatch.setattr(sampled, "_CHUNK", 700)  # 8 mothers at a time, and a rest of 2
    assert draw(0) == whole
    assert len({draw(seed).found for seed in range(5)}) > 1


def test_mothers_are_drawn_in_float64(monkeypatch):
    dtypes, draw = [], draws.arrays

    def watched(*args, **options):
        arrays = draw(*args, **options)
        dtypes.extend(array.dtype for array in arrays)
        return arrays

    monkeypatch.setattr(draws, "arrays", watched)
    sampled.monte_carlo_existence(jax.random.key(0), RELU, (1, 33, 1), 0.1, mothers=2)
    assert dtypes == [np.float64] * 2
    assert jnp.ones(1).dtype == jnp.float32


@pytest.mark.parametrize("found", [0, 1, 17, 39, 40])
@pytest.mark.parametrize("confidence", [0.5, 0.99])
def test_intervals_are_those_of_clopper_and_pearson(found, confidence):
    wanted = binomtest(found, 40).proportion_ci(confidence, "exact")
    low, high = sampled.clopper_pearson(found, 40, confidence)
    np.testing.assert_allclose([low, high], [wanted.low, wanted.high], 1e-9)


def test_an_estimate_is_the_share_with_its_interval():
    found = sampled.monte_carlo_existence(
        jax.random.key(1), RELU, (1, 25, 1), 0.1, mothers=40, last_layer="trained", confidence=0.9
    )
    assert 0 < found.found < 40
    assert found.probability == found.found / 40
    assert found[2:] == sampled.clopper_pearson(found.found, 40, 0.9)
