"""The schedule of a job: which programs it compiles and runs, and how long the rest will take.

How long programs took is kept beside their compiled form, so that the next job knows it from the
start. A program is known by the static shape of its group, see `Group.program`.
"""

import contextlib
import heapq
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from plantjax.jobs import chunks

FILE = "plantjax-seconds.json"
MOST_KEPT = 4000
"""Programs whose times are kept."""


@dataclass
class Seconds:
    """How long the programs of a group took, as far as it is known.

    Attributes:
      compiling: seconds until they were compiled.
      cell: seconds for each cell.
      batch: cells that run together.
    """

    compiling: float | None = None
    cell: float | None = None
    batch: int | None = None


@dataclass
class _Entry:
    """A group in the schedule: what it still has to do, and what it did in this job."""

    name: str
    finder: str
    left: int
    was: Seconds
    compiled: bool = False
    compile_began: float | None = None
    compiling: float | None = None
    ran: int = 0
    spent: float = 0.0
    batch: int | None = None


class Schedule:
    """The groups of a job in their order; executors tell it what they do."""

    def __init__(
        self,
        groups: Iterable[tuple[str, str, str, int]],
        ahead: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Looks up how long each took last time.

        Args:
          groups: (program, task, finder, cells) of each; equal programs are one.
          ahead: groups that compile ahead of the one that runs; None if groups run in parallel.
          clock: the time in seconds.
        """
        known = _read()
        self._ahead, self._clock = ahead, clock
        self._began = self._since = clock()
        self._now: tuple[str, str] | None = None
        self._entries: dict[str, _Entry] = {}
        for program, task, finder, cells in groups:
            was = known.get(program, Seconds())
            self._entries.setdefault(program, _Entry(f"{task} {finder}", finder, 0, was))
            self._entries[program].left += cells

    def waits(self, program: str) -> None:
        """The job waits for a group to be compiled."""
        self._now, self._since = ("compiling", program), self._clock()

    def compiles(self, program: str) -> None:
        """A group begins to compile."""
        self._entries[program].compile_began = self._clock()

    def compiled(self, program: str) -> None:
        """A group is compiled."""
        entry = self._entries[program]
        if entry.compile_began is not None:
            seconds = self._clock() - entry.compile_began
            entry.compiling = max(seconds, entry.compiling or 0.0)
        entry.compiled = True

    def runs(self, program: str) -> None:
        """A group runs from now on."""
        self._now, self._since = ("running", program), self._clock()

    def ran(self, program: str, cells: int, seconds: float | None = None) -> None:
        """A batch of a group is done, by default since the last call."""
        entry, now = self._entries[program], self._clock()
        entry.spent += now - self._since if seconds is None else seconds
        entry.ran, entry.left = entry.ran + cells, max(0, entry.left - cells)
        entry.batch, entry.compiled, self._since = cells, True, now

    @property
    def one_by_one(self) -> bool:
        """Whether one group runs at a time."""
        return self._ahead is not None

    @property
    def cells_run(self) -> int:
        """Number of cells that have run in this job."""
        return sum(entry.ran for entry in self._entries.values())

    def waits_for_others(self) -> None:
        """This process has nothing left to do."""
        self._now = None
        for entry in self._entries.values():
            entry.left = 0

    def now(self) -> str:
        """What the job does, in words."""
        if self._now is None:
            return ""
        doing, program = self._now
        entry = self._entries[program]
        if doing == "running":
            return entry.name
        last = entry.was.compiling
        words = "" if last is None else f" ({words_of(last)} last time)"
        return f"compiling {entry.name}{words}"

    def program_left(self) -> float | None:
        """Seconds until the end of the program that runs or compiles; None if it is not known."""
        if self._now is None:
            return None
        doing, program = self._now
        entry = self._entries[program]
        if doing == "compiling":
            return self._compiling_left(entry)
        batch, cell = entry.batch or entry.was.batch, self._cell(entry)
        if batch is None or cell is None:
            return None
        return max(0.0, cell * batch - (self._clock() - self._since))

    def left(self) -> tuple[float, bool]:
        """Seconds until the end of the job, and whether nothing is missing in this sum."""
        entries = [entry for entry in self._entries.values() if entry.left]
        if not entries:
            return 0.0, False
        costs = [self._cell(entry) for entry in entries]
        runs = [e.left * (cost or 0.0) for e, cost in zip(entries, costs, strict=True)]
        whole = None not in costs
        if self._ahead is None:
            spent = sum(entry.spent for entry in self._entries.values())
            speed = spent / max(1e-9, self._clock() - self._began)
            return sum(runs) / (speed or 1.0), whole and bool(spent)
        if self._now is not None and self._now[0] == "running" and runs:
            runs[0] = max(0.0, runs[0] - (self._clock() - self._since))
        waits = [0.0 if e.compiled else self._compiling_left(e) for e in entries]
        sums = [0.0 if wait is None else wait for wait in waits]
        return _end(sums, runs, self._ahead), whole and None not in waits

    def keep(self) -> None:
        """Saves how long everything took, if compiled programs are kept."""
        path = _path()
        if path is None:
            return
        known = _read()
        for program, entry in self._entries.items():
            if entry.compiling is not None or entry.ran:
                was = known.pop(program, entry.was)  # the last ones are the newest
                cell = entry.spent / entry.ran if entry.ran else was.cell
                compiling = was.compiling if entry.compiling is None else entry.compiling
                known[program] = Seconds(compiling, cell, entry.batch or was.batch)
        newest = list(known.items())[-MOST_KEPT:]
        with contextlib.suppress(chunks.StoreError):
            chunks.write_json(path, {program: asdict(seconds) for program, seconds in newest})

    def _cell(self, entry: _Entry) -> float | None:
        """Seconds a cell: of this job, of the last one, or of the finder on other tasks."""
        if entry.ran:
            return entry.spent / entry.ran
        if entry.was.cell is not None:
            return entry.was.cell
        like = [e for e in self._entries.values() if e.finder == entry.finder and e.ran]
        return sum(e.spent / e.ran for e in like) / len(like) if like else None

    def _compiling_left(self, entry: _Entry) -> float | None:
        same = [e.compiling for e in self._entries.values() if e.finder == entry.finder]
        like = [seconds for seconds in same if seconds is not None]
        last = entry.was.compiling
        if last is None:
            last = max(like, default=None)
        if last is None or entry.compile_began is None:
            return last
        return max(0.0, last - (self._clock() - entry.compile_began))


def words_of(seconds: float) -> str:
    """A duration in words, as "12 s" or "3 min"."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _end(compiling: list[float], running: list[float], ahead: int) -> float:
    """When the last group ends, if they run one by one while `ahead` others compile."""
    threads, now = [0.0] * ahead, 0.0
    ends: list[float] = []
    for index, (wait, run) in enumerate(zip(compiling, running, strict=True)):
        submitted = ends[index - ahead - 1] if index > ahead else 0.0
        ready = 0.0
        if wait:
            ready = max(heapq.heappop(threads), submitted) + wait
            heapq.heappush(threads, ready)
        now = max(now, ready) + run
        ends.append(now)
    return now


def _path() -> Path | None:
    """The file with the times, beside JAX's compiled programs."""
    folder: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return None if not folder or "://" in folder else Path(folder) / FILE


def _read() -> dict[str, Seconds]:
    path = _path()
    try:
        kept = json.loads(path.read_text()) if path is not None else {}
        return {program: Seconds(**seconds) for program, seconds in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
