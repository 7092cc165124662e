"""Figures: one style for all. Log density axis, mean with min-max band, ticket as a dashed line."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from experiments import chunks, standings
from experiments.summary import SINGLE, STAGES, format_value

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
AXIS = {"accuracy": "accuracy on held-out data", "mse": "error (MSE, rescaled) on held-out data"}

GUIDES = ("planted ticket", "dense network", "hollow: mostly dead")
"""What helps to read a panel; last in the legend."""


class Panel(NamedTuple):
    """One panel: a title, and the columns' values of the rows that it shows."""

    title: str
    where: dict[str, Any]


def stage_panels(tasks: Sequence[str], stages: Sequence[str]) -> list[Panel]:
    """A panel per task and stage, stages fastest."""
    return [
        Panel(f"{task}: {STAGES[stage]}", {"task": task, "stage": stage})
        for task in tasks
        for stage in stages
    ]


def density_figure(
    table: pd.DataFrame, panels: Sequence[Panel], columns: int, path: Path, note: str
) -> None:
    """Draws value against density, panel by panel.

    Args:
      table: tidy results.
      panels: what to show; those without any rows stay empty.
      columns: panels per row.
      path: where to write the PNG.
      note: small print: seeds, settings and the command.
    """
    rows = -(-len(panels) // columns)
    size = (1.6 + 4.6 * columns, 1.0 + 3.4 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    colors = _colors(table)
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        part = table[(table[list(panel.where)] == pd.Series(panel.where)).all(axis=1)]
        axes.set_title(panel.title, fontsize=11)
        if len(part):
            draw_panel(axes, part, colors)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    labels = sorted(handles, key=lambda label: label in GUIDES)  # finders of all panels first
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside right center",
        fontsize=9,
        frameon=False,
    )
    finish(figure, path, note)


def heat_figure(
    cases: pd.DataFrame, finders: Sequence[str], panels: Sequence[Panel], path: Path, note: str
) -> None:
    """Draws the score of every finder at every density as a field of numbers, panel by panel.

    Args:
      cases: of `standings.cases`.
      finders: rows, from top to bottom.
      panels: what to show, six a row.
      path: where to write the PNG.
      note: small print.
    """
    columns = min(6, len(panels))
    lines = -(-len(panels) // columns)
    size = (2.0 + 1.7 * columns, 1.6 + lines * (0.8 + 0.17 * len(finders)))
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.set_axis_off()
    for place, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        part = cases[(cases[list(panel.where)] == pd.Series(panel.where)).all(axis=1)]
        part = part[part["finder"].isin(finders)]
        if len(part):
            axes.set_axis_on()
            axes.set_title(panel.title, fontsize=8)
            draw_field(axes, part, finders, named=place % columns == 0)
    finish(figure, path, note, dpi=130, palette=128)


def draw_field(axes: Axes, part: pd.DataFrame, finders: Sequence[str], named: bool) -> None:
    """Draws one task and stage: orange where the ticket is reached, else bluer the nearer."""
    columns = part.sort_values("density", ascending=False)["density_name"].unique()
    fields = {
        name: part.pivot(index="finder", columns="density_name", values=name)
        .reindex(index=list(finders), columns=list(columns))
        .to_numpy()
        for name in ("value", "excess")
    }
    metric = part["metric"].iloc[0]
    far = np.clip(np.log10(np.maximum(fields["excess"], 1e-9)) / 2.0, 0.0, 1.0)  # 1: 100 times
    colors = matplotlib.colormaps["Blues"](0.75 * (1.0 - far))
    colors[standings.reached(fields["excess"])] = matplotlib.colors.to_rgba(COLORS[4])
    colors[np.isnan(fields["value"])] = (1.0, 1.0, 1.0, 1.0)
    axes.imshow(colors, aspect="auto")
    for (line, column), value in np.ndenumerate(fields["value"]):
        if np.isfinite(value):
            text = format_value(value, metric)
            text = text.removeprefix("0") if metric == "accuracy" else text.replace(".0e", "e")
            axes.text(column, line, text, ha="center", va="center", fontsize=5.5)
    axes.set_xticks(range(len(columns)), columns, fontsize=6.5)
    axes.set_yticks(range(len(finders)), finders if named else [], fontsize=6.5)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def finish(
    figure: Figure, path: Path, note: str, dpi: int = 150, palette: int | None = None
) -> None:
    """Adds the small print and writes the PNG, of so many colours if told."""
    figure.supxlabel(note, fontsize=6.5, color="#555555", wrap=True)
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=dpi)
    if palette is not None:
        few = Image.open(whole).convert("RGB").quantize(palette, Image.Quantize.MAXCOVERAGE)
        whole = io.BytesIO()
        few.save(whole, "png", optimize=True)
    with chunks.replacing(path) as file:
        file.write(whole.getvalue())
    plt.close(figure)


def _colors(table: pd.DataFrame) -> dict[str, int]:
    """One colour and marker for each finder, the same in all panels."""
    finders = [name for name in table["finder"].unique() if name not in SINGLE]
    return {name: index for index, name in enumerate(finders)}


def draw_panel(axes: Axes, part: pd.DataFrame, colors: Mapping[str, int]) -> None:
    """Draws one task and stage: a line and a band per finder, the references as grey lines."""
    metric = part["metric"].iloc[0]
    for finder, index in colors.items():
        rows = part[part["finder"] == finder]
        if not len(rows):
            continue
        groups = rows.groupby("density", sort=True)
        mean, low, high = (groups["value"].agg(how) for how in ("mean", "min", "max"))
        reference = finder == "oracle_random"
        color = "#888888" if reference else COLORS[index % len(COLORS)]
        axes.fill_between(mean.index, low, high, color=color, alpha=0.12, linewidth=0)
        if len(mean) == 1:  # too few for a band
            axes.vlines(mean.index, low, high, color=color, alpha=0.4, linewidth=1.6)
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
    axes.axhline(ticket, color="black", linestyle="--", linewidth=1.3, label=GUIDES[0])
    dense = part[part["finder"] == "dense"]["value"]
    if len(dense):
        axes.axhline(dense.mean(), color="#888888", linestyle="-.", linewidth=1.1, label=GUIDES[1])
    axes.axvline(part["ticket_density"].iloc[0], color="#BBBBBB", linewidth=0.8, zorder=0)
    axes.plot([], [], "o", color="#555555", markerfacecolor="white", label=GUIDES[2])
    _scale(axes, part, metric)


def _scale(axes: Axes, part: pd.DataFrame, metric: str) -> None:
    named = part.drop_duplicates("density_name").set_index("density")["density_name"]
    axes.set_xscale("log")
    axes.set_xticks(list(named.index), [name.replace("ticket", "\nticket") for name in named])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    axes.set_xlabel("density (fraction of parameters kept)", fontsize=9)
    axes.set_ylabel(AXIS[metric], fontsize=9)
    if metric == "accuracy":
        axes.set_ylim(0.0, 1.02)
    else:
        axes.set_yscale("log")
    tidy(axes)


def tidy(axes: Axes) -> None:
    """Grid lines for reading values; no frame."""
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
