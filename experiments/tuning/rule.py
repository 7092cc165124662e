"""The rule of tuning: how good a trial is, and which one wins.

A cell's share of the way from a dead network to the planted ticket is (value - dead) / (ticket -
dead), clipped to [0, 1], where errors count by their logarithms: else an error of a hundredth would
look as good as one of a ten-thousandth. A trial's score is the median over mothers, averaged over
the densities. The best score wins, and the earlier trial if scores are equal.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import pandas as pd

from plantjax import metrics, sweeps
from plantjax.tasks import TASKS
from plantjax.types import Task
from tuning.trials import Trial

DIGITS = 4
"""Decimals of a score; what differs less is equal."""
LEAST = 1e-30
"""Errors below count as this."""


def dead_value(task: Task, y: np.ndarray) -> float:
    """The value of the best network with a constant output, on labels y.

    Args:
      task: gives the metric.
      y: int [N], or float [N, O].

    Returns:
      The share of the most frequent class, or the variance, a mean over outputs.

    >>> dead_value(TASKS["circle"], np.array([0, 1, 1, 3]))
    0.5
    >>> dead_value(TASKS["relu"], np.array([[1.0], [3.0]]))
    1.0
    """
    if task.metric == "accuracy":
        return float(np.bincount(y).max() / len(y))
    return float(np.mean(np.var(np.asarray(y, np.float64), axis=0)))


def dead_values(group: Trial) -> dict[int, float]:
    """The value of a dead network on the held-out data of each of the group's seeds."""
    task, world = TASKS[group.task], group.run.world
    cells = sweeps.make_cells(task, group.seeds, [1.0], group.noise)
    labels = jax.jit(jax.vmap(lambda cell: world(cell).test.y))(cells)
    return {
        seed: dead_value(task, np.asarray(y)) for seed, y in zip(group.seeds, labels, strict=True)
    }


def shares(table: pd.DataFrame, dead: Mapping[int, float]) -> pd.Series:
    """The share of the way from dead to ticket of every row, in [0, 1].

    It is 0 for masks over budget and for values that are not finite, and if the ticket is no better
    than a dead network.

    Args:
      table: tidy results of one task.
      dead: the value of a dead network, by seed.
    """
    low = table["seed"].map(dead)
    value, ticket = table["value"], table["ticket_value"]
    if table["metric"].iloc[0] != "accuracy":
        low, value, ticket = (_logarithm(part) for part in (low, value, ticket))
    whole = ticket - low
    share = ((value - low) / whole.where(whole > 0, np.inf)).clip(0.0, 1.0)
    fine = np.isfinite(table["value"]) & (table["status"] != metrics.OVER)
    return share.where(fine, 0.0)


def _logarithm(errors: pd.Series) -> pd.Series:
    """Of errors, so that more is better."""
    return errors.clip(lower=LEAST).map(lambda error: -math.log(error), na_action="ignore")


def scores(table: pd.DataFrame, dead: Mapping[int, float], stage: str) -> pd.DataFrame:
    """The score of every trial, and its median value at each density.

    Args:
      table: tidy results of one task and finder, with the column "trial".
      dead: the value of a dead network, by seed.
      stage: "pruned", or "trained" for finders that only have weak values.

    Returns:
      One row per trial, the index: `score`, and a column for the name of each density.
    """
    rows = table[table["stage"] == stage]
    by = [rows["trial"], rows["density_name"]]
    medians = rows["value"].groupby(by, sort=False).median().unstack()
    share = shares(rows, dead).groupby(by, sort=False).median().unstack()
    return medians.assign(score=share.mean(axis=1).round(DIGITS)).sort_index()


def winner(score: Sequence[float] | pd.Series) -> int:
    """The trial with the best score, the first one if there are several.

    >>> winner(pd.Series({0: 0.2, 3: 0.7, 5: 0.7}))
    3
    """
    by_trial = pd.Series(score).sort_index(kind="stable")
    return int(by_trial.index[int(np.argmax(by_trial.to_numpy()))])
