"""Figure 5: weak tickets in a VGG on real images, and one that is trained, planted and sought.

For each seed, multishot SynFlow finds a ticket, which is trained and becomes the target. Planted
into a new mother it is a strong ticket, which edge-popup seeks there. The other finders seek weak
tickets in SynFlow's mother. Cells are grouped, run and saved like those of all other sweeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from images.groups import PLAIN, PLANTED, ImageGroup
from images.sources import SOURCES, network_of
from plantjax import checks
from plantjax.finders import FINDERS
from plantjax.jobs import figures, summary
from plantjax.jobs.figures import Panel
from plantjax.jobs.grids import Group, parse_density
from plantjax.jobs.terminal import count, of_seeds, say
from plantjax.scores import PAPER_SCORES

if TYPE_CHECKING:
    import pandas as pd

TICKET_FINDER = "multishot_synflow"
POPUPS = ("edge_popup_levels", "edge_popup_levels_global")
DENSITIES = ("0.01", "0.05", "0.1", "0.2", "0.5")
PANELS = (
    Panel("weak tickets: plain mother, trained", {"mother": PLAIN, "stage": "trained"}),
    Panel("strong tickets: planted mother, masked only", {"mother": PLANTED, "stage": "pruned"}),
)


@dataclass(frozen=True)
class Plan:
    """What to run: a data set, finders and densities, and how long to search and train.

    Attributes:
      data: name of the data set, in SOURCES.
      data_dir: folder with its files; None for data sets of installed packages.
      depth: depth of the VGG; None for the source's.
      width: factor of its channels; None for the source's.
      ticket_density: density of the ticket that is trained and planted.
      finders: finders of weak tickets, in addition to `dense` and the SynFlow ticket itself.
      densities: densities of weak tickets.
      popup_densities: densities of strong tickets.
      seeds: seeds of mothers, searches and training.
      epochs: epochs of weak training.
      rounds: levels of multishot.
      level_epochs: epochs per level of multishot.
      popup_rounds: levels of edge-popup.
      popup_epochs: epochs per level of edge-popup.
      samples: largest number of images for training, and for testing.
      learning_rate: learning rate of training; None for the source's.
    """

    data: str = "mnist5k"
    data_dir: Path | None = None
    depth: int | None = None
    width: float | None = None
    ticket_density: str = "0.01"
    finders: Sequence[str] = (
        *PAPER_SCORES,
        "synflow100",
        *(f"multishot_{name}" for name in PAPER_SCORES),
        "edge_popup_levels",
    )
    densities: Sequence[str] = DENSITIES
    popup_densities: Sequence[str] = DENSITIES
    seeds: Sequence[int] = range(3)
    epochs: int = 50
    rounds: int = 10
    level_epochs: int = 5
    popup_rounds: int = 5
    popup_epochs: int = 50
    samples: int | None = None
    learning_rate: float | None = None

    def check(self) -> None:
        """Raises ValueError if a setting is out of range or the data is missing."""
        checks.choice("--data", self.data, SOURCES)
        for name in self.finders:
            checks.choice("--finders", name, FINDERS)
        for option in ("epochs", "rounds", "level_epochs", "popup_rounds", "popup_epochs"):
            checks.integer(f"--{option.replace('_', '-')}", getattr(self, option), 1)
        if self.learning_rate is not None:
            checks.interval("--learning-rate", self.learning_rate, 0.0, 1e30, open_low=True)
        for group in self.groups():
            group.run  # noqa: B018  # checks all options without compiling
        source = SOURCES[self.data]
        if self.samples is not None:
            checks.integer("--samples", self.samples, source.batch_size)
        source.load(self.data_dir)

    def about(self) -> str:
        """The caption of its figure."""
        first = self.groups()[0]
        return (
            f"{of_seeds(self.seeds)}; {self.data}, "
            f"VGG{first.depth} at width {first.width:g}, {count(self.epochs, 'epoch')} of "
            f"training; multishot: {count(self.rounds, 'level')} of "
            f"{count(self.level_epochs, 'epoch')}, "
            f"edge-popup: {self.popup_rounds} of {self.popup_epochs}"
        )

    def groups(self) -> list[Group]:
        """The group of the targets, then those in planted mothers, then those in plain mothers.

        Raises:
          ValueError: if a density, depth or width is out of range.
        """
        ticket = self._group(TICKET_FINDER, PLAIN, [self.ticket_density])
        others = [self._group("planted", PLANTED, [self.ticket_density])]
        others += [self._group(name, PLANTED, self.popup_densities) for name in POPUPS]
        others += [self._group("dense", PLAIN, ["1"])]
        for name in dict.fromkeys(self.finders):
            done = {ticket.densities[0][1]} if name == TICKET_FINDER else set()
            left = [d for d in self.densities if parse_density(d) not in done]
            others += [self._group(name, PLAIN, left)] if left else []
        return [ticket, *(replace(group, ticket=ticket) for group in others)]

    def _group(self, finder: str, mother: str, densities: Sequence[str]) -> ImageGroup:
        source = SOURCES[self.data]
        depth = source.depth if self.depth is None else self.depth
        width = source.width if self.width is None else self.width
        rate = source.learning_rate if self.learning_rate is None else self.learning_rate
        network_of(source, depth, width)
        static: dict[str, Any] = {"epochs": self.epochs if mother == PLAIN else 0}
        if finder.startswith("multishot_"):
            static |= {"rounds": self.rounds, "level_epochs": self.level_epochs}
        if finder in POPUPS:
            static |= {"rounds": self.popup_rounds, "level_epochs": self.popup_epochs}
        return ImageGroup(
            task=self.data,
            depth=depth,
            width=width,
            finder=finder,
            seeds=tuple(self.seeds),
            densities=tuple((name, _density(name)) for name in dict.fromkeys(densities)),
            noise=0.0,
            learning_rate=rate,
            static=static,
            ticket_density=_density(self.ticket_density),
            mother=mother,
            data_dir=self.data_dir,
            samples=self.samples,
        )


BUDGETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {
        "finders": ("magnitude", "snip", "synflow100", TICKET_FINDER),
        "densities": ("0.01", "0.1", "0.5"),
        "epochs": 8,
        "level_epochs": 1,
        "popup_epochs": 2,
    },
    "smoke": {
        "width": 0.0625,
        "finders": ("magnitude",),
        "densities": ("0.5",),
        "popup_densities": ("0.1",),
        "seeds": range(1),
        "epochs": 2,
        "rounds": 2,
        "level_epochs": 1,
        "popup_rounds": 2,
        "popup_epochs": 1,
        "samples": 320,
    },
}
"""full: the paper's epochs and all finders; quick: minutes on two CPU cores; smoke: for tests."""


def plan(budget: str, **options: Any) -> Plan:
    """The plan of a budget, overridden by the options that are not None."""
    given = {name: value for name, value in options.items() if value is not None}
    return Plan(**BUDGETS[budget] | given)


def draw(table: "pd.DataFrame", path: Path, note: str) -> None:
    """Draws weak tickets on the left, strong ones on the right, and dashed the planted ticket."""
    figures.density_figure(table, PANELS, 2, path, note)


def show(table: "pd.DataFrame", console: Console) -> None:
    """Prints a table per panel, and the values of the trained and the planted tickets."""
    for panel in PANELS:
        part = panel.rows(table)
        if len(part):
            task = part["task"] + f" ({part['mother'].iloc[0]} mother)"
            summary.show(part.assign(task=task), console)
    planted = table[(table["finder"] == "planted") & (table["stage"] == "pruned")]
    for _, row in planted.iterrows():
        equal = "equal" if row["value"] == row["target_value"] else "not equal"
        say(
            console,
            f"seed {row['seed']}: trained ticket {row['target_value']:.4f}, planted "
            f"{row['value']:.4f} ({equal}), {count(row['kept'], 'parameter')}, density "
            f"{row['kept_density']:.4f}",
        )


def _density(name: str) -> float:
    """The value of a density as written; "ticket" is not allowed here."""
    if name == "ticket":
        raise ValueError("--densities must be numbers in (0, 1], got 'ticket'.")
    return parse_density(name)
