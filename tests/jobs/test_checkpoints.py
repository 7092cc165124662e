"""Searches in levels: stopped and resumed between two levels they give the same bits."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from plantjax import jobs
from plantjax.jobs import folder
from plantjax.jobs.checkpoints import Checkpoint

ROUNDS = 4


class StopError(Exception):
    """Ends a search after a level, as a kill would."""


@pytest.mark.slow
def test_a_search_resumed_between_levels_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a search in one program."""
    grid = jobs.Grid(
        tasks=["relu"],
        finders=["multishot_magnitude"],
        densities=["0.1", "0.4"],
        seeds=[0, 1],
        depth=4,
        width=8,
        references=(),
        static={"epochs": 0, "samples": 300},
        finder_options={"rounds": ROUNDS, "level_epochs": 1},
    )
    (group,) = grid.groups()
    wanted = group.compute(group.cells(), 2)
    save, levels = Checkpoint.save, []

    def stopping(self: Checkpoint, level: int, tree: object) -> None:
        save(self, level, tree)
        levels.append(level)
        if len(levels) == 2:
            raise StopError

    monkeypatch.setattr(Checkpoint, "save", stopping)
    operation = jobs.Operation(out=tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(StopError):
        jobs.run(grid, operation)
    assert len(list((tmp_path / "levels").iterdir())) == 1
    table = jobs.run(grid, operation)
    assert levels == [1, 2, 3, 4]
    assert list((tmp_path / "levels").iterdir()) == []
    (found,) = folder.load(tmp_path)
    assert found.labels == wanted.labels
    assert found.results.keys() == wanted.results.keys()
    for name, values in wanted.results.items():
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(found.results[name], values, err_msg=name)
            assert found.results[name].dtype == values.dtype
    assert len(table) == 4


def test_checkpoints_come_back_as_they_were(tmp_path: Path) -> None:
    tree = ({"a": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, [np.array([True, False])])
    keeper = Checkpoint(tmp_path / "search", 0.0)
    like = jax.tree.map(np.zeros_like, tree)
    assert keeper.restore(like)[0] == 0
    for level in (1, 2):
        keeper.save(level, jax.tree.map(lambda leaf, level=level: leaf * level, tree))
    level, found = Checkpoint(tmp_path / "search", 0.0).restore(like)
    assert level == 2
    np.testing.assert_array_equal(found[0]["a"], 2 * tree[0]["a"])
    np.testing.assert_array_equal(found[1][0], tree[1][0])
    keeper.clear()
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize("what", ["files", "shape", "folder"])
def test_damaged_checkpoints_are_set_aside(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "search"
    size = (3, 2) if what == "shape" else (2, 3)
    Checkpoint(out, 0.0).save(1, [np.ones(size, np.float32)])
    if what == "files":
        for path in [path for path in out.rglob("*") if path.is_file()]:
            path.write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    elif what == "folder":
        shutil.rmtree(out / "1")
        (out / "1").mkdir()
    like: list[Any] = [np.zeros((2, 3), np.float32)]
    level, found = Checkpoint(out, 0.0).restore(like)
    assert level == 0
    np.testing.assert_array_equal(found[0], like[0])
    assert "search starts anew" in capsys.readouterr().err
    assert not out.exists()
    assert (tmp_path / "search.damaged").is_dir()
    keeper = Checkpoint(out, 0.0)
    keeper.save(1, [np.ones((2, 3), np.float32)])
    assert keeper.restore(like)[0] == 1


def test_nothing_is_written_before_it_is_time(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "search", 1000.0).save(1, [np.zeros(2)])
    assert list(tmp_path.iterdir()) == []
