"""The leaderboard: who takes part, a tiny run with a plugin, its page and figure, publishing."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import leaderboard
import plantjax
import scripting
from plantjax import sweeps
from plantjax.finders import FINDERS, REFERENCES, names
from plantjax.jobs import HALF, TICKET, InputError
from plantjax.sweeps import worlds
from plantjax.tasks import PAPER_TASKS, TASKS
from ranking import page, plan, release, statistics
from ranking.open_worlds import BOARD, release_seed
from ranking.plan import BUDGETS
from tuning import published

PLUGIN = scripting.ROOT / "examples" / "own_plugin.py"
SMOKE = ["--budget", "smoke", "--tasks", "xor", "--finders", "largest"]
SMOKE += ["--controls", "shuffled", "--rulings", "published", "--plugin", str(PLUGIN)]


@pytest.fixture(scope="module")
def plugin(cache):
    """Forgets the plugin in the end."""
    with scripting.restored():
        yield


@pytest.fixture(scope="module")
def finished(plugin: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("board") / "run"
    leaderboard.main([*SMOKE, "--out", str(out)])
    return out


def cells(budget: str, **options: object) -> pd.DataFrame:
    settings = leaderboard.Settings(budget=budget, rulings=("published",), **options)
    groups = settings.groups()
    rows = pd.DataFrame([cell for group in groups for cell in group.cells()])
    assert rows["id"].is_unique
    return rows


@pytest.mark.parametrize(("budget", "tasks"), [("full", BOARD), ("quick", PAPER_TASKS)])
def test_every_finder_takes_part_on_every_task(budget: str, tasks: object) -> None:
    board = leaderboard.Settings(budget=budget).board()
    assert board.tasks == tasks
    assert board.finders == list(FINDERS)
    if budget == "quick":
        part = cells(budget, tasks=("relu",))
        assert set(part["finder"]) == {*FINDERS, *REFERENCES}
        searched = part[~part["finder"].isin(["dense", "planted"])]
        assert searched.groupby("finder").size().nunique() == 1


def test_a_ticket_is_counted_once_for_all_finders(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(
        sweeps, "ticket_density", lambda task, *size, **how: counted.append(task.name) or 0.1
    )
    groups = leaderboard.Settings(tasks=("relu", "circle"), finders=("snip",)).groups()
    assert sorted(counted) == ["circle", "circle", "relu", "relu"]
    assert {group.ticket_density for group in groups} == {0.1}


def test_full_has_ten_mothers_of_the_release_and_all_densities() -> None:
    rows = cells("full", tasks=("circle",), finders=("snip",))
    first = release_seed(plantjax.__version__)
    assert set(rows["seed"]) == set(range(first, first + 10))
    assert 100_000 <= first < 1_000_000
    assert first != release_seed("0.1.0")
    found = rows[rows["finder"] == "snip"].groupby("density_name")["density"].first()
    ticket = worlds.ticket_density(TASKS["circle"], 5, 100)
    assert found[TICKET] == ticket
    assert found[HALF] == ticket / 2
    assert found.max() == 0.5
    assert {"0.5", "0.1", "0.02"} < set(found.index)


def test_options_of_budgets_exist_and_are_told() -> None:
    told = {}
    for budget in BUDGETS:
        board = leaderboard.Settings(budget=budget).board()
        options = {name: board.options(name) for name in board.finders}
        for name, chosen in options.items():
            assert set(chosen) <= names.options(name)
        assert set(board.budget.options) <= set(FINDERS)
        told[budget] = page.options_note(options)
    assert "` of `seek`" in told["quick"]
    shared, _, _ = told["quick"].partition(";")
    assert shared.startswith("`level_epochs=2` of ")
    assert shared.count("`multishot_") == sum(name.startswith("multishot_") for name in FINDERS)
    assert told["full"] == "none"


def test_tuned_options_make_cells_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    log = {"lamp": {"relu": {"options": {}}}, "snip": {"relu": {"options": {"scope": "layer"}}}}
    monkeypatch.setattr(published, "load", lambda: {"settings": {}, "finders": log})
    finders = ("snip", "lamp", "phew", "rigl")
    with pytest.raises(ValueError, match="rigl must have been tuned on relu"):
        leaderboard.Settings(budget="full", tasks=("relu",), finders=finders).groups()
    log["rigl"] = {"relu": {"options": {"every": 300}}}
    groups = leaderboard.Settings(budget="full", tasks=("relu",), finders=finders).groups()
    rows = pd.DataFrame([cell for group in groups for cell in group.cells()])
    assert rows["id"].is_unique
    counts = rows.groupby(["finder", "tuned"]).size()
    assert counts["snip", ""] == counts["snip", "scope=layer"] == counts["lamp", ""] == 50
    assert dict(rows.groupby("finder")["tuned"].nunique()) == {
        **{"snip": 2, "lamp": 1, "phew": 1, "rigl": 2},
        **dict.fromkeys(REFERENCES, 1),
    }
    epochs = {(g.finder, g.tuned): g.static["epochs"] for g in groups}
    assert epochs["rigl", "every=300"] == epochs["rigl", ""] == 30  # 40 in all, with the search
    assert epochs["snip", "scope=layer"] == 40
    ruled = plan.with_rulings(rows, plan.RULINGS).groupby("finder")["ruling"].unique()
    assert list(ruled["snip"]) == ["published", "tuned"]
    assert list(ruled["lamp"]) == list(ruled["dense"]) == ["both"]
    assert set(plan.with_rulings(rows[rows["tuned"] == ""], ["tuned"])["ruling"]) == {"tuned"}


def test_controls_go_to_the_finders_that_allow_them() -> None:
    board = leaderboard.Settings(
        budget="smoke", finders=("snip", "phew", "edge_popup"), controls=("inverted", "oracle")
    ).board()
    assert board.finders == [
        *("snip", "snip+inverted", "snip+oracle", "phew", "phew+oracle"),
        *("edge_popup", "edge_popup+inverted", "edge_popup+oracle"),
    ]
    assert board.options("edge_popup+oracle") == {"search_epochs": 2}


@pytest.mark.slow
def test_a_run_writes_page_tables_and_figure(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"LEADERBOARD.md", "leaderboard.png", "results.csv", "leaderboard.csv"} <= names
    assert (finished / "leaderboard.png").stat().st_size > 10_000
    table, summary = (pd.read_csv(finished / f"{n}.csv") for n in ("results", "leaderboard"))
    assert set(table["density_name"]) == {"0.5", "ticket", "1"}
    judged = statistics.judged(table)
    cases = statistics.cases(judged).assign(ruling="published")
    pd.testing.assert_frame_equal(summary, cases, check_dtype=False)
    pd.testing.assert_series_equal(judged["value"], table["fresh"], check_names=False)
    assert set(table["status"]) == {"ok"}
    planted = table.query("finder == 'planted' and stage == 'pruned'")
    np.testing.assert_allclose(planted["value"], planted["ticket_value"])


@pytest.mark.slow
def test_the_page_tells_what_it_rests_on(finished: Path) -> None:
    text = (finished / "LEADERBOARD.md").read_text()
    assert (
        "experiments/leaderboard.py --budget smoke --tasks xor --finders largest "
        "--controls shuffled --rulings published --plugin "
    ) in text
    first = release_seed()
    assert f"seeds {first} to {first + 1}." in text
    assert "Training: depth 5, width 12, noise 0.01, epochs 1, samples 300, fresh 1000." in text
    config = json.loads((finished / "config.json").read_text())
    assert config["device"] in text
    assert f"jax {config['versions']['jax']}" in text
    assert list(config["settings"]["plugin"]) == [PLUGIN.name]
    for name in ("largest", "largest+shuffled", "oracle_random"):
        assert f"| `{name}` |" in text
    assert "\n**xor**: accuracy; 2 mothers, " in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {3, 5}  # one task; two stages and the time
    assert "nan" not in text


@pytest.mark.slow
def test_what_is_missing_is_computed_again_and_published(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "ASSET", tmp_path / "results.csv.gz")
    out = Path(shutil.copytree(finished, tmp_path / "copy"))
    removed = next((out / "chunks").glob("*.npz"))
    removed.unlink()
    leaderboard.main([*SMOKE, "--out", str(out)])
    assert "cells are done; going on with the others" in capsys.readouterr().out
    assert removed.exists()
    found, wanted = scripting.table(out), scripting.table(finished)
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert not (tmp_path / "LEADERBOARD.md").exists()
    leaderboard.main([*SMOKE, "--out", str(out), "--publish"])
    assert "nothing was computed" in capsys.readouterr().out
    published, written = ((path / "LEADERBOARD.md").read_text() for path in (tmp_path, out))
    assert published == written.replace("](leaderboard.png)", "](docs/leaderboard.png)")
    for name in ("leaderboard.png", "leaderboard.csv"):
        assert (tmp_path / "docs" / name).stat().st_size > 0
    with gzip.open(tmp_path / "results.csv.gz", "rt") as file:  # after lines on how it was made
        assert file.read().endswith("\n" + (out / "results.csv").read_text())


def synthetic(
    task: str, metric: str, good: float, bad: float, **kinds: str
) -> list[dict[str, object]]:
    """Two finders, one good, two mothers, densities 0.5 and that of the ticket."""
    return [
        {
            **{"task": task, "finder": finder, "stage": stage, "metric": metric, "seed": seed},
            **{"density": density, "density_name": name, "value": value, "value_raw": value},
            **{"ticket_value": good, "target_value": good, "ticket_density": 0.01},
            **{"dead_value": bad, "kind": kinds.get(finder, "subnetwork")},
            **{"constant": finder == "edge_popup", "status": "ok", "seconds": 1.0},
            **{"recall": 0.1, "lift": 2.0, "kept": 1, "kept_density": 1e-3},
        }
        for finder, value in (("edge_popup", bad), ("seek", good))
        for stage in ("pruned", "trained")
        for seed in (0, 1)
        for name, density in (("0.5", 0.5), ("ticket", 0.01))
    ]


def test_pages_of_several_tasks_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = synthetic("circle", "accuracy", 0.98, 0.25) + synthetic("helix", "mse", 1.5e-4, 0.2)
    monkeypatch.setitem(page.REASONS, "edge_popup", "a made reason.")
    text = page.page(
        pd.DataFrame(rows), {"command": "a; b", "options": "none; `c=1`", "time": "1 h"}, "p.png"
    )
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    one, none = "1.000 (1.000-1.000)", "0.000 (0.000-0.000)"
    assert lines == [
        f"| `seek` | {one} | {one} | 1 |",
        f"| `edge_popup` | {none} | {none} | 1 |",
        "| `seek` | ticket / ticket | ticket / ticket |",
        "| `edge_popup` | none / none | none / none |",
    ]
    assert "Planted ticket 0.980 (0.980-0.980) at density 0.01" in text
    assert "Planted ticket 1.5e-4 (1.5e-4 to 1.5e-4) at density 0.01" in text
    assert text.index("**circle**") < text.index("**helix**")
    assert "\n- `a`\n- `b`\n\nthen `python experiments/leaderboard.py page RESULTS" in text
    assert "tasks circle, helix; densities 0.5, ticket; seeds 0 to 1. Made by\n\n" in text
    assert "tuned ones apart: `c=1`.\n\n- Time: 1 h.\n" in text
    assert "- `edge_popup` on circle, helix: a made reason.\n" in text
    assert "nan" not in text


def test_rulings_stand_side_by_side() -> None:
    rows = pd.DataFrame(synthetic("circle", "accuracy", 0.98, 0.25))
    alive = rows.assign(constant=False, tuned="")
    tuned = alive[alive["finder"] == "edge_popup"].assign(tuned="a=1", value=0.615)
    table = plan.with_rulings(pd.concat([alive, tuned]), plan.RULINGS)
    text = page.page(table, {}, "")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert (
        lines[0]
        == "| finder | strong, tuned | strong, published | weak, tuned | weak, published | time |"
    )
    half, none = "0.500 (0.500-0.500)", "0.000 (0.000-0.000)"
    assert f"| `edge_popup` | {half} | {none} | {half} | {none} | 1 |" in lines
    assert "Dead everywhere" not in text


def test_a_second_sheet_has_a_table_of_its_own() -> None:
    board = pd.DataFrame(synthetic("circle", "accuracy", 0.98, 0.25)).assign(sheet="depth 5")
    deep = board.assign(sheet="depth 10", value=0.615)
    text = page.page(pd.concat([board, deep]), {}, "")
    first, second = text.split("\n## Depth 10\n\n")
    assert first == page.page(board, {}, "").partition("\n## Dead")[0]
    assert second.startswith("2 finders; tasks circle; densities 0.5, ticket; seeds 0 to 1.\n")
    assert second.count("0.500 (0.500-0.500)") == 4


def test_what_is_no_subnetwork_stands_apart() -> None:
    kinds = {"seek": "signed", "edge_popup": "trained"}
    table = pd.DataFrame(synthetic("circle", "accuracy", 0.98, 0.25, **kinds))
    text = page.page(table, {}, "")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows[0].startswith("| `seek` | 1.000")
    assert rows[2:] == ["| `seek` | ticket |", "| `edge_popup` | none |"]  # weak only
    assert "strong" not in next(line for line in text.splitlines() if line.startswith("| finder"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "huge"], "full"),
        (["--tasks", "nowhere"], "--tasks must be one of circle.*nowhere"),
        (["--tasks"], "--tasks must name at least one"),
        (["--finders", "guess"], "--finders must be one of random.*guess"),
        (["--controls", "guess"], "--controls must be one of shuffled.*guess"),
        (["--seeds", "0"], "--seeds must be an integer of at least 1"),
        (["--first-seed", "-1"], "--first-seed must be an integer of at least 0"),
        (["--chunk", "0"], "--chunk must be an integer of at least 1"),
    ],
)
def test_bad_input_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        leaderboard.main(["--budget", "smoke", *words, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
