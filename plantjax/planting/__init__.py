"""Planting: hides a small sparse target in a large mother network, exactly."""

from plantjax.planting.algorithm import RULES, plant

__all__ = ["RULES", "plant"]
