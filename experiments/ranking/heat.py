"""The leaderboard's figure: heat maps of the score of each finder at each density."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from plantjax.jobs import figures, styles
from plantjax.jobs.figures import Panel
from plantjax.jobs.summary import MARKS, format_value
from ranking import statistics


def heat_figure(
    cases: pd.DataFrame, finders: Sequence[str], panels: Sequence[Panel], path: Path, note: str
) -> None:
    """Draws a heat map of the score of each finder at each density, for each panel.

    Args:
      cases: the table of `statistics.cases`.
      finders: the rows, from top to bottom.
      panels: the panels, six in a row.
      path: where to write the PNG.
      note: caption; a line on the marks is added.
    """
    told = (f"{mark}: {words.removeprefix('n ')}" for mark, _, words in MARKS.values())
    note += "\n" + "; ".join(told)
    columns = min(6, len(panels))
    lines = -(-len(panels) // columns)
    size = (2.0 + 1.7 * columns, 1.6 + lines * (0.8 + 0.17 * len(finders)))
    figure, grid = figures.subplots(lines, columns, size)
    for axes in grid.flat:
        axes.set_axis_off()
    for place, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        part = panel.rows(cases)
        part = part[part["finder"].isin(finders)]
        if len(part):
            axes.set_axis_on()
            axes.set_title(panel.title.replace(": ", "\n"), fontsize=8)
            draw_field(axes, part, finders, named=place % columns == 0)
    figures.finish(figure, path, note, dpi=130, palette=128)


def draw_field(axes: Axes, part: pd.DataFrame, finders: Sequence[str], named: bool) -> None:
    """Draws one task and stage: orange where the ticket is reached, else darker blue the nearer."""
    columns = part.sort_values("density", ascending=False)["density_name"].unique()
    fields = {
        name: part.pivot(index="finder", columns="density_name", values=name)
        .reindex(index=list(finders), columns=list(columns))
        .to_numpy()
        for name in ("value", "excess", *(name for name in MARKS if name in part))
    }
    metric = part["metric"].iloc[0]
    far = np.clip(np.log10(np.maximum(fields["excess"], 1e-9)) / 2.0, 0.0, 1.0)  # 1 at excess 100
    colors = matplotlib.colormaps["Blues"](0.75 * (1.0 - far))
    colors[statistics.reached(fields["excess"])] = matplotlib.colors.to_rgba(styles.COLORS[4])
    colors[np.isnan(fields["value"])] = (1.0, 1.0, 1.0, 1.0)
    axes.imshow(colors, aspect="auto")
    for (line, column), value in np.ndenumerate(fields["value"]):
        if np.isfinite(value):
            seen = [n for n in MARKS if n in fields and fields[n][line, column] > 0]
            text = format_value(value, metric) + "".join(MARKS[name][0] for name in seen)
            axes.text(column, line, text, ha="center", va="center", fontsize=5.5)
    axes.set_xticks(range(len(columns)), columns, fontsize=6.5)
    axes.set_yticks(range(len(finders)), finders if named else [], fontsize=6.5)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
