"""Tasks with a known sparse solution: samples, loss, evaluation, and an exact target network."""

from plantjax.tasks.registry import (
    PAPER_TASKS,
    SAMPLES,
    TASKS,
    evaluate_classes,
    evaluate_values,
    parity,
    piecewise,
    product,
    regression,
    split,
    teacher,
)

__all__ = [
    "PAPER_TASKS",
    "SAMPLES",
    "TASKS",
    "evaluate_classes",
    "evaluate_values",
    "parity",
    "piecewise",
    "product",
    "regression",
    "split",
    "teacher",
]
