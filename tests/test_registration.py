"""One function and one line each: a new score, task and metric are everywhere without another edit.

What is registered here is met by the contract tests, command lines, tables, pages and the README.
"""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import test_contract
import test_docs

import leaderboard
import readme
import report
import seek
import test_metrics
from plantjax import masks, metrics, nets, tasks
from plantjax.finders import FINDERS
from plantjax.jobs import cli, summary
from plantjax.metrics import METRICS
from plantjax.scores import SCORES
from plantjax.tasks import TASKS
from ranking import page, statistics

ROOT = Path(__file__).parent.parent


def sharpness(apply, loss):
    """Scores (theta dL/dtheta)^2 (Doe et al. 2031, https://example.org/sharpness)."""

    def score(key, params, mask, batch):
        del key
        masked = masks.apply(params, mask)
        gradient = jax.grad(lambda p: loss(apply(p, batch.x), batch.y))(masked)
        return jax.tree.map(lambda p, g: jnp.square(p * g), params, gradient)

    return score


def vee(depth):
    """The absolute value of the input: relu(x) + relu(-x)."""
    layers = [
        (jnp.array([[1.0, -1.0]]), jnp.zeros(2)),
        *[(jnp.eye(2), jnp.zeros(2))] * (depth - 3),
        (jnp.ones((2, 1)), jnp.zeros(1)),
    ]
    return {
        nets.layer_name(index): {"kernel": kernel, "bias": bias}
        for index, (kernel, bias) in enumerate(layers)
    }


def hamming(judged):
    """Share of all parameters in which the found mask and the planted one differ."""
    differ = jax.tree.map(jnp.logical_xor, judged.mask, judged.planted.mask)
    return masks.density(differ)


NEW = (
    (SCORES, "sharpness", sharpness),
    (TASKS, "vee", tasks.regression("vee", 1, 1, vee, jnp.abs)),
    (METRICS, "hamming", hamming),
)
FOUND = ("sharpness", "multishot_sharpness")
"""Finders that follow from the score."""
SMALL = ["--tasks", "vee", "--finders", "sharpness", "--densities", "ticket", "0.5"]
SMALL += ["--depth", "4", "--width", "8", "--seeds", "2", "--epochs", "1"]


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory):
    """One line each; and a compilation cache for all tests, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "xla"))
        patch.setenv("COLUMNS", "200")
        for registry, name, what in NEW:
            patch.setitem(registry, name, what)
        yield


def contract_of(module, argument):
    """The tests of a module that are about one thing, given by this argument."""
    return [
        test
        for name, test in vars(module).items()
        if name.startswith("test_") and list(inspect.signature(test).parameters) == [argument]
    ]


# The contracts.


@pytest.fixture(scope="module", params=FOUND)
def case(request):
    return test_contract.make_case("vee", "finder", request.param, "quick")


@pytest.mark.parametrize("check", contract_of(test_contract, "case"))
def test_the_score_and_the_task_keep_the_contract_of_finders(check, case):
    check(case)


@pytest.mark.parametrize("check", contract_of(test_metrics, "name"))
def test_the_metric_keeps_the_contract_of_metrics(check):
    check("hamming")


def test_the_contract_tests_of_finders_and_tasks_find_them():
    found = {case.values[0] for case in test_contract.cases()}
    for finder in FOUND:
        assert {("circle", "finder", finder, how) for how in ("quick", "thorough")} <= found
    harder = {*test_contract.HARDER} & {*FINDERS}
    assert {("vee", "finder", finder, "quick") for finder in harder} <= found


def test_contracts_have_checks():
    """So that none of the above is empty."""
    assert len(contract_of(test_contract, "case")) >= 8
    assert len(contract_of(test_metrics, "name")) >= 4


# Help texts.


def test_the_list_names_them(capsys):
    seek.main(["--list"])
    shown = capsys.readouterr().out.replace("\n", " ").replace(",", " ").split()
    assert {"vee", "hamming", *FOUND} <= set(shown)


@pytest.mark.parametrize("script", [seek, leaderboard])
def test_the_help_of_options_names_them(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out.replace(",", " ").split()
    assert {"vee", *FOUND} <= set(shown)


def test_what_is_refused_is_told_their_names(tmp_path):
    for option, name in (("--tasks", "vee"), ("--finders", "sharpness")):
        with pytest.raises(cli.InputError, match=f"{option} must be one of .*{name}.*nowhere"):
            seek.main([option, "nowhere", "--out", str(tmp_path / "out")])


# A run and what is made of it.


@pytest.fixture(scope="module")
def finished(registered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("registered") / "run"
    seek.main([*SMALL, "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def table(finished):
    return pd.read_csv(finished / "results.csv", dtype={"density_name": str})


def test_the_table_has_them(table):
    assert list(table) == [*metrics.COLUMNS, "rescale", "hamming"]
    assert set(table["task"]) == {"vee"}
    assert {"sharpness", "planted"} <= set(table["finder"])
    planted = table.loc[table["finder"] == "planted", "kept"].unique().item()
    n = table["kept"] / table["kept_density"]
    differ = table["kept"] + planted - 2 * table["recall"] * planted
    np.testing.assert_allclose(table["hamming"], differ / n, rtol=1e-5, atol=1e-7)
    assert (table.query("finder == 'planted'")["hamming"] == 0.0).all()


def test_a_task_with_its_target_is_solved_by_the_planted_ticket(table):
    rows = table.query("finder == 'planted' and stage == 'pruned'")
    np.testing.assert_allclose(rows["value"], rows["target_value"], rtol=1e-4)


def test_the_summary_shows_the_metric(finished, capsys):
    seek.main([*SMALL, "--out", str(finished)])
    shown = capsys.readouterr().out
    assert "nothing was computed" in shown
    for stage in summary.STAGES.values():
        assert f"vee, hamming, {stage}: mean" in shown


def test_means_of_the_metric_are_in_summaries(table):
    cases = summary.aggregate(table).query("finder == 'sharpness' and density_name == '0.5'")
    rows = table.query("finder == 'sharpness' and density_name == '0.5' and stage == 'pruned'")
    assert cases["hamming"].tolist() == [pytest.approx(rows["hamming"].mean())] * 2
    assert list(cases)[-1] == "hamming"


def test_the_report_has_a_column_in_both_tables(finished):
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(METRICS, "hamming")  # pages are made when nothing is registered, too
        page = report.page([finished], "title")
    assert page.count("<button>hamming</button>") == 2


def test_a_folder_with_the_metric_is_not_one_without(finished):
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(METRICS, "hamming")
        with pytest.raises(cli.InputError, match=r"metrics: \['hamming'\] there, None here"):
            seek.main([*SMALL, "--out", str(finished)])


def test_the_leaderboard_has_them(table):
    settings = leaderboard.Settings(budget="full")
    assert set(FOUND) <= set(settings.names())
    assert "vee" in settings.plan().tasks
    assert "vee" in settings.settings()["plan"]["tasks"]
    grid = leaderboard.Settings(budget="full", tasks=("vee",), finders=FOUND).groups()
    assert {group.finder for group in grid} >= set(FOUND)


def test_standings_and_their_page_have_them(table):
    found = statistics.cases(table)
    row = found.query("finder == 'sharpness' and stage == 'pruned' and density_name == 'ticket'")
    values = table.query("finder == 'sharpness' and stage == 'pruned' and density_name == 'ticket'")
    assert row["hamming"].tolist() == [pytest.approx(values["hamming"].median())]
    assert (row["hamming_low"] <= row["hamming_high"]).all()
    assert statistics.ranking(statistics.lowest(table), table).count("sharpness") == 1
    text = page.page(table, ["How."], "picture.png")
    assert "## vee" in text
    assert "strong tickets | hamming |" in text
    _, recovery, *_ = [line for line in page.splitlines() if line.startswith("| `sharpness` |")]
    assert recovery.count("|") == 8  # between and around seven columns


def test_the_readme_has_them():
    lines = readme.filled((ROOT / "README.md").read_text()).splitlines()
    source = "[Doe et al. 2031](https://example.org/sharpness)"
    assert f"| `sharpness` | (theta dL/dtheta)^2 | {source} |" in lines
    kept = int(masks.count(masks.nonzero(vee(5))))
    words = "The absolute value of the input: relu(x) + relu(-x)"
    assert f"| `vee` | 1, 1 | mse | {kept}: {words} |" in lines
    assert f"| `hamming` | {hamming.__doc__.removesuffix('.')} |" in lines
    for name, other in zip(FOUND, ("`magnitude`", "`multishot_magnitude`"), strict=True):
        assert sum(f"`{name}`" in line and other in line for line in lines) == 1


def test_the_documentation_has_them():
    makers = test_docs.registries
    said = test_docs.section_of(makers.sections("plantjax.SCORES"), "scores-sharpness")
    assert said.startswith("Scores (theta dL/dtheta)^2")
    for name in FOUND:
        said = test_docs.section_of(makers.sections("plantjax.FINDERS"), f"finders-{name}")
        assert "Scores (theta dL/dtheta)^2" in said
    said = test_docs.section_of(makers.sections("plantjax.TASKS"), "tasks-vee")
    assert "The absolute value of the input" in said
    assert f"| `hamming` | {hamming.__doc__} |" in makers.table("plantjax.METRICS")


def test_finders_of_a_score_go_with_it():
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(SCORES, "sharpness")
        assert not set(FOUND) & set(FINDERS)
    assert set(FOUND) <= set(FINDERS)
