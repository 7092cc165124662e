"""Budgets: how much of the paper's grids to run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plantjax.finders import REFERENCES, names


@dataclass(frozen=True)
class Budget:
    """How much of the paper's grids to run.

    Attributes:
      seeds: largest numbers of seeds, for grids whose searches train (multishot) and for others.
      skip: densities to leave out.
      finders: the finders to keep (None: all).
      references: references to run in addition to the finders.
      width: largest width of the mothers.
      static: options of all runs.
      finder_options: options of the finders that take them.
      mothers: number of mothers in the Monte-Carlo estimate of theorem2.
      images: the budget of figure 5, in `images.plan.BUDGETS`.
    """

    seeds: tuple[int, int] = (1000, 1000)
    skip: frozenset[str] = frozenset()
    finders: frozenset[str] | None = None
    references: tuple[str, ...] = tuple(REFERENCES)
    width: int = 10_000
    static: Mapping[str, Any] = field(default_factory=dict)
    finder_options: Mapping[str, Any] = field(default_factory=dict)
    mothers: int = 10_000
    images: str = "full"

    def options_of(self, finders: Iterable[str]) -> dict[str, Any]:
        """The `finder_options` that at least one of the finders takes."""
        known = {name for finder in finders for name in names.options(finder)}
        return {name: value for name, value in self.finder_options.items() if name in known}


BUDGETS = {
    "full": Budget(),
    "quick": Budget(seeds=(3, 5), skip=frozenset({"1"}), width=300, mothers=2_000, images="quick"),
    "smoke": Budget(
        seeds=(2, 2),
        skip=frozenset({"0.01", "0.1", "1"}),
        finders=frozenset({"magnitude", "synflow100", "multishot_synflow", "edge_popup_annealed"}),
        references=("planted",),
        width=32,
        static={"epochs": 1, "samples": 400},
        finder_options={"rounds": 2, "level_epochs": 1, "search_epochs": 1},
        mothers=200,
        images="smoke",
    ),
}
"""full: the paper's grids; quick: all in about half an hour on two CPU cores; smoke: for tests.

quick and smoke skip density 1, where all finders keep everything, as the reference `dense` does.
"""
