"""Exact, hand-built, extremely sparse target networks: those of the paper, and harder ones.

They are built in float64 numpy when called, and returned as float32 pytrees.
"""

from plantjax.targets.blocks import Block, univariate
from plantjax.targets.harder import parity, piecewise, product, random_function, teacher
from plantjax.targets.paper import (
    CIRCLE_BOUNDARIES,
    CIRCLE_SLOPES,
    circle,
    circle_offsets,
    helix,
    helix_curve,
    relu,
)

__all__ = [
    "CIRCLE_BOUNDARIES",
    "CIRCLE_SLOPES",
    "Block",
    "circle",
    "circle_offsets",
    "helix",
    "helix_curve",
    "parity",
    "piecewise",
    "product",
    "random_function",
    "relu",
    "teacher",
    "univariate",
]
