"""The rule of tuning: how good a trial is, and which one wins.

A cell's share of the way from a dead network to the planted ticket is (value - dead) / (ticket -
dead), clipped to [0, 1], where errors count by their logarithms: else an error of a hundredth would
look as good as one of a ten-thousandth. A trial's score is the median over mothers, averaged over
the densities. The trials with the best scores on the first mother are the finalists, which are
tried on all. The best score among them wins, and the earlier trial if scores are equal; but the
published options stay unless they are beaten by more than MARGIN.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from plantjax import metrics

DIGITS = 4
"""Decimals of a score; what differs less is equal."""
MARGIN = 0.05
"""What a trial must be better by than the published options: less is chance, see docs/finders.md.
"""
LEAST = 1e-30
"""Errors below count as this."""


def shares(table: pd.DataFrame) -> pd.Series:
    """The share of the way from dead to ticket of every row, in [0, 1].

    It is 0 for masks over budget and for values that are not finite, and if the ticket is no better
    than a dead network.

    Args:
      table: tidy results of one task.
    """
    low, value, ticket = table["dead_value"], table["value"], table["ticket_value"]
    if table["metric"].iloc[0] != "accuracy":
        low, value, ticket = (_logarithm(part) for part in (low, value, ticket))
    whole = ticket - low
    share = ((value - low) / whole.where(whole > 0, np.inf)).clip(0.0, 1.0)
    fine = np.isfinite(table["value"]) & (table["status"] != metrics.OVER)
    return share.where(fine, 0.0)


def _logarithm(errors: pd.Series) -> pd.Series:
    """Of errors, so that more is better."""
    return errors.clip(lower=LEAST).map(lambda error: -math.log(error), na_action="ignore")


def scores(table: pd.DataFrame, stage: str) -> pd.DataFrame:
    """The score of every trial, and its median value at each density.

    Args:
      table: tidy results of one task and finder, with the column "trial".
      stage: "pruned" for strong values, or "trained" for weak ones.

    Returns:
      One row per trial, the index: `score`, and a column for the name of each density.
    """
    rows = table[table["stage"] == stage]
    by = [rows["trial"], rows["density_name"]]
    medians = rows["value"].groupby(by, sort=False).median().unstack()
    share = shares(rows).groupby(by, sort=False).median().unstack()
    return medians.assign(score=share.mean(axis=1).round(DIGITS)).sort_index()


def finalists(score: pd.Series, number: int) -> list[int]:
    """The trials to try on all mothers: trial 0, the published options, and the best of the others.

    >>> finalists(pd.Series({0: 0.1, 1: 0.2, 3: 0.7, 5: 0.7}), 3)
    [0, 3, 5]
    """
    others = score.drop(0).sort_index().sort_values(ascending=False, kind="stable")
    return sorted([0, *others.index[: number - 1]])


def winner(score: Sequence[float] | pd.Series) -> int:
    """The trial with the best score, the first one if there are several; 0 if that is as good.

    >>> winner(pd.Series({0: 0.2, 3: 0.7, 5: 0.7})), winner(pd.Series({0: 0.2, 3: 0.24}))
    (3, 0)
    """
    by_trial = pd.Series(score).sort_index(kind="stable")
    best = int(by_trial.index[int(np.argmax(by_trial.to_numpy()))])
    return best if by_trial[best] - by_trial[0] > MARGIN else 0
