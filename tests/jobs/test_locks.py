"""Locks: one living holder at a time; what a process held is free when it ends, however it ends."""

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from plantjax.jobs import locks

HOLDING = """
import sys, time
from pathlib import Path
from plantjax.jobs import locks
with locks.held(Path(sys.argv[1]), locks.myself(7, 0)):
    print("held", flush=True)
    time.sleep(600)
"""


def put(folder: Path, holder: locks.Holder) -> Path:
    """The note of a process that died: nobody holds its lock."""
    with locks.held(folder, holder):
        (note,) = folder.glob(f"lock-{holder.process}.json")
        content = note.read_bytes()
    note.write_bytes(content)
    return note


def test_a_holder_is_named_and_keeps_the_lock(tmp_path: Path) -> None:
    mine = locks.myself(1, 0)
    with locks.held(tmp_path, mine):
        refused = pytest.raises(ValueError, match=f"--out .*{tmp_path}.*process {os.getpid()} on ")
        with refused, locks.held(tmp_path, locks.myself(2, 0)):
            pass
        assert locks.holder(tmp_path) == mine
        assert locks.trouble(tmp_path, mine) is None
    assert locks.holder(tmp_path) is None
    with locks.held(tmp_path, locks.myself(2, 0)):
        assert locks.holder(tmp_path) == locks.myself(2, 0)


def test_a_lock_without_a_note_is_held_all_the_same(tmp_path: Path) -> None:
    with locks.held(tmp_path, locks.myself(1, 0)):
        (tmp_path / "lock-0.json").write_text("{")
        refused = pytest.raises(ValueError, match="which another process holds")
        with refused, locks.held(tmp_path, locks.myself(2, 0)):
            pass


def test_file_systems_without_locks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*arguments: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(locks.FileLock, "_acquire", no_locks)
    refused = pytest.raises(ValueError, match="--out must be on a file system that has locks")
    with refused, locks.held(tmp_path, locks.myself(1, 0)):
        pass


def test_of_many_who_want_a_dead_holders_lock_one_gets_it(tmp_path: Path) -> None:
    put(tmp_path, locks.myself(1, 0))
    start, ready, refused = threading.Barrier(6), threading.Barrier(6), []

    def want(job: int) -> None:
        start.wait()
        try:
            with locks.held(tmp_path, locks.myself(job, 0)):
                ready.wait()
        except ValueError as error:
            refused.append(str(error))
            ready.wait()

    threads = [threading.Thread(target=want, args=(job,)) for job in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert locks.holder(tmp_path) is None


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    mine = locks.myself(1, 0)
    refused = pytest.raises(ValueError, match=f"process {process.pid} on .* holds")
    with refused, locks.held(tmp_path, mine):
        pass
    process.kill()
    process.communicate()
    assert locks.holder(tmp_path) is not None  # it could not say goodbye
    with locks.held(tmp_path, mine):
        assert locks.holder(tmp_path) == mine


def test_a_folder_that_is_gone_or_taken_is_trouble(tmp_path: Path) -> None:
    mine = locks.myself(1, 0)
    with locks.held(tmp_path, mine):
        note = tmp_path / "lock-0.json"
        content = note.read_bytes()
        note.unlink()
        assert f"{tmp_path} is gone" in str(locks.trouble(tmp_path, mine))
        note.write_bytes(content.replace(b'"job": 1', b'"job": 2'))
        assert "another job has taken it" in str(locks.trouble(tmp_path, mine))
    assert note.exists()  # which is not ours to remove


def test_dead_peers_of_the_same_job_are_named(tmp_path: Path) -> None:
    mine, peer = locks.myself(1, 0), dataclasses.replace(locks.myself(1, 3), pid=4_000_000)
    with locks.held(tmp_path, mine):
        with locks.held(tmp_path, peer):
            assert locks.trouble(tmp_path, mine) is None
        assert locks.trouble(tmp_path, mine) is None  # it was done
        note = put(tmp_path, peer)
        assert locks.trouble(tmp_path, mine) == f"{peer}, a process of this job, has died"
        note.write_text(note.read_text().replace('"job": 1', '"job": 9'))
        assert locks.trouble(tmp_path, mine) is None
    put(tmp_path, peer)
    with locks.held(tmp_path, mine):  # nothing is left of former jobs
        assert locks.trouble(tmp_path, mine) is None
        assert locks.holder(tmp_path, 3) is None


@pytest.mark.parametrize("watched", [False, True])
def test_a_process_that_fails_tells_those_who_watch_it(watched: bool, tmp_path: Path) -> None:
    mine, peer = locks.myself(7, 0), dataclasses.replace(locks.myself(7, 1), pid=1)
    with locks.held(tmp_path, mine):
        with locks.held(tmp_path, peer, watched=watched):
            pass
        assert locks.trouble(tmp_path, mine) is None  # it was done
        with pytest.raises(KeyboardInterrupt), locks.held(tmp_path, peer, watched=watched):
            raise KeyboardInterrupt
        assert (locks.trouble(tmp_path, mine) is not None) == watched


def test_a_watch_reports_once_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    told, looks, failed = [None, None, "gone", "gone"], [], threading.Event()

    def check() -> str | None:
        looks.append(told.pop(0))
        return looks[-1]

    with locks.watched(check, lambda message: failed.set() if message == "gone" else None):
        assert failed.wait(10)
    assert looks == [None, None, "gone"]
