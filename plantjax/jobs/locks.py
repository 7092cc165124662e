"""Locks: one job at a time writes to a results folder, and its processes watch one another.

The operating system frees a lock when its process ends, however it ends. Beside every lock lies a
note that names its holder. A note whose lock is free tells of a process that died.
"""

import contextlib
import json
import os
import platform
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from plantjax.jobs import chunks

BEAT = 2.0
"""Seconds between two looks at the other processes."""
NAME = "lock"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process of a job."""

    job: int
    process: int
    host: str
    pid: int

    def __str__(self) -> str:
        """As messages name it."""
        return f"process {self.pid} on {self.host}"


def myself(job: int, process: int) -> Holder:
    """The holder that stands for this process."""
    return Holder(job, process, platform.node(), os.getpid())


def holder(folder: Path, process: int = 0) -> Holder | None:
    """The process that the note of a lock names; None if there is no note."""
    return _read(_note(folder, process))


@contextlib.contextmanager
def held(folder: Path, mine: Holder, watched: bool = False) -> Iterator[None]:
    """Holds the folder's lock, or, for a process other than 0, that process's own lock.

    Args:
      folder: to lock.
      mine: this process.
      watched: whether others watch this process: if it fails, its note stays, which tells them.

    Raises:
      ValueError: if a living process holds it, which the message names, or the file system has no
        locks.
    """
    lock, note = _lock(folder, mine.process), _note(folder, mine.process)
    try:
        lock.acquire()
    except Timeout:
        other = _read(note) or "another process"
        raise ValueError(
            f"--out must be a folder that no other job writes to, got {folder}, which {other} "
            "holds; wait for it, or name another folder."
        ) from None
    except NotImplementedError:
        raise ValueError(f"--out must be on a file system that has locks, got {folder}.") from None
    try:
        if mine.process == 0:  # what processes of former jobs left, who are dead
            for old in folder.glob(f"{NAME}-*.json"):
                old.unlink(missing_ok=True)
        chunks.write_json(note, asdict(mine))
        yield
        watched = False
    finally:
        if _read(note) == mine and not watched:
            note.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def watched(check: Callable[[], str | None], fail: Callable[[str], None]) -> Iterator[None]:
    """Calls `check` every few seconds in a thread, and `fail` with its message, if any."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(BEAT):
            message = check()
            if message is not None:
                fail(message)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def trouble(folder: Path, mine: Holder) -> str | None:
    """A message if the folder was taken away or a process of the job died, else None."""
    if _read(_note(folder, mine.process)) != mine:
        return f"the results folder {folder} is gone, or another job has taken it"
    for note in folder.glob(f"{NAME}-*.json"):
        other = _read(note)
        if other is None or other.job != mine.job or other.process == mine.process:
            continue
        with contextlib.suppress(Timeout, OSError), _lock(folder, other.process):
            if _read(note) == other:  # not one that was done meanwhile
                return f"{other}, a process of this job, has died"
    return None


def _lock(folder: Path, process: int) -> FileLock:
    return FileLock(folder / f"{NAME}-{process}", timeout=0)


def _note(folder: Path, process: int) -> Path:
    return folder / f"{NAME}-{process}.json"


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
