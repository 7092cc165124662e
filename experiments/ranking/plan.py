"""What the leaderboard runs: tasks, densities, mothers, and the options of every finder.

Under the ruling "published" a finder has the options of the registry, under "tuned" those that
`tune.py` chose for the task. Where these are the same, a finder runs once, for both.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from plantjax.finders import FINDERS, REFERENCES, names
from plantjax.jobs.grids import HALF, TICKET, Grid, Group, Tickets, extended
from plantjax.tasks import PAPER_TASKS
from ranking.open_worlds import BOARD, DENSITIES, DEPTH, EPOCHS, FRESH, NOISE, WIDTH
from tuning import published, trials

PUBLISHED, TUNED, BOTH = "published", "tuned", "both"
RULINGS = (PUBLISHED, TUNED)
"""Where options come from; the table says BOTH of rows that stand for both."""


@dataclass(frozen=True)
class Budget:
    """How much to run.

    Attributes:
      tasks: names of tasks.
      densities: as of `Grid`.
      seeds: number of mothers.
      width: of the mothers.
      finders: names of finders; None for all.
      rulings: of RULINGS; a finder without tuned options runs under the first one only.
      static: options of every run. Finders that train as they search have as many epochs in all.
      shared: options of all finders that take them.
      options: options of single finders, by name.
      sheet: the part of the board that it makes; by default the shape of the mothers.
    """

    tasks: tuple[str, ...]
    densities: tuple[str, ...]
    seeds: int
    width: int = WIDTH
    finders: tuple[str, ...] | None = None
    rulings: tuple[str, ...] = (PUBLISHED,)
    static: Mapping[str, Any] = field(default_factory=lambda: {"epochs": EPOCHS, "fresh": FRESH})
    shared: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sheet: str = ""


TRIES = {"concrete_ticket": 48, "edge_popup_global": 74, "bernoulli_gates": 40}
"""Searches of the best rivals that take as long as one of the seeker's; more if tuned ones are
longer."""
QUICK_SEEK = {"restarts": 4, "sweeps": 4, "rungs": 2, "cycles": 0}
BUDGETS = {
    "full": Budget(tasks=BOARD, densities=DENSITIES, seeds=10, rulings=RULINGS),
    "shapes": Budget(
        tasks=("circle", "helix"), densities=("0.1", TICKET), seeds=3, rulings=(TUNED,)
    ),
    "matched": Budget(
        tasks=BOARD,
        densities=(TICKET,),
        seeds=2,
        finders=("edge_popup", "seek", *(f"{name}+best" for name in TRIES)),
        rulings=(TUNED,),
        options={name: {"tries": tries} for name, tries in TRIES.items()},
        sheet="the seeker's time",
    ),
    "quick": Budget(
        tasks=PAPER_TASKS,
        densities=("0.5", "0.1", TICKET, HALF),
        seeds=3,
        static={"epochs": 5},
        shared={"level_epochs": 2},
        options={"genetic": {"generations": 100}, "seek": QUICK_SEEK},
    ),
    "smoke": Budget(
        tasks=("relu", "xor"),
        densities=("0.5", TICKET),
        seeds=2,
        width=12,
        finders=("magnitude", "edge_popup"),
        rulings=RULINGS,
        static={"epochs": 1, "samples": 300, "fresh": 1000},
        options={"edge_popup": {"search_epochs": 2}},
    ),
}
"""full: the leaderboard; shapes: mothers of other depths and widths, for the best finders; matched:
the best of many searches in the seeker's time; quick: 20 minutes of two CPU cores; smoke: for
tests."""


@dataclass(frozen=True)
class Ruled(Group):
    """The cells of one finder with tuned options, or with published ones if there are none.

    Attributes:
      tuned: the tuned options, in words; part of the ids of cells.
    """

    tuned: str = ""

    def cells(self) -> list[dict[str, Any]]:
        """The labels of every cell, with the tuned options."""
        suffix, own = f"/{self.tuned}" if self.tuned else "", {"tuned": self.tuned}
        return [cell | {"id": f"{cell['id']}{suffix}"} | own for cell in super().cells()]


@dataclass(frozen=True)
class Board:
    """A budget at some tasks, finders and mothers.

    Attributes:
      budget: how much to run; its own tasks, finders and number of mothers do not count.
      tasks: names.
      finders: names, with controls.
      seeds: of the mothers.
      depth: layers of neurons, the input included.
      width: of the mothers.
    """

    budget: Budget
    tasks: Sequence[str]
    finders: Sequence[str]
    seeds: Sequence[int]
    depth: int = DEPTH
    width: int = WIDTH

    def groups(self) -> list[Ruled]:
        """All groups of cells: task by task, ruling by ruling, the references last.

        Raises:
          ValueError: if a finder has not been tuned on a task, or an option is out of range.
        """
        tickets = Tickets()
        return [group for task in self.tasks for group in self._of_task(task, tickets)]

    def _of_task(self, task: str, tickets: Tickets) -> Iterator[Ruled]:
        chosen = {ruling: self._tuned(task, ruling) for ruling in self.budget.rulings}
        for ruling, by_finder in chosen.items():
            for finder, tuned in by_finder.items():
                if tuned or ruling == self.budget.rulings[0]:
                    options = self.options(finder) | tuned
                    yield from self._ruled(task, finder, options, tuned, tickets)
        yield from self._ruled(task, None, {}, {}, tickets)

    def _tuned(self, task: str, ruling: str) -> dict[str, dict[str, Any]]:
        """The tuned options of every finder that differ from the published ones."""
        if ruling == PUBLISHED:
            return {finder: {} for finder in self.finders}
        log = published.load()
        return {finder: published.options(log, finder, task) for finder in self.finders}

    def options(self, finder: str) -> dict[str, Any]:
        """The options of a finder that differ from the registry's under every ruling."""
        known = names.options(finder)
        shared = {name: v for name, v in self.budget.shared.items() if name in known}
        return {**shared, **self.budget.options.get(names.base(finder), {})}

    def _ruled(
        self,
        task: str,
        finder: str | None,
        options: Mapping[str, Any],
        tuned: Mapping[str, Any],
        tickets: Tickets,
    ) -> list[Ruled]:
        """The groups of one finder, or of the references for None."""
        static = dict(self.budget.static)
        if finder is not None and trials.is_trained(names.base(finder)):
            static["epochs"] = max(static["epochs"] - searched(finder, options), 1)
        grid = Grid(
            tasks=(task,),
            finders=() if finder is None else (finder,),
            densities=self.budget.densities,
            seeds=self.seeds,
            depth=self.depth,
            width=self.width,
            noise=NOISE,
            references=tuple(REFERENCES) if finder is None else (),
            static=static,
            finder_options=options,
        )
        return [extended(Ruled, g, tuned=trials.words(tuned)) for g in grid.groups(tickets)]


def searched(finder: str, options: Mapping[str, Any]) -> int:
    """The epochs that a search of a finder trains for, 0 if it has no such option."""
    parameters = inspect.signature(FINDERS[names.base(finder)]).parameters
    if "search_epochs" not in parameters:
        return 0
    return int(options.get("search_epochs", parameters["search_epochs"].default))


def with_rulings(table: pd.DataFrame, rulings: Sequence[str]) -> pd.DataFrame:
    """The table with the column `ruling`: PUBLISHED, TUNED, or BOTH where one run stands for both.

    Args:
      table: tidy results with the column `tuned`.
      rulings: those that ran.
    """
    tuned = table["tuned"].fillna("") != ""
    pairs = table["task"] + "/" + table["finder"]
    shared = BOTH if len(rulings) > 1 else rulings[0]
    ruling = pd.Series(shared, table.index).mask(pairs.isin(pairs[tuned]), PUBLISHED)
    ruling = ruling.mask(tuned, TUNED)
    return table.assign(tuned=table["tuned"].fillna(""), ruling=ruling)


def of_ruling(table: pd.DataFrame, ruling: str) -> pd.DataFrame:
    """The rows of a ruling; all if the table does not tell any."""
    return table[table["ruling"].isin([ruling, BOTH])] if "ruling" in table else table


def rulings_in(table: pd.DataFrame) -> list[str]:
    """The rulings of a table, TUNED first."""
    if "ruling" not in table:
        return ["as run"]
    return [name for name in (TUNED, PUBLISHED) if table["ruling"].isin([name, BOTH]).any()]


def with_sheets(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the column `sheet`, the part of the board, for rows that do not tell it too.

    The first sheet is the board itself.
    """
    told = table["sheet"] if "sheet" in table else pd.Series(None, table.index, dtype=object)
    return table.assign(sheet=told.fillna("all mothers"))
