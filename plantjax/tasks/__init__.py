"""Tasks with a known sparse solution: samples, loss, evaluation, and an exact target network."""

from plantjax.tasks.registry import (
    HIDDEN,
    PAPER_TASKS,
    SAMPLES,
    TASKS,
    evaluate_classes,
    evaluate_values,
    hidden,
    parity,
    piecewise,
    product,
    random_teacher,
    regression,
    split,
    teacher,
)

__all__ = [
    "HIDDEN",
    "PAPER_TASKS",
    "SAMPLES",
    "TASKS",
    "evaluate_classes",
    "evaluate_values",
    "hidden",
    "parity",
    "piecewise",
    "product",
    "random_teacher",
    "regression",
    "split",
    "teacher",
]
