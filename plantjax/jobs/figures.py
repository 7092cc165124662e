"""Figures: one style for all. Log density axis, median and range, the ticket as a dashed line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plantjax.jobs import chunks
from plantjax.jobs.styles import style
from plantjax.jobs.summary import SINGLE, STAGES, without_trained

if TYPE_CHECKING:  # imported when something is drawn, which most starts of a script do not do
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS = {"accuracy": "accuracy on held-out data", "mse": "rescaled MSE on held-out data"}

DENSITY = "density (fraction of parameters kept)"
GUIDES = ("planted ticket", "dense network", "hollow: dead")
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
    table = without_trained(table)
    finders = [name for name in table["finder"].unique() if name not in SINGLE]
    wide = 0.6 + 4.1 * columns
    beside = max(1, int(wide / (0.65 + 0.08 * max(map(len, [*finders, GUIDES[0]])))))
    lines = -(-(len(finders) + len(GUIDES)) // beside)
    figure, grid = subplots(rows, columns, (wide, 0.7 + 3.1 * rows + 0.21 * lines))
    handles: dict[str, Any] = {}
    for place, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        part = panel.rows(table)
        axes.set_title(panel.title, fontsize=12)
        if len(part):
            draw_panel(axes, part, finders)
            axes.set_xlabel(DENSITY if place + columns >= len(panels) else "", fontsize=10)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    labels = sorted(handles, key=lambda label: label in GUIDES)  # finders of all panels first
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside upper center",
        ncols=beside,
        fontsize=10,
        frameon=False,
    )
    finish(figure, path, note, palette=256)


def finish(
    figure: Figure, path: Path, note: str, dpi: int = 150, palette: int | None = None
) -> None:
    """Adds the small print and writes the PNG, reduced to `palette` colours if given."""
    import matplotlib.pyplot as plt

    figure.supxlabel(note, fontsize=7, color="#555555", wrap=True)
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


def draw_panel(axes: Axes, part: pd.DataFrame, finders: Sequence[str]) -> None:
    """Draws one task and stage: a line and ranges per finder, the references as grey lines.

    Finders stand side by side at each density, so that none hides another.
    """
    metric = part["metric"].iloc[0]
    here = [name for name in finders if name in set(part["finder"])]
    step = min(2.8, 17.0 / max(1, len(here)))
    for place, finder in enumerate(here):
        _draw_finder(axes, part[part["finder"] == finder], (place - (len(here) - 1) / 2) * step)
    ticket = part["ticket_value"].median()
    axes.axhline(ticket, color="black", linestyle="--", linewidth=1.3, label=GUIDES[0])
    dense = part[part["finder"] == "dense"]["value"]
    if len(dense):
        axes.axhline(
            dense.median(), color="#888888", linestyle="-.", linewidth=1.1, label=GUIDES[1]
        )
    axes.axvline(part["ticket_density"].iloc[0], color="#BBBBBB", linewidth=0.8, zorder=0)
    dead: dict[str, Any] = {"color": "#555555", "markerfacecolor": "white", "markeredgewidth": 1.6}
    axes.plot([], [], "o", **dead, label=GUIDES[2])
    _scale(axes, part[~part["finder"].isin(SINGLE)], metric)


def _draw_finder(axes: Axes, rows: pd.DataFrame, shift: float) -> None:
    """Draws the medians and ranges of one finder, shifted to the right by so many points."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure is not None
    moved = axes.transData + ScaledTranslation(shift / 72, 0, figure.dpi_scale_trans)
    groups = rows.groupby("density", sort=True)
    middle, low, high = (groups["value"].agg(how) for how in ("median", "min", "max"))
    finder = str(rows["finder"].iloc[0])
    color, marker, line = style(finder)
    for ends in (low, high):  # which a transform of one's own leaves out
        axes.update_datalim(list(zip(middle.index, ends, strict=True)))
    axes.vlines(middle.index, low, high, color=color, alpha=0.55, linewidth=1.5, transform=moved)
    drawn: dict[str, Any] = {"color": color, "marker": marker, "transform": moved}
    axes.plot(
        middle.index, middle, **drawn, linestyle=line, markersize=6, linewidth=1.3, label=finder
    )
    inside = drawn | {"color": "white", "markeredgewidth": 0, "zorder": 4}
    dead = groups["constant"].mean().to_numpy()
    for density, value, share in zip(middle.index, middle, dead, strict=True):
        if share > 0:
            axes.plot(density, value, **inside, markersize=4.4 * share**0.5)


def _scale(axes: Axes, part: pd.DataFrame, metric: str) -> None:
    named = part.drop_duplicates("density_name").set_index("density")["density_name"]
    axes.set_xscale("log")
    axes.set_xticks(list(named.index), [name.replace("ticket", "\nticket") for name in named])
    axes.minorticks_off()
    axes.tick_params(labelsize=9)
    axes.set_ylabel(AXIS[metric], fontsize=10)
    if metric == "accuracy":
        axes.set_ylim(0.0, 1.02)
    else:
        axes.set_yscale("log")
    axes.margins(x=0.09)
    axes.autoscale_view(scaley=metric != "accuracy")
    tidy(axes)


def tidy(axes: Axes) -> None:
    """Grid lines for reading values; no frame."""
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
