"""Finders leave alone what their network says is not prunable, and do not count it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import contract
from plantjax import masks, nets, sweeps, tasks
from plantjax.finders import FINDERS, REFERENCES
from plantjax.sweeps.runs import TrainingPlan
from plantjax.types import Batch, Planted
from shared import chain, circle

RELU = tasks.TASKS["relu"]


class Normed:
    """A dense network whose hidden units are scaled and shifted, as a norm layer does."""

    def __call__(self, params, x):
        first, norm, last = (params[name] for name in ("layer_00", "norm_00", "layer_01"))
        hidden = x @ first["kernel"] + first["bias"][None, :]
        hidden = jax.nn.relu(hidden * norm["scale"][None, :] + norm["bias"][None, :])
        return hidden @ last["kernel"] + last["bias"][None, :]

    def prunable(self, path):
        return path.startswith("layer_")


NET = Normed()


def normed(width=6):
    first, last = nets.layers(chain(1, width, 1))
    norm = {"scale": -jnp.ones(width), "bias": jnp.full(width, 2.0)}
    return {"layer_00": first, "norm_00": norm, "layer_01": last}


PARAMS = normed()
DATA = Batch(circle(64).x[:, :1], jax.nn.relu(circle(64).x[:, :1]))


class Counting:
    """The same network; its tree has a random key, a counter and running statistics as well."""

    def __call__(self, tree, x):
        hidden = NET({name: tree[name] for name in PARAMS}, x)
        return hidden + 0.0 * jax.random.normal(tree["rngs"]["key"], hidden.shape)

    def prunable(self, path):
        return path.startswith("layer_")


REST = {"rngs": {"key": jax.random.key(3), "count": jnp.uint32(7)}}


def found(name, apply, params):
    """The finder of a name, and what it finds."""
    make = FINDERS[name] if name in FINDERS else REFERENCES[name]
    finder = make(RELU, apply=apply, **contract.brief(name))
    truth = (Planted(params, masks.full(params), jnp.ones(1)),) if name in REFERENCES else ()
    return finder, jax.jit(finder)(jax.random.key(2), params, DATA, 0.4, *truth)


QUICK = ("random_erk", "oracle_random", "signed_supermask")
OTHERS = (
    *("edge_popup_levels", "concrete_ticket", "gem_miner", "genetic"),
    *("iterand", "rigl", "ac_dc", "sign_in", "ham"),
)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_what_is_not_prunable_is_kept_and_not_counted(name):
    """Norms, and leaves that are no floats."""
    finder, result = found(name, Counting(), PARAMS | REST)
    for part in ("norm_00", "rngs"):
        assert all(leaf.all() for leaf in result.mask[part].values())
    assert int(result.params["rngs"]["count"]) == 7
    kept, size = int(masks.count(result.mask, NET.prunable)), masks.size(PARAMS, NET.prunable)
    assert size == 19
    assert kept <= 8
    if finder.exact_counts:
        assert kept == 8
    if finder.kind == "signed":
        scale = result.params["norm_00"]["scale"]
        np.testing.assert_array_equal(scale, PARAMS["norm_00"]["scale"])


@pytest.mark.slow
def test_leaves_that_are_no_floats_change_nothing():
    _, wanted = found("snip", NET, PARAMS)
    _, result = found("snip", Counting(), PARAMS | REST)
    for layer in PARAMS:
        for leaf in PARAMS[layer]:
            np.testing.assert_array_equal(result.mask[layer][leaf], wanted.mask[layer][leaf])


def test_leaves_that_are_no_floats_must_not_be_prunable():
    for name, apply in (("snip", lambda params, x: x), ("phew", None), ("gem_miner", None)):
        finder = FINDERS[name](RELU, **({} if apply is None else {"apply": apply}))
        with pytest.raises(ValueError, match=r"params\[rngs/count\] must be a float array, or not"):
            finder(jax.random.key(2), PARAMS | REST, DATA, 0.4)


@pytest.mark.slow
def test_results_count_prunable_parameters_only():
    def world(cell):
        planted = Planted(PARAMS, masks.full(PARAMS), jnp.ones(1))
        return sweeps.World(PARAMS, planted, DATA, DATA)

    finder = FINDERS["magnitude"](RELU, apply=NET)
    run = sweeps.assemble(RELU, finder, "magnitude", world, TrainingPlan(0), apply=NET)
    cells = sweeps.make_cells(RELU, [0, 1], [0.4])
    results = sweeps.sweep(run, cells, devices=1)
    assert results["kept"].tolist() == [8, 8]
    np.testing.assert_allclose(results["kept_density"], 8 / 19)
    np.testing.assert_allclose(results["recovery/recall"], 8 / 19)


class Nothing(Normed):
    def prunable(self, path):
        return False


def test_a_predicate_that_allows_nothing_is_refused():
    with pytest.raises(ValueError, match="prunable must allow at least one leaf"):
        masks.select(jax.random.key(0), PARAMS, 0.5, prunable=lambda path: False)
    for name in ("snip", "rigl", "edge_popup", "hard_concrete"):
        with pytest.raises(ValueError, match="prunable must allow at least one leaf"):
            FINDERS[name](RELU, apply=Nothing())(jax.random.key(0), PARAMS, DATA, 0.5)
