"""Theory: how close a ticket must be to its target, and how likely a mother contains one."""

from plantjax.theory.bounds import (
    INITS,
    LAST_LAYERS,
    Existence,
    existence_probability,
    width_needed,
)
from plantjax.theory.sampled import Estimate, monte_carlo_existence
from plantjax.theory.tolerances import NORMS, Rescaled, rescaled, tolerances

__all__ = [
    "INITS",
    "LAST_LAYERS",
    "NORMS",
    "Estimate",
    "Existence",
    "Rescaled",
    "existence_probability",
    "monte_carlo_existence",
    "rescaled",
    "tolerances",
    "width_needed",
]
