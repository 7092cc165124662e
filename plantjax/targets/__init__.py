"""Exact, extremely sparse target networks: the paper's, harder ones, and random members of both.

The fixed ones are built in float64 numpy when called, and returned as float32 pytrees; those whose
name starts with `random_` take a key, and are built in JAX.
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
from plantjax.targets.random_circle import random_circle
from plantjax.targets.random_teacher import random_teacher
from plantjax.targets.randomised import (
    random_helix,
    random_product,
    random_relu,
    random_xor,
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
    "random_circle",
    "random_function",
    "random_helix",
    "random_product",
    "random_relu",
    "random_teacher",
    "random_xor",
    "relu",
    "teacher",
    "univariate",
]
