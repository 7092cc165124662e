"""Locks: one job at a time writes to a results folder.

A lock is a file made in one step, with its holder's name in it, whose time a thread renews. The
holder is dead if its process is gone or, on another host, if the time is old: then the lock is
taken over. No call to the operating system's locks, which network folders know or know not.
"""

import contextlib
import json
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

BEAT = 2.0
"""Seconds between two renewals."""
STALE = 180.0
"""Seconds without a renewal that make a holder on another host dead; NFS delays by up to 60."""
NAME = "lock"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process of a job; `born` tells processes of one pid apart."""

    job: int
    process: int
    host: str
    pid: int
    born: str

    def __str__(self) -> str:
        """As messages name it."""
        return f"process {self.pid} on {self.host}"


def myself(job: int, process: int) -> Holder:
    """This process as a holder."""
    return Holder(job, process, platform.node(), os.getpid(), _born(os.getpid()))


def path_of(folder: Path, process: int) -> Path:
    """The lock of the folder itself, or of a further process of the job that holds it."""
    return folder / (NAME if process == 0 else f"{NAME}-{process}")


def read(path: Path) -> Holder | None:
    """The holder that a lock names; None if there is no lock, or nobody in it."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_alive(path: Path, holder: Holder | None) -> bool:
    """Whether the lock's holder still runs, as far as one can tell."""
    if holder is not None and holder.host == platform.node():
        return _born(holder.pid) == holder.born != ""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp") as file:
            now = os.stat(file.name).st_mtime  # the file server's clock
        return now - path.stat().st_mtime < STALE
    except OSError:
        return False


def acquire(path: Path, mine: Holder) -> None:
    """Makes the lock, in place of a dead holder's if there is one.

    Raises:
      ValueError: if a living process holds it; the message names it.
    """
    for _ in range(100):
        with contextlib.suppress(FileExistsError):
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as file:
                json.dump(asdict(mine), file)
            return
        other = read(path)
        if is_alive(path, other):
            raise ValueError(
                f"--out must be a folder that no other job writes to, got {path.parent}, which "
                f"{other or 'another process'} holds; wait for it, or name another folder."
            )
        _remove(path, other, mine)
    raise ValueError(f"--out {path.parent} cannot be locked: {path} comes back whenever removed.")


def release(path: Path, mine: Holder) -> None:
    """Removes the lock if it is still this process's."""
    if read(path) == mine:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def watched(check: Callable[[], str | None], fail: Callable[[str], None]) -> Iterator[None]:
    """Calls `check` every few seconds in a thread, and `fail` with what it says, if anything."""
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


def renew(path: Path, mine: Holder) -> str | None:
    """Renews a lock; says so if it is gone or somebody else's."""
    if read(path) != mine:
        return f"the results folder {path.parent} is gone, or another job has taken it"
    with contextlib.suppress(OSError):
        os.utime(path)
    return None


def dead_peer(folder: Path, job: int) -> str | None:
    """Names a process of the job on this host that died with its lock in hand; None if none did.

    Those on other hosts are left to the coordination service of JAX.
    """
    for path in folder.glob(f"{NAME}*"):
        holder = read(path)
        here = holder is not None and holder.job == job and holder.host == platform.node()
        if here and not is_alive(path, holder):
            return f"{holder}, a process of this job, has died"
    return None


def _remove(path: Path, dead: Holder | None, mine: Holder) -> None:
    """Takes a dead holder's lock away; if another process was faster, its lock is put back."""
    aside = path.with_name(f"{path.name}.{mine.pid}.{mine.process}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if read(aside) != dead:
            with contextlib.suppress(OSError):
                os.link(aside, path)
        aside.unlink()


def _born(pid: int) -> str:
    """When a process of this host started, in the system's own words; "" if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
