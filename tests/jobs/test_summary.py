"""The summary on the terminal and in tables, and figures, of tables made by hand."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from plantjax import metrics
from plantjax.finders import FINDERS, REFERENCES
from plantjax.jobs import figures, summary, terminal


def shown(table: pd.DataFrame, encoding: str = "utf-8", width: int = 100) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    summary.show(table, Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def tidy(**columns: list) -> pd.DataFrame:
    """Untrained circle networks, whose values are given."""
    n = len(columns["value"])
    labels = {
        **{"task": ["circle"] * n, "finder": ["snip"] * n, "density_name": ["0.1"] * n},
        **{"density": [0.1] * n, "seed": list(range(n)), "metric": ["accuracy"] * n},
        **{"ticket_density": [0.006] * n, "rescale": ["none"] * n},
        **{name: [1] * n for name in ("depth", "width", "noise", "scope", "rounds")},
    }
    results = {
        "pruned/value": np.float32(columns.pop("value")),
        "pruned/value_raw": np.zeros(n),
        "pruned/constant": np.array(columns.pop("constant", [False] * n)),
        "pruned/seconds": np.zeros(n),
        **{f"{name}/value": np.full(n, 0.98) for name in ("ticket", "target")},
        **{f"recovery/{name}": np.full(n, 0.5) for name in metrics.BUILT_IN},
    }
    return metrics.to_frame(results, labels | columns)


def test_dead_and_diverged_networks_are_marked() -> None:
    table = tidy(value=[0.17, np.nan], constant=[True, False])
    text = shown(table)
    assert "0.170 1† 1‡" in text
    assert "0.170 1d 1x" in shown(table, "ascii")
    assert "planted ticket 0.980 at density 0.006" in text
    assert "1†" not in shown(tidy(value=[0.17, 0.27])).partition("n†")[0]
    (case,) = summary.aggregate(table).to_dict("records")
    assert (case["seeds"], case["dead"], case["diverged"]) == (2, 1, 1)


def test_cases_have_median_and_range() -> None:
    table = tidy(value=[0.1, 0.2, 0.6, 0.9], density_name=["0.1"] * 3 + ["0.5"])
    first, second = summary.aggregate(table).to_dict("records")
    wanted = {"seeds": 3, "median": 0.2, "min": 0.1, "max": 0.6, "recall": 0.5}
    np.testing.assert_allclose([first[name] for name in wanted], list(wanted.values()), rtol=1e-6)
    assert (second["density_name"], second["seeds"]) == ("0.5", 1)
    text = shown(table)
    assert "0.200" in text
    assert "median and range of 4 seeds" in text
    assert "0.100-0.600" in text
    assert "0.900" in text


@pytest.mark.parametrize("metric", ["accuracy", "mse"])
@pytest.mark.parametrize("width", [40, 50, 80, 200])
def test_nothing_is_cut_however_narrow_the_terminal(width: int, metric: str) -> None:
    """All names, densities and medians are there; ranges where there is room."""
    finders = ("snip", "multishot_hutchinson+reinitialised", "edge_popup_levels_global")
    cases = [(f, d, s) for f in finders for d in ("ticket/2", "0.01", "0.1", "0.5") for s in (0, 1)]
    values = np.linspace(1e-5, 0.987, len(cases))
    names, densities, seeds = (list(column) for column in zip(*cases, strict=True))
    table = tidy(
        value=list(values),
        finder=names,
        density_name=densities,
        seed=seeds,
        metric=[metric] * len(cases),
        constant=[True] * len(cases),
    )
    text = shown(table, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = text.split()
    for pair in values.reshape(-1, 2):
        assert summary.format_value(np.float32(pair).mean(), metric) in words
    for name in (*finders, *densities):
        assert name in words
    low, high = (summary.format_value(value, metric) for value in np.float32(values[-2:]))
    if width >= 200:
        assert (f"{low}-{high}" if metric == "accuracy" else f"{low} to {high}") in text


def test_finders_that_train_have_no_strong_values() -> None:
    table = tidy(value=[0.171, 0.272, 0.373], finder=["rigl", "snip", "signed_supermask"])
    table = table.assign(kind=["trained", "subnetwork", "signed"])
    trained = table.assign(stage="trained", value=table["value"] + 0.5)
    text = shown(pd.concat([table, trained]))
    strong, _, weak = text.partition("weak (after training)")
    assert "0.171" not in strong
    assert "0.272" in strong
    assert "rigl: trained during the search" in strong
    assert "signed_supermask: with other signs" in strong
    assert "0.671" in weak
    assert "during the search" not in weak
    cases = summary.aggregate(pd.concat([table, trained]))
    assert list(cases[cases["stage"] == "pruned"]["finder"]) == ["snip", "signed_supermask"]


def test_numbers_of_things_are_in_words() -> None:
    assert terminal.count(1, "minute") == "1 minute"
    assert terminal.of_seeds(range(3, 4)) == "seed 3"
    assert terminal.of_seeds([0, 1, 4]) == "median and range of seeds 0 to 4"


def test_values_are_written_as_their_metric_asks() -> None:
    values = (0.9784, 1.04e-4, 0.25, 3.2)
    assert [summary.format_value(v, "accuracy") for v in values[:1]] == ["0.978"]
    assert [summary.format_value(v, "mse") for v in values[1:]] == ["1.0e-4", "2.5e-1", "3.2"]


def test_markdown_tables() -> None:
    assert summary.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_figures_tell_dead_networks_and_leave_out_what_is_trained() -> None:
    table = tidy(
        value=[0.1, 0.2, 0.3, 0.4],
        finder=["snip", "snip", "grasp", "rigl"],
        constant=[True, False, False, False],
    )
    table = table.assign(kind=["subnetwork"] * 3 + ["trained"])
    figure, ((axes,),) = figures.subplots(1, 1, (3, 3))
    figures.draw_panel(axes, summary.without_trained(table), ["snip", "grasp", "rigl"])
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["snip", "grasp", *(figures.GUIDES[i] for i in (0, 2))]
    inside = [line for line in axes.lines if line.get_color() == "white"]
    assert [len(line.get_xdata()) for line in inside] == [1]  # of snip, where one of two is dead
    whole = axes.lines[labels.index("snip")].get_markersize()
    assert 0 < inside[0].get_markersize() < whole
    figure.clear()


@pytest.mark.slow
def test_figures_have_room_for_all_finders(tmp_path: Path) -> None:
    rows = [
        {
            **{"task": task, "finder": finder, "density": d, "density_name": name},
            **{"stage": stage, "metric": metric, "value": 0.3 * d, "seed": 0},
            **{"constant": d < 0.1, "ticket_value": 0.01, "ticket_density": 0.01},
        }
        for task, metric in (("circle", "accuracy"), ("relu", "mse"))
        for finder in [*FINDERS, *REFERENCES]
        for d, name in ((0.01, "ticket"), (0.1, "0.1"), (1.0, "1"))
        for stage in ("pruned", "trained")
        if finder != "planted" or name == "ticket"
    ]
    figures.figure(pd.DataFrame(rows), tmp_path / "figure.png", "small print")
    with Image.open(tmp_path / "figure.png") as image:
        width, height = image.size
        assert 1200 < width < 1500  # legible in a column of 830 pixels
        assert height > 1000
        assert len(image.convert("RGB").quantize(64).getcolors()) > 20
