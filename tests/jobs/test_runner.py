"""Grids run from a script of one's own: once, and never into another grid's folder."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import pandas as pd
import pytest

import scripting
from plantjax import jobs
from plantjax.finders import REFERENCES
from plantjax.jobs import locks, runner, tables
from plantjax.scores import SCORES

GRID = jobs.Grid(
    tasks=["relu"],
    finders=["magnitude"],
    densities=[jobs.TICKET, jobs.HALF, "0.5"],
    seeds=range(3),
    depth=3,
    width=8,
    static={"epochs": 1},
    finder_options={"rounds": 2},
)
CELLS = 3 * (3 + 1 + 1 + 3)  # magnitude, dense, planted, oracle_random


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runner") / "run"


@pytest.fixture(scope="module")
def table(out: Path) -> pd.DataFrame:
    return jobs.run(GRID, str(out))


def test_a_grid_becomes_a_table(table: pd.DataFrame, out: Path) -> None:
    assert len(table) == 2 * CELLS
    assert list(dict.fromkeys(table["finder"])) == ["magnitude", *REFERENCES]
    density = table.set_index("density_name")["density"].groupby(level=0).first()
    assert density[jobs.HALF] == density[jobs.TICKET] / 2
    settings = json.loads((out / "config.json").read_text())["settings"]
    assert settings["seeds"] == [0, 1, 2]
    assert settings["static"] == {"epochs": 1}
    kept = pd.read_csv(out / "results.csv")
    pd.testing.assert_frame_equal(kept, table, check_dtype=False)
    levels = pd.read_csv(out / "levels.csv")
    assert levels.groupby("level").size().to_dict() == {1: 9, 2: 9}
    assert tables.write(out, [], out.parent).empty
    assert not (out.parent / "results.csv").exists()


def test_a_second_call_computes_nothing(
    table: pd.DataFrame, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("cells were computed")

    monkeypatch.setattr(runner, "compute", refuse)
    before = scripting.contents(out)
    for operation in (out, str(out), jobs.Operation(out=out, chunk=3)):
        pd.testing.assert_frame_equal(jobs.run(GRID, operation), table, check_exact=True)
    assert scripting.contents(out) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [0, 1]}, r"seeds: \[0, 1, 2\] there, \[0, 1\] here"),
        ({"static": {"epochs": 2}}, r"static: \{'epochs': 1\} there, \{'epochs': 2\} here"),
        ({"tasks": ["nowhere"]}, "task must be one of circle, .*, got 'nowhere'"),
        ({"densities": ["2"]}, r"--densities must lie in \(0, 1\], got 2"),
        ({"finder_options": {"wings": 2}}, "wings is no option of magnitude"),
        ({"static": {"epochs": -1}}, "epochs must be an integer of at least 0, got -1"),
    ],
)
def test_other_settings_and_bad_ones_are_refused(
    table: pd.DataFrame, out: Path, changes: dict, message: str
) -> None:
    before = scripting.contents(out)
    with pytest.raises(jobs.InputError, match=message):
        jobs.run(dataclasses.replace(GRID, **changes), out)
    assert scripting.contents(out) == before


def test_results_of_other_code_are_refused(
    table: pd.DataFrame, out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def negative(apply, loss):
        return lambda key, params, mask, batch: jax.tree.map(lambda p: -abs(p), params)

    monkeypatch.setitem(SCORES, "magnitude", negative)
    with pytest.raises(jobs.InputError, match="the score magnitude has changed"):
        jobs.run(GRID, out)
    old = shutil.copytree(out, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["settings"]["code"]
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(jobs.InputError, match="the code that made those is not recorded"):
        jobs.run(GRID, old)


def test_programs_are_named_by_what_is_compiled() -> None:
    group = next(iter(GRID.groups()))
    same = dataclasses.replace(group, seeds=(7,), densities=(("1", 1.0),), noise=0.5)
    others = [{"width": 9}, {"finder": "snip"}, {"static": {"epochs": 2}}, {"task": "helix"}]
    names = [dataclasses.replace(group, **changes).program for changes in others]
    assert same.program == group.program
    assert len({group.program, *names}) == 1 + len(others)


def test_what_is_bad_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(jobs.InputError, match="--devices must be at most 2"):
        jobs.run(GRID, jobs.Operation(out=tmp_path / "run", devices=3))
    with pytest.raises(jobs.InputError, match="--ray-address goes with --executor ray"):
        jobs.run(GRID, jobs.Operation(out=tmp_path / "run", ray_address="auto"))
    assert not list(tmp_path.iterdir())
    with locks.held(tmp_path, locks.myself(1, 0)):
        with pytest.raises(jobs.InputError, match="no other job writes to"):
            jobs.run(GRID, tmp_path)
        assert not (tmp_path / "config.json").exists()
