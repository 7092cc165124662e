"""Recovery against values counted by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets, recovery, tasks
from plantjax.sweeps import worlds
from plantjax.types import Planted


def chain(*layers):
    """A tree of the chain from (kernel, bias) pairs of nested lists."""
    return {
        nets.layer_name(i): {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
        for i, (kernel, bias) in enumerate(layers)
    }


def mask(*layers):
    return jax.tree.map(lambda leaf: leaf.astype(bool), chain(*layers))


# A 2-2-1 network, n = 9; the bias of hidden unit 0 is positive, that of unit 1 negative.
PARAMS = chain(([[1.0, -1.0], [2.0, 0.5]], [0.3, -0.3]), ([[1.0], [-1.0]], [0.1]))
TRUE = mask(([[1, 0], [0, 1]], [0, 1]), ([[1], [1]], [0]))  # 5 parameters, 4 weights
PLANTED = Planted(PARAMS, TRUE, jnp.ones(1))


def compare(found, scope="global"):
    return jax.device_get(recovery.compare(PARAMS, found, PLANTED, scope=scope))


def test_agreement_counted_by_hand():
    # 6 found (weights 3); common are kernel 0 (0, 0), bias 0 (1) and kernel 1 (0, 0): 3 (weights 2)
    result = compare(mask(([[1, 1], [0, 0]], [1, 1]), ([[1], [0]], [1])))
    wanted = {
        "precision": 3 / 6,
        "recall": 3 / 5,
        "f1": 6 / (6 + 5),
        "iou": 3 / 8,
        "lift": (3 / 6) / (5 / 9),
        "precision_weights": 2 / 3,
        "recall_weights": 2 / 4,
        "f1_weights": 4 / 7,
        "iou_weights": 2 / 5,
        "layer_00/precision": 2 / 4,
        "layer_00/recall": 2 / 3,
        "layer_01/precision": 1 / 2,
        "layer_01/recall": 1 / 2,
        "feasible_recall": 5 / 5,
        "collapsed": 0,
        "live_density": 4 / 9,  # kernel 0 (0, 0), bias 0 (0), kernel 1 (0, 0) and bias 1
        "connected": 1,
    }
    assert result.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(result[name], value, rtol=1e-6, err_msg=name)
        assert result[name].dtype == np.float32
        assert result[name].shape == ()


@pytest.mark.parametrize(
    ("found", "live", "connected", "collapsed"),
    [
        # nothing in the last kernel: the output bias alone is live
        (mask(([[1, 1], [1, 1]], [1, 1]), ([[0], [0]], [1])), 1, 0, 1),
        # a kept positive bias feeds its unit, but no input reaches the output
        (mask(([[0, 0], [0, 0]], [1, 0]), ([[1], [0]], [0])), 2, 0, 1),
        # a kept negative bias does not
        (mask(([[0, 0], [0, 0]], [0, 1]), ([[0], [1]], [0])), 0, 0, 1),
        # a unit that nobody reads, beside a unit without inputs that is read
        (mask(([[1, 0], [1, 0]], [0, 0]), ([[0], [1]], [0])), 0, 0, 0),
        # one path; the negative bias on it is live
        (mask(([[0, 1], [0, 0]], [0, 1]), ([[0], [1]], [0])), 3, 1, 0),
        (mask(([[0, 0], [0, 0]], [0, 0]), ([[0], [0]], [0])), 0, 0, 2),
        (mask(([[1, 1], [1, 1]], [1, 1]), ([[1], [1]], [1])), 9, 1, 0),
    ],
)
def test_live_paths_counted_by_hand(found, live, connected, collapsed):
    result = compare(found)
    np.testing.assert_allclose(result["live_density"], live / 9, rtol=1e-6)
    assert result["connected"] == connected
    assert result["collapsed"] == collapsed


@pytest.mark.parametrize(
    ("scope", "feasible"),
    # F holds 3 weights and a bias in layer 0 and a bias in layer 1; T holds 2 and 1, and 2 weights
    [("global", 5), ("layer", 3 + 1), ("oracle", 3 + 1), ("local", 2 + 1 + 0 + 0)],
)
def test_feasible_recall_counted_by_hand(scope, feasible):
    found = mask(([[1, 1], [1, 0]], [1, 0]), ([[0], [0]], [1]))
    result = compare(found, scope)
    np.testing.assert_allclose(result["feasible_recall"], feasible / 5, rtol=1e-6)
    assert result["recall"] <= result["feasible_recall"]


def test_the_planted_mask_is_found_perfectly():
    result = compare(TRUE)
    for name in ("precision", "recall", "f1", "iou", "precision_weights", "feasible_recall"):
        assert result[name] == 1
    np.testing.assert_allclose(result["lift"], 9 / 5, rtol=1e-6)


def test_an_empty_mask_has_no_agreement_and_no_nan():
    result = compare(jax.tree.map(jnp.zeros_like, TRUE))
    assert all(np.isfinite(value) for value in result.values())
    assert result["precision"] == result["recall"] == result["f1"] == result["lift"] == 0


@pytest.mark.slow
def test_uniform_budgets_per_array_cannot_hold_the_circle_ticket():
    """Of the ticket's [4, 0, 4, 0, 20, 18, 80, 4] parameters about a quarter fits."""
    task, widths = tasks.TASKS["circle"], (2, 100, 100, 100, 4)
    true = {}  # the target in the first neurons of a mother
    target = jax.device_get(task.target(5)).items()
    for (name, layer), shape in zip(target, itertools.pairwise(widths), strict=True):
        true[name] = {"kernel": np.zeros(shape, bool), "bias": np.zeros(shape[1:], bool)}
        for kind, leaf in layer.items():
            true[name][kind][tuple(map(slice, leaf.shape))] = leaf != 0
    assert sum(leaf.sum() for leaf in jax.tree.leaves(true)) == 130
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), true)

    def compare_found(density):
        found = masks.select(jax.random.key(0), params, density, "local")
        planted = Planted(params, true, jnp.ones(4))
        return recovery.compare(params, found, planted, scope="local")

    result = jax.jit(compare_found)(worlds.ticket_density(task, 5, 100))
    # kernels keep 1, 61, 61, 3 of 200, 10000, 10000, 400, biases 1 each
    wanted = (1 + 4 + 20 + 3 + 0 + 0 + 1 + 1) / 130
    np.testing.assert_allclose(result["feasible_recall"], wanted, rtol=1e-6)
    np.testing.assert_allclose(result["recall"], wanted, rtol=1e-6)  # the scores were the truth


def test_batched_masks_compare_as_single_ones():
    found = [mask(([[1, 1], [0, 0]], [1, 1]), ([[1], [0]], [1])), TRUE]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    together = jax.jit(jax.vmap(lambda f: recovery.compare(PARAMS, f, PLANTED)))(stacked)
    for index, one in enumerate(found):
        for name, value in compare(one).items():
            np.testing.assert_allclose(together[name][index], value, rtol=1e-6)


def test_a_tree_that_is_no_chain_lacks_only_live_paths():
    params = {"gain": jnp.ones(3), "mix": jnp.ones((2, 3))}
    true = {"gain": jnp.array([True, False, False]), "mix": jnp.zeros((2, 3), bool)}
    result = recovery.compare(params, true, Planted(params, true, jnp.ones(1)))
    assert result["precision"] == 1
    assert result["collapsed"] == 1
    assert not {"live_density", "connected", "gain/recall"} & result.keys()


@pytest.mark.parametrize(
    ("outputs", "constant"),
    [
        ([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], True),
        ([[0.0, 0.0], [0.0, 0.0]], True),
        ([[1.0, 2.0], [1.0, 2.5]], False),
        ([[1e-13, 0.0], [2e-13, 0.0]], False),  # tiny outputs of a planted ticket are alive
        ([[1.0, 1.0], [1.0 + 1e-7, 1.0]], True),  # one rounding apart
    ],
)
def test_constant_outputs(outputs, constant):
    assert bool(recovery.is_constant(jnp.asarray(outputs))) == constant


@pytest.mark.parametrize(
    ("found", "scope", "message"),
    [
        (TRUE, "everywhere", r"scope must be one of .*, got 'everywhere'"),
        (PARAMS, "global", r"found_mask\[layer_00/bias\] must be a bool array"),
        ({"layer_00": TRUE["layer_00"]}, "global", r"found_mask must have the tree structure"),
    ],
)
def test_bad_arguments_are_refused(found, scope, message):
    with pytest.raises(ValueError, match=message):
        recovery.compare(PARAMS, found, PLANTED, scope=scope)


def test_a_planted_mask_of_another_shape_is_refused():
    wrong = PLANTED._replace(mask=TRUE | {"layer_01": TRUE["layer_00"]})
    with pytest.raises(ValueError, match=r"planted.mask\[layer_01/bias\] must have the shape"):
        recovery.compare(PARAMS, TRUE, wrong)
