"""Normalised scores of finders over tasks and mothers, with bootstrap intervals.

A cell is one finder on one task, mother and density, at one stage. Its score is 0 for the best
constant output and 1 for the planted ticket. Mothers are resampled with replacement within each
task, from a fixed seed, with the same draws for all finders and densities of a task, because these
share their mothers. No result depends on the order of the rows.

Source: Agarwal et al. 2021, https://arxiv.org/abs/2108.13264, sections 4.1 to 4.3
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from plantjax import metrics

RESAMPLES, LEVEL, SEED = 2000, 0.95, 0
"""Number of bootstrap draws, level of the intervals, and seed of the draws."""
COST = "edge_popup"
"""The finder whose search time is the unit of costs."""
DEAD = "dead_value"
"""The column with the value of the best constant output on a cell's data."""

Blocks: TypeAlias = dict[str, np.ndarray]
"""The scores of all finders on a task [F, S, D]: finders, mothers, densities."""


class Interval(NamedTuple):
    """A figure with the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


def normalised(table: pd.DataFrame) -> pd.Series:
    """The score of every row, (value - dead) / (ticket - dead), clipped to [0, 1].

    An MSE is treated like an accuracy: both differences change their signs, so an error of that of
    the best constant output scores 0 and the ticket's scores 1, linearly in between. Values that
    are not finite score 0, as do masks that keep more than their density allows.

    Args:
      table: tidy results with the columns task, seed, value, ticket_value, dead_value and status.

    Returns:
      float64, with the index of the table.

    Raises:
      ValueError: if a column is missing, or a ticket is no better than a constant output.

    >>> rows = {"task": "xor", "seed": 0, "metric": "accuracy", "status": "ok", "ticket_value": 0.9}
    >>> normalised(pd.DataFrame([rows | {"dead_value": 0.5, "value": 0.7}])).round(6).tolist()
    [0.5]
    """
    for name in ("task", "seed", "metric", "value", "ticket_value", DEAD, "status"):
        if name not in table:
            raise ValueError(f"table must have the column {name}, got {', '.join(table.columns)}.")
    value, ticket, dead = (
        table[name].astype(np.float64) for name in ("value", "ticket_value", DEAD)
    )
    sign = np.where(table["metric"] == "accuracy", 1.0, -1.0)
    room = ticket - dead
    bad = ~(sign * room > 0.0)
    if bad.any():
        row = table[bad].sort_values(["task", "seed"]).iloc[0]
        raise ValueError(
            "ticket_value must be better than dead_value, got "
            f"{row['ticket_value']:.4g} and {row[DEAD]:.4g} on {row['task']}, seed {row['seed']}."
        )
    usable = np.isfinite(value) & (table["status"] != metrics.OVER)
    return ((value - dead) / room).where(usable, 0.0).clip(0.0, 1.0).rename("score")


def complete(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the finders that have every cell, and the names of the others.

    Args:
      table: tidy rows of one stage.
    """
    cells = table[["task", "seed", "density_name"]].drop_duplicates()
    have = table.groupby("finder").size()
    lacking = sorted(have.index[have < len(cells)])
    return table[~table["finder"].isin(lacking)], lacking


def blocks(table: pd.DataFrame) -> tuple[list[str], Blocks]:
    """The scores as arrays, for the functions below.

    Args:
      table: tidy rows of one stage, with the column `score`: one row for each finder, task, mother
        (`seed`) and density (`density_name`).

    Returns:
      The finders, sorted by name; and for each task, sorted by name, the scores [F, S, D].

    Raises:
      ValueError: if there are no rows, or a finder lacks a cell or has it twice.
    """
    if not len(table):
        raise ValueError("table must have rows, got none.")
    finders, found = sorted(table["finder"].unique()), {}
    for task, part in sorted(table.groupby("task"), key=lambda pair: str(pair[0])):
        names = (sorted(part["seed"].unique()), sorted(part["density_name"].unique()))
        keys = ["finder", "seed", "density_name"]
        whole = pd.MultiIndex.from_product([finders, *names], names=keys)
        scores = part.set_index(keys)["score"]
        if not scores.index.is_unique or len(scores) != len(whole):
            raise ValueError(
                f"table must have each cell of {task} once, got {len(scores)} rows for "
                f"{len(whole)} cells."
            )
        shape = (len(finders), *map(len, names))
        found[str(task)] = scores.reindex(whole).to_numpy(np.float64).reshape(shape)
    return finders, found


def middle_mean(values: np.ndarray) -> np.ndarray:
    """The interquartile mean over the last axis: the mean without floor(n / 4) at either end.

    >>> float(middle_mean(np.array([0.0, 1.0, 3.0, 100.0])))
    2.0
    """
    n = values.shape[-1]
    cut = n // 4
    return np.sort(values, axis=-1)[..., cut : n - cut].mean(axis=-1)


def draws(scores: Blocks) -> dict[str, np.ndarray]:
    """Bootstrap draws of the mothers of each task, indices [R, S], from a fixed seed."""
    random = np.random.default_rng(SEED)
    sizes = {task: block.shape[1] for task, block in sorted(scores.items())}
    return {task: random.integers(0, size, (RESAMPLES, size)) for task, size in sizes.items()}


def drawn_means(scores: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Interquartile means over all cells [F], and those of the bootstrap draws [R, F]."""
    tasks, index = sorted(scores), draws(scores)
    first = scores[tasks[0]]
    finders = range(first.shape[0])
    whole = np.concatenate([scores[task].reshape(len(finders), -1) for task in tasks], axis=1)
    drawn = [
        middle_mean(
            np.concatenate(
                [scores[task][place][index[task]].reshape(RESAMPLES, -1) for task in tasks], axis=1
            )
        )
        for place in finders
    ]
    return middle_mean(whole), np.stack(drawn, axis=1)


def means(finders: Sequence[str], scores: Blocks) -> dict[str, Interval]:
    """The interquartile mean of every finder over tasks, mothers and densities (section 4.3)."""
    values, drawn = drawn_means(scores)
    return _intervals(finders, values, drawn)


def ranks(finders: Sequence[str], scores: Blocks) -> dict[str, Interval]:
    """The rank of every finder by its interquartile mean, 1 for the best; ties share their mean.

    The interval holds the ranks of the bootstrap draws.
    """
    values, drawn = drawn_means(scores)
    own, others = _ranks(values[None])[0], _ranks(drawn)
    return _intervals(finders, own, others)


def improvement(
    finders: Sequence[str], scores: Blocks, pairs: Iterable[tuple[str, str]] | None = None
) -> dict[tuple[str, str], Interval]:
    """The probability that one finder scores higher than another, for ordered pairs (default: all).

    P(X > Y) on a task and density is the share of pairs of mothers (i, j) with x_i > y_j; a tie
    counts one half. It is averaged over tasks and densities with equal weights (section 4.3).
    """
    index = draws(scores)
    counts = {
        task: (chosen[:, :, None] == np.arange(chosen.shape[1])).mean(axis=1)
        for task, chosen in index.items()
    }
    total = sum(block.shape[2] for block in scores.values())
    found, place = {}, {name: index for index, name in enumerate(finders)}
    for first, second in itertools.permutations(finders, 2) if pairs is None else pairs:
        value, drawn = 0.0, np.zeros(RESAMPLES)
        for task, block in sorted(scores.items()):
            x, y = block[place[first]][:, None], block[place[second]][None]
            wins = ((x > y) + 0.5 * (x == y)).sum(axis=2) / total
            value += wins.mean()
            drawn += ((counts[task] @ wins) * counts[task]).sum(axis=1)
        found[first, second] = Interval(float(value), *ends(drawn))
    return found


def profiles(
    finders: Sequence[str], scores: Blocks, levels: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The share of cells with a score of at least tau, for each tau (section 4.2).

    Args:
      finders: as of `blocks`.
      scores: as of `blocks`.
      levels: the values of tau [T].

    Returns:
      For each finder the shares, and the ends of their pointwise intervals, each [T].
    """
    index, found = draws(scores), {}
    cells = sum(block[0].size for block in scores.values())
    for place, finder in enumerate(finders):
        drawn, value = np.zeros((RESAMPLES, len(levels))), np.zeros(len(levels))
        for task, block in sorted(scores.items()):
            above = (block[place][..., None] >= levels).sum(axis=1)  # [S, T]
            value += above.sum(axis=0)
            drawn += above[index[task]].sum(axis=1)
        low, high = np.quantile(drawn / cells, _SIDES, axis=0, method="inverted_cdf")
        found[finder] = (value / cells, low, high)
    return found


def ends(drawn: np.ndarray) -> tuple[float, float]:
    """The ends of the interval of drawn figures: two of these, so that infinite ones are fine."""
    low, high = np.quantile(drawn, _SIDES, method="inverted_cdf")
    return float(low), float(high)


def costs(table: pd.DataFrame) -> dict[str, float]:
    """The time of a search in units of a search of edge_popup on the same task.

    Per task the median over mothers and densities is divided by that of `COST`; the cost is the
    geometric mean over the tasks.

    Args:
      table: tidy results; the seconds of a search are those of the stage "pruned".

    Raises:
      ValueError: if edge_popup did not run on a task.
    """
    searches = table[table["stage"] == "pruned"]
    seconds = searches.groupby(["finder", "task"])["seconds"].median().unstack().sort_index(axis=1)
    if COST not in seconds.index or seconds.loc[COST].isna().any():
        raise ValueError(f"every sheet must have {COST} (the unit of time) on all of its tasks.")
    share = np.log(seconds.div(seconds.loc[COST]))
    return {str(name): float(np.exp(value)) for name, value in share.mean(axis=1).items()}


def front(cost: dict[str, float], score: dict[str, float]) -> list[str]:
    """The finders that no other one matches at the cost and score while it betters one of them.

    Sorted by cost.

    >>> front({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 0.5, "b": 0.4, "c": 0.9})
    ['a', 'c']
    """
    names = sorted(score, key=lambda name: (cost[name], name))

    def beaten(name: str) -> bool:
        return any(
            cost[other] <= cost[name]
            and score[other] >= score[name]
            and (cost[other] < cost[name] or score[other] > score[name])
            for other in names
        )

    return [name for name in names if not beaten(name)]


_SIDES = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the last axis [R, F], 1 for the highest, ties share their mean."""
    above = (values[:, None, :] > values[:, :, None]).sum(axis=2)
    equal = (values[:, None, :] == values[:, :, None]).sum(axis=2)
    return above + (equal + 1) / 2


def _intervals(
    finders: Sequence[str], values: np.ndarray, drawn: np.ndarray
) -> dict[str, Interval]:
    return {
        name: Interval(float(values[place]), *ends(drawn[:, place]))
        for place, name in enumerate(finders)
    }
