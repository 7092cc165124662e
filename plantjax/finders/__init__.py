"""Finders: searches for a ticket, `(key, params, data, density) -> Found`, and the references.

`FINDERS[name](task, **static)` closes over everything structural; key, params, data and density
are traced. A finder never sees the planted ticket; the references take it as a fifth argument.
"""

from collections.abc import Callable
from functools import partial

from plantjax.finders.allocated import allocated
from plantjax.finders.bernoulli_gates import bernoulli_gates
from plantjax.finders.concrete_ticket import concrete_ticket
from plantjax.finders.continuous_sparsification import continuous_sparsification
from plantjax.finders.edge_popup import edge_popup
from plantjax.finders.edge_popup_levels import edge_popup_levels
from plantjax.finders.gem_miner import gem_miner
from plantjax.finders.genetic import genetic
from plantjax.finders.hard_concrete import hard_concrete
from plantjax.finders.multishot import multishot
from plantjax.finders.phew import phew
from plantjax.finders.references import dense, oracle_random, planted
from plantjax.finders.registry import SCORE, Registry
from plantjax.finders.rewired import rewired
from plantjax.finders.seek import seek
from plantjax.finders.singleshot import singleshot
from plantjax.scores import SCORES
from plantjax.types import Finder

__all__ = [
    "FINDERS",
    "REFERENCES",
    "allocated",
    "bernoulli_gates",
    "concrete_ticket",
    "continuous_sparsification",
    "dense",
    "edge_popup",
    "edge_popup_levels",
    "gem_miner",
    "genetic",
    "hard_concrete",
    "multishot",
    "oracle_random",
    "phew",
    "planted",
    "rewired",
    "seek",
    "singleshot",
]

FINDERS = Registry(
    SCORES,
    {
        SCORE: singleshot,
        "synflow100": partial(singleshot, score="synflow", rounds=100),
        "snip100": partial(singleshot, score="snip", rounds=100),
        "ntk_sap": partial(singleshot, score="ntk_sap", rounds=100),
        "prospr": partial(singleshot, score="prospr", batches=4),
        "random_erk": partial(allocated, allocation="erk"),
        "random_igq": partial(allocated, allocation="igq"),
        "smart_ratio": partial(allocated, allocation="smart_ratio"),
        "phew": phew,
        f"multishot_{SCORE}": multishot,
        "edge_popup": edge_popup,
        "edge_popup_annealed": partial(edge_popup, anneal="epoch"),
        "edge_popup_global": partial(
            edge_popup,
            scope="global",
            anneal="step",
            anneal_share=0.8,
            search_epochs=30,
            init="equal",
        ),
        "edge_popup_levels": edge_popup_levels,
        "edge_popup_levels_global": partial(edge_popup_levels, scope="global", init="equal"),
        "signed_supermask": partial(
            edge_popup, signed=True, scope="global", anneal="step", anneal_share=0.8, init="equal"
        ),
        "set": partial(rewired, grow="random"),
        "rigl": partial(rewired, grow="gradient"),
        "gem_miner": gem_miner,
        "continuous_sparsification": continuous_sparsification,
        "hard_concrete": hard_concrete,
        "bernoulli_gates": bernoulli_gates,
        "concrete_ticket": concrete_ticket,
        "genetic": genetic,
        "seek": seek,
    },
)
"""The registry of finders: a new one takes one function and one entry here, a new score none."""

REFERENCES: dict[str, Callable[..., Finder]] = {
    "dense": dense,
    "planted": planted,
    "oracle_random": oracle_random,
}
"""The references: finders that are told the planted ticket."""
