"""The paper's experiments by name: what each one runs at a given budget, and how to draw it.

Source: Fischer and Burkholz, ICLR 2022, https://arxiv.org/abs/2111.11153; figures 7 and later are
in the supplement.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from figures import bounds, graphs, pictures
from figures.budgets import Budget
from images import plan
from images.plan import Plan
from plantjax.jobs import figures
from plantjax.jobs.figures import Panel
from plantjax.jobs.grids import TICKET, Grid
from plantjax.jobs.summary import STAGES
from plantjax.scores import PAPER_SCORES
from plantjax.tasks import PAPER_TASKS

Draw: TypeAlias = Callable[[pd.DataFrame, Path, str], None]
"""`(tidy table, path of the PNG, caption)`: draws the figure."""

SINGLESHOT = PAPER_SCORES
MULTISHOT = tuple(f"multishot_{name}" for name in PAPER_SCORES)
EDGE_POPUP = ("edge_popup", "edge_popup_annealed")
DENSITIES = (TICKET, "0.01", "0.1", "0.5", "1")
NOISES = (0.0, 0.001, 0.01, 0.1)


@dataclass(frozen=True)
class Sweep:
    """A protocol that runs grids of cells.

    Attributes:
      about: description in one line.
      grids: `(budget, number of seeds or None for the budget's) -> grids or image plans`.
      draw: draws the table.
      like: another protocol with the same grids, whose results are reused by `all`.
      data: whether it reads image data; `grids` then also takes the data set and its folder.
    """

    about: str
    grids: Callable[..., Sequence[Grid | Plan]]
    draw: Draw
    like: str | None = None
    data: bool = False


@dataclass(frozen=True)
class Picture:
    """A protocol without cells: `make(budget) -> tidy table`, and a function that draws it."""

    about: str
    make: Callable[[Budget], pd.DataFrame]
    draw: Draw


def grid(
    budget: Budget,
    seeds: int | None,
    tasks: Sequence[str],
    finders: Sequence[str],
    paper_seeds: int,
    *,
    width: int = 100,
    densities: Sequence[str] = DENSITIES,
    references: Sequence[str] | None = None,
    finder_options: Mapping[str, Any] | None = None,
    static: Mapping[str, Any] | None = None,
    **options: Any,
) -> Grid:
    """A grid from the paper, reduced to the budget."""
    most = budget.seeds[0 if set(finders) & {*MULTISHOT, *EDGE_POPUP} else 1]
    kept = [name for name in finders if budget.finders is None or name in budget.finders]
    return Grid(
        tasks=tasks,
        finders=kept,
        densities=[name for name in densities if name not in budget.skip],
        seeds=range(seeds or min(paper_seeds, most)),
        width=min(width, budget.width),
        references=references or budget.references,
        static={"epochs": 10, **(static or {}), **budget.static},
        finder_options={**(finder_options or {}), **budget.options_of(kept)},
        **options,
    )


def _all_tasks(finders: Sequence[str], paper_seeds: int, depth: int) -> Callable[..., list[Grid]]:
    return lambda budget, seeds: [
        grid(budget, seeds, PAPER_TASKS, finders, paper_seeds, depth=depth)
    ]


def _circle(
    finders: Sequence[str], depth: int, width: int = 100, **options: Any
) -> Callable[..., list[Grid]]:
    return lambda budget, seeds: [
        grid(budget, seeds, ("circle",), finders, 10, depth=depth, width=width, **options)
    ]


def _noises(budget: Budget, seeds: int | None) -> list[Grid]:
    return [
        grid(budget, seeds, ("circle",), MULTISHOT, 10, depth=6, noise=noise) for noise in NOISES
    ]


def _rescalings(budget: Budget, seeds: int | None) -> list[Grid]:
    return [
        grid(
            *(budget, seeds, PAPER_TASKS, (), 25),
            densities=(TICKET,),
            references=("planted",),
            static={"rescale": rescale},
        )
        for rescale in ("none", "rms")
    ]


def _images(
    budget: Budget, seeds: int | None, data: str | None = None, data_dir: Path | None = None
) -> list[Plan]:
    chosen = None if seeds is None else range(seeds)
    return [plan.plan(budget.images, seeds=chosen, data=data, data_dir=data_dir)]


def _panels(panels: Sequence[Panel], columns: int) -> Draw:
    return lambda table, path, note: figures.density_figure(table, panels, columns, path, note)


BY_TASK = _panels(figures.stage_panels(PAPER_TASKS, tuple(STAGES)), columns=2)
CIRCLE = _panels(figures.stage_panels(("circle",), tuple(STAGES)), columns=2)
FOUR = [
    *figures.stage_panels(("circle",), tuple(STAGES)),
    *figures.stage_panels(("relu", "helix"), ("trained",)),
]
BY_NOISE = [
    Panel(f"circle, noise {noise:g}: {words}", {"stage": stage, "noise": noise})
    for stage, words in STAGES.items()
    for noise in NOISES
]

PROTOCOLS: dict[str, Sweep | Picture] = {
    "fig1": Picture("samples of Circle and Helix", pictures.samples, pictures.draw_samples),
    "fig2": Picture(
        "planted tickets, and found ones, as graphs", graphs.tickets, graphs.draw_tickets
    ),
    "fig3": Sweep(
        "singleshot, depth 5", _all_tasks(SINGLESHOT, 25, depth=5), _panels(FOUR, columns=2)
    ),
    "fig4": Sweep(
        "multishot and edge-popup, depth 5",
        _all_tasks((*MULTISHOT, *EDGE_POPUP), 10, depth=5),
        BY_TASK,
    ),
    "fig5": Sweep(
        "a VGG on real images: weak tickets, and one trained, planted and sought",
        _images,
        plan.draw,
        data=True,
    ),
    "fig6": Sweep("singleshot, depth 3", _all_tasks(SINGLESHOT, 25, depth=3), BY_TASK),
    "fig7": Sweep(
        "singleshot, depth 5, strong and weak of all tasks",
        _all_tasks(SINGLESHOT, 25, depth=5),
        BY_TASK,
        like="fig3",
    ),
    "fig8": Sweep("singleshot, depth 10", _all_tasks(SINGLESHOT, 25, depth=10), BY_TASK),
    "fig9": Sweep("singleshot in wide mothers", _circle(SINGLESHOT, depth=6, width=1000), CIRCLE),
    "fig10": Sweep("SynFlow in 100 rounds", _circle(("synflow100",), depth=6), CIRCLE),
    "fig11": Sweep("multishot under noise", _noises, _panels(BY_NOISE, columns=4)),
    "fig12": Sweep(
        "multishot with local selection",
        _circle(
            *(MULTISHOT, 5),
            densities=("0.003", *DENSITIES),
            finder_options={"scope": "local"},
        ),
        CIRCLE,
    ),
    "theorem2": Picture(
        "bound on the existence probability against an estimate", bounds.table, bounds.draw
    ),
    "rescale": Sweep(
        "the planted ticket after plain and after rescaled training",
        _rescalings,
        pictures.draw_rescaling,
    ),
}
"""The registry of protocols."""
