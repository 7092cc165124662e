"""The statistics of the leaderboard: medians over mothers with bootstrap intervals.

The *excess* of a mother is its distance from the planted ticket, in units of the tolerance: one
point of accuracy, or twice the error. It reaches the ticket if the excess is at most 1. Mothers are
resampled with replacement from a fixed seed, with the same draws for all finders.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from plantjax import metrics
from plantjax.jobs import summary
from ranking.scores import RESAMPLES, SEED, ends

POINT, TIMES = 0.01, 2.0
"""Tolerances for reaching the ticket: a point of accuracy below it, twice its error."""
SIGNED = "signed"
"""The stage of untrained networks with flipped signs, which are not strong tickets."""
_ROUNDING = 1e-4  # scores are float32, so ten of a thousand samples may differ from 0.01

CASE = ["task", "finder", "stage", "density_name", "density"]
SPREAD = ("value", "excess", "recall", "lift", "seconds")
"""Columns that get a median and an interval, NAME, NAME_low and NAME_high; user-registered metrics
get them too."""


def interval(values: Any) -> tuple[float, float, float]:
    """Median and bootstrap interval of numbers [S], one per mother; they may be infinite."""
    array = np.asarray(values, np.float64)
    drawn = np.sort(array[_draws(len(array))], axis=1)  # three times as fast as np.median
    medians = (drawn[:, (len(array) - 1) // 2] + drawn[:, len(array) // 2]) / 2
    return float(np.median(array)), *ends(medians)


def reached(excess: Any) -> Any:
    """Whether an excess, or each one of an array, counts as reaching the ticket."""
    return excess <= 1.0 + _ROUNDING


def with_excess(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the column `excess`, and replaces values that are not finite by the worst possible.

    A mask that keeps more than its density allows is not a ticket, so its excess is infinite.
    """
    accuracy = table["metric"] == "accuracy"
    worst = pd.Series(np.where(accuracy, 0.0, np.inf), table.index)
    value = table["value"].where(np.isfinite(table["value"]), worst)
    ticket = table["ticket_value"]
    excess = np.where(accuracy, (ticket - value) / POINT, value / (TIMES * ticket))
    over = table["status"] == metrics.OVER
    return table.assign(value=value, excess=np.where(over, np.inf, excess))


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the values on fresh samples in place of those on held-out data, if it has any.

    The columns value, ticket_value and dead_value are replaced; target_value stays.
    """
    if "fresh" not in table:
        return table
    names = {"value": "fresh", "ticket_value": "ticket_fresh", "dead_value": "dead_fresh"}
    return table.assign(**{name: table[fresh] for name, fresh in names.items()})


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Restricts the strong scores (stage "pruned") to finders of subnetworks.

    Args:
      table: tidy results. Finders of the kind "trained" (`plantjax.types.KINDS`) lose their rows of
        the stage "pruned"; for "signed" ones that stage is renamed to "signed".

    Returns:
      A table of the same columns.
    """
    kind, untrained = table["kind"], table["stage"] == "pruned"
    stage = table["stage"].mask(untrained & (kind == "signed"), SIGNED)
    return table.assign(stage=stage)[~(untrained & (kind == "trained"))]


def cases(table: pd.DataFrame) -> pd.DataFrame:
    """One row per task, finder, stage and density: medians, intervals, and counts of mothers.

    Args:
      table: tidy results.

    Returns:
      The columns of CASE and `metric`; those of SPREAD and of other metrics, with intervals;
      `seeds`; and the numbers of mothers `reached` and of those with each of `summary.MARKS`.
    """
    rows = []
    for case, part in with_excess(table).groupby(CASE, sort=False):
        row = dict(zip(CASE, case, strict=True)) | {"metric": part["metric"].iloc[0]}
        for name in (*SPREAD, *summary.metrics_in(table)):
            row |= dict(
                zip((name, f"{name}_low", f"{name}_high"), interval(part[name]), strict=True)
            )
        row |= {
            "seeds": part["seed"].nunique(),
            "reached": int(reached(part["excess"]).sum()),
            **summary.troubles(part),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def lowest(table: pd.DataFrame) -> pd.DataFrame:
    """The lowest density whose median mother reaches the ticket, per task, finder and stage.

    Args:
      table: tidy results, with every mother at every density of its finder.

    Returns:
      The columns task, finder, stage, `lowest`, `lowest_low` and `lowest_high`: the density and its
      bootstrap interval, infinite if no density reaches the ticket.
    """
    rows = []
    names = ["task", "finder", "stage"]
    for case, part in with_excess(table).groupby(names, sort=False):
        excess = part.pivot_table(index="seed", columns="density", values="excess", aggfunc="first")
        densities, array = excess.columns.to_numpy(), excess.to_numpy()
        drawn = _lowest(densities, np.median(array[_draws(len(array))], axis=1))
        low, high = ends(drawn)
        found = _lowest(densities, np.median(array, axis=0)[None, :])[0]
        row = dict(zip(names, case, strict=True))
        rows.append(row | {"lowest": found, "lowest_low": low, "lowest_high": high})
    return pd.DataFrame(rows)


def ranking(lows: pd.DataFrame, medians: pd.DataFrame) -> list[str]:
    """The finders, sorted by mean rank over the tasks, best first.

    Within a task, finders are ranked by the lowest density of a strong ticket, then by that of a
    weak one, then by the median excess of their untrained masks.

    Args:
      lows: of `lowest`.
      medians: of `cases`, of the same rows.
    """
    excess = medians.query("stage == 'pruned'")
    typical = excess.groupby(["task", "finder"])["excess"].apply(
        lambda values: np.mean(np.log(np.clip(values, 1e-3, 1e6)))
    )
    wide = lows.pivot_table(index=["task", "finder"], columns="stage", values="lowest")
    order = wide.reindex(columns=["pruned", "trained"]).assign(typical=typical)
    places = [
        part.sort_values(list(part.columns), kind="stable")
        .assign(place=np.arange(len(part)))["place"]
        .droplevel("task")
        for _, part in order.groupby("task")
    ]
    return list(pd.concat(places).groupby(level=0).mean().sort_values(kind="stable").index)


@lru_cache(maxsize=16)
def _draws(mothers: int) -> np.ndarray:
    """Indices of mothers, [RESAMPLES, S]."""
    return np.random.default_rng(SEED).integers(0, mothers, (RESAMPLES, mothers))


def _lowest(densities: np.ndarray, medians: np.ndarray) -> np.ndarray:
    """The lowest density [R] with a median excess of at most 1, of medians [R, D]."""
    return np.where(reached(medians), densities[None, :], np.inf).min(axis=1)
