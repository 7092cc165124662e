"""Budgets: how much of the paper's grids is run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plantjax.finders import REFERENCES, names


@dataclass(frozen=True)
class Budget:
    """How much of the paper's grids to run.

    Attributes:
      seeds: at most so many seeds of grids whose searches train (multishot), and of the others.
      skip: densities to leave out.
      finders: leave out all but these (None: keep all).
      references: references to run beside the finders.
      width: at most this width of the mothers.
      static: options of every run.
      finder_options: options of the finders that take them.
      mothers: of the Monte-Carlo estimate of theorem2.
      images: the budget of figure 5, in `convolutional.BUDGETS`.
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
        """Those of `finder_options` that one of the finders takes."""
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

At density 1 all finders keep everything, which the reference `dense` shows as well.
"""
