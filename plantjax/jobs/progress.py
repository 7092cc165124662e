"""The progress bar: what a job does, how many cells are saved, and how long the rest will take."""

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from plantjax.jobs.schedule import Schedule, words_of

ROOM = 60
"""Columns of a terminal that has room for the bar itself."""


class Bar(Progress):
    """What the job does on one line, and how far it is on the next."""

    def __init__(self, console: Console, schedule: Schedule, done: int, total: int) -> None:
        """A bar of `total` cells, some of which were done before."""
        self._schedule, self._others = schedule, False
        bar = [BarColumn(None if console.width < 80 else 40)] if console.width >= ROOM else []
        left = _LeftColumn(schedule)
        columns = (*bar, MofNCompleteColumn(), TextColumn("cells"), TimeElapsedColumn(), left)
        super().__init__(*columns, console=console)
        self._bar = self.add_task("", total=total, completed=done)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The two lines."""
        words = "waiting for the other processes" if self._others else self._schedule.now()
        if words and not self.finished:
            yield Text(words)
        yield self.make_tasks_table(self.tasks)

    def saved(self, cells: int) -> None:
        """So many more cells are saved."""
        self.update(self._bar, advance=cells)

    def waits(self, saved: int, total: int) -> None:
        """Only other processes are computing still."""
        self._others = True
        self._schedule.waits_for_others()
        self.update(self._bar, completed=saved, total=total)


class _LeftColumn(ProgressColumn):
    """The time left; with "more than" if nobody knows how long some of the programs take."""

    max_refresh = 0.5

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        super().__init__()

    def render(self, task: Task) -> Text:
        """As in "about 12 s left"."""
        if task.finished:
            return Text("")
        seconds, whole = self._schedule.left()
        if not whole and seconds < 1.0:
            return Text("")
        about = "about" if whole else "more than"
        return Text(f"{about} {words_of(seconds)} left", style="cyan")


def stopping(schedule: Schedule) -> str:
    """What to say when the job is asked to stop."""
    if not schedule.one_by_one:
        return "Stopping; blocks that other workers have begun are lost; again to leave now."
    seconds = schedule.program_left()
    about = "" if seconds is None else f" (about {words_of(seconds)})"
    return f"Stopping after this program{about}; again to leave now."
