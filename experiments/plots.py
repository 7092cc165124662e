"""Figures: one style for all. Log density axis, mean with min-max band, ticket as a dashed line."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from experiments.summary import SINGLE, STAGES

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
AXIS = {"accuracy": "accuracy on held-out data", "mse": "error (MSE, rescaled) on held-out data"}


def seek_figure(table: pd.DataFrame, path: Path, note: str) -> None:
    """Draws value against density, a row of panels per task, a panel per stage.

    Args:
      table: tidy results.
      path: where to write the PNG.
      note: small print: seeds, settings and the command.
    """
    tasks, stages = list(table["task"].unique()), list(table["stage"].unique())
    size = (1.0 + 5.2 * len(stages), 1.4 + 3.7 * len(tasks))
    figure, grid = plt.subplots(
        len(tasks), len(stages), figsize=size, squeeze=False, layout="constrained"
    )
    for row, task in zip(grid, tasks, strict=True):
        for axes, stage in zip(row, stages, strict=True):
            part = table[(table["task"] == task) & (table["stage"] == stage)]
            draw_panel(axes, part, f"{task}: {STAGES[stage]}")
    handles, labels = [], []
    for handle, label in zip(*grid[0][0].get_legend_handles_labels(), strict=True):
        handles.append(handle)
        labels.append(label)
    figure.legend(handles, labels, loc="outside right center", fontsize=9, frameon=False)
    figure.supxlabel(note, fontsize=6.5, color="#555555", wrap=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_panel(axes: Axes, part: pd.DataFrame, title: str) -> None:
    """Draws one task and stage: a line and a band per finder, the references as grey lines."""
    metric = part["metric"].iloc[0]
    finders = [name for name in part["finder"].unique() if name not in SINGLE]
    for index, finder in enumerate(finders):
        rows = part[part["finder"] == finder]
        groups = rows.groupby("density", sort=True)
        mean, low, high = (groups["value"].agg(how) for how in ("mean", "min", "max"))
        reference = finder == "oracle_random"
        color = "#888888" if reference else COLORS[index % len(COLORS)]
        axes.fill_between(mean.index, low, high, color=color, alpha=0.12, linewidth=0)
        axes.plot(
            mean.index,
            mean,
            color=color,
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            linestyle=":" if reference else "-",
            label="random, oracle layers" if reference else finder,
        )
        dead = groups["constant"].mean() > 0.5
        axes.plot(
            mean.index[dead],
            mean[dead],
            color="white",
            marker=MARKERS[index % len(MARKERS)],
            markersize=3,
            linestyle="",
            zorder=4,
        )
    ticket = part["ticket_value"].mean()
    axes.axhline(ticket, color="black", linestyle="--", linewidth=1.3, label="planted ticket")
    dense = part[part["finder"] == "dense"]["value"]
    if len(dense):
        axes.axhline(
            dense.mean(), color="#888888", linestyle="-.", linewidth=1.1, label="dense network"
        )
    axes.axvline(part["ticket_density"].iloc[0], color="#BBBBBB", linewidth=0.8, zorder=0)
    axes.plot([], [], "o", color="#555555", markerfacecolor="white", label="hollow: mostly dead")
    _scale(axes, part, metric)
    axes.set_title(title, fontsize=11)


def _scale(axes: Axes, part: pd.DataFrame, metric: str) -> None:
    named = part.drop_duplicates("density_name").set_index("density")["density_name"]
    axes.set_xscale("log")
    axes.set_xticks(list(named.index), [name.replace("ticket", "ticket\n") for name in named])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    axes.set_xlabel("density (fraction of parameters kept)", fontsize=9)
    axes.set_ylabel(AXIS[metric], fontsize=9)
    if metric == "accuracy":
        axes.set_ylim(0.0, 1.02)
    else:
        axes.set_yscale("log")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
