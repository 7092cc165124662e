"""Planting: hides a small sparse target in a large mother network, exactly."""

from plantjax.planting.algorithm import RULES, plant
from plantjax.planting.decoys import add_decoys

__all__ = ["RULES", "add_decoys", "plant"]
