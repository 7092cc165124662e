"""Finders: searches for a ticket, `(key, params, data, density) -> Found`, and the references."""

from plantjax.finders.ac_dc import ac_dc
from plantjax.finders.aligned import aligned
from plantjax.finders.bernoulli_gates import bernoulli_gates
from plantjax.finders.concrete_ticket import concrete_ticket
from plantjax.finders.continuous_sparsification import continuous_sparsification
from plantjax.finders.controls import CONTROLS
from plantjax.finders.edge_popup import edge_popup
from plantjax.finders.edge_popup_levels import edge_popup_levels
from plantjax.finders.forensic import forensic
from plantjax.finders.gem_miner import gem_miner
from plantjax.finders.genetic import genetic
from plantjax.finders.ham import ham
from plantjax.finders.hard_concrete import hard_concrete
from plantjax.finders.iterand import iterand
from plantjax.finders.layer_budgets import layer_budgets
from plantjax.finders.multishot import multishot
from plantjax.finders.phew import phew
from plantjax.finders.references import dense, oracle_random, planted
from plantjax.finders.registry import FINDERS, REFERENCES
from plantjax.finders.seek.seek import seek
from plantjax.finders.sign_in import sign_in
from plantjax.finders.singleshot import singleshot
from plantjax.finders.sparse_training import sparse_training
from plantjax.masks.schedules import SCHEDULES

__all__ = [
    "CONTROLS",
    "FINDERS",
    "REFERENCES",
    "SCHEDULES",
    "ac_dc",
    "aligned",
    "bernoulli_gates",
    "concrete_ticket",
    "continuous_sparsification",
    "dense",
    "edge_popup",
    "edge_popup_levels",
    "forensic",
    "gem_miner",
    "genetic",
    "ham",
    "hard_concrete",
    "iterand",
    "layer_budgets",
    "multishot",
    "oracle_random",
    "phew",
    "planted",
    "seek",
    "sign_in",
    "singleshot",
    "sparse_training",
]
