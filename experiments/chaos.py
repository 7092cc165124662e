"""Chaos: runs a sweep while killing and damaging it, and checks that its table never changes.

Every trial disturbs a run of the main job in its own way, lets it finish, and compares table and
masks with those of an undisturbed run. Loopback and this machine only; every wait has an end.
"""

import contextlib
import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from experiments import cli, store
from plantjax import checks

SCRIPT = Path(__file__).with_name("seek.py")
SWEEP: tuple[str, ...] = (
    *("--tasks", "relu", "--depth", "3", "--width", "8", "--epochs", "1", "--chunk", "2"),
    *("--finders", "magnitude", "snip", "grasp", "--densities", "ticket", "0.5", "--seeds", "12"),
)
WAIT_SECONDS = 600.0
NOTICE_SECONDS = 60.0
"""In which a process must notice that another one died."""
TMPFS_KILOBYTES = 96


@dataclass(frozen=True)
class Settings:
    """Disturb a sweep in every way, and compare its table with that of an undisturbed run."""

    out: Path = Path("results/chaos")
    """Folder for the runs; made anew."""
    trials: tuple[str, ...] = ()
    """Which of kill, distributed, ray, damage, full (default: all)."""
    kills: int = 20
    """Kills of the single process; the other trials take a fifth of it."""
    seed: int = 0
    """Of the times and places of the disturbances."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        for name in self.trials:
            checks.choice("--trials", name, TRIALS)
        checks.integer("--kills", self.kills, 1)
        checks.integer("--seed", self.seed, 0)
        if self.out.exists() and any(self.out.iterdir()):
            raise ValueError(f"--out must be a new or empty folder, got {self.out}.")


class ChaosError(RuntimeError):
    """What must not happen has happened."""


def kill(folder: Path, settings: Settings, rng: random.Random) -> str:
    """SIGKILL at random times; no finished chunk is lost, written twice or changed."""
    finished: dict[str, str] = {}
    killed = 0
    for _ in range(settings.kills):
        process = _start(folder)
        more = rng.randrange(2)  # soon after a chunk, or while it starts
        _wait(folder, len(finished) + more, process)
        time.sleep(rng.uniform(0.0, 0.1 if more else 3.0))
        killed += process.poll() is None
        process.kill()
        process.communicate()
        now = _chunks(folder)
        if not finished.items() <= now.items():
            raise ChaosError("a finished chunk was lost or computed again")
        finished = now
    _finish(_start(folder))
    if not finished.items() <= _chunks(folder).items():
        raise ChaosError("a finished chunk was lost or computed again")
    return f"{killed} kills, {len(finished)} chunks finished under fire"


def distributed(folder: Path, settings: Settings, rng: random.Random) -> str:
    """SIGKILL of one of two processes; the other one ends soon, and says why."""
    kills, slowest = max(1, settings.kills // 5), 0.0
    for _ in range(kills):
        pair = _pair(folder)
        _wait(folder, len(_chunks(folder)) + 1, *pair)
        victim = rng.randrange(2)
        pair[victim].kill()
        pair[victim].communicate()
        clock = time.monotonic()
        _, error = pair[1 - victim].communicate(timeout=WAIT_SECONDS)
        slowest = max(slowest, time.monotonic() - clock)
        if pair[1 - victim].returncode == 0:  # it had nothing left to do
            continue
        if "died" not in error:
            raise ChaosError(f"the other process did not say why it ended: {error[-300:]}")
    if slowest > NOTICE_SECONDS:
        raise ChaosError(f"the other process noticed only after {slowest:.0f} seconds")
    for process in _pair(folder):
        _finish(process)
    return f"{kills} kills, noticed within {slowest:.1f} seconds"


def ray(folder: Path, settings: Settings, rng: random.Random) -> str:
    """SIGKILL of Ray workers at work; Ray starts their tasks anew."""
    process = _start(folder, "--executor", "ray", "--ray-cpus", "0.5")
    killed = 0
    while killed < max(1, settings.kills // 5) and process.poll() is None:
        _wait(folder, len(_chunks(folder)) + 1, process)
        workers = _descendants(process.pid, "ray::_task")  # not the agents of the node
        if workers and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                killed += 1
        time.sleep(0.05)
    _finish(process)
    return f"{killed} workers killed"


def damage(folder: Path, settings: Settings, rng: random.Random) -> str:
    """Chunk files that are cut short, changed in one bit, or gone are computed again."""
    _finish(_start(folder))
    paths = sorted((folder / "chunks").glob("*.npz"))
    chosen = rng.sample(paths, min(len(paths), 3 * max(1, settings.kills // 5)))
    for index, path in enumerate(chosen):
        content = bytearray(path.read_bytes())
        if index % 3 == 0:
            path.write_bytes(content[: rng.randrange(len(content))])
        elif index % 3 == 1:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
        else:
            path.unlink()
    _finish(_start(folder))
    return f"{len(chosen)} chunks damaged"


def full(folder: Path, settings: Settings, rng: random.Random) -> str:
    """A disk that is full: a clear error, and the rest once there is room."""
    del settings, rng
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_KILOBYTES}k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise PermissionError("mounting a small tmpfs takes root")
    try:
        process = _start(folder)
        _, error = process.communicate(timeout=WAIT_SECONDS)
        lines = [line for line in error.splitlines() if line.startswith("error: ")]
        if process.returncode != 1 or len(lines) != 1 or "cannot be written" not in lines[0]:
            raise ChaosError(f"a full disk gave exit code {process.returncode}: {error[-300:]}")
        before = _chunks(folder)
        larger = ["mount", "-o", "remount,size=100m", str(folder)]
        subprocess.run(larger, capture_output=True, check=True)
        _finish(_start(folder))
        if not before.items() <= _chunks(folder).items():
            raise ChaosError("a chunk from before the disk was full was computed again")
        _compare(folder, folder.with_name("undisturbed"))
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)
    return f"full after {len(before)} chunks"


Trial = Callable[[Path, Settings, random.Random], str]
TRIALS: dict[str, Trial] = {
    trial.__name__: trial for trial in (kill, distributed, ray, damage, full)
}
"""The registry of trials."""


def run(settings: Settings, console: Console) -> None:
    """Runs all trials.

    Raises:
      ChaosError: if one of them ended with another table, or not as it should.
    """
    undisturbed = settings.out / "undisturbed"
    _finish(_start(undisturbed))
    console.print(f"undisturbed: {len(_chunks(undisturbed))} chunks")
    for name in settings.trials or TRIALS:
        clock = time.monotonic()
        folder = settings.out / name
        rng = random.Random(f"{settings.seed} {name}")
        try:
            words = TRIALS[name](folder, settings, rng)
        except PermissionError as error:
            console.print(f"{name}: left out, {error}")
            continue
        if (folder / "results.csv").exists():
            _compare(folder, undisturbed)
        console.print(f"{name}: {words}; the same table ({time.monotonic() - clock:.0f} s)")


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), *SWEEP, "--out", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _pair(folder: Path) -> list[subprocess.Popen[str]]:
    """Two processes of one job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--devices", "1"]
    return [_start(folder, *words, "--process", str(index)) for index in range(2)]


def _finish(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate(timeout=WAIT_SECONDS)
    if process.returncode:
        raise ChaosError(f"exit code {process.returncode}: {error[-500:]}")


def _wait(folder: Path, number: int, *processes: subprocess.Popen[str]) -> None:
    """Waits until there are so many chunks, or a process has ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(list((folder / "chunks").glob("*.npz"))) < number:
        if any(process.poll() is not None for process in processes):
            return
        if time.monotonic() > deadline:
            raise ChaosError("no progress")
        time.sleep(0.005)


def _chunks(folder: Path) -> dict[str, str]:
    """The finished chunks and the hashes of their content."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "chunks").glob("*.npz")
    }


def _compare(folder: Path, wanted: Path) -> None:
    """Raises ChaosError unless tables and masks are the same to the last digit and bit."""
    tables = [pd.read_csv(path / "results.csv", dtype=str) for path in (folder, wanted)]
    found, right = (table.drop(columns="seconds") for table in tables)
    if not found.equals(right):
        raise ChaosError(f"{folder}/results.csv differs from that of the undisturbed run")
    if _masks(folder) != _masks(wanted):
        raise ChaosError(f"masks of {folder} differ from those of the undisturbed run")


def _masks(folder: Path) -> dict[str, bytes]:
    return {
        name: mask.tobytes()
        for chunk in store.load(folder)
        for name, mask in zip(chunk.ids, chunk.results["mask"], strict=True)
    }


def _descendants(root: int, title: str) -> list[int]:
    """Processes below `root` whose command line holds the title."""
    parents, titles = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.name)
            found = re.search(r"\) \S (\d+)", (path / "stat").read_text())
            parents[pid] = int(found[1]) if found else 0
            titles[pid] = (path / "cmdline").read_bytes().decode(errors="replace")

    def ancestors(pid: int) -> Iterator[int]:
        while pid in parents:
            pid = parents[pid]
            yield pid

    return [pid for pid in titles if title in titles[pid] and root in ancestors(pid)]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli.checking_input():
        settings = cli.parse(Settings, argv, "chaos.py")
        settings.check()
    try:
        run(settings, Console())
    except ChaosError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    cli.run(main)
