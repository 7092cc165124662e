"""Checks: what is refused and with which words, what passes, and that tracers pass."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plantjax as pj
from plantjax import checks
from plantjax.types import Batch

TREE = {"layer_00": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
MASK = jax.tree.map(lambda leaf: leaf > 0, TREE)
X, OUTPUTS, LABELS = jnp.ones((4, 2)), jnp.ones((4, 3)), jnp.array([0, 1, 2, 0])


def change(tree, part, value):
    return {"layer_00": {**tree["layer_00"], part: value}}


PASSING = {
    "integer": (checks.integer, "n", 3, 3, 3),
    "numpy integer": (checks.integer, "n", np.int64(7), 3),
    "choice": (checks.choice, "rule", "a", ("a", "b")),
    "closed ends": (checks.interval, "noise", np.array([0.0, 1.0]), 0.0, 1.0),
    "integer in an interval": (checks.interval, "noise", 1, 0.0, 1.0),
    "density": (checks.density, jnp.array([1e-30, 0.5, 1.0])),
    "finite": (checks.finite, "params", TREE),
    "half precision": (checks.finite, "params", jnp.ones(3, jnp.bfloat16)),
    "structure": (checks.same_structure, "mask", MASK, "params", TREE),
    "mask": (checks.mask, "mask", MASK, "params", TREE),
    "labels": (checks.outputs_and_labels, OUTPUTS, LABELS),
    "values": (checks.outputs_and_values, OUTPUTS, OUTPUTS),
    "batch": (checks.batch, Batch(X, LABELS)),
    "images": (checks.batch, Batch(jnp.ones((4, 8, 8, 3)), LABELS)),
}
FAILING = {
    "below": (checks.integer, ("depth", 2, 3), "depth must be an integer of at least 3, got 2."),
    "above": (checks.integer, ("size", 9, 1, 8), "at least 1 and at most 8, got 9."),
    "float": (checks.integer, ("depth", 5.0, 3), "depth must be an integer of at least 3, got 5.0"),
    "bool": (
        checks.integer,
        ("depth", True, 0),
        "depth must be an integer of at least 0, got True",
    ),
    "none": (checks.integer, ("depth", None, 0), "got None."),
    "choice": (checks.choice, ("rule", "c", ("a", "b")), "rule must be one of a, b, got 'c'."),
    "interval": (checks.interval, ("noise", 1.5, 0.0, 1.0), "noise must lie in [0, 1], got 1.5."),
    "one of many": (checks.interval, ("noise", np.array([0.5, -1]), 0.0, 1.0), "noise must lie in"),
    "nan": (checks.interval, ("noise", float("nan"), 0.0, 1.0), "[0, 1], got nan."),
    "density zero": (checks.density, (0.0,), "density must lie in (0, 1], got 0.0."),
    "density nan": (checks.density, (jnp.nan,), "density must lie in (0, 1], got nan."),
    "not finite": (
        checks.finite,
        ("mother", change(TREE, "bias", jnp.array([1.0, jnp.nan, 0.0]))),
        "mother[layer_00/bias] must be finite, got NaN or infinite entries.",
    ),
    "infinite": (checks.finite, ("mother", jnp.array([-jnp.inf])), "must be finite"),
    "no floats": (
        checks.finite,
        ("mother", change(TREE, "kernel", jnp.ones((2, 3), jnp.int32))),
        "mother[layer_00/kernel] must be a float array, got int32.",
    ),
    "structure": (
        checks.same_structure,
        ("mask", {"layer_00": {"bias": 1}}, "params", TREE),
        "mask must have the tree structure of params",
    ),
    "shape": (
        checks.same_structure,
        ("mask", change(TREE, "bias", jnp.ones(4)), "params", TREE),
        "mask[layer_00/bias] must have the shape (3,) that it has in params, got (4,).",
    ),
    "mask dtype": (
        checks.mask,
        ("mask", change(MASK, "kernel", jnp.ones((2, 3))), "params", TREE),
        "mask[layer_00/kernel] must be a bool array, got float32.",
    ),
    "label too high": (
        checks.outputs_and_labels,
        (OUTPUTS, jnp.array([0, 1, 2, 3])),
        "labels y must lie in [0, 3), got 0 to 3.",
    ),
    "float labels": (checks.outputs_and_labels, (OUTPUTS, jnp.ones(4)), "must be integers"),
    "bool labels": (checks.outputs_and_labels, (OUTPUTS, jnp.ones(4, bool)), "must be integers"),
    "label shape": (checks.outputs_and_labels, (OUTPUTS, LABELS[:, None]), "(4, 3) and (4, 1)."),
    "value shape": (checks.outputs_and_values, (OUTPUTS, OUTPUTS[:, 0]), "(4, 3) and (4,)."),
    "integer values": (
        checks.outputs_and_values,
        (OUTPUTS, jnp.ones((4, 3), jnp.int32)),
        "y must be a float array, got int32.",
    ),
    "sample counts": (checks.batch, (Batch(X, LABELS[:3]),), "data must hold x [N, ...] and y"),
    "flat inputs": (checks.batch, (Batch(X[:, 0], LABELS),), "got shapes (4,) and (4,)."),
    "no samples": (checks.batch, (Batch(X[:0], LABELS[:0]), "train"), "train must hold at least"),
    "integer inputs": (checks.batch, (Batch(LABELS[:, None], LABELS),), "data.x must be a float"),
    "nan inputs": (checks.batch, (Batch(X * jnp.nan, LABELS),), "data.x must be finite"),
}


@pytest.mark.parametrize("case", PASSING.values(), ids=PASSING)
def test_what_passes(case):
    function, *arguments = case
    assert function(*arguments) is None


@pytest.mark.parametrize(("function", "arguments", "message"), FAILING.values(), ids=FAILING)
def test_what_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        function(*arguments)
    assert "\n" not in str(error.value)


BAD_VALUES = {
    "density": (checks.density, jnp.float32(7)),
    "finite": (lambda x: checks.finite("x", x), jnp.array([jnp.nan])),
    "labels": (lambda y: checks.outputs_and_labels(OUTPUTS, y), jnp.array([0, 1, 2, 99])),
    "batch": (lambda x: checks.batch(Batch(x, LABELS)), X * jnp.inf),
}


@pytest.mark.parametrize(("check", "value"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_of_tracers_are_not_looked_at(check, value):
    def run(x):
        check(x)
        return x

    with pytest.raises(ValueError, match="must"):
        check(value)
    assert jax.jit(run)(value).shape == value.shape
    assert jax.vmap(run)(value[None]).shape == (1, *value.shape)


GOOD_VALUES = {
    "density": (lambda: checks.density(jnp.float32(0.5))),
    "finite": (lambda: checks.finite("x", TREE)),
    "labels": (lambda: checks.outputs_and_labels(OUTPUTS, LABELS)),
    "batch": (lambda: checks.batch(Batch(X, LABELS))),
}


@pytest.mark.parametrize("check", GOOD_VALUES.values(), ids=GOOD_VALUES)
def test_concrete_values_from_outside_pass_inside_jit(check):
    def run(x):
        check()
        return x

    assert jax.jit(run)(1.0) == 1.0


def test_shapes_and_dtypes_are_checked_on_tracers_too():
    with pytest.raises(ValueError, match="must be a bool array"):
        jax.jit(lambda m: checks.mask("mask", m, "params", TREE))(TREE)
    with pytest.raises(ValueError, match="must have the shape"):
        jax.jit(lambda t: checks.same_structure("t", t, "params", TREE))(
            jax.tree.map(lambda leaf: leaf[:1], TREE)
        )
    with pytest.raises(ValueError, match="must be a float array"):
        jax.jit(lambda x: checks.finite("x", x))(LABELS)


def test_path_names_and_concreteness():
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path({"a": [TREE]})]
    assert [checks.path_name(p) for p in paths] == ["a/0/layer_00/bias", "a/0/layer_00/kernel"]
    seen = []
    jax.jit(lambda x: seen.append((checks.is_concrete(TREE), checks.is_concrete(TREE, x))))(1.0)
    assert seen == [(True, False)]


@pytest.mark.parametrize(
    ("registry", "wrong", "right"),
    [
        (pj.TASKS, "cirle", "circle"),
        (pj.SCORES, "sinp", "snip"),
        (pj.METRICS, "recal", "recall"),
        (pj.FINDERS, "synfow100", "synflow100"),
        (pj.finders.REFERENCES, "oracle_randm", "oracle_random"),
        (pj.masks.ALLOCATIONS, "erq", "erk"),
    ],
)
def test_registries_ask_which_name_was_meant(registry, wrong, right):
    with pytest.raises(KeyError, match=f"Did you mean '{right}'"):
        registry[wrong]
    assert registry.get(wrong) is None
    assert wrong not in registry
