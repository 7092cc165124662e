"""The paper's protocols: their grids, one run of several at smoke, and the pictures' tables."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import paper
import scripting
from figures import bounds, graphs, protocols
from figures.budgets import BUDGETS, Budget
from figures.protocols import MULTISHOT, PROTOCOLS, SINGLESHOT, Picture, Sweep
from plantjax import tasks
from plantjax.finders import REFERENCES
from plantjax.jobs import InputError
from plantjax.sweeps import worlds
from plantjax.tasks import TASKS

SWEEPS = [name for name, protocol in PROTOCOLS.items() if isinstance(protocol, Sweep)]


def cells(name: str, budget: str, seeds: int | None = None) -> pd.DataFrame:
    """The labels of all cells of the finders, references left out."""
    protocol = PROTOCOLS[name]
    assert isinstance(protocol, Sweep)
    groups = [g for grid in protocol.grids(BUDGETS[budget], seeds) for g in grid.groups()]
    rows = pd.DataFrame([cell for group in groups for cell in group.cells()])
    assert rows["id"].is_unique
    return rows[~rows["finder"].isin(REFERENCES)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number", "depth", "width", "finders"),
    [
        ("fig3", 3 * 5 * 5 * 25, 5, 100, SINGLESHOT),
        ("fig4", 3 * 7 * 5 * 10, 5, 100, (*MULTISHOT, "edge_popup", "edge_popup_annealed")),
        ("fig6", 3 * 5 * 5 * 25, 3, 100, SINGLESHOT),
        ("fig7", 3 * 5 * 5 * 25, 5, 100, SINGLESHOT),
        ("fig8", 3 * 5 * 5 * 25, 10, 100, SINGLESHOT),
        ("fig9", 5 * 5 * 10, 6, 1000, SINGLESHOT),
        ("fig10", 5 * 10, 6, 100, ("synflow100",)),
        ("fig11", 4 * 5 * 5 * 10, 6, 100, MULTISHOT),
        ("fig12", 6 * 5 * 10, 5, 100, MULTISHOT),
    ],
)
def test_full_grids_are_the_papers(name, number, depth, width, finders):
    rows = cells(name, "full")
    assert len(rows) == number
    assert set(rows["depth"]) == {depth}
    assert set(rows["width"]) == {width}
    assert set(rows["finder"]) == set(finders)
    assert set(rows["rounds"]) <= {1, 10, 100}
    assert {"ticket", "0.01", "0.1", "0.5", "1"} <= set(rows["density_name"])


@pytest.mark.slow
def test_figure_11_has_all_noises_and_figure_12_local_scope():
    assert set(cells("fig11", "full")["noise"]) == {0.0, 0.001, 0.01, 0.1}
    assert set(cells("fig12", "full")["scope"]) == {"local"}
    assert set(cells("fig4", "full").groupby("finder")["scope"].first()) == {"global", "local"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_smaller_budgets_are_parts_of_the_full_grid(name):
    keys = ["task", "depth", "finder", "noise", "density_name", "seed"]
    if name == "rescale":
        pytest.skip("has references only")
    full = set(cells(name, "full")[keys].itertuples(index=False))
    for budget in ("quick", "smoke"):
        part = set(cells(name, budget)[keys].itertuples(index=False))
        assert part < full
        assert {row.task for row in part} == {row.task for row in full}
    assert set(cells(name, "quick", seeds=7)["seed"]) == set(range(7))


@pytest.mark.slow
def test_figure_9_is_narrower_at_quick_and_says_so():
    assert set(cells("fig9", "quick")["width"]) == {300}
    job = paper.Experiment("fig9", Path("nowhere"), "quick", None)
    assert "width 300" in job.note()
    assert "--budget quick" in job.note()


ALL = ("fig1", "fig3", "fig7", "fig10", "fig11", "rescale")
"""One protocol of every kind; fig7 is drawn from the cells of fig3."""


@contextlib.contextmanager
def few() -> Iterator[None]:
    """Only these protocols, and Circle alone."""
    part = {name: PROTOCOLS[name] for name in ALL}
    with pytest.MonkeyPatch.context() as patch:
        for module in (paper, protocols):
            patch.setattr(module, "PROTOCOLS", part)
        patch.setattr(protocols, "PAPER_TASKS", ("circle",))
        yield


@pytest.fixture(scope="module")
def finished(cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `all` makes at smoke."""
    out = tmp_path_factory.mktemp("paper")
    with few():
        paper.main(["all", "--budget", "smoke", "--out", str(out)])
    return out


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"density_name": str})


@pytest.mark.slow
def test_all_writes_a_folder_for_every_protocol(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == set(ALL)
    for name in ALL:
        assert (finished / name / "figure.png").stat().st_size > 10_000
        assert len(read(finished / name / "results.csv"))
        config = json.loads((finished / name / "config.json").read_text())
        del config["settings"]["code"]
        assert config["settings"] == {"name": name, "budget": "smoke", "seeds": None}
    assert not list((finished / "fig7" / "chunks").iterdir())
    tables = [scripting.table(finished / name) for name in ("fig3", "fig7")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    noises = read(finished / "fig11" / "summary.csv").groupby("noise").size()
    assert noises.index.tolist() == [0.0, 0.001, 0.01, 0.1]
    assert noises.nunique() == 1


@pytest.mark.slow
def test_levels_have_a_row_for_every_round(finished: Path) -> None:
    levels = read(finished / "fig10" / "levels.csv")
    searched = levels[levels["finder"] == "synflow100"]
    assert set(searched.groupby(["density_name", "seed"]).size()) == {100}
    last = searched[searched["level"] == 100]
    n = 2 * 32 + 32 + 3 * (32 * 32 + 32) + 32 * 4 + 4
    kept = np.floor(last["density"].to_numpy(np.float32) * np.float32(n) + 0.5)
    np.testing.assert_array_equal(np.round(last["kept_density"] * n), kept)
    assert (last["live_density"] <= last["kept_density"]).all()
    assert set(levels["collapsed"]) <= set(range(6))


@pytest.mark.slow
def test_the_planted_ticket_is_trained_both_ways(finished: Path) -> None:
    table = read(finished / "rescale" / "results.csv")
    assert set(table["rescale"]) == {"none", "rms"}
    pruned = table[table["stage"] == "pruned"]
    np.testing.assert_allclose(pruned["value"], pruned["ticket_value"], rtol=1e-4)
    trained = table[table["stage"] == "trained"].pivot_table(
        index=["task", "seed"], columns="rescale", values="value"
    )
    assert (trained["none"] != trained["rms"]).any()


@pytest.mark.slow
def test_what_is_missing_is_computed_again(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scripting.table(finished / "fig11")
    words = ["all", "--budget", "smoke", "--out", str(finished)]
    for chunk in list((finished / "fig11" / "chunks").iterdir())[:2]:
        chunk.unlink()
    with few():
        paper.main([*words, "--chunk", "3"])
        assert "are done; going on with the others" in capsys.readouterr().out
        paper.main(words)
        assert "nothing was computed" in capsys.readouterr().out
    pd.testing.assert_frame_equal(scripting.table(finished / "fig11"), before, check_exact=True)


@pytest.mark.slow
def test_samples_are_those_of_the_tasks(tmp_path: Path) -> None:
    paper.main(["fig1", "--budget", "smoke", "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "results.csv")
    circle, helix = (table[table["task"] == name] for name in ("circle", "helix"))
    assert len(circle) == len(helix) == 2000
    radius = circle["x1"] ** 2 + circle["x2"] ** 2
    assert ((radius > 0.7) == (circle["y1"] == 3)).mean() > 0.97
    u = np.pi * (5 + 3 * helix["x1"])
    assert np.abs(helix["y3"] - u / (8 * np.pi)).max() < 0.06


@pytest.mark.slow
def test_ticket_graphs_hold_every_kept_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "PAPER_TASKS", ("circle",))
    table, task = graphs.tickets(BUDGETS["smoke"]), TASKS["circle"]
    n = worlds.mother_size(task, 5, 100)
    wanted = round(worlds.ticket_density(task, 5, 100) * n)
    assert table.groupby("ticket").size().tolist() == [wanted, wanted]
    shared = table[table["shared"]].groupby("ticket").size()
    assert shared.nunique() <= 1  # an edge is shared from both sides
    assert (table[table["kind"] == "weight"]["value"] != 0).all()
    graphs.draw_tickets(table, tmp_path / "figure.png", "note")
    assert (tmp_path / "figure.png").stat().st_size > 30_000


@pytest.mark.slow
def test_bounds_hold_where_rigorous_and_fail_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [point for point in bounds._points() if point[2] in (30, 300)][::2]
    monkeypatch.setattr(bounds, "_points", lambda: iter(points))
    table = bounds.table(Budget(mothers=300))
    at = table.pivot_table(
        index=["target", "panel", "width", "epsilon"], columns="kind", values="value"
    )
    estimates = table[table["kind"] == "estimate"]
    high = estimates.set_index(list(at.index.names))["high"].reindex(at.index)
    assert (at["rigorous"] <= high).all()
    assert (at["printed"] > high).any()
    bounds.draw(table, tmp_path / "figure.png", "note")
    assert (tmp_path / "figure.png").stat().st_size > 30_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fig33"], "fig3, fig4"),
        (["fig3", "--budget", "huge"], "full"),
        (["fig3", "--seeds", "0"], "--seeds must be an integer of at least 1"),
        (["fig3", "--chunk", "0"], "--chunk must be an integer of at least 1"),
    ],
)
def test_bad_input_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        paper.main([*words, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    paper.main(["--list"])
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in PROTOCOLS)


def test_pictures_and_sweeps_are_all_there() -> None:
    assert {"fig1", "fig2", "theorem2"} == set(PROTOCOLS) - set(SWEEPS)
    assert all(isinstance(PROTOCOLS[name], Picture) for name in ("fig1", "fig2", "theorem2"))
