"""The leaderboard: all finders on all tasks against the planted tickets, as a page and a figure.

`python experiments/leaderboard.py --budget full --publish` rebuilds LEADERBOARD.md. A finder takes
part by its line in the registry.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console

from plantjax import checks
from plantjax.finders import FINDERS, controls
from plantjax.finders.controls import CONTROLS
from plantjax.jobs import cli, runner, tables, terminal
from plantjax.jobs.folder import write_table
from plantjax.jobs.job import Operation, checking_input, job
from plantjax.jobs.processes import Team
from plantjax.tasks import TASKS
from ranking import open_worlds, page, plan, release, scoring
from ranking.open_worlds import DEPTH, NOISE, release_seed
from ranking.plan import BUDGETS, RULINGS, Board, Budget, Ruled
from ranking.release import PAGE, PICTURE

EXTENDED = ("tasks", "finders", "controls", "seeds", "rulings", "publish")
"""Settings that only add cells."""


@dataclass(frozen=True)
class Settings(Operation):
    """Compare all finders with planted tickets. For masks by others: `worlds -h`, `score -h`."""

    out: Path = Path("results/leaderboard")
    """Folder for results; a run with the same settings goes on where it stopped."""
    budget: Literal["full", "shapes", "matched", "quick", "smoke"] = "quick"
    """full: five tasks, ten mothers; shapes: for another --depth or --width; matched: rivals take
    the seeker's time; quick: 20 minutes on two CPU cores; smoke: for tests."""
    tasks: Annotated[tuple[str, ...] | None, cli.known(TASKS)] = None
    """Tasks (default: the budget's)."""
    finders: Annotated[tuple[str, ...] | None, cli.known(FINDERS)] = None
    """Finders (default: the budget's, most often all)."""
    controls: Annotated[tuple[str, ...], cli.known(CONTROLS)] = ()
    """Sanity controls of every finder that allows them."""
    rulings: Annotated[tuple[str, ...] | None, cli.known(RULINGS)] = None
    """Options of the finders: "published", also "tuned" (default: the budget's)."""
    seeds: int | None = None
    """Number of mothers (default: the budget's)."""
    first_seed: int = field(default_factory=release_seed)
    """The first seed (default: the release's)."""
    depth: int = DEPTH
    """Layers of neurons of the mothers, the input included."""
    width: int | None = None
    """Neurons per hidden layer (default: the budget's)."""
    publish: bool = False
    """Write the release's table, LEADERBOARD.md, docs/leaderboard.csv and .png as well."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        for name in self.tasks or ():
            checks.choice("--tasks", name, TASKS)
        for name in self.finders or ():
            checks.choice("--finders", name, FINDERS)
        for name in self.controls:
            checks.choice("--controls", name, CONTROLS)
        for name in self.rulings or ():
            checks.choice("--rulings", name, RULINGS)
        for option in ("tasks", "finders", "rulings"):
            if getattr(self, option) == ():
                raise ValueError(f"--{option} must name at least one, got none.")
        if self.seeds is not None:
            checks.integer("--seeds", self.seeds, 1, 10_000)
        checks.integer("--first-seed", self.first_seed, 0, 2**31 - 10_001)
        checks.integer("--depth", self.depth, 3)
        if self.width is not None:
            checks.integer("--width", self.width, 1)
        self.groups()

    def settings(self) -> dict[str, Any]:
        """Everything that changes a result; tasks, finders, mothers and rulings add cells only."""
        values = {name: v for name, v in super().settings().items() if name not in EXTENDED}
        budget = {name: v for name, v in asdict(self.plan()).items() if name not in EXTENDED}
        return {**values, "plan": json.loads(json.dumps(budget))}

    def plan(self) -> Budget:
        """The budget, with the rulings that were asked for."""
        budget = BUDGETS[self.budget]
        return budget if self.rulings is None else replace(budget, rulings=self.rulings)

    def names(self) -> list[str]:
        """The finders, each followed by its controls."""
        names = []
        for name in self.finders or self.plan().finders or tuple(FINDERS):
            fit = [c for c in self.controls if c != "inverted" or controls.has_score(FINDERS[name])]
            names += [name, *(f"{name}+{control}" for control in fit)]
        return names

    def board(self) -> Board:
        """What to run."""
        plan = self.plan()
        seeds = range(self.first_seed, self.first_seed + (self.seeds or plan.seeds))
        shape = (self.depth, self.width or plan.width)
        return Board(plan, self.tasks or plan.tasks, self.names(), seeds, *shape)

    def groups(self) -> list[Ruled]:
        """All groups of cells."""
        return self.board().groups()

    def sheet(self) -> str:
        """The part of the board: the budget's, else the shape of the mothers."""
        plan = self.plan()
        return plan.sheet or f"depth {self.depth}, width {self.width or plan.width}"

    def command(self) -> str:
        """The command that makes the results."""
        words = ["python", "experiments/leaderboard.py", "--budget", self.budget]
        for name in ("tasks", "finders", "controls", "rulings"):
            values = getattr(self, name)
            words += [f"--{name}", *values] if values else []
        words += [] if self.seeds is None else ["--seeds", str(self.seeds)]
        own = {"first_seed": release_seed(), "depth": DEPTH, "width": None}
        for name, usual in own.items():
            value = getattr(self, name)
            words += [] if value == usual else [f"--{name.replace('_', '-')}", str(value)]
        words += ["--plugin", *self.plugin] if self.plugin else []
        return shlex.join(words)

    def about(self) -> dict[str, str]:
        """How the results are made, in words."""
        board = self.board()
        training = {"depth": board.depth, "width": board.width, "noise": NOISE}
        options = {name: board.options(name) for name in board.finders}
        return {
            "command": self.command(),
            "training": ", ".join(
                f"{name} {value}" for name, value in (training | dict(board.budget.static)).items()
            ),
            "options": page.options_note(options),
        }


def run(settings: Settings, console: Console, team: Team) -> None:
    """Computes what is missing, then rebuilds page, tables and figure from the folder."""
    groups = settings.groups()
    wall, process = time.perf_counter(), time.process_time()
    computed = 0
    try:
        computed = runner.compute({settings.out: groups}, settings, console, team)
    finally:
        if team.leads:
            spent = time.perf_counter() - wall, time.process_time() - process
            release.spend(settings.out, settings.about(), *spent)
            _write(settings, groups)
    if not team.leads:
        return
    if not computed:
        terminal.say(console, f"All cells were done before; nothing was computed ({settings.out}).")
    if settings.publish:
        release.publish(release.read([settings.out]))
    terminal.say(console, f"Leaderboard, tables and figure: {settings.out}")


def _write(settings: Settings, groups: Sequence[Ruled]) -> None:
    table = tables.write(settings.out, groups)
    if not len(table):
        return
    table = plan.with_rulings(table, settings.plan().rulings).assign(sheet=settings.sheet())
    write_table(settings.out, table)
    release.write(
        release.read([settings.out]), settings.out / PAGE.name, settings.out / PICTURE.name
    )


COMMANDS: dict[str, Callable[[Sequence[str]], None]]
COMMANDS = {"worlds": open_worlds.main, "score": scoring.main, "page": release.main}
"""Sub-commands by their first word."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    with checking_input():
        settings = cli.parse(Settings, argv, "leaderboard.py")
    with job(settings) as team:
        run(settings, Console(), team)


if __name__ == "__main__":
    cli.run(main)
