"""Planting: exactness, counts, hiding, and what is left alone."""

from functools import cache
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets, plant
from plantjax.tasks import TASKS

SEEDS, WIDTH, SAMPLES = 100, 50, 500
CASES = [("circle", 4, "norm"), ("helix", 3, "norm"), ("circle", 3, "paper")]
SLOW = [("circle", 10, "norm"), ("relu", 5, "norm"), ("teacher", 5, "norm"), ("helix", 5, "paper")]
RULED = [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


def mother_widths(target, width: int) -> tuple[int, ...]:
    first, *hidden, last = nets.widths(target)
    return (first, *[width] * len(hidden), last)


def he(widths, *batch: int):
    """Mothers [*batch, ...] by numpy: weights and biases of about one size."""
    rng = np.random.default_rng(0)
    return {
        nets.layer_name(i): {
            "kernel": ((2 / n_in) ** 0.5 * rng.normal(size=(*batch, n_in, n_out))).astype("f4"),
            "bias": (0.5 * rng.normal(size=(*batch, n_out))).astype("f4"),
        }
        for i, (n_in, n_out) in enumerate(pairwise(widths))
    }


def mothers(name: str, depth: int, scheme: str):
    """Mothers [SEEDS, ...] of a scheme, by numpy if it is "he"."""
    widths = mother_widths(TASKS[name].target(depth), WIDTH)
    if scheme == "he":
        return he(widths, SEEDS)
    keys = jax.random.split(jax.random.key(depth), SEEDS)
    return jax.device_get(jax.jit(jax.vmap(lambda key: nets.init(key, widths, scheme)))(keys))


@cache
def program(name: str, depth: int, rule: str):
    """Plants in mothers [SEEDS, ...]; returns (planted, outputs, wanted outputs)."""
    task, target = TASKS[name], TASKS[name].target(depth)

    def one(key, mother, x):
        hidden = plant(key, target, mother, rule, task.metric == "accuracy")
        outputs = nets.apply(masks.apply(hidden.params, hidden.mask), x)
        return hidden, outputs, nets.apply(target, x)

    return jax.jit(jax.vmap(one))


@cache
def planted(name: str, depth: int, rule: str = "norm", scheme: str = "he"):
    """(mothers, planted, outputs, wanted outputs) of SEEDS seeds."""
    drawn = mothers(name, depth, scheme)
    keys = jax.random.split(jax.random.key(depth), SEEDS)
    x = np.random.default_rng(1).uniform(-1, 1, (SEEDS, SAMPLES, TASKS[name].n_in)).astype("f4")
    return jax.device_get((drawn, *program(name, depth, rule)(keys, drawn, x)))


@pytest.mark.parametrize(("name", "depth", "rule"), RULED)
def test_the_planted_mask_computes_the_target_and_the_rest_is_untouched(
    name: str, depth: int, rule: str
) -> None:
    mother, hidden, outputs, wanted = planted(name, depth, rule)
    target = TASKS[name].target(depth)
    computes_the_target(name, hidden, outputs, wanted)
    for layer in mother:
        for leaf in ("kernel", "bias"):
            before, after = mother[layer][leaf], hidden.params[layer][leaf]
            mask = hidden.mask[layer][leaf]
            counts = mask.reshape(SEEDS, -1).sum(axis=1)
            np.testing.assert_array_equal(counts, int((target[layer][leaf] != 0).sum()))
            np.testing.assert_array_equal(np.where(mask, 0, after), np.where(mask, 0, before))
            assert (after[mask] != 0).all()
        kernel, mask = hidden.params[layer]["kernel"], hidden.mask[layer]["kernel"]
        signs = np.where(mask, np.sign(kernel), 0)
        for sign in (-1, 1):
            number = (np.sign(target[layer]["kernel"]) == sign).sum()
            np.testing.assert_array_equal((signs == sign).sum(axis=(1, 2)), number)
    if name == "circle" and depth > 3:  # its first layer has no biases
        np.testing.assert_array_equal(hidden.params["layer_00"]["bias"], mother["layer_00"]["bias"])


def computes_the_target(name: str, hidden, outputs, wanted) -> None:
    error = np.abs(outputs / hidden.scale[:, None, :] - wanted).max()
    assert error <= 1e-4 * np.ptp(wanted)
    assert (hidden.scale > 0).all()
    if TASKS[name].metric == "accuracy":
        assert (np.argmax(outputs, axis=2) == np.argmax(wanted, axis=2)).mean(axis=1).min() > 0.995
        np.testing.assert_array_equal(
            hidden.scale, np.repeat(hidden.scale[:, :1], TASKS[name].n_out, axis=1)
        )


@pytest.mark.parametrize(
    ("name", "depth", "rule"),
    [("circle", 3, "norm"), pytest.param("circle", 5, "paper", marks=pytest.mark.slow)],
)
def test_a_mother_as_wide_as_the_target_works(name: str, depth: int, rule: str) -> None:
    target = TASKS[name].target(depth)
    mother = he(nets.widths(target))
    hidden = plant(jax.random.key(1), target, mother, rule, shared_scale=False)
    x = np.random.default_rng(2).uniform(-1, 1, (500, TASKS[name].n_in)).astype("f4")
    outputs = nets.apply(masks.apply(hidden.params, hidden.mask), x) / hidden.scale[None, :]
    wanted = nets.apply(target, x)
    assert float(jnp.abs(outputs - wanted).max()) <= 1e-4 * float(jnp.ptp(wanted))


@pytest.mark.parametrize("scheme", sorted({*nets.SCHEMES} - {"he"}))
def test_other_mothers(scheme: str) -> None:
    _, hidden, outputs, wanted = planted("circle", 4, scheme=scheme)
    computes_the_target("circle", hidden, outputs, wanted)


def test_the_norm_rule_keeps_the_norm_of_what_it_replaces() -> None:
    mother, hidden, *_ = planted("helix", 3)
    mask = hidden.mask["layer_00"]

    def norms(params):
        squares = np.where(mask["kernel"], np.square(params["kernel"]), 0.0).sum(axis=1)
        return np.sqrt(squares + np.where(mask["bias"], np.square(params["bias"]), 0.0))

    found, wanted = norms(hidden.params["layer_00"]), norms(mother["layer_00"])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_the_paper_rule_is_the_least_squares_factor() -> None:
    """One hidden neuron, theta = (b, w) = (1, 2): sigma = ||m||^2 / (theta . m)."""
    target = {
        "layer_00": {"kernel": jnp.array([[2.0]]), "bias": jnp.array([1.0])},
        "layer_01": {"kernel": jnp.array([[1.0]]), "bias": jnp.array([0.0])},
    }
    mother = {
        "layer_00": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([-1.0])},
        "layer_01": {"kernel": jnp.array([[0.5]]), "bias": jnp.array([7.0])},
    }
    paper = plant(jax.random.key(0), target, mother, "paper", shared_scale=False)
    sigma = 10.0 / 5.0  # ||m||^2 = 9 + 1, theta . m = 6 - 1
    np.testing.assert_allclose(paper.params["layer_00"]["kernel"], [[2 * sigma]], rtol=1e-6)
    np.testing.assert_allclose(paper.params["layer_00"]["bias"], [sigma], rtol=1e-6)
    np.testing.assert_allclose(paper.scale, [0.5 * sigma], rtol=1e-6)
    small = jax.tree.map(lambda p: p / 1024, mother)
    tiny = plant(jax.random.key(0), target, small, "paper", shared_scale=False)
    np.testing.assert_allclose(tiny.params["layer_00"]["bias"], [sigma / 1024], rtol=1e-6)
    norm = plant(jax.random.key(0), target, mother, "norm", shared_scale=False)
    np.testing.assert_allclose(
        norm.params["layer_00"]["kernel"], [[2 * np.sqrt(10 / 5)]], rtol=1e-6
    )
    opposed = jax.tree.map(jnp.negative, mother)  # no positive cosine: the norm rule
    fallen = plant(jax.random.key(0), target, opposed, "paper", shared_scale=False)
    np.testing.assert_allclose(fallen.params["layer_00"]["kernel"], [[2 * np.sqrt(2)]], rtol=1e-6)
    square = mother | {"layer_00": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([-6.0])}}
    level = plant(jax.random.key(0), target, square, "paper", shared_scale=False)  # a zero cosine
    np.testing.assert_allclose(level.params["layer_00"]["kernel"], [[2 * 3.0]], rtol=1e-6)
    assert float(norm.params["layer_01"]["bias"][0]) == 7.0


def test_neurons_go_to_the_largest_cosine() -> None:
    """Greedy in the target's order: the first neuron takes the best, the second what is left."""
    target = {
        "layer_00": {"kernel": jnp.array([[1.0, 1.0], [0.0, 0.1]]), "bias": jnp.zeros(2)},
        "layer_01": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)},
    }
    kernel = jnp.array([[-1.0, 2.0, 3.0], [0.0, 0.2, -3.0]])
    mother = {
        "layer_00": {"kernel": kernel, "bias": jnp.ones(3)},
        "layer_01": {"kernel": jnp.ones((3, 1)), "bias": jnp.ones(1)},
    }
    for seed in range(20):
        mask = plant(jax.random.key(seed), target, mother).mask["layer_00"]["kernel"]
        # Unit 0 reads x1 alone: mother neurons 1 and 2 have the right sign and tie.
        taken = np.argmax(np.asarray(mask)[0] & ~np.asarray(mask)[1])
        assert taken in (1, 2)
        # Unit 1 points to (1, 0.1): its best is neuron 1, if unit 0 left it.
        assert mask[1, 1 if taken == 2 else 2]


def test_cosines_are_those_of_what_the_target_keeps() -> None:
    """(1, 1, 0) goes to (1, 1, 9), as what it lacks does not count, not to (1, 0.5, 0)."""
    target = {
        "layer_00": {"kernel": jnp.array([[1.0], [1.0], [0.0]]), "bias": jnp.zeros(1)},
        "layer_01": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)},
    }
    mother = {
        "layer_00": {
            "kernel": jnp.array([[1.0, 1.0], [1.0, 0.5], [9.0, 0.0]]),
            "bias": jnp.ones(2),
        },
        "layer_01": {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)},
    }
    mask = plant(jax.random.key(0), target, mother).mask["layer_00"]["kernel"]
    np.testing.assert_array_equal(mask, [[True, False], [True, False], [False, False]])


@pytest.mark.parametrize(("name", "depth"), [("circle", 4), ("helix", 3)])
def test_planted_weights_are_hidden_among_the_others(
    name: str, depth: int, record_property
) -> None:
    _, hidden, *_ = planted(name, depth)
    for layer, params in hidden.params.items():
        weights, mask = (
            np.asarray(t["kernel"]).reshape(SEEDS, -1) for t in (params, hidden.mask[layer])
        )
        if mask[0].sum() < 4:
            continue
        pairs = zip(weights, mask, strict=True)
        ratios = [np.abs(w[m]).mean() / w[~m].std() for w, m in pairs]
        assert 0.3 <= np.median(ratios) <= 3
        # How well the size of a weight tells that it is planted: 0.5 is chance.
        order = np.argsort(np.argsort(np.abs(weights), axis=1), axis=1)
        auc = [
            (o[m].sum() - m.sum() * (m.sum() - 1) / 2) / (m.sum() * (~m).sum())
            for o, m in zip(order, mask, strict=True)
        ]
        record_property(f"auc_{layer}", float(np.mean(auc)))
        assert 0.2 < np.mean(auc) < 0.9


@pytest.mark.parametrize(
    ("name", "depth"), [("circle", 4), pytest.param("relu", 5, marks=pytest.mark.slow)]
)
def test_planted_neurons_lie_anywhere(name: str, depth: int) -> None:
    """Chi-square over all mothers, against its normal approximation at 5 sigma."""
    _, hidden, *_ = planted(name, depth)
    for layer in sorted(hidden.mask)[:-1]:
        used = np.asarray(hidden.mask[layer]["kernel"]).any(axis=1).sum(axis=0)  # [width]
        expected = used.sum() / len(used)
        statistic = ((used - expected) ** 2 / expected).sum()
        freedom = len(used) - 1
        assert statistic < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.slow
def test_dead_target_neurons_are_left_out() -> None:
    """Hidden units: read by nobody; unfed with b <= 0; unfed with b > 0; a proper one."""
    target = {
        "layer_00": {
            "kernel": jnp.array([[1.0, 0.0, 0.0, 1.0]]),
            "bias": jnp.array([0.5, -1.0, 2.0, 0.0]),
        },
        "layer_01": {
            "kernel": jnp.array([[0.0, 0.0], [3.0, 1.0], [4.0, 0.0], [5.0, 0.0]]),
            "bias": jnp.array([0.0, 0.0]),
        },
    }
    mother = he((1, 6, 2))
    hidden = plant(jax.random.key(1), target, mother, shared_scale=False)
    assert [int(hidden.mask["layer_00"][leaf].sum()) for leaf in ("kernel", "bias")] == [1, 1]
    assert [int(hidden.mask["layer_01"][leaf].sum()) for leaf in ("kernel", "bias")] == [2, 0]
    x = jnp.linspace(-1.0, 1.0, 21)[:, None]
    outputs = nets.apply(masks.apply(hidden.params, hidden.mask), x)
    wanted = 8.0 + 5.0 * jax.nn.relu(x[:, 0])
    np.testing.assert_allclose(outputs[:, 0] / hidden.scale[0], wanted, rtol=1e-5)
    np.testing.assert_array_equal(outputs[:, 1], 0.0)
    for shared in (False, True):
        scale = plant(jax.random.key(1), target, mother, shared_scale=shared).scale
        assert float(scale[1]) == 1.0
        assert float(scale[0]) != 1.0


@pytest.mark.slow
def test_the_leaves_of_the_mother_may_have_other_names() -> None:
    target = TASKS["helix"].target(3)
    mother = he(mother_widths(target, 30))
    renamed = {"params": {f"Dense_{i}": layer for i, layer in enumerate(mother.values())}}
    hidden, other = (plant(jax.random.key(1), target, tree) for tree in (mother, renamed))
    chex.assert_trees_all_equal_structs(other.params, renamed)
    for field in ("params", "mask"):
        chex.assert_trees_all_equal(
            jax.tree.leaves(getattr(other, field)), jax.tree.leaves(getattr(hidden, field))
        )


@pytest.mark.slow
def test_unfed_biases_in_a_mother_without_biases() -> None:
    """No mother neuron has a cosine with them: each takes any place that is free."""
    target = {
        "layer_00": {"kernel": jnp.array([[0.0, 0.0, 1.0]]), "bias": jnp.array([2.0, 3.0, 0.0])},
        "layer_01": {"kernel": jnp.ones((3, 1)), "bias": jnp.array([0.0])},
    }
    mother = he((1, 5, 1))
    mother = {name: part | {"bias": np.zeros_like(part["bias"])} for name, part in mother.items()}
    x = jnp.linspace(-1.0, 1.0, 9)[:, None]
    places = set()
    for key in jax.random.split(jax.random.key(1), 10):
        hidden = plant(key, target, mother)
        outputs = nets.apply(masks.apply(hidden.params, hidden.mask), x) / hidden.scale[None, :]
        np.testing.assert_allclose(outputs, 5.0 + jax.nn.relu(x), rtol=1e-5)
        places |= set(np.nonzero(np.asarray(hidden.mask["layer_00"]["bias"]))[0].tolist())
    assert len(places) > 2


@pytest.mark.parametrize("size", [2.0**-80, 2.0**80])
def test_the_size_of_the_target_does_not_matter(size: float) -> None:
    target = TASKS["helix"].target(3)
    mother = he(mother_widths(target, 30))
    other = target | {"layer_00": jax.tree.map(lambda p: size * p, target["layer_00"])}
    hidden, sized = (plant(jax.random.key(1), tree, mother) for tree in (target, other))
    chex.assert_trees_all_equal(hidden.mask["layer_00"], sized.mask["layer_00"])
    chex.assert_trees_all_close(hidden.params["layer_00"], sized.params["layer_00"], rtol=1e-5)


@pytest.mark.slow
def test_eager_jitted_and_vmapped_planting_agree() -> None:
    target = TASKS["circle"].target(3)
    mother = he(mother_widths(target, 25))
    eager = plant(jax.random.key(1), target, mother)
    jitted = jax.jit(plant, static_argnames=("rule", "shared_scale"))(
        jax.random.key(1), target, mother
    )
    stacked = jax.tree.map(lambda p: jnp.stack([p, 2.0 * p]), mother)
    batched = jax.vmap(plant, in_axes=(None, None, 0))(jax.random.key(1), target, stacked)
    first = jax.tree.map(lambda p: p[0], batched)
    for other in (jitted, first):
        chex.assert_trees_all_equal(other.mask, eager.mask)
        chex.assert_trees_all_close(other.params, eager.params, rtol=1e-5)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((2, 100, 1, 100, 4), "got width 1 in layer_01, where the target has 2"),
        ((2, 3, 3, 3, 4), "got width 3 in layer_00, where the target has 4"),
        ((2, 100, 100, 19, 4), "got width 19 in layer_02, where the target has 20"),
        ((2, 100, 100, 4), "mother must have the target's 4 layers, got 3"),
        ((3, 100, 100, 100, 4), "the target's 2 inputs and 4 outputs, got 3 and 4"),
        ((2, 100, 100, 100, 5), "the target's 2 inputs and 4 outputs, got 2 and 5"),
    ],
)
def test_mothers_that_do_not_fit(widths, message: str) -> None:
    mother = {
        nets.layer_name(i): {"kernel": np.ones(pair, "f4"), "bias": np.ones(pair[1], "f4")}
        for i, pair in enumerate(pairwise(widths))
    }
    with pytest.raises(ValueError, match=message):
        plant(jax.random.key(0), TASKS["circle"].target(5), mother)


def test_bad_rule_and_parameters() -> None:
    target = TASKS["relu"].target(3)
    mother = he((1, 3, 1))
    with pytest.raises(ValueError, match="rule must be one of norm, paper, got 'best'"):
        plant(jax.random.key(0), target, mother, "best")
    broken = jax.tree.map(lambda p: np.full_like(p, np.nan), mother)
    with pytest.raises(ValueError, match=r"mother\[layer_00/bias\] must be finite"):
        plant(jax.random.key(0), target, broken)
    with pytest.raises(ValueError, match="params must be a chain of dense layers"):
        plant(jax.random.key(0), target, {"kernel": jnp.ones((2, 2))})
