"""Pictures of the samples, and of the planted ticket before and after training."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.layout_engine import ConstrainedLayoutEngine

from figures.budgets import Budget
from plantjax import targets, tasks
from plantjax.jobs import figures, styles
from plantjax.sweeps import worlds


def samples(budget: Budget) -> pd.DataFrame:
    """Samples of Circle and Helix like those that finders see, for seed 0."""
    del budget
    frames = []
    for name in ("circle", "helix"):
        task = tasks.TASKS[name]
        data = task.sample(worlds.key_for(worlds.cell_key(task, 0), "data"), 2000)
        x, y = np.asarray(data.x), np.asarray(data.y).reshape(len(data.y), -1)
        columns = {f"x{i + 1}": x[:, i] for i in range(x.shape[1])}
        columns |= {f"y{i + 1}": y[:, i] for i in range(y.shape[1])}
        frames.append(pd.DataFrame({"task": name, **columns}))
    return pd.concat(frames, ignore_index=True)


def draw_samples(table: pd.DataFrame, path: Path, note: str) -> None:
    """Draws Circle as a scatter coloured by label, and Helix as a curve with samples (figure 1)."""
    figure = plt.figure(figsize=(10.5, 4.8), layout=ConstrainedLayoutEngine(w_pad=0.15))
    flat = figure.add_subplot(1, 2, 1)
    circle, helix = (table[table["task"] == name] for name in ("circle", "helix"))
    for label in range(4):
        part = circle[circle["y1"] == label]
        flat.scatter(
            part["x1"], part["x2"], s=7, color=styles.COLORS[label], label=f"class {label}"
        )
    flat.set(aspect="equal", xlabel="x1", ylabel="x2", title="Circle: class of x1² + x2²")
    flat.locator_params(nbins=5)
    flat.legend(loc="upper right", fontsize=8, framealpha=0.9)
    space = figure.add_subplot(1, 2, 2, projection="3d")
    curve = targets.helix_curve(np.linspace(-1, 1, 600))
    space.plot(*curve.T, color="black", linewidth=1.2, label="without noise")
    points = [helix[f"y{i}"].to_numpy()[:400] for i in (1, 2, 3)]
    shown = space.scatter(
        *points, c=helix["x1"].to_numpy()[:400], cmap="viridis", s=8, label="samples"
    )
    space.set(xlabel="y1", ylabel="y2", zlabel="y3", title="Helix: a curve in space")
    space.locator_params(nbins=4)
    space.legend(loc="upper left", fontsize=8)
    figure.colorbar(shown, ax=space, shrink=0.6, pad=0.1, label="input x")
    figures.finish(figure, path, note)


def draw_rescaling(table: pd.DataFrame, path: Path, note: str) -> None:
    """Draws the planted ticket's values untrained, after training, and after rescaled training."""
    names = list(table["task"].unique())
    figure, grid = plt.subplots(
        1, len(names), figsize=(4.2 * len(names), 4.0), squeeze=False, layout="constrained"
    )
    steps = {
        "strong\n(masked only)": {"stage": "pruned", "rescale": "none"},
        "plain\ntraining": {"stage": "trained", "rescale": "none"},
        "training from\nHe scale": {"stage": "trained", "rescale": "rms"},
    }
    for axes, name in zip(grid[0], names, strict=True):
        part = table[table["task"] == name]
        metric = part["metric"].iloc[0]
        for place, where in enumerate(steps.values()):
            rows = part[(part[list(where)] == pd.Series(where)).all(axis=1)]
            values, color = rows["value"].to_numpy(), styles.COLORS[place]
            spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0]
            axes.plot(place + np.asarray(spread), values, "o", color=color, alpha=0.7, markersize=5)
            dead = rows["constant"].to_numpy(bool)
            at = (place + np.asarray(spread))[dead]
            axes.plot(at, values[dead], "o", color="white", markersize=3, linestyle="")
            axes.plot([place - 0.3, place + 0.3], [np.median(values)] * 2, color=color, linewidth=2)
        axes.axhline(part["target_value"].median(), color="black", linestyle="--", linewidth=1)
        axes.set_xticks(range(len(steps)), list(steps), fontsize=8)
        axes.set(title=f"{name}: the planted ticket", ylabel=figures.AXIS[metric])
        if metric == "mse":
            axes.set_yscale("log")
    words = "dots: seeds; hollow: dead; bar: median; dashed: the target network"
    figures.finish(figure, path, f"{words}\n{note}")
