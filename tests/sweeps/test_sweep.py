"""Sweeps: a cell's result depends on its identity only; tables; the method's sanity figures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from plantjax import masks, metrics, sweeps, tasks
from plantjax.finders import FINDERS, REFERENCES
from plantjax.sweeps import compiling, evaluation, labels, worlds
from plantjax.types import Finder, Found

RELU = tasks.TASKS["relu"]
DENSITIES = (0.05, 0.2, 0.7)
SEEDS = (0, 1, 5)
# grasp: long sums, where bits differ first if they differ at all
CASES = {
    "circle": ("circle", 3, 20, "grasp"),
    "relu": ("relu", 4, 16, "grasp"),
}


@functools.cache
def run_of(case, epochs=1):
    return sweeps.make_run(*CASES[case], epochs=epochs, samples=400)


@functools.cache
def cells_of(case):
    """All nine pairs of SEEDS and DENSITIES."""
    return sweeps.make_cells(tasks.TASKS[CASES[case][0]], SEEDS, DENSITIES)


@functools.cache
def whole(case):
    """All cells in order, on two devices: every other way to run them must give the same bits."""
    return sweeps.sweep(run_of(case), cells_of(case), batch=2)


@functools.cache
def untrained():
    """All cells of relu without the trained stage."""
    return sweeps.sweep(run_of("relu", epochs=0), cells_of("relu"), batch=2)


def take(tree, index):
    return jax.tree.map(lambda leaf: leaf[np.asarray(index)], tree)


def assert_same_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
            assert found[name].dtype == wanted[name].dtype


@pytest.mark.slow
def test_results_do_not_depend_on_batch_and_devices():
    found = sweeps.sweep(run_of("relu"), cells_of("relu"), batch=5, devices=1)
    assert_same_bits(found, whole("relu"))


@pytest.mark.slow
def test_results_do_not_depend_on_order_and_restarts():
    run, cells = run_of("relu"), cells_of("relu")
    assert_same_bits(sweeps.sweep(run, cells), whole("relu"))  # by the default batch
    order = np.random.default_rng(0).permutation(9)
    for part in (order, [3, 4, 5, 6, 7], [8], [2, 2, 7], [0, 5, 8]):
        found = sweeps.sweep(run, take(cells, part), batch=2)
        assert_same_bits(found, take(whole("relu"), part))
    sizes = []
    found = sweeps.sweep(run, cells, batch=2, after=lambda n: sizes.append(n) or len(sizes) == 2)
    assert_same_bits(found, take(whole("relu"), range(8)))  # stopped after two batches of four
    assert sizes == [4, 4]


def test_counts_and_metrics_belong_to_their_cells():
    results, densities = whole("relu"), np.tile(DENSITIES, len(SEEDS))
    n = (1 + 1) * 16 + (16 + 1) * 16 + (16 + 1)
    np.testing.assert_array_equal(results["kept"], np.floor(np.float32(densities) * n + 0.5))
    np.testing.assert_array_equal(results["mask"].sum(axis=1), results["kept"])
    np.testing.assert_allclose(results["kept_density"], results["kept"] / n, rtol=1e-6)
    assert results["mask"].shape == (9, n)
    for stage in ("pruned", "trained"):
        assert np.isfinite(results[f"{stage}/value"]).all()
        assert (results[f"{stage}/seconds"] > 0).all()
    seed_of = np.repeat(np.arange(3), 3)
    for name in ("ticket/value", "target/value"):  # one world a seed
        assert (results[name] == results[name][::3][seed_of]).all()
        assert (results[name] < 2e-4).all()  # noise 0.01 has a mean square of 1e-4


@pytest.mark.slow
def test_cells_give_what_single_calls_of_the_functions_give():
    """`seek` and `train` are the same computation, to rounding, without a sweep."""
    cells, run = cells_of("relu"), run_of("relu")
    found, metrics = jax.jit(run.seek)(take(cells, 4))
    wanted = take(whole("relu"), 4)
    np.testing.assert_array_equal(ravel_pytree(found.mask)[0], wanted["mask"])
    np.testing.assert_allclose(metrics["pruned/value"], wanted["pruned/value"], rtol=1e-4)
    trained = jax.jit(run.train)(take(cells, 4), found)
    np.testing.assert_allclose(trained["trained/value"], wanted["trained/value"], rtol=1e-2)


@pytest.fixture(scope="module")
def diverged():
    """The cells of relu, number 5 with an absurd learning rate."""
    cells = cells_of("relu")
    rates = cells.learning_rate.at[5].set(1e6)
    return sweeps.sweep(run_of("relu"), cells._replace(learning_rate=rates), batch=2)


def test_a_diverged_cell_leaves_its_neighbours_alone(diverged):
    others = [0, 1, 2, 3, 4, 6, 7, 8]
    assert_same_bits(take(diverged, others), take(whole("relu"), others))
    np.testing.assert_array_equal(diverged["trained/diverged"], np.arange(9) == 5)
    np.testing.assert_array_equal(diverged["mask"], whole("relu")["mask"])


def test_tables_tell_diverged_cells(diverged):
    table = sweeps.to_frame(diverged, {"cell": range(9)})
    bad = table[table.status != "ok"]
    assert bad[["cell", "stage", "status"]].values.tolist() == [[5, "trained", "diverged"]]


@pytest.mark.parametrize(
    ("value", "loss_diverged", "status"),
    [(0.5, False, "ok"), (np.nan, False, "diverged"), (0.5, True, "diverged")],
)
def test_a_value_or_a_loss_that_is_not_finite_is_diverged(value, loss_diverged, status):
    results = take(whole("relu"), [0, 1]) | {
        "trained/value": np.array([value, 0.1]),
        "trained/diverged": np.array([loss_diverged, False]),
    }
    assert sweeps.to_frame(results, {}).status.tolist() == ["ok", status, "ok", "ok"]


def test_masks_over_budget_and_scores_that_are_not_finite_are_told():
    results = take(whole("relu"), [0, 1, 2])
    results |= {"kept": np.array([9, 10, 11]), "kept_density": np.array([0.09, 0.10, 0.11])}
    results["search/not_finite"] = np.array([[0.0, 0.0], [0.0, 0.25], [1.0, 0.5]], np.float32)
    table = sweeps.to_frame(results, {"density": [0.1] * 3}).query("stage == 'pruned'")
    assert table.status.tolist() == ["ok", "scores 0.25 not finite", "over budget"]


def test_tables_have_the_columns_of_the_design_in_their_order():
    cell = [
        *("task", "depth", "width", "finder", "scope", "rounds", "noise", "seed"),
        *("density", "density_name"),
    ]
    result = [
        *("kept_density", "kept", "stage", "metric", "value", "value_raw", "ticket_value"),
        *(
            "target_value",
            "dead_value",
            "ticket_density",
            "ticket_density_weights",
            "precision",
            "recall",
        ),
        *("iou", "lift", "feasible_recall", "live_density", "collapsed", "constant", "status"),
        "seconds",
    ]
    given = [*cell, "metric", "ticket_density", "ticket_density_weights"]
    labels = {"extra": range(9), **{name: range(9) for name in reversed(given)}}
    table = sweeps.to_frame(whole("relu"), labels)
    assert list(table.columns) == [*cell, *result, "extra"]


def test_tables_have_a_row_for_each_cell_and_stage():
    results = whole("relu")
    table = sweeps.to_frame(results, {"seed": np.repeat(SEEDS, 3), "density": DENSITIES * 3})
    assert table.stage.tolist() == ["pruned", "trained"] * 9
    assert table.seed.tolist() == np.repeat(SEEDS, 6).tolist()
    strong, weak = table[table.stage == "pruned"], table[table.stage == "trained"]
    np.testing.assert_array_equal(strong.value, results["pruned/value"])
    np.testing.assert_array_equal(weak.value, results["trained/value"])
    np.testing.assert_array_equal(strong.value_raw, results["pruned/value_raw"])
    np.testing.assert_array_equal(weak.iou, results["recovery/iou"])
    assert (table.status == "ok").all()
    assert table.constant.dtype == bool
    assert (table.seconds > 0).all()


def test_results_know_their_labels():
    results = whole("relu")
    table = sweeps.to_frame(results)
    assert table.seed.tolist() == np.repeat(SEEDS, 6).tolist()
    assert table.density.tolist() == list(np.repeat(DENSITIES, 2)) * 3  # no digits of single floats
    shared = table[["task", "depth", "width", "finder", "scope", "rounds", "noise", "metric"]]
    assert shared.drop_duplicates().values.tolist() == [
        ["relu", 4, 16, "grasp", "global", 1, 0.01, "mse"]
    ]
    part = sweeps.to_frame(take(results, [8, 4]))
    assert part.seed.tolist() == [5, 5, 1, 1]
    own = cells_of("relu")._replace(key=jax.random.split(jax.random.key(7), 9))
    assert set(labels.labels_of(run_of("relu"), own)["label/seed"]) == {-1}
    control = sweeps.make_run("relu", 4, 16, "grasp+shuffled", epochs=0, samples=400)
    assert labels.labels_of(control, own)["label/finder"][0] == "grasp+shuffled"


def test_no_epochs_leave_out_the_trained_stage():
    assert run_of("relu", epochs=0).train(take(cells_of("relu"), 0), None) == {}
    results = untrained()
    assert not [name for name in results if name.startswith("trained")]
    names = [name for name in whole("relu") if not name.startswith("trained")]
    assert_same_bits(results, {name: whole("relu")[name] for name in names})
    assert set(sweeps.to_frame(results, {}).stage) == {"pruned"}


def test_all_finders_and_references_share_the_world_of_a_seed():
    for name in [*FINDERS, *REFERENCES]:
        run = sweeps.make_run(*CASES["relu"][:3], name, epochs=0, samples=400)
        assert run.world == run_of("relu").world
        assert hash(run.world) == hash(run_of("relu").world)


@pytest.mark.slow
def test_equal_runs_share_programs_and_all_cells_take_one_trace(monkeypatch):
    """All finders of one shape share the training."""
    searches, trainings = [], []

    def loss(outputs, y):
        trainings.append(outputs.shape)
        return RELU.loss(outputs, y)

    def search(key, params, data, density):
        searches.append(density)
        scores = jax.tree.map(jnp.abs, params)
        return Found(masks.select(key, scores, density), params, {})

    shape = (dataclasses.replace(RELU, loss=loss), 3, 8)
    make = functools.partial(sweeps.make_run, *shape, Finder(search), epochs=1, samples=100)
    run, equal, other = make(name="first"), make(name="first"), make(name="second")
    assert run == equal
    assert hash(run) == hash(equal)
    assert run is not equal
    assert run != other
    sweeps.prepare(run, 9)
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "_lower", None)  # nothing is left to do for it
        for one in (run, equal):
            sweeps.sweep(one, cells_of("relu"), batch=2)
        more = sweeps.make_cells(RELU, (3, 4), (0.01, 0.3, 1.0), 0.1, 1e-2)
        sweeps.sweep(equal, more, batch=2)
    assert (len(searches), len(trainings)) == (1, 1)
    sweeps.sweep(other, cells_of("relu"), batch=2)
    assert (len(searches), len(trainings)) == (2, 1)


@pytest.mark.parametrize("finder", ["snip", "multishot_magnitude", "edge_popup", "dense"])
def test_runs_by_name_are_values(finder):
    make = functools.partial(sweeps.make_run, "relu", 3, 8, finder, samples=100)
    parts = ("world", "evaluate", "fit")
    for part in parts:
        assert getattr(make(), part) == getattr(make(), part)
    assert make(epochs=2).fit != make().fit
    assert make(rescale="rms").fit != make().fit
    assert make(scheme="uniform").world != make().world


def test_a_finder_of_ones_own_equals_the_registered_one_of_that_name():
    finder = FINDERS["grasp"](RELU)
    run = sweeps.make_run(*CASES["relu"][:3], finder, name="grasp", epochs=1, samples=400)
    assert_same_bits(sweeps.sweep(run, cells_of("relu"), batch=2), whole("relu"))


def test_cells_are_all_pairs_densities_fastest():
    cells = sweeps.make_cells(RELU, (4, 2), (0.5, 0.25), 0.2, 0.01)
    np.testing.assert_array_equal(cells.density, np.float32([0.5, 0.25, 0.5, 0.25]))
    np.testing.assert_array_equal(cells.noise, np.float32([0.2] * 4))
    np.testing.assert_array_equal(cells.learning_rate, np.float32([0.01] * 4))
    keys = jnp.stack([worlds.cell_key(RELU, seed) for seed in (4, 4, 2, 2)])
    np.testing.assert_array_equal(jax.random.key_data(cells.key), jax.random.key_data(keys))


@pytest.mark.parametrize("batch", [1, 2.5])
def test_a_batch_below_two_is_refused(batch):
    with pytest.raises(ValueError, match=f"batch must be an integer of at least 2, got {batch}"):
        sweeps.sweep(run_of("relu"), cells_of("relu"), batch=batch)


@pytest.mark.parametrize("part", ["one", "none", "ragged"])
def test_cells_of_different_lengths_are_refused(part):
    cells = cells_of("relu")
    bad = {
        "one": take(cells, 0),
        "none": take(cells, np.arange(0)),
        "ragged": cells._replace(noise=cells.noise[:3]),
    }
    with pytest.raises(ValueError, match=r"cells must hold arrays of one length C >= 1"):
        sweeps.sweep(run_of("relu"), bad[part], batch=2)


GOOD_CELLS = {"seeds": [0], "densities": [0.5], "noise": 0.01, "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("densities", [0.5, 0.0], r"density must lie in \(0, 1\]"),
        ("densities", [float("nan")], r"density must lie in \(0, 1\]"),
        ("densities", [], r"densities must not be empty"),
        ("seeds", [], r"seeds must not be empty"),
        ("seeds", [0, -1], r"seeds must be an integer of at least 0, got -1"),
        ("noise", -0.01, r"noise must lie in \[0, 1\], got -0.01"),
        ("learning_rate", 0.0, r"learning_rate must lie in \(0, .*\], got 0.0"),
        ("learning_rate", float("inf"), r"learning_rate must lie in \(0, .*\], got inf"),
    ],
)
def test_bad_cells_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        sweeps.make_cells(RELU, **GOOD_CELLS | {name: value})


GOOD_RUN = {"task": "circle", "depth": 5, "width": 20, "finder": "snip", "samples": 100}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "square"}, r"task must be one of circle, .*, got 'square'"),
        ({"finder": "snap"}, r"finder must be one of random, .*, got 'snap'"),
        ({"depth": 2}, r"depth must be an integer of at least 3, got 2"),
        ({"width": 19}, r"width must be at least 20, .* in layer_02, got 19"),
        ({"scheme": "she"}, r"scheme must be one of he, .*, got 'she'"),
        ({"rule": "gold"}, r"rule must be one of norm, paper, got 'gold'"),
        ({"scope": "all"}, r"scope must be one of global, .*, got 'all'"),
        ({"rounds": 0}, r"rounds must be an integer of at least 1, got 0"),
        ({"samples": 9}, r"samples must be an integer of at least 10, got 9"),
        ({"epochs": -1}, r"epochs must be an integer of at least 0, got -1"),
        ({"batch_size": 91}, r"batch_size must be .* at most 90, got 91"),
    ],
)
def test_bad_runs_are_refused(options, message):
    sweeps.make_run(**GOOD_RUN)
    with pytest.raises(ValueError, match=message):
        sweeps.make_run(**GOOD_RUN | options)


# Sanity against the reference's tables (shared/reference/figures.md): depth 5, width 100.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "finder", "worst"), [("circle", "magnitude", 0.93), ("relu", "random", 3e-4)]
)
def test_weak_tickets_at_a_tenth_are_as_good_as_the_references(task, finder, worst):
    run = sweeps.make_run(task, 5, 100, finder, epochs=10)
    results = sweeps.sweep(run, sweeps.make_cells(tasks.TASKS[task], range(5), [0.1]))
    assert not results["trained/diverged"].any()
    values = results["trained/value"]
    print(f"{task} {finder} 0.1: median {np.median(values):.4g}, {values.min()}..{values.max()}")
    assert np.median(values) > worst if task == "circle" else np.median(values) < worst


@pytest.mark.slow
@pytest.mark.parametrize("finder", ["snip", "synflow100"])
def test_no_pruner_finds_a_strong_circle_ticket_in_one_shot(finder):
    circle = tasks.TASKS["circle"]
    densities = (worlds.ticket_density(circle, 5, 100), 0.01, 0.1, 0.5)
    run = sweeps.make_run(circle, 5, 100, finder, epochs=0)
    results = sweeps.sweep(run, sweeps.make_cells(circle, range(5), densities))
    means = results["pruned/value"].reshape(5, len(densities)).mean(axis=0)
    tickets = results["ticket/value"]
    print(f"circle {finder} strong: {means.round(3)}, ticket {tickets.min()}..{tickets.max()}")
    assert (means < 0.6).all()
    assert (tickets > 0.95).all()  # which was there to be found


def test_dead_values_are_those_of_the_best_constant_outputs():
    y = jnp.array([2, 0, 2, 1], jnp.int32)
    for task, labels_, wanted in (
        (tasks.TASKS["circle"], y, 0.5),
        (tasks.TASKS["helix"], jnp.eye(3)[y], np.mean(np.var(np.eye(3)[np.asarray(y)], axis=0))),
    ):
        found = task.evaluate(evaluation.best_constant(task, labels_), labels_)[task.metric]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.slow
def test_fresh_samples_judge_all_networks_as_well():
    def swept(task, finder, fresh, epochs):
        depth, width = CASES[task][1:3]
        options = {"samples": 400, "fresh": fresh, "epochs": epochs}
        run = sweeps.make_run(task, depth, width, finder, **options)
        return sweeps.sweep(run, cells_of(task), batch=2)

    found = swept("relu", "grasp", 20_500, 0)
    for name, value in untrained().items():
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(found[name], value)
    assert (found["pruned/fresh"] > found["ticket/fresh"]).any()
    np.testing.assert_allclose(found["ticket/fresh"], 1e-4, rtol=0.03)  # the variance of the noise
    np.testing.assert_allclose(found["ticket/fresh_error"], 1e-4 * (2 / 20_500) ** 0.5, rtol=0.4)
    np.testing.assert_allclose(found["dead/fresh"], 5 / 48, rtol=0.03)
    share = swept("circle", "planted", 1_000, 1)
    np.testing.assert_array_equal(share["pruned/fresh"], share["ticket/fresh"])
    assert not np.array_equal(share["trained/fresh"], share["pruned/fresh"])
    assert (share["trained/fresh_error"] > 0).all()
    spread = np.sqrt(share["pruned/fresh"] * (1 - share["pruned/fresh"]) / 1_000)
    np.testing.assert_allclose(share["pruned/fresh_error"], spread, rtol=0.4)
    frame = metrics.to_frame(share)
    assert (frame["ticket_fresh"] > frame["dead_fresh"]).all()
    with pytest.raises(ValueError, match="fresh must be an integer of at least 1000, got 5"):
        sweeps.make_run("relu", 3, 12, "planted", fresh=5)
