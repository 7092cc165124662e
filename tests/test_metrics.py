"""Metrics: what each one promises, the arguments they get, and the tables made of results."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from plantjax import masks, metrics, nets, sweeps, tasks
from plantjax.metrics import BUILT_IN, METRICS
from plantjax.sweeps import worlds

RELU = tasks.TASKS["relu"]
SHAPE = ("relu", 3, 8)
STAGES = ("pruned", "trained")
LABELS = {"seed": [0, 0, 1, 1, 2, 2], "rescale": ["none"] * 6}


def make_run():
    return sweeps.make_run(*SHAPE, "random", epochs=1, samples=100)


def cells():
    """Two densities of three seeds."""
    return sweeps.make_cells(RELU, (0, 1, 2), (0.3, 1.0))


@functools.cache
def swept(registered):
    assert registered == tuple(METRICS.items())
    return sweeps.sweep(make_run(), cells())


def results():
    """Results with the metrics that are registered now."""
    return swept(tuple(METRICS.items()))


def column(name, stage, found):
    return found[f"recovery/{name}" if name in BUILT_IN else f"{stage}/metric/{name}"]


def error(task, outputs, y):
    return task.evaluate(outputs, y)[task.metric]


def misfit(judged):
    """Largest difference between the outputs and those of the masked network."""
    outputs = nets.apply(masks.apply(judged.params, judged.mask), judged.test.x)
    return jnp.max(jnp.abs(outputs - judged.outputs))


FURTHER = {
    "error": lambda judged: error(judged.task, judged.outputs, judged.test.y),
    "ticket_error": lambda judged: error(judged.task, judged.ticket_outputs, judged.test.y),
    "misfit": misfit,
    "kept_here": lambda judged: masks.count(judged.mask),
    "planted_here": lambda judged: masks.count(judged.planted.mask),
    "f1": lambda judged: judged.recovery["f1"],
    "half": lambda judged: 0.5,
}


@pytest.fixture
def further(monkeypatch):
    """Registers more metrics for one test."""
    for name, metric in FURTHER.items():
        monkeypatch.setitem(METRICS, name, metric)


@pytest.mark.slow
def test_metrics_are_finite_numbers_of_every_cell_and_columns_of_both_stages():
    table = sweeps.to_frame(results(), LABELS)
    for name in METRICS:
        assert METRICS[name].__doc__
        for stage in STAGES:
            values = column(name, stage, results())
            assert values.shape == (6,)
            assert np.isfinite(values).all()
            np.testing.assert_array_equal(table.loc[table["stage"] == stage, name], values)


@pytest.mark.slow
def test_metrics_depend_on_the_cell_alone():
    order = np.array([4, 1, 5, 0, 2])
    again = sweeps.sweep(make_run(), jax.tree.map(lambda leaf: leaf[order], cells()))
    for name in METRICS:
        for stage in STAGES:
            wanted = column(name, stage, results())[order]
            np.testing.assert_array_equal(column(name, stage, again), wanted)


@pytest.mark.slow
def test_metrics_get_the_network_and_the_truth(further):
    found = results()
    for stage in STAGES:
        at = {name: column(name, stage, found) for name in FURTHER}
        np.testing.assert_allclose(at["error"], found[f"{stage}/value"], rtol=1e-5)
        np.testing.assert_allclose(at["ticket_error"], found["ticket/value"], rtol=1e-5)
        np.testing.assert_allclose(at["misfit"], 0.0, atol=1e-5)
        np.testing.assert_array_equal(at["kept_here"], found["kept"])
        np.testing.assert_array_equal(at["planted_here"], 2)
        np.testing.assert_array_equal(at["f1"], found["recovery/f1"])
        np.testing.assert_array_equal(at["half"], np.float32(0.5))
    assert (column("error", "pruned", found) != column("error", "trained", found)).any()


@pytest.mark.slow
def test_more_metrics_change_no_other_result(further):
    after = results()
    with pytest.MonkeyPatch.context() as patch:
        for name in FURTHER:
            patch.delitem(METRICS, name)
        before = results()
    new = {f"{stage}/metric/{name}" for stage in STAGES for name in FURTHER}
    assert after.keys() == before.keys() | new
    for name in before:
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    tables = [sweeps.to_frame(found, LABELS) for found in (before, after)]
    assert list(tables[1]) == [*tables[0], *sorted(FURTHER)]


def test_built_in_metrics_are_those_of_the_masks():
    """Counted again from the found masks and the planted ones."""
    found, n = results(), worlds.mother_size(RELU, *SHAPE[1:])
    world = jax.jit(lambda key: worlds.make_world(key, RELU, *SHAPE[1:], samples=100))
    for index, mask in enumerate(found["mask"]):
        planted = world(worlds.cell_key(RELU, index // 2)).planted
        true = np.asarray(ravel_pytree(planted.mask)[0])
        both = (mask & true).sum()
        wanted = {
            "precision": both / mask.sum(),
            "recall": both / true.sum(),
            "iou": both / (mask | true).sum(),
            "lift": both / mask.sum() / (true.sum() / n),
            "feasible_recall": min(mask.sum(), true.sum()) / true.sum(),
        }
        for name, value in wanted.items():
            at = found[f"recovery/{name}"][index]
            np.testing.assert_allclose(at, value, rtol=1e-6, err_msg=name)


def test_parts_of_a_run_follow_the_registry(monkeypatch):
    usual = make_run()
    assert make_run() == usual
    seen = [usual]
    for value in (1.0, 2.0):  # another function under the same name
        monkeypatch.setitem(METRICS, "constant_of_mine", lambda judged, value=value: value)
        run = make_run()
        assert (run.world, run.search) == (usual.world, usual.search)
        for other in seen:
            assert run.evaluate != other.evaluate
            assert run.fit != other.fit
        seen.append(run)
    monkeypatch.delitem(METRICS, "constant_of_mine")
    assert make_run() == usual


@pytest.mark.parametrize("name", ["value", "seed", "median"])
def test_names_of_other_columns_are_refused(name, monkeypatch):
    monkeypatch.setitem(METRICS, name, metrics.recall)
    with pytest.raises(ValueError, match=f"METRICS must have names that no column has, .*'{name}'"):
        make_run()


def test_metrics_are_scalars():
    with pytest.raises(ValueError, match=r"metric 'each' must be a scalar, got shape \(10, 1\)"):
        metrics.measured((("each", lambda judged: jnp.ones((10, 1))),), None)


def test_live_density_is_nan_if_the_wiring_is_unknown():
    judged = metrics.Judged(RELU, None, None, None, None, None, None, {"collapsed": 1.0})
    assert np.isnan(metrics.live_density(judged))
    assert metrics.collapsed(judged) == 1.0


# Tables of levels: one row per cell and level.

TOLD = ("kept_density", "live_density", "collapsed", "loss")


def level_results(count, rounds):
    """Results whose entries say where they belong: 100 times the cell plus the level."""
    where = 100 * np.arange(count)[:, None] + np.arange(1, rounds + 1)
    entries = {f"search/{name}": where + 10_000 * i for i, name in enumerate(TOLD)}
    others = {
        "search/scale": np.arange(count),
        "search/losses": np.zeros((count, rounds + 1)),
        "pruned/value": np.arange(count),
        "mask": np.ones((count, rounds), bool),
    }
    return entries | others


@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 5), rounds=st.integers(2, 6))
def test_levels_have_a_row_for_each_cell_and_level(count, rounds):
    labels = {"seed": range(count), "finder": [f"finder {i}" for i in range(count)]}
    table = metrics.to_levels(level_results(count, rounds), labels)
    assert list(table.columns) == ["seed", "finder", "level", *TOLD]
    assert list(table.index) == [*range(count * rounds)]
    assert table.level.tolist() == [*range(1, rounds + 1)] * count
    assert table.seed.tolist() == [seed for seed in range(count) for _ in range(rounds)]
    assert (table.finder == [f"finder {seed}" for seed in table.seed]).all()
    for index, name in enumerate(TOLD):
        np.testing.assert_array_equal(table[name], 100 * table.seed + table.level + 10_000 * index)


def test_finders_with_fewer_diagnostics_have_fewer_columns():
    told = {name: level_results(3, 4)[name] for name in ("search/kept_density", "search/collapsed")}
    table = metrics.to_levels(told, {})
    assert list(table.columns) == ["level", "kept_density", "collapsed"]
    assert len(table) == 12


@pytest.mark.parametrize(
    "results",
    [
        level_results(3, 1),  # singleshot
        {"search/losses": np.ones((3, 10)), "search/scale": np.ones(3)},  # edge-popup
        {"pruned/value": np.ones(3)},  # references
    ],
    ids=["one round", "no levels", "no search"],
)
def test_finders_of_a_single_round_have_no_rows(results):
    assert metrics.to_levels(results, {"seed": range(3)}).empty
