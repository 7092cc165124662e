"""Theorem 2: the lower bound on the probability of a ticket, and an estimate by sampling."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from figures.budgets import Budget
from plantjax import targets
from plantjax.jobs import figures, styles
from plantjax.sweeps.worlds import PRNG
from plantjax.theory import existence_probability
from plantjax.theory.sampled import monte_carlo_existence
from plantjax.types import Params

LAST_LAYER = "trained"  # an untrained last layer makes all tickets improbable, at any width
LINES = {"rigorous": ("-", "bound, rigorous"), "printed": (":", "bound, as printed")}


def twins(n: int) -> Params:
    """N equal neurons, which need n mother neurons; the printed bound ignores that."""
    return {
        "layer_00": {"kernel": jnp.full((1, n), 0.5), "bias": jnp.zeros(n)},
        "layer_01": {"kernel": jnp.full((n, 1), 0.5), "bias": jnp.zeros(1)},
    }


TARGETS: dict[str, tuple[str, Callable[[], Params]]] = {
    "relu": ("ReLU, depth 5", lambda: targets.relu(5)),
    "twins": ("6 equal neurons", lambda: twins(6)),
}


def table(budget: Budget) -> pd.DataFrame:
    """Bounds and estimates over widths and epsilons.

    Args:
      budget: gives the number of mothers for each estimate.

    Returns:
      A row per target, panel ("width" | "epsilon"), width, epsilon and kind ("estimate" |
      "rigorous" | "printed") with its value, and for estimates the 99% interval low to high.
    """
    rows = []
    for index, (name, panel, width, epsilon) in enumerate(_points()):
        target = TARGETS[name][1]()
        widths = _widths(target, width)
        label = {"target": name, "panel": panel, "width": width, "epsilon": epsilon}
        key = jax.random.fold_in(jax.random.key(0, impl=PRNG), index)
        found = monte_carlo_existence(
            key, target, widths, epsilon, mothers=budget.mothers, last_layer=LAST_LAYER
        )
        estimate = {"kind": "estimate", "mothers": budget.mothers, "value": found.probability}
        rows.append({**label, **estimate, "low": found.low, "high": found.high})
        for kind in LINES:
            bound = existence_probability(
                target, widths, epsilon, rigorous=kind == "rigorous", last_layer=LAST_LAYER
            )
            rows.append({**label, "kind": kind, "value": bound.probability})
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path, note: str) -> None:
    """Draws a row of two panels per target, against width and against epsilon."""
    figure, grid = plt.subplots(len(TARGETS), 2, figsize=(13.5, 7.4), layout="constrained")
    other = {"width": "epsilon", "epsilon": "width"}
    for row, (name, (title, _)) in zip(grid, TARGETS.items(), strict=True):
        for axes, panel in zip(row, other, strict=True):
            part = table[(table["target"] == name) & (table["panel"] == panel)]
            _draw_panel(axes, part, panel, other[panel])
            axes.set_title(f"{title}, against {panel}", fontsize=11)
    note = f"estimate with 99% interval, {int(table['mothers'].max())} mothers a point; {note}"
    figures.finish(figure, path, note)


def _draw_panel(axes: Axes, part: pd.DataFrame, panel: str, by: str) -> None:
    for color, (value, rows) in zip(styles.COLORS, part.groupby(by), strict=False):
        words = f"{by} {value:g}"
        estimate = rows[rows["kind"] == "estimate"]
        error = np.stack(
            [estimate["value"] - estimate["low"], estimate["high"] - estimate["value"]]
        )
        axes.errorbar(
            *(estimate[panel], estimate["value"], error),
            color=color,
            fmt="o",
            markersize=4,
            capsize=2,
            label=f"estimate, {words}",
        )
        for kind, (style, label) in LINES.items():
            line = rows[rows["kind"] == kind]
            axes.plot(
                line[panel], line["value"], style, color=color, alpha=0.8, label=f"{label}, {words}"
            )
    axes.set_xscale("log")
    axes.set(xlabel=panel, ylabel="probability that a ticket exists", ylim=(-0.03, 1.03))
    figures.tidy(axes)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _points() -> Iterator[tuple[str, str, int, float]]:
    widths = {"relu": (30, 100, 300, 1000, 3000, 10_000), "twins": (12, 20, 30, 60, 120, 300, 600)}
    epsilons = {"relu": (0.01, 0.03, 0.1, 0.3, 0.9), "twins": (0.1, 0.2, 0.4, 0.6, 0.9)}
    fixed: dict[str, Any] = {
        "relu": {"epsilon": (0.1, 0.5), "width": (300, 3000)},
        "twins": {"epsilon": (0.5, 0.9), "width": (30, 300)},
    }
    for name in TARGETS:
        for epsilon in fixed[name]["epsilon"]:
            yield from ((name, "width", width, epsilon) for width in widths[name])
        for width in fixed[name]["width"]:
            yield from ((name, "epsilon", width, epsilon) for epsilon in epsilons[name])


def _widths(target: Params, width: int) -> list[int]:
    return [1, *[width] * (len(target) - 1), 1]
