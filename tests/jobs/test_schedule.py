"""How long a job takes: what is known, what is kept for the next one, and what to say of it."""

import io
from pathlib import Path

import jax
import pytest
from rich.console import Console

from plantjax.jobs import progress, schedule
from plantjax.jobs.schedule import Schedule

GROUPS = [("a", "relu", "snip", 4), ("b", "relu", "seek", 4), ("c", "helix", "seek", 4)]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kept(tmp_path: Path) -> object:
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def ran(clock: Clock, ahead: int | None = 2) -> Schedule:
    """Compiled in 10, 30 and 50 seconds; snip takes 1 second a cell and seek 20."""
    job = Schedule(GROUPS, ahead, clock)
    for program, compiling, cell in (("a", 10.0, 1.0), ("b", 30.0, 20.0), ("c", 50.0, 20.0)):
        job.compiles(program)
        job.waits(program)
        clock.now += compiling
        job.compiled(program)
        job.runs(program)
        for _ in range(2):
            clock.now += 2 * cell
            job.ran(program, 2)
    job.keep()
    return job


def test_programs_count_by_what_they_cost_and_not_by_their_cells(kept: Path) -> None:
    clock = Clock()
    first = Schedule(GROUPS, 2, clock)
    assert first.left() == (0.0, False)
    assert first.program_left() is None
    ran(clock)
    second = Schedule(GROUPS, 2, clock)
    for program in "abc":
        second.compiles(program)
    second.waits("a")
    # a is there after 10 s and runs for 4; b after 30 s, runs for 80; c compiled meanwhile.
    assert second.left() == (10.0 + 20.0 + 80.0 + 80.0, True)
    assert second.now() == "compiling relu snip (10 s last time)"
    clock.now += 4.0
    assert second.program_left() == 6.0
    second.compiled("a")
    second.runs("a")
    clock.now += 1.5
    assert (second.now(), second.program_left()) == ("relu snip", 0.5)
    second.ran("a", 2)
    assert second.program_left() == 1.5  # a cell takes 0.75 s here
    assert "Stopping after this program (about 2 s); again to leave now." in progress.stopping(
        second
    )


def test_a_finder_is_as_slow_as_on_another_task() -> None:
    clock = Clock()
    job = Schedule(GROUPS[1:], 2, clock)
    for program in "bc":
        job.compiles(program)
        job.compiled(program)
    job.runs("b")
    assert job.left() == (0.0, False)
    clock.now += 20.0
    job.ran("b", 2)
    assert job.left() == (2 * 10.0 + 4 * 10.0, True)


def test_groups_that_run_in_parallel_share_the_time(kept: Path) -> None:
    clock = Clock()
    ran(clock)
    job = Schedule(GROUPS, None, clock)
    clock.now += 40.0
    job.ran("b", 4, 80.0)  # two workers
    assert job.left() == ((4 * 1.0 + 4 * 20.0) / 2, True)


def test_what_is_kept_may_be_missing_or_damaged(kept: Path) -> None:
    (kept / schedule.FILE).write_text('{"a": 3}')
    assert Schedule(GROUPS, 2).left() == (0.0, False)
    jax.config.update("jax_compilation_cache_dir", None)
    Schedule(GROUPS, 2).keep()


@pytest.mark.parametrize("columns", [40, 50, 80, 200])
def test_the_bar_is_whole_on_narrow_terminals(columns: int, kept: Path) -> None:
    clock = Clock()
    ran(clock)
    file = io.StringIO()
    job = Schedule(GROUPS, 2, clock)
    job.waits("b")
    with progress.Bar(Console(file=file, width=columns), job, 0, 2400):
        pass
    text = file.getvalue()
    for words in ("compiling relu seek", "last time)", "0/2400 cells 0:00:00", "about 3 min left"):
        assert words in " ".join(text.split()), text
    assert all(len(line) <= columns for line in text.splitlines())
