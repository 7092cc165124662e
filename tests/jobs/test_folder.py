"""The results folder: whole chunks or none, no other job's, no other version's, no tricks."""

import errno
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import scripting
from plantjax.jobs import StoreError, chunks, folder, locks, processes

ALONE = processes.Team()
SETTINGS = {"seeds": 3}
CHUNK = chunks.Chunk(
    {"id": ["a", "b"]}, {"value": np.float32([0.5, np.nan]), "mask": np.eye(2) > 0}
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with one chunk."""
    with folder.opened({tmp_path / "run": SETTINGS}, ["seek.py"], False, ALONE):
        folder.save(tmp_path / "run", CHUNK)
    return tmp_path / "run"


def path_of(out: Path) -> Path:
    (path,) = (out / "chunks").glob("*.npz")
    return path


# Chunks.


def test_chunks_come_back_as_they_were(out: Path) -> None:
    (found,) = folder.load(out)
    assert found.labels == CHUNK.labels
    assert found.results.keys() == CHUNK.results.keys()
    for name, wanted in CHUNK.results.items():
        np.testing.assert_array_equal(found.results[name], wanted)
        assert found.results[name].dtype == wanted.dtype
    with zipfile.ZipFile(path_of(out)) as archive:  # plain, so that numpy alone reads it
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    assert names == {*CHUNK.results, "labels", "settings", "checksum"}


def test_those_who_wait_read_every_chunk_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = chunks.read
    monkeypatch.setattr(chunks, "read", lambda *given: read.append(given[0]) or original(*given))
    saved = folder.SavedCells(out)
    for _ in range(3):
        assert saved.ids() == {"a", "b"}
    assert len(read) == 1
    folder.save(out, chunks.Chunk({"id": ["c"]}, {"value": np.zeros(1)}))
    assert saved.ids() == {"a", "b", "c"}
    assert len(read) == 2
    for path in read:
        path.write_bytes(b"damaged")
    assert saved.ids() == set()


def rewrite(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as arrays:
        content = dict(arrays) | changes
    with path.open("wb") as file:
        np.savez(file, **content)


def pack(path: Path) -> None:
    with np.load(path) as arrays:
        content = dict(arrays)
    with path.open("wb") as file:
        np.savez_compressed(file, **content | {"value": np.zeros(10**6, np.float32)})


def claim(path: Path) -> None:
    """An array whose header claims petabytes."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }\n"
    with zipfile.ZipFile(path, "w") as archive:
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        archive.writestr("value.npy", content)


def packed_as(method: int) -> Callable[[Path], None]:
    """All entries say that they are packed in another way than they are."""

    def harm(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for start, field in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            where = content.find(start)
            while where >= 0:
                content[where + field] = method
                where = content.find(start, where + 4)
        path.write_bytes(content)

    return harm


DAMAGES = {
    "petabytes": (claim, "damaged"),
    "said to be deflated": (packed_as(8), "damaged"),
    "packed in an unknown way": (packed_as(99), "compression"),
    "an edited value": (lambda path: rewrite(path, value=np.float32([1, 1])), "checksum"),
    "another array": (lambda path: rewrite(path, more=np.zeros(2)), "checksum"),
    "edited labels": (lambda path: rewrite(path, labels=np.array("{}")), "checksum"),
    "a bomb": (pack, "compressed"),
    "a pickle": (lambda path: rewrite(path, value=np.array([print], object)), "allow_pickle"),
    "an empty file": (lambda path: path.write_bytes(b""), "not a zip"),
    "half a file": (lambda path: os.truncate(path, path.stat().st_size // 2), "zip"),
    "no checksum": (lambda path: np.savez(path, labels=np.array("{}")), "checksum"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_edited_chunks_are_set_aside(
    out: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, message = DAMAGES[damage]
    path = path_of(out)
    harm(path)
    assert list(folder.load(out)) == []
    assert path.with_suffix(".damaged").exists()
    warning = capsys.readouterr().err
    assert str(path) in warning
    assert message in warning
    folder.save(out, CHUNK)
    assert len(list(folder.load(out))) == 1


def test_chunks_of_other_settings_are_set_aside(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with folder.opened({tmp_path / "other": {"seeds": 4}}, ["seek.py"], False, ALONE):
        path_of(out).rename(tmp_path / "other" / "chunks" / "foreign.npz")
    assert list(folder.load(tmp_path / "other")) == []
    assert "other settings" in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_written(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    more = chunks.Chunk({"id": ["c"]}, {"value": np.zeros(1)})
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        folder.save(out, more)
    assert [found.ids for found in folder.load(out)] == [CHUNK.ids]
    assert not list((out / "chunks").glob("*.tmp"))


def test_a_vanished_folder_is_named(out: Path) -> None:
    out.rename(out.with_name("elsewhere"))
    with pytest.raises(StoreError, match=f"{out} is gone"):
        folder.save(out, CHUNK)


# Folders.


def test_a_folder_is_finished_when_all_its_cells_are_there(out: Path) -> None:
    assert not folder.finished(out, SETTINGS)
    folder.finish(out, CHUNK.ids)
    assert folder.done_ids(out) == CHUNK.ids
    assert folder.finished(out, SETTINGS)
    assert not folder.finished(out, {"seeds": 4})
    path_of(out).unlink()
    assert not folder.finished(out, SETTINGS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"my": "project"}', "config.json cannot be read"),
        ("[", "config.json cannot be read"),
        (
            '{"settings": {}, "format": 1, "versions": {"plantjax": "0.0.9"}}',
            r"format 2, got .* format 1, of plantjax 0\.0\.9",
        ),
        ('{"settings": {}, "format": 999}', "format 999, of plantjax unknown"),
        ('{"settings": {"seeds": 4, "old": 1}, "format": 2}', "seeds: 4 there, 3 here; old: 1"),
    ],
)
def test_folders_with_something_else_are_left_alone(
    tmp_path: Path, config: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=message):
        folder.check(tmp_path, SETTINGS, force=False)
    assert (tmp_path / "config.json").read_text() == config
    folder.check(tmp_path, SETTINGS, force=True)


def test_files_and_links_to_nothing_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out, what in (("file", "file is a file"), ("link", "link is a link to nothing")):
        for path in (tmp_path / out, tmp_path / out / "below"):
            with pytest.raises(ValueError, match=f"--out must be a folder, got .*{what}"):
                folder.check(path, SETTINGS, force=False)
    assert (tmp_path / "file").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_force_clears_results_and_nothing_else(out: Path) -> None:
    folder.finish(out, CHUNK.ids)
    for name in ("results.csv", "figure.png", "spent.json", "mine.txt"):
        (out / name).write_text("{}")
    with folder.opened({out: {"seeds": 4}}, ["seek.py"], True, ALONE):
        names = {path.name for path in out.iterdir() if not path.name.startswith("lock")}
        assert names == {"chunks", "config.json", "mine.txt"}
    assert list(folder.load(out)) == []
    config = json.loads((out / "config.json").read_text())
    assert (config["settings"], config["command"]) == ({"seeds": 4}, ["seek.py"])


# Jobs.


def test_a_second_job_is_refused_and_told_who_holds_the_folder(out: Path) -> None:
    before = scripting.contents(out)
    with folder.opened({out: SETTINGS}, ["seek.py"], False, ALONE):
        refused = pytest.raises(ValueError, match=f"process {os.getpid()} on .* holds")
        with refused, folder.opened({out: SETTINGS}, ["seek.py"], False, ALONE):
            pass
        assert locks.holder(out) is not None
    assert scripting.contents(out) == before


def test_of_several_folders_all_are_held_or_none(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with folder.opened({out: SETTINGS}, ["seek.py"], False, ALONE):
        both = {other: SETTINGS, out: SETTINGS}
        refused = pytest.raises(ValueError, match="holds")
        with refused, folder.opened(both, ["seek.py"], False, ALONE):
            pass
        assert locks.holder(other) is None


class Follower(processes.Team):
    """The second of two processes, which is told the first one's job."""

    job = 7

    def broadcast(self, number: int) -> int:
        return self.job


def test_further_processes_need_the_folder_of_the_first(out: Path, tmp_path: Path) -> None:
    team, refused = Follower(1, (1, 1)), pytest.raises(ValueError, match="does not find the first")
    with refused, folder.opened({out: SETTINGS}, ["seek.py"], False, team):
        pass
    with locks.held(out, locks.myself(8, 0)):  # another job's
        refused = pytest.raises(ValueError, match="that all processes of the job share")
        with refused, folder.opened({out: SETTINGS}, ["seek.py"], False, team):
            pass
    with locks.held(out, locks.myself(7, 0)):
        with folder.opened({out: SETTINGS}, ["seek.py"], False, team):
            assert locks.holder(out, 1) == locks.myself(7, 1)
        assert locks.holder(out, 1) is None
    team.job, elsewhere = 0, {tmp_path / "new": SETTINGS}
    refused = pytest.raises(ValueError, match="refused to the first process of this job")
    with refused, folder.opened(elsewhere, ["seek.py"], False, team):
        pass
    assert not (tmp_path / "new").exists()
