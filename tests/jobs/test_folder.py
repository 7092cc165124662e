"""The results folder: whole chunks or none, no other job's, no other version's, no tricks."""

import errno
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plantjax.jobs import chunks, folder, locks, processes

ALONE = processes.Team()
SETTINGS = {"seeds": 3}
CHUNK = chunks.Chunk(
    {"id": ["a", "b"]}, {"value": np.float32([0.5, np.nan]), "mask": np.eye(2) > 0}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with folder.opened({tmp_path / "run": SETTINGS}, ["seek.py"], False, ALONE):
        folder.save(tmp_path / "run", CHUNK)
    return tmp_path / "run"


def path_of(folder: Path) -> Path:
    (path,) = (folder / "chunks").glob("*.npz")
    return path


def test_chunks_come_back_as_they_were(folder: Path) -> None:
    (found,) = folder.load(folder)
    assert found.labels == CHUNK.labels
    assert found.results.keys() == CHUNK.results.keys()
    for name, wanted in CHUNK.results.items():
        np.testing.assert_array_equal(found.results[name], wanted)
        assert found.results[name].dtype == wanted.dtype


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


def pickle(path: Path) -> None:
    rewrite(path, value=np.array([print], object))


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
    "a pickle": (pickle, "allow_pickle"),
    "an empty file": (lambda path: path.write_bytes(b""), "not a zip"),
    "half a file": (lambda path: os.truncate(path, path.stat().st_size // 2), "zip"),
    "no checksum": (lambda path: np.savez(path, labels=np.array("{}")), "checksum"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_edited_chunks_are_set_aside(
    folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, message = DAMAGES[damage]
    path = path_of(folder)
    harm(path)
    assert list(folder.load(folder)) == []
    assert path.with_suffix(".damaged").exists()
    warning = capsys.readouterr().err
    assert str(path) in warning
    assert message in warning
    folder.save(folder, CHUNK)
    assert len(list(folder.load(folder))) == 1


def test_chunks_of_other_settings_are_set_aside(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with folder.opened({tmp_path / "other": {"seeds": 4}}, ["seek.py"], False, ALONE):
        path_of(folder).rename(tmp_path / "other" / "chunks" / "foreign.npz")
    assert list(folder.load(tmp_path / "other")) == []
    assert "other settings" in capsys.readouterr().err


def test_folders_of_another_format_are_refused_by_version(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"format": 1, "versions": {"plantjax": "0.0.9"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"format 2, got .* format 1, of plantjax 0\.0\.9"):
        folder.check(folder, SETTINGS, force=False)
    folder.check(folder, SETTINGS, force=True)


def test_a_second_job_is_refused_and_told_who_holds_the_folder(folder: Path) -> None:
    before = sorted(path.name for path in folder.rglob("*"))
    with folder.opened({folder: SETTINGS}, ["seek.py"], False, ALONE):
        refused = pytest.raises(ValueError, match=f"process {os.getpid()} on .* holds")
        with refused, folder.opened({folder: SETTINGS}, ["seek.py"], False, ALONE):
            pass
        assert locks.read(folder / "lock") is not None
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_of_several_folders_all_are_held_or_none(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with folder.opened({folder: SETTINGS}, ["seek.py"], False, ALONE):
        both = {other: SETTINGS, folder: SETTINGS}
        refused = pytest.raises(ValueError, match="holds")
        with refused, folder.opened(both, ["seek.py"], False, ALONE):
            pass
        assert not (other / "lock").exists()


def test_a_full_disk_leaves_what_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    more = chunks.Chunk({"id": ["c"]}, {"value": np.zeros(1)})
    with pytest.raises(folder.StoreError, match="cannot be written: No space left on device"):
        folder.save(folder, more)
    assert [found.ids for found in folder.load(folder)] == [CHUNK.ids]
    assert not list((folder / "chunks").glob("*.tmp"))


def test_a_vanished_folder_is_named(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(folder.StoreError, match=f"{folder} is gone"):
        folder.save(folder, CHUNK)


def test_chunks_are_plain_zip_files_that_numpy_reads(folder: Path) -> None:
    with zipfile.ZipFile(path_of(folder)) as archive:
        assert {name.removesuffix(".npy") for name in archive.namelist()} == {
            *CHUNK.results,
            *("labels", "settings", "checksum"),
        }
