"""The job that chaos disturbs, a run of seek.py: starting it, waiting for it, comparing results."""

import contextlib
import hashlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from plantjax.jobs.folder import load

SCRIPT = Path(__file__).parent.parent / "experiments" / "seek.py"
SWEEP = (
    "--tasks relu --depth 3 --width 8 --epochs 1 --chunk 2 --finders magnitude snip grasp "
    "--densities ticket 0.5 --seeds 12"
)
WAIT_SECONDS = 600.0


class ChaosError(RuntimeError):
    """A disturbed job did not behave as it should."""


class Job(NamedTuple):
    """The options of a run of `seek.py`, without its results folder."""

    words: tuple[str, ...]

    def start(self, folder: Path, *more: str) -> subprocess.Popen[str]:
        """Starts a process; `more` options override the job's own."""
        command = [sys.executable, str(SCRIPT), *self.words, "--out", str(folder), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def pair(self, folder: Path, devices: int = 1) -> list[subprocess.Popen[str]]:
        """Starts two processes that share the job, with this number of devices each."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2"]
        words += ["--devices", str(devices)]
        return [self.start(folder, *words, "--process", str(index)) for index in range(2)]

    def backwards(self) -> "Job":
        """The same job with its finders in reverse order."""
        first = self.words.index("--finders") + 1 if "--finders" in self.words else len(self.words)
        last = first
        while last < len(self.words) and not self.words[last].startswith("--"):
            last += 1
        names = self.words[first:last]
        return Job((*self.words[:first], *reversed(names), *self.words[last:]))


def finish(*processes: subprocess.Popen[str]) -> None:
    """Waits for the processes to end; raises ChaosError if one fails."""
    for process in processes:
        _, error = process.communicate(timeout=WAIT_SECONDS)
        if process.returncode:
            raise ChaosError(f"exit code {process.returncode}: {error[-500:]}")


def wait(folder: Path, number: int, *processes: subprocess.Popen[str]) -> None:
    """Waits until there are `number` chunks, or a process has ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(list((folder / "chunks").glob("*.npz"))) < number:
        if any(process.poll() is not None for process in processes):
            return
        if time.monotonic() > deadline:
            raise ChaosError("no progress")
        time.sleep(0.005)


def chunks(folder: Path) -> dict[str, str]:
    """Hashes of the finished chunks, by file name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "chunks").glob("*.npz")
    }


def compare(folder: Path, wanted: Path) -> None:
    """Raises ChaosError unless tables and masks are exactly equal."""
    table, undisturbed = _table(folder), _table(wanted)
    if not table.equals(undisturbed):
        where = _differences(table, undisturbed)
        raise ChaosError(f"{folder}/results.csv differs from that of the undisturbed run{where}")
    if _masks(folder) != _masks(wanted):
        raise ChaosError(f"masks of {folder} differ from those of the undisturbed run")


def _table(folder: Path) -> pd.DataFrame:
    """The table as text, sorted, without the column of times."""
    table = pd.read_csv(folder / "results.csv", dtype=str).drop(columns="seconds")
    return table.sort_values(list(table.columns), ignore_index=True)


def _differences(table: pd.DataFrame, wanted: pd.DataFrame) -> str:
    """The columns that differ and in how many rows, if rows and columns are the same."""
    if table.shape != wanted.shape or list(table.columns) != list(wanted.columns):
        return ""
    counts = (table.fillna("") != wanted.fillna("")).sum()
    words = [f"{name} ({count})" for name, count in counts.items() if count]
    return f" in rows of these columns, of {len(table)}: {', '.join(words)}"


def _masks(folder: Path) -> dict[str, bytes]:
    return {
        name: mask.tobytes()
        for chunk in load(folder)
        for name, mask in zip(chunk.ids, chunk.results["mask"], strict=True)
    }


def descendants(root: int, title: str) -> list[int]:
    """Descendants of the process `root` whose command line contains the title."""
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
