"""The leaderboard: all finders on all tasks against the planted tickets, as a page and a figure.

`python experiments/leaderboard.py --budget quick --publish` rebuilds LEADERBOARD.md. A finder takes
part by its line in the registry.
"""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from rich.console import Console

from plantjax import checks
from plantjax.finders import FINDERS, REFERENCES, controls, names
from plantjax.finders.controls import CONTROLS
from plantjax.jobs import chunks, cli, figures, runner, tables, terminal
from plantjax.jobs.folder import write_table
from plantjax.jobs.grids import HALF, TICKET, Grid, Group, Tickets
from plantjax.jobs.job import Operation, checking_input, job
from plantjax.jobs.processes import Team
from plantjax.jobs.summary import STAGES
from plantjax.jobs.terminal import count, span
from plantjax.tasks import PAPER_TASKS, TASKS
from ranking import heat, open_worlds, page, scoring, site, statistics
from ranking.open_worlds import DENSITIES, DEPTH, EPOCHS, NOISE, WIDTH

ROOT = Path(__file__).parent.parent
PAGE, PICTURE = Path("LEADERBOARD.md"), Path("docs/leaderboard.png")


@dataclass(frozen=True)
class Budget:
    """How much to run.

    Attributes:
      tasks: names of tasks; None for all.
      densities: as of `Grid`.
      seeds: number of mothers.
      width: of the mothers.
      finders: names of finders; None for all.
      static: options of every run.
      shared: options of all finders that take them.
      options: options of single finders, by name.
    """

    tasks: tuple[str, ...] | None
    densities: tuple[str, ...]
    seeds: int
    width: int = WIDTH
    finders: tuple[str, ...] | None = None
    static: Mapping[str, Any] = field(default_factory=lambda: {"epochs": EPOCHS})
    shared: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


QUICK_SEEK = {"restarts": 4, "sweeps": 4, "rungs": 2, "cycles": 0}
BUDGETS = {
    "full": Budget(
        tasks=None,
        densities=DENSITIES,
        seeds=10,
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
        static={"epochs": 1, "samples": 300},
        options={"edge_popup": {"search_epochs": 2}},
    ),
}
"""full: all tasks, ten mothers, for a GPU; quick: 20 minutes of two CPU cores; smoke: for tests."""


@dataclass(frozen=True)
class Settings(Operation):
    """Compare all finders with planted tickets. For masks by others: `worlds -h`, `score -h`."""

    out: Path = Path("results/leaderboard")
    """Folder for results; a run with the same settings goes on where it stopped."""
    budget: Literal["full", "quick", "smoke"] = "quick"
    """full: all tasks, ten mothers; quick: 20 minutes on two CPU cores; smoke: for tests."""
    tasks: Annotated[tuple[str, ...] | None, cli.known(TASKS)] = None
    """Tasks (default: the budget's)."""
    finders: Annotated[tuple[str, ...] | None, cli.known(FINDERS)] = None
    """Finders (default: the budget's, most often all)."""
    controls: Annotated[tuple[str, ...], cli.known(CONTROLS)] = ()
    """Sanity controls of every finder that allows them."""
    seeds: int | None = None
    """Number of mothers (default: the budget's)."""
    first_seed: int = 0
    """The first seed."""
    publish: bool = False
    """Copy page, figure and table to LEADERBOARD.md and docs/."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        for name in self.tasks or ():
            checks.choice("--tasks", name, TASKS)
        for name in self.finders or ():
            checks.choice("--finders", name, FINDERS)
        for name in self.controls:
            checks.choice("--controls", name, CONTROLS)
        for option in ("tasks", "finders"):
            if getattr(self, option) == ():
                raise ValueError(f"--{option} must name at least one, got none.")
        if self.seeds is not None:
            checks.integer("--seeds", self.seeds, 1, 10_000)
        checks.integer("--first-seed", self.first_seed, 0, 2**31 - 10_001)
        self.groups()

    def settings(self) -> dict[str, Any]:
        """Everything that changes a result, including the budget's contents."""
        values = {name: v for name, v in super().settings().items() if name != "publish"}
        return {**values, "plan": json.loads(json.dumps(asdict(self.plan())))}

    def plan(self) -> Budget:
        """The budget, its tasks by name."""
        budget = BUDGETS[self.budget]
        return replace(budget, tasks=tuple(TASKS) if budget.tasks is None else budget.tasks)

    def mothers(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + (self.seeds or self.plan().seeds))

    def names(self) -> list[str]:
        """The finders, each followed by its controls."""
        names = []
        for name in self.finders or self.plan().finders or tuple(FINDERS):
            fit = [c for c in self.controls if c != "inverted" or controls.has_score(FINDERS[name])]
            names += [name, *(f"{name}+{control}" for control in fit)]
        return names

    def groups(self) -> list[Group]:
        """All groups of cells, task by task, the references last."""
        tickets = Tickets()
        return [
            group
            for task in self.tasks or self.plan().tasks or ()
            for name, options in [*self.options().items(), (None, {})]
            for group in self._grid(task, name, options).groups(tickets)
        ]

    def options(self) -> dict[str, dict[str, Any]]:
        """The options of every finder that differ from the registry's."""
        chosen = {}
        for name in self.names():
            known = names.options(name)
            shared = {k: value for k, value in self.plan().shared.items() if k in known}
            own = self.plan().options.get(names.base(name), {})
            chosen[name] = {**shared, **own}
        return chosen

    def _grid(self, task: str, finder: str | None, options: Mapping[str, Any]) -> Grid:
        """The grid of one finder, or of the references for None."""
        plan = self.plan()
        return Grid(
            tasks=(task,),
            finders=() if finder is None else (finder,),
            densities=plan.densities,
            seeds=self.mothers(),
            depth=DEPTH,
            width=plan.width,
            noise=NOISE,
            references=tuple(REFERENCES) if finder is None else (),
            static=plan.static,
            finder_options=options,
        )

    def command(self) -> str:
        """The command that rebuilds the page."""
        words = ["python", "experiments/leaderboard.py", "--budget", self.budget]
        for name in ("tasks", "finders", "controls"):
            values = getattr(self, name)
            words += [f"--{name}", *values] if values else []
        words += [] if self.seeds is None else ["--seeds", str(self.seeds)]
        words += ["--first-seed", str(self.first_seed)] if self.first_seed else []
        words += ["--plugin", *self.plugin] if self.plugin else []
        return shlex.join([*words, "--publish"])


def run(settings: Settings, console: Console, team: Team) -> None:
    """Computes what is missing, then rebuilds page, tables and figure from the folder."""
    groups = settings.groups()
    wall, process = time.perf_counter(), time.process_time()
    computed = 0
    try:
        computed = runner.compute({settings.out: groups}, settings, console, team)
    finally:
        if team.leads:
            _spend(settings.out, time.perf_counter() - wall, time.process_time() - process)
            _write(settings, groups)
    if not team.leads:
        return
    if not computed:
        terminal.say(console, f"All cells were done before; nothing was computed ({settings.out}).")
    if settings.publish:
        _publish(settings.out)
    terminal.say(console, f"Leaderboard, tables and figure: {settings.out}")


def _write(settings: Settings, groups: Sequence[Group]) -> None:
    table = tables.write(settings.out, groups)
    if not len(table):
        return
    kinds = {group.finder: group.run.finder.kind for group in groups}
    table = statistics.by_kind(table, kinds)
    write_table(settings.out, statistics.cases(table), "summary.csv")
    text = page.page(table, _about(settings, table), PICTURE.name)
    with chunks.replacing(settings.out / PAGE) as file:
        file.write(text.encode())
    lows = statistics.lowest(table)
    names = [name for name in statistics.ranking(lows, table) if name not in REFERENCES]
    shown = [*names, *(name for name in REFERENCES if name == "oracle_random")]
    stages = [stage for stage in STAGES if stage in set(table["stage"])]
    panels = figures.stage_panels(list(table["task"].unique()), stages)
    note = (
        "orange: the median mother reaches its ticket (within a point of accuracy, or twice the "
        f"error); darker blue: nearer\nmedians of {count(table['seed'].nunique(), 'mother')}; "
        f"{settings.command()}"
    )
    heat.heat_figure(statistics.cases(table), shown, panels, settings.out / PICTURE.name, note)


def _about(settings: Settings, table: pd.DataFrame) -> list[str]:
    """Paragraphs on how the page was made."""
    config = json.loads((settings.out / "config.json").read_text())
    spent = json.loads((settings.out / "spent.json").read_text())
    plan, seeds = settings.plan(), settings.mothers()
    versions = ", ".join(f"{name} {number}" for name, number in config["versions"].items())
    training = ", ".join(f"{name} {value}" for name, value in plan.static.items())
    return [
        f"Made by `{settings.command()}`: {count(len(settings.names()), 'finder')}, "
        f"{span(seeds)}, depth {DEPTH}, width {plan.width}, noise {NOISE:g}, {training}.",
        f"Options that are not the registry's: {page.options_note(settings.options())}. The "
        "tables tell how long a search took: wall seconds, with what else the machine did in them, "
        f"and the same in searches of `{page.COST}`.",
        f"Device {config['device']}; Python {config['python']}, {versions}. "
        f"{len(table) // max(1, table['stage'].nunique())} networks, "
        f"{count(round(spent['process_seconds'] / 60), 'minute')} of processor time and "
        f"{count(round(spent['wall_seconds'] / 60), 'minute')} in all, compilation included.",
    ]


def _spend(folder: Path, wall: float, process: float) -> None:
    """Adds up the time spent on the folder's results, except in runs that were killed."""
    path = folder / "spent.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    spent = {"wall_seconds": wall, "process_seconds": process}
    chunks.write_json(path, {name: before.get(name, 0.0) + v for name, v in spent.items()})


def _publish(folder: Path) -> None:
    """Copies page, figure and table to LEADERBOARD.md and docs/."""
    text = (folder / PAGE).read_text().replace(f"]({PICTURE.name})", f"]({PICTURE})")
    (ROOT / PAGE).write_text(text)
    shutil.copyfile(folder / PICTURE.name, ROOT / PICTURE)
    shutil.copyfile(folder / "summary.csv", ROOT / PICTURE.with_suffix(".csv"))


COMMANDS: dict[str, Callable[[Sequence[str]], None]]
COMMANDS = {"worlds": open_worlds.main, "score": scoring.main, "page": site.main}
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
