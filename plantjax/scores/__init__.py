"""Pruning scores: one number per parameter of the masked network; the highest are kept.

Scores are given 10 samples per class, 40 for regressions, see `plantjax.types.ScoreFn`.
"""

from plantjax.scores.basic import grasp, magnitude, random, snip
from plantjax.scores.fisher import fisher
from plantjax.scores.hutchinson import hutchinson
from plantjax.scores.lamp import lamp
from plantjax.scores.movement import movement
from plantjax.scores.ntk_sap import ntk_sap
from plantjax.scores.prospr import prospr
from plantjax.scores.px import px
from plantjax.scores.registry import PAPER_SCORES, SCORES, get
from plantjax.scores.synflow import synflow

__all__ = [
    "PAPER_SCORES",
    "SCORES",
    "fisher",
    "get",
    "grasp",
    "hutchinson",
    "lamp",
    "magnitude",
    "movement",
    "ntk_sap",
    "prospr",
    "px",
    "random",
    "snip",
    "synflow",
]
