"""Metrics: what every one keeps to, what they are told, and what a further one does to a sweep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, metrics, nets, sweeps, tasks
from plantjax.metrics import METRICS
from plantjax.sweeps import worlds

RELU = tasks.TASKS["relu"]
SHAPE = ("relu", 3, 8)
USUAL = tuple(METRICS)
STAGES = ("pruned", "trained")


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
    """Of the metrics that there are now."""
    return swept(tuple(METRICS.items()))


def column(name, stage, found):
    return found[f"recovery/{name}" if name in USUAL else f"{stage}/metric/{name}"]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_a_finite_number_of_every_cell(name):
    for stage in STAGES:
        values = column(name, stage, results())
        assert values.shape == (6,)
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_depends_on_the_cell_alone(name):
    order = np.array([4, 1, 5, 0, 2])
    part = jax.tree.map(lambda leaf: leaf[order], cells())
    again = sweeps.sweep(make_run(), part)
    for stage in STAGES:
        wanted = column(name, stage, results())[order]
        np.testing.assert_array_equal(column(name, stage, again), wanted)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_a_column_of_both_stages(name):
    table = sweeps.to_frame(results(), {"seed": [0, 0, 1, 1, 2, 2]})
    for stage in STAGES:
        rows = table[table["stage"] == stage]
        np.testing.assert_array_equal(rows[name], column(name, stage, results()))
    if name not in USUAL:
        assert name in list(table)[-(len(METRICS) - len(USUAL)) :]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_what_it_tells(name):
    assert METRICS[name].__doc__


@pytest.fixture
def registered(monkeypatch):
    """Registers metrics for one test."""

    def register(**further):
        for name, metric in further.items():
            monkeypatch.setitem(METRICS, name, metric)
        return results()

    return register


def error(task, outputs, y):
    return task.evaluate(outputs, y)[task.metric]


def test_metrics_are_told_the_network_and_the_truth(registered):
    def misfit(judged):
        outputs = nets.apply(masks.apply(judged.params, judged.mask), judged.test.x)
        return jnp.max(jnp.abs(outputs - judged.outputs))

    found = registered(
        error=lambda judged: error(judged.task, judged.outputs, judged.test.y),
        ticket_error=lambda judged: error(judged.task, judged.ticket_outputs, judged.test.y),
        misfit=misfit,
        kept_here=lambda judged: masks.count(judged.mask),
        planted_here=lambda judged: masks.count(judged.planted.mask),
        f1=lambda judged: judged.recovery["f1"],
        half=lambda judged: 0.5,
    )
    for stage in STAGES:
        at = {name: column(name, stage, found) for name in METRICS if name not in USUAL}
        np.testing.assert_allclose(at["error"], found[f"{stage}/value"], rtol=1e-5)
        np.testing.assert_allclose(at["ticket_error"], found["ticket/value"], rtol=1e-5)
        np.testing.assert_allclose(at["misfit"], 0.0, atol=1e-5)
        np.testing.assert_array_equal(at["kept_here"], found["kept"])
        np.testing.assert_array_equal(at["planted_here"], 2)
        np.testing.assert_array_equal(at["f1"], found["recovery/f1"])
        np.testing.assert_array_equal(at["half"], np.float32(0.5))
    assert (column("error", "pruned", found) != column("error", "trained", found)).any()


def test_the_usual_ones_are_those_of_the_masks():
    """Counted anew from the masks that were found, and from the planted ones."""
    found, n = results(), worlds.mother_size(RELU, *SHAPE[1:])
    world = jax.jit(lambda key: worlds.make_world(key, RELU, *SHAPE[1:], samples=100))
    for index, mask in enumerate(found["mask"]):
        planted = world(worlds.cell_key(RELU, index // 2)).planted
        true = np.asarray(sweeps.flat_mask(planted.mask))
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


def test_a_further_metric_changes_no_other_figure(registered):
    before = results()
    after = registered(spread=lambda judged: jnp.std(judged.outputs))
    further = {f"{stage}/metric/spread" for stage in STAGES}
    assert after.keys() == before.keys() | further
    for name in before:
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    labels = {"seed": [0, 0, 1, 1, 2, 2], "rescale": ["none"] * 6}
    tables = [sweeps.to_frame(found, labels).drop(columns="seconds") for found in (before, after)]
    assert list(tables[1]) == [*tables[0], "spread"]


def test_programs_follow_the_registry(monkeypatch):
    usual = make_run()
    assert make_run().judge is usual.judge
    assert make_run().fit is usual.fit
    for value in (1.0, 2.0):  # the second one under the same name
        monkeypatch.setitem(METRICS, "constant_of_mine", lambda judged, value=value: value)
        run = make_run()
        assert run.world is usual.world
        assert run.search is usual.search
        for stage in STAGES:
            np.testing.assert_array_equal(results()[f"{stage}/metric/constant_of_mine"], value)
    monkeypatch.delitem(METRICS, "constant_of_mine")
    assert make_run().judge is usual.judge
    assert make_run().fit is usual.fit


@pytest.mark.parametrize("name", ["value", "kept", "rescale", "seed", "mean"])
def test_names_of_other_columns_are_refused(name, monkeypatch):
    monkeypatch.setitem(METRICS, name, metrics.recall)
    with pytest.raises(ValueError, match=f"METRICS must have names that no column has, .*'{name}'"):
        make_run()


def test_metrics_are_scalars(registered):
    with pytest.raises(ValueError, match=r"metric 'each' must be a scalar, got shape \(10, 1\)"):
        registered(each=lambda judged: judged.outputs)


def test_live_paths_of_unknown_wiring_are_not_known():
    told = metrics.Judged(RELU, None, None, None, None, None, None, {"collapsed": 1.0})
    assert np.isnan(metrics.live_density(told))
    assert metrics.collapsed(told) == 1.0
