"""Figures: one style for all. Log density axis, mean with min-max band, ticket as a dashed line."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plantjax.jobs import chunks
from plantjax.jobs.summary import SINGLE, STAGES

if TYPE_CHECKING:  # imported when something is drawn, which most starts of a script do not do
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
AXIS = {"accuracy": "accuracy on held-out data", "mse": "error (MSE, rescaled) on held-out data"}

GUIDES = ("planted ticket", "dense network", "hollow: mostly dead")
"""Guide lines of a panel, last in the legend."""


class Panel(NamedTuple):
    """One panel: a title, and the columns' values of the rows that it shows."""

    title: str
    where: dict[str, Any]

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that the panel shows."""
        import pandas as pd

        return table[(table[list(self.where)] == pd.Series(self.where)).all(axis=1)]


def stage_panels(tasks: Sequence[str], stages: Sequence[str]) -> list[Panel]:
    """A panel per task and stage, stages fastest."""
    return [
        Panel(f"{task}: {STAGES[stage]}", {"task": task, "stage": stage})
        for task in tasks
        for stage in stages
    ]


def figure(table: pd.DataFrame, path: Path | str, note: str = "") -> None:
    """Draws value against density, a panel per task and stage.

    Args:
      table: tidy results, as `run` returns them.
      path: where to write the PNG.
      note: small print.
    """
    stages = list(table["stage"].unique())
    panels = stage_panels(list(table["task"].unique()), stages)
    density_figure(table, panels, len(stages), Path(path), note)


def subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure and its axes [rows, columns], drawn without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")


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
    figure, grid = subplots(rows, columns, size)
    colors = _colors(table)
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        part = panel.rows(table)
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


def finish(
    figure: Figure, path: Path, note: str, dpi: int = 150, palette: int | None = None
) -> None:
    """Adds the small print and writes the PNG, reduced to `palette` colours if given."""
    import matplotlib.pyplot as plt

    figure.supxlabel(note, fontsize=6.5, color="#555555", wrap=True)
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=dpi)
    if palette is not None:
        from PIL import Image

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
