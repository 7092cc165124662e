"""Fair rivals: all finders are tuned by one rule, and the winners are kept in docs/tuning.json.

Each finder gets the same number of trials on each task: options drawn from the space beside its
entry in the registry, trial 0 its published ones. `python experiments/tune.py --publish` runs them
on development mothers and writes the winners, with the log of all trials.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from rich.console import Console

from plantjax import checks
from plantjax.finders import FINDERS, names
from plantjax.jobs import chunks, cli, runner, tables, terminal
from plantjax.jobs.folder import CONFIG, SavedCells
from plantjax.jobs.grids import TICKET, Tickets
from plantjax.jobs.job import Operation, checking_input, job
from plantjax.jobs.processes import Team
from plantjax.jobs.schedule import words_of
from plantjax.sweeps import compiling
from plantjax.tasks import PAPER_TASKS, SAMPLES, TASKS
from tuning import published, rule, trials
from tuning.trials import Plan, Trial

DENSITIES = ("0.1", TICKET)
SPENT = "spent.json"
EXTENDED = ("trials", "finalists", "seeds")
"""Settings that only add cells."""
SECONDS = 3.0
"""Wall time of a search on two CPU cores, for finders of which nothing is known."""


@dataclass(frozen=True)
class Settings(Operation):
    """Tune finders: draw options, try them on development mothers, and keep the best."""

    out: Path = Path("results/tune")
    """Folder for results, with a folder for each finder; what is there is not computed again."""
    tasks: Annotated[tuple[str, ...], cli.known(TASKS)] = (*PAPER_TASKS, "random_teacher", "xor")
    """Tasks."""
    finders: Annotated[tuple[str, ...] | None, cli.known(FINDERS)] = None
    """Finders (default: all that have something to tune)."""
    trials: int = 12
    """Number of trials for each finder and task, the published options among them."""
    finalists: int = 4
    """Number of trials that are tried on all mothers, the published options among them."""
    seeds: int = 3
    """Number of development mothers."""
    first_seed: int = 50_000
    """The first development mother."""
    depth: int = 5
    """Layers of neurons, the input included."""
    width: int = 100
    """Neurons per hidden layer."""
    samples: int = SAMPLES
    """Size of the data set, of which the last tenth is held out."""
    epochs: int = 10
    """Epochs of weak training, for finders that are judged by weak values."""
    publish: bool = False
    """Write the winners and the log into docs/tuning.json; those of other finders and tasks stay.
    """
    estimate: bool = False
    """Only tell how many trials there are, and how long they will take."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        for option, known in (("tasks", TASKS), ("finders", FINDERS)):
            for name in getattr(self, option) or ():
                checks.choice(f"--{option}", name, known)
            if getattr(self, option) == ():
                raise ValueError(f"--{option} must name at least one, got none.")
        checks.integer("--trials", self.trials, 1, 10_000)
        checks.integer("--finalists", self.finalists, 1, self.trials)
        checks.integer("--seeds", self.seeds, 1, 10_000)
        checks.integer("--first-seed", self.first_seed, 0, 2**31 - 10_001)
        checks.integer("--depth", self.depth, 3)
        checks.integer("--samples", self.samples, 10)
        checks.integer("--epochs", self.epochs, 1)
        tickets = Tickets()
        for finder in self.names():
            self.groups(finder, tickets)
        reason = published.refusal(published.load(), self.shared()) if self.publish else None
        if reason is not None:
            raise ValueError(f"--publish needs the settings of docs/tuning.json, got {reason}.")

    def settings(self) -> dict[str, Any]:
        """Everything that changes a result; cells tell finder, task, trial and seed themselves."""
        shared = self.shared()
        return {name: v for name, v in shared.items() if name not in EXTENDED}

    def folders(self) -> dict[Path, dict[str, Any]]:
        """A folder for each finder."""
        return {self.out / name: self.settings() for name in self.names()}

    def names(self) -> list[str]:
        """The finders."""
        return list(self.finders or (name for name in FINDERS if names.space(name)))

    def groups(self, finder: str, tickets: Tickets) -> dict[str, list[Trial]]:
        """The groups of all of a finder's trials on the first mother, by task."""
        plan = self.plan()
        return {task: trials.groups(plan, finder, task, tickets) for task in self.tasks}

    def plan(self) -> Plan:
        """What is equal for all finders and tasks."""
        seeds = tuple(range(self.first_seed, self.first_seed + self.seeds))
        sizes = (self.depth, self.width, self.samples, self.epochs)
        return Plan(self.trials, self.finalists, seeds, DENSITIES, *sizes)

    def shared(self) -> dict[str, Any]:
        """The plan, as JSON-ready values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self.plan())))
        return values


def run(settings: Settings, console: Console, team: Team) -> None:
    """Tunes finder by finder, and publishes each once it is done."""
    tickets, chosen = Tickets(), settings.names()
    for place, finder in enumerate(chosen, 1):
        terminal.say(console, f"{finder} ({place} of {len(chosen)})", style="bold")
        entries = _tuned(settings, finder, tickets, console, team)
        compiling.forget()  # a hundred programs take gigabytes
        if not team.leads:
            continue
        for task, entry in entries.items():
            terminal.say(console, f"{task}: {_words(entry)}")
        if settings.publish:
            tuned = published.merged(published.load(), settings.shared(), {finder: entries})
            published.save(tuned)
    if team.leads:
        terminal.say(console, f"Tables of all trials: {settings.out}")


def _tuned(
    settings: Settings, finder: str, tickets: Tickets, console: Console, team: Team
) -> dict[str, dict[str, Any]]:
    """Computes what is missing of one finder; returns what is published of it, by task."""
    first = settings.groups(finder, tickets)
    table = _computed(settings, finder, first, console, team)
    scores = {task: _scores(finder, task, table) for task in first}
    best = {
        task: rule.finalists(found["score"], settings.finalists) for task, found in scores.items()
    }
    rest = {
        task: trials.groups(settings.plan(), finder, task, tickets, only)
        for task, only in best.items()
    }
    every = {task: [*first[task], *rest[task]] for task in first}
    table = _computed(settings, finder, every, console, team)
    folder = settings.out / finder
    return {
        task: published.entry(
            *(finder, task, found, _scores(finder, task, table).loc[best[task]]),
            *(_seconds(folder), _made(folder)),
        )
        for task, found in scores.items()
    }


def _computed(
    settings: Settings,
    finder: str,
    groups: Mapping[str, list[Trial]],
    console: Console,
    team: Team,
) -> pd.DataFrame:
    """Computes what is missing of some groups; returns the table of all of them."""
    folder = settings.out / finder
    every = [group for part in groups.values() for group in part]
    wall, process = time.perf_counter(), time.process_time()
    computed = runner.compute({folder: every}, settings, console, team)
    spent = {"wall": time.perf_counter() - wall, "process": time.process_time() - process}
    if computed and team.leads:
        _spend(folder, spent | {"searches": computed})
    team.broadcast(0)  # all have saved their share
    return tables.write(folder, every) if team.leads else tables.read(folder)


def _scores(finder: str, task: str, table: pd.DataFrame) -> pd.DataFrame:
    return rule.scores(table[table["task"] == task], trials.stage(finder))


def _spend(folder: Path, spent: Mapping[str, float]) -> None:
    """Adds up the seconds, and the searches that took them, except in runs that were killed."""
    path = folder / SPENT
    before = json.loads(path.read_text()) if path.exists() else {}
    chunks.write_json(path, {name: before.get(name, 0.0) + v for name, v in spent.items()})


def _seconds(folder: Path) -> float | None:
    """The wall time of a search, compilation included; None if it is not known."""
    path = folder / SPENT
    if not path.exists():
        return None
    spent: dict[str, float] = json.loads(path.read_text())
    return spent["wall"] / spent["searches"]


def _made(folder: Path) -> str:
    """Versions and device of the results."""
    config = json.loads((folder / CONFIG).read_text())
    versions = config["versions"]
    words = [f"{name} {versions[name]}" for name in ("plantjax", "jax", "numpy")]
    return ", ".join([*words, config["device"]])


def _words(entry: Mapping[str, Any]) -> str:
    """A winner on one line."""
    scores = {row[0]: row[1] for row in entry["trials"]}
    won, number = entry["winner"], terminal.count(len(scores), "trial")
    if not won:
        return f"{scores[won]:.3f} as published, the best of {number}"
    chosen = trials.words(entry["options"])
    return f"{scores[won]:.3f}, the best of {number}, {scores[0]:.3f} as published: {chosen}"


def tell(settings: Settings, console: Console) -> None:
    """Prints how many searches are left, and about how long they will take."""
    tuned, rows, whole, unknown = published.load(), [], 0.0, 0
    for finder in settings.names():
        folder = settings.out / finder
        number = trials.count(finder, settings.tasks, settings.plan())
        left = number - _saved(settings, finder)
        known = [entry["seconds"] for entry in tuned[published.FINDERS].get(finder, {}).values()]
        timed = [seconds for seconds in (_seconds(folder), *known) if seconds is not None]
        seconds = timed[0] if timed else SECONDS
        whole, unknown = whole + left * seconds, unknown + (not timed)
        each = f"{seconds:.1f} s" if timed else "?"
        rows.append([finder, str(number), str(left), each, words_of(left * seconds)])
    if settings.estimate:
        heads = ["finder", "searches", "left", "each", "all"]
        terminal.show(console, terminal.table(heads, rows))
    number, left = (sum(int(row[column]) for row in rows) for column in (1, 2))
    assumed = f", if those never timed ({unknown}) take {SECONDS:g} s a search" if unknown else ""
    terminal.say(
        console,
        f"{terminal.count(len(rows), 'finder')}, {terminal.count(len(settings.tasks), 'task')}: "
        f"{number} searches, {left} of them left: about {words_of(whole)}{assumed}.",
    )


def _saved(settings: Settings, finder: str) -> int:
    """The number of these searches that the folder holds; of finalists, whoever they were."""
    folder, plan = settings.out / finder, settings.plan()
    ids = SavedCells(folder).ids() if (folder / CONFIG).exists() else set()
    found = 0
    for task in settings.tasks:
        tried = trials.distinct(finder, task, plan.trials)
        names = {trials.name_of(index, trials.words(options)) for index, options in tried.items()}
        own = [parts for parts in map(_parts, ids) if parts[0] == task and parts[2] in names]
        first = sum(seed == plan.seeds[0] for _, seed, _ in own)
        rest = sum(seed in plan.seeds[1:] for _, seed, _ in own)
        most = trials.count(finder, [task], plan) - len(tried) * len(plan.densities)
        found += first + min(rest, most)
    return found


def _parts(name: str) -> tuple[str, int, str]:
    """Task, seed and trial in the id of a cell."""
    task, *_, seed, trial = name.split("/")
    return task, int(seed), trial


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "tune.py")
    console = Console()
    if settings.estimate:
        with checking_input():
            settings.check()
        tell(settings, console)
        return
    with job(settings) as team:
        if team.leads:
            tell(settings, console)
        run(settings, console, team)


if __name__ == "__main__":
    cli.run(main)
