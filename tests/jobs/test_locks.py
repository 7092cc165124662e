"""Locks: one living holder at a time; dead holders' locks are taken over, living ones' never."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from plantjax.jobs import locks


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def dead(job: int = 1) -> locks.Holder:
    return dataclasses.replace(locks.myself(job, 0), pid=ended_process())


def put(path: Path, holder: locks.Holder) -> None:
    locks.acquire(path, holder)


def test_a_living_holder_is_named_and_keeps_the_lock(tmp_path: Path) -> None:
    path, mine = locks.path_of(tmp_path, 0), locks.myself(1, 0)
    locks.acquire(path, mine)
    with pytest.raises(ValueError, match=f"--out .*{tmp_path}.*process {os.getpid()} on "):
        locks.acquire(path, locks.myself(2, 0))
    assert locks.read(path) == mine


def test_locks_of_dead_processes_are_taken_over(tmp_path: Path) -> None:
    path, mine = locks.path_of(tmp_path, 0), locks.myself(2, 0)
    put(path, dead())
    locks.acquire(path, mine)
    assert locks.read(path) == mine
    assert os.listdir(tmp_path) == ["lock"]


def test_a_pid_that_another_process_got_is_no_holder(tmp_path: Path) -> None:
    path, mine = locks.path_of(tmp_path, 0), locks.myself(2, 0)
    put(path, dataclasses.replace(mine, job=1, born="before"))
    locks.acquire(path, mine)
    assert locks.read(path) == mine


@pytest.mark.parametrize(("age", "alive"), [(0.0, True), (locks.STALE + 60.0, False)])
def test_holders_on_other_hosts_live_while_they_renew(
    tmp_path: Path, age: float, alive: bool
) -> None:
    path, mine = locks.path_of(tmp_path, 0), locks.myself(2, 0)
    there = dataclasses.replace(mine, job=1, host="elsewhere")
    put(path, there)
    os.utime(path, (time.time() - age,) * 2)
    assert locks.is_alive(path, there) == alive
    if alive:
        with pytest.raises(ValueError, match="on elsewhere"):
            locks.acquire(path, mine)
    else:
        locks.acquire(path, mine)
    assert locks.read(path) == (there if alive else mine)


def test_a_lock_with_nobody_in_it_is_being_made_until_it_is_old(tmp_path: Path) -> None:
    path, mine = locks.path_of(tmp_path, 0), locks.myself(2, 0)
    path.write_text("")
    with pytest.raises(ValueError, match="another process holds"):
        locks.acquire(path, mine)
    os.utime(path, (0, 0))
    locks.acquire(path, mine)
    assert locks.read(path) == mine


def test_of_many_who_want_a_dead_holders_lock_one_gets_it(tmp_path: Path) -> None:
    for trial in range(20):
        folder = tmp_path / str(trial)
        folder.mkdir()
        path = locks.path_of(folder, 0)
        put(path, dead())
        winners, start = [], threading.Barrier(6)

        def want(job: int, path=path, winners=winners, start=start) -> None:
            mine = locks.myself(job, job)
            start.wait()
            try:
                locks.acquire(path, mine)
            except ValueError:
                return
            winners.append(mine)

        threads = [threading.Thread(target=want, args=(job,)) for job in range(2, 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert locks.read(path) in winners
        held = [mine for mine in winners if locks.renew(path, mine) is None]
        assert len(held) == 1  # a loser of a race, if any, learns it at its first renewal


def test_only_ones_own_lock_is_released(tmp_path: Path) -> None:
    path, mine = locks.path_of(tmp_path, 0), locks.myself(1, 0)
    locks.acquire(path, mine)
    locks.release(path, locks.myself(2, 0))
    assert locks.read(path) == mine
    locks.release(path, mine)
    locks.release(path, mine)
    assert not path.exists()


def test_renewal_tells_of_a_lock_that_is_lost(tmp_path: Path) -> None:
    path, mine = locks.path_of(tmp_path, 0), locks.myself(1, 0)
    locks.acquire(path, mine)
    os.utime(path, (0, 0))
    assert locks.renew(path, mine) is None
    assert time.time() - path.stat().st_mtime < 60
    path.unlink()
    assert f"{tmp_path} is gone" in str(locks.renew(path, mine))
    locks.acquire(path, locks.myself(2, 0))
    assert "another job has taken it" in str(locks.renew(path, mine))


def test_dead_peers_of_the_same_job_are_named(tmp_path: Path) -> None:
    locks.acquire(locks.path_of(tmp_path, 0), locks.myself(1, 0))
    assert locks.dead_peer(tmp_path, 1) is None
    peer = dead(job=1)
    put(locks.path_of(tmp_path, 3), peer)
    assert f"process {peer.pid} on" in str(locks.dead_peer(tmp_path, 1))
    assert locks.dead_peer(tmp_path, 2) is None


def test_a_watch_reports_once_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    told, looks, failed = [None, None, "gone", "gone"], [], threading.Event()

    def check() -> str | None:
        looks.append(told.pop(0))
        return looks[-1]

    with locks.watched(check, lambda message: failed.set() if message == "gone" else None):
        assert failed.wait(10)
    assert looks == [None, None, "gone"]
