"""Finders: searches for a ticket, `(key, params, data, density) -> Found`, and the references.

`FINDERS[name](task, **static)` closes over everything structural; key, params, data and density
are traced. A finder never sees the planted ticket; the references take it as a fifth argument.
"""

from collections.abc import Callable
from functools import partial

from plantjax.finders.edge_popup import edge_popup
from plantjax.finders.multishot import multishot
from plantjax.finders.references import dense, oracle_random, planted
from plantjax.finders.seek import seek
from plantjax.finders.singleshot import singleshot
from plantjax.scores import SCORES
from plantjax.types import Finder

__all__ = [
    "FINDERS",
    "REFERENCES",
    "dense",
    "edge_popup",
    "multishot",
    "oracle_random",
    "planted",
    "seek",
    "singleshot",
]

FINDERS: dict[str, Callable[..., Finder]] = {
    **{name: partial(singleshot, score=name) for name in SCORES},
    "synflow100": partial(singleshot, score="synflow", rounds=100),
    **{f"multishot_{name}": partial(multishot, score=name) for name in SCORES},
    "edge_popup": edge_popup,
    "edge_popup_annealed": partial(edge_popup, anneal="epoch"),
    "edge_popup_global": partial(
        edge_popup, scope="global", anneal="step", anneal_share=0.8, search_epochs=30, init="equal"
    ),
    "seek": seek,
}
"""The registry of finders: a new one takes one function and one entry here."""

REFERENCES: dict[str, Callable[..., Finder]] = {
    "dense": dense,
    "planted": planted,
    "oracle_random": oracle_random,
}
"""The references: finders that are told the planted ticket."""
