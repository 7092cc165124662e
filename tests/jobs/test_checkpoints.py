"""Searches in levels: the same bits in one program and level by level, stopped and resumed."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from plantjax import sweeps, tasks
from plantjax.jobs.checkpoints import Checkpoint

pytestmark = pytest.mark.optimised

ROUNDS = 4


class StopError(Exception):
    """Ends a search after a level, as a kill would."""


class Stopping(Checkpoint):
    def __init__(self, folder: Path, seconds: float = 0.0, last: int = ROUNDS + 1) -> None:
        super().__init__(folder, seconds)
        self.last, self.levels = last, []

    def save(self, level: int, tree: Any) -> None:
        super().save(level, tree)
        self.levels.append(level)
        if level == self.last:
            raise StopError


@pytest.mark.parametrize(
    ("task", "width", "score"),
    [
        ("relu", 8, "magnitude"),
        pytest.param("circle", 24, "synflow", marks=pytest.mark.slow),
        pytest.param("circle", 24, "snip", marks=pytest.mark.slow),
    ],
)
def test_a_search_resumed_between_levels_gives_the_same_bits(
    task: str, width: int, score: str, tmp_path: Path
) -> None:
    options = {"epochs": 1, "samples": 300, "rounds": ROUNDS, "level_epochs": 1}
    run = sweeps.make_run(task, 4, width, f"multishot_{score}", **options)
    cells = sweeps.make_cells(tasks.TASKS[task], [0, 1], [0.1, 0.4])
    wanted = sweeps.sweep(run, cells, devices=1)
    keepers = []

    def keep(start: int, last: int = ROUNDS + 1) -> Checkpoint:
        keepers.append(Stopping(tmp_path / str(start), last=last))
        return keepers[-1]

    with pytest.raises(StopError):
        sweeps.sweep(run, cells, devices=1, keep=lambda start: keep(start, 2))
    found = sweeps.sweep(run, cells, devices=1, keep=keep)
    assert [keeper.levels for keeper in keepers] == [[1, 2], [3, 4], [1, 2, 3, 4]]
    assert list(tmp_path.iterdir()) == []
    for name in wanted:
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
            assert found[name].dtype == wanted[name].dtype


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


def damaged(path: Path) -> None:
    path.write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")


@pytest.mark.parametrize("what", ["files", "shape", "folder"])
def test_damaged_checkpoints_are_set_aside(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "search"
    size = (3, 2) if what == "shape" else (2, 3)
    Checkpoint(folder, 0.0).save(1, [np.ones(size, np.float32)])
    files = [path for path in folder.rglob("*") if path.is_file()]
    if what == "files":
        for path in files:
            damaged(path)
    elif what == "folder":
        shutil.rmtree(folder / "1")
        (folder / "1").mkdir()
    like = [np.zeros((2, 3), np.float32)]
    level, found = Checkpoint(folder, 0.0).restore(like)
    assert level == 0
    np.testing.assert_array_equal(found[0], like[0])
    assert "search starts anew" in capsys.readouterr().err
    assert not folder.exists()
    assert (tmp_path / "search.damaged").is_dir()
    keeper = Checkpoint(folder, 0.0)
    keeper.save(1, [np.ones((2, 3), np.float32)])
    assert keeper.restore(like)[0] == 1


def test_nothing_is_written_before_it_is_time(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "search", 1000.0).save(1, [np.zeros(2)])
    assert list(tmp_path.iterdir()) == []
