"""Trials: the options that are tried for a finder and task, and the cells that try them.

Options are drawn by name, from a hash of finder, task, trial and option. So a trial does not depend
on which others are run, or on how many.
"""

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plantjax.finders import FINDERS, entries, names
from plantjax.finders.spaces import Spaces
from plantjax.jobs.grids import Grid, Group, Tickets, extended
from plantjax.tasks import TASKS

DIGITS = 12
"""Hexadecimal digits of a hash that make a share in [0, 1), which is exact."""


@dataclass(frozen=True)
class Plan:
    """What is equal for all finders and tasks.

    Attributes:
      trials: number of draws for each, the published options included.
      finalists: number of trials that are tried on all mothers, the published options among them;
        the others see the first mother only.
      seeds: of the mothers.
      densities: as of `Grid`.
      depth: layers of neurons, the input included.
      width: of the mothers.
      samples: size of the data set.
      epochs: of weak training, for finders that are judged by weak values.
    """

    trials: int
    finalists: int
    seeds: tuple[int, ...]
    densities: tuple[str, ...]
    depth: int
    width: int
    samples: int
    epochs: int


@dataclass(frozen=True)
class Trial(Group):
    """The cells of one trial: one task and finder with options, seeds x densities.

    Attributes:
      trial: its number.
      options: those that differ from the published ones, in words.
    """

    trial: int = 0
    options: str = ""

    def cells(self) -> list[dict[str, Any]]:
        """The labels of every cell, with the trial; options are part of its id."""
        own = {"trial": self.trial, "options": self.options}
        return [
            cell | {"id": f"{cell['id']}/{name_of(self.trial, self.options)}"} | own
            for cell in super().cells()
        ]


def name_of(trial: int, options: str) -> str:
    """The name of a trial in the ids of cells."""
    return f"{trial}:{options}"


def words(options: Mapping[str, Any]) -> str:
    """Options in words, as in "rounds=10, scope=layer"."""
    return ", ".join(f"{name}={value}" for name, value in options.items())


def space(finder: str) -> Spaces:
    """The space of a finder, in the order of its options."""
    spaces, known = names.space(finder), inspect.signature(FINDERS[finder]).parameters
    return {name: spaces[name] for name in known if name in spaces}


def defaults(finder: str) -> dict[str, Any]:
    """The published value of every option that is tuned.

    >>> defaults("snip")
    {'rounds': 1, 'scope': 'global', 'batches': 1}
    """
    known = inspect.signature(FINDERS[finder]).parameters
    return {name: known[name].default for name in space(finder)}


def draws(finder: str, task: str, number: int) -> list[dict[str, Any]]:
    """The options of trials that differ from the published ones; trial 0 has none.

    Args:
      finder: a name in FINDERS.
      task: a name.
      number: of trials; only one if the finder has nothing to tune.

    Returns:
      Options by name, for each trial; a longer list begins with the shorter one.

    >>> draws("hard_concrete", "circle", 1), draws("phew", "circle", 24)
    ([{}], [{}])
    >>> draws("forensic", "circle", 24)[:9] == draws("forensic", "circle", 9)
    True
    """
    usual, spaces = defaults(finder), space(finder)
    drawn: list[dict[str, Any]] = [{}]
    for index in range(1, number if spaces else 1):
        values = {name: part.at(_share(finder, task, index, name)) for name, part in spaces.items()}
        drawn.append({name: value for name, value in values.items() if value != usual[name]})
    return drawn


def distinct(finder: str, task: str, number: int) -> dict[int, dict[str, Any]]:
    """The trials by their numbers, without repetitions of earlier ones."""
    drawn = draws(finder, task, number)
    return {index: options for index, options in enumerate(drawn) if drawn.index(options) == index}


def groups(
    plan: Plan, finder: str, task: str, tickets: Tickets, only: Sequence[int] | None = None
) -> list[Trial]:
    """The groups of a finder's trials on a task.

    Args:
      plan: what is equal for all.
      finder: a name in FINDERS.
      task: a name in TASKS.
      tickets: the densities of tickets that are known.
      only: the finalists; all different trials if it is None.

    Returns:
      Each trial on the first mother; those of finalists on all others.
    """
    epochs = plan.epochs if stage(finder) == "trained" else 0
    seeds = plan.seeds[:1] if only is None else plan.seeds[1:]
    found: list[Trial] = []
    for index, options in distinct(finder, task, plan.trials).items():
        if not seeds or (only is not None and index not in only):
            continue
        grid = Grid(
            tasks=(task,),
            finders=(finder,),
            densities=plan.densities,
            seeds=seeds,
            depth=plan.depth,
            width=plan.width,
            references=(),
            static={"epochs": epochs, "samples": plan.samples},
            finder_options=options,
        )
        own = {"trial": index, "options": words(options)}
        found += [extended(Trial, group, **own) for group in grid.groups(tickets)]
    return found


def is_trained(finder: str) -> bool:
    """Whether a finder trains as it searches, so that it has no strong tickets."""
    return names.make(next(iter(TASKS.values())), finder).kind == "trained"


def stage(finder: str) -> str:
    """The stage whose values judge a finder: "trained" (weak) or "pruned" (strong).

    Finders that prune by scores are made for training afterwards, and those that train as they
    search have nothing else; all others are made for strong tickets.

    >>> stage("snip"), stage("rigl"), stage("edge_popup")
    ('trained', 'trained', 'pruned')
    """
    scored = "score" in inspect.signature(entries.opened(FINDERS[finder])).parameters
    return "trained" if scored or is_trained(finder) else "pruned"


def count(finder: str, tasks: Iterable[str], plan: Plan) -> int:
    """The number of searches of a finder's trials on some tasks."""
    numbers = [len(distinct(finder, task, plan.trials)) for task in tasks]
    mothers = sum(n + min(n, plan.finalists) * (len(plan.seeds) - 1) for n in numbers)
    return mothers * len(plan.densities)


def _share(*words: Any) -> float:
    """A number in [0, 1) that only depends on the words."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()
    return int(digest[:DIGITS], 16) / 16**DIGITS
