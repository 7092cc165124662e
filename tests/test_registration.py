"""One file and one line each: a new score, task, finder and metric are everywhere by their names.

The file is a plugin, one of the examples, which is given to scripts. What it registers is met by
the contract tests, command lines, tables, pages and the README.
"""

import contextlib
import io
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

import contract
import leaderboard
import readme
import report
import scripting
import seek
from plantjax import masks, metrics, tasks
from plantjax.finders import FINDERS
from plantjax.jobs import InputError, plugins, runner, summary
from plantjax.metrics import METRICS
from plantjax.scores import SCORES
from ranking import page, statistics
from scripting import cache

__all__ = ["cache"]

pytestmark = pytest.mark.slow

PLUGIN = scripting.ROOT / "examples" / "own_plugin.py"
FOUND = ("sensitivity", "multishot_sensitivity", "largest")
"""The finders: two that follow from the score, and one of its own."""
SMALL = ["--tasks", "absolute", "--finders", "sensitivity", "largest", "--seeds", "2"]
SMALL += ["--densities", "ticket", "0.5", "--depth", "4", "--width", "8", "--epochs", "1"]


@pytest.fixture(scope="module", autouse=True)
def registered(cache):
    with scripting.restored():
        yield plugins.load(str(PLUGIN))


# The contracts.


def test_a_finder_and_the_task_keep_the_contract_of_finders():
    case = contract.make_case("absolute", "finder", "largest", "quick")
    for check in contract.CHECKS:
        check(case)


def test_the_contract_tests_find_them():
    found = {case.values[0][:3] for case in contract.cases()}
    assert {("relu", "finder", name) for name in FOUND} <= found
    assert {("circle", "finder", "largest"), ("absolute", "finder", contract.ELSEWHERE[0])} <= found
    assert len(contract.CHECKS) >= 8


# Help texts.


@pytest.mark.parametrize("script", [seek, leaderboard])
def test_help_names_them(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out.replace(",", " ").split()
    assert {"absolute", *FOUND} <= set(shown)


def test_refusals_name_them(tmp_path):
    for option, name in (("--tasks", "absolute"), ("--finders", "largest")):
        with pytest.raises(InputError, match=f"{option} must be one of .*{name}.*nowhere"):
            seek.main([option, "nowhere", "--out", str(tmp_path / "out")])


def test_a_plugin_registers_before_names_are_listed(capsys, tmp_path):
    with scripting.restored():
        shutil.copy(PLUGIN, tmp_path / "another.py")
        for registry, name in (
            (SCORES, "sensitivity"),
            (tasks.TASKS, "absolute"),
            (METRICS, "hamming"),
        ):
            del registry[name]
        del FINDERS["largest"]
        seek.main(["--list"])
        assert "sensitivity" not in capsys.readouterr().out
        seek.main(["--list", "--plugin", str(tmp_path / "another.py")])
        shown = capsys.readouterr().out.replace("\n", " ").replace(",", " ").split()
        assert {"absolute", "hamming", *FOUND} <= set(shown)
        with pytest.raises(SystemExit):
            seek.main(["--help", f"--plugin={tmp_path / 'another.py'}"])
        assert {"absolute", *FOUND} <= set(capsys.readouterr().out.replace(",", " ").split())


# A run and what is made of it.


@pytest.fixture(scope="module")
def finished(registered, tmp_path_factory):
    out = tmp_path_factory.mktemp("registered") / "run"
    with contextlib.redirect_stdout(io.StringIO()):
        seek.main([*SMALL, "--plugin", str(PLUGIN), "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def table(finished):
    return pd.read_csv(finished / "results.csv", dtype={"density_name": str})


def test_the_table_has_them(table):
    usual = [name for name in metrics.COLUMNS if "fresh" not in name]
    assert list(table) == [*usual, "rescale", "kind", "mask", "hamming"]
    assert set(table["task"]) == {"absolute"}
    assert {"sensitivity", "largest", "planted"} <= set(table["finder"])
    planted = table.loc[table["finder"] == "planted", "kept"].unique().item()
    n = table["kept"] / table["kept_density"]
    differ = table["kept"] + planted - 2 * table["recall"] * planted
    np.testing.assert_allclose(table["hamming"], differ / n, rtol=1e-5, atol=1e-7)
    assert (table.query("finder == 'planted'")["hamming"] == 0.0).all()
    rows = table.query("finder == 'planted' and stage == 'pruned'")
    np.testing.assert_allclose(rows["value"], rows["target_value"], rtol=1e-4)


def test_a_second_run_computes_nothing_and_shows_the_metric(finished, monkeypatch, capsys):
    def refuse(*arguments):
        raise AssertionError("cells were computed")

    monkeypatch.setattr(runner, "compute", refuse)
    seek.main([*SMALL, "--plugin", str(PLUGIN), "--out", str(finished)])
    shown = capsys.readouterr().out
    assert "nothing was computed" in shown
    for stage in summary.STAGES.values():
        assert f"absolute, hamming, {stage}: median" in shown


def test_results_of_another_plugin_are_refused(finished, tmp_path):
    shutil.copy(PLUGIN, tmp_path / PLUGIN.name)
    name = f"plantjax_plugin_{PLUGIN.stem}"
    with scripting.restored(), pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, name)
        words = [*SMALL, "--plugin", str(tmp_path / PLUGIN.name), "--out", str(finished)]
        seek.main(words)  # the same wherever it lies
        with (tmp_path / PLUGIN.name).open("a") as file:
            file.write("\nchanged = True\n")
        del sys.modules[name]
        before = scripting.contents(finished)
        with pytest.raises(InputError, match=r"plugin: {'own_plugin.py': '\w+'} there, {'own_"):
            seek.main(words)
        assert scripting.contents(finished) == before
    with pytest.raises(InputError, match=r"plugin: {'own_plugin.py': '\w+'} there, None here"):
        seek.main([*SMALL, "--out", str(finished)])


def test_a_folder_with_the_metric_is_not_one_without(finished):
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(METRICS, "hamming")
        with pytest.raises(InputError, match=r"metrics: \['hamming'\] there, None here"):
            seek.main([*SMALL, "--plugin", str(PLUGIN), "--out", str(finished)])


def test_ray_workers_load_the_plugin_and_change_nothing(finished, tmp_path):
    shutil.copy(PLUGIN, tmp_path / PLUGIN.name)
    words = [*SMALL, "--plugin", PLUGIN.name, "--out", "run", "--chunk", "3", "--executor", "ray"]
    process = scripting.start("experiments/seek.py", *words, cwd=tmp_path)  # since Ray forks
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    found, wanted = scripting.table(tmp_path / "run"), scripting.table(finished)
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert scripting.masks(tmp_path / "run") == scripting.masks(finished)


def test_summaries_have_medians_of_the_metric(table):
    cases = summary.aggregate(table).query("finder == 'sensitivity' and density_name == '0.5'")
    rows = table.query("finder == 'sensitivity' and density_name == '0.5' and stage == 'pruned'")
    assert cases["hamming"].tolist() == [pytest.approx(rows["hamming"].median())] * 2
    assert list(cases)[-1] == "hamming"


def test_the_report_has_a_column_in_both_tables(finished):
    with scripting.restored():
        del METRICS["hamming"]  # pages are made where nothing is registered, too
        text = report.page([finished], "title")
    assert text.count(">hamming</button>") == 2


def test_the_leaderboard_has_them(table):
    assert set(FOUND) <= set(leaderboard.Settings(budget="full").names())
    own = leaderboard.Settings(
        budget="full", tasks=("absolute",), finders=FOUND, rulings=("published",)
    )
    grid = own.groups()
    assert {group.task for group in grid} == {"absolute"}
    assert {group.finder for group in grid} >= set(FOUND)
    found = statistics.cases(table)
    row = found.query("finder == 'sensitivity' and stage == 'pruned' and density_name == 'ticket'")
    values = table.query(
        "finder == 'sensitivity' and stage == 'pruned' and density_name == 'ticket'"
    )
    assert row["hamming"].tolist() == [pytest.approx(values["hamming"].median())]
    assert (row["hamming_low"] <= row["hamming_high"]).all()
    assert statistics.ranking(statistics.lowest(table), found).count("sensitivity") == 1
    text = page.page(table, {}, "picture.png")
    assert "**absolute**: " in text
    assert sum(line.startswith("| `sensitivity` |") for line in text.splitlines()) == 2


# Texts.


def test_the_readme_and_docs_have_them(registered):
    text = "\n".join(table() for table in readme.TABLES.values())
    lines = text.splitlines()
    assert "| `sensitivity` | (theta dL/dtheta)^2 |  |" in lines
    kept = int(masks.count(masks.nonzero(registered.absolute(5))))
    (row,) = [line for line in lines if line.startswith("| `absolute` |")]
    assert f"| {kept} | {readme.summary(registered.absolute)} |" in row
    assert f"| `hamming` | {readme.summary(registered.hamming)} |" in lines
    assert f"| `largest` | {readme.summary(registered.largest)} |  |" in lines
    for name in FOUND:
        assert f"`{name}`" in text


def test_finders_of_a_score_go_with_it():
    with scripting.restored():
        del SCORES["sensitivity"]
        assert not set(FOUND[:2]) & set(FINDERS)
    assert set(FOUND) <= set(FINDERS)
