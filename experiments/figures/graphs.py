"""Tickets as layered graphs (figure 2): planted tickets, and found ones for comparison.

The width of an edge shows the absolute weight, its colour the sign (blue negative, yellow
positive); neurons are coloured by the sign of their bias.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from figures.budgets import Budget
from plantjax import sweeps, tasks
from plantjax.jobs import figures, terminal
from plantjax.sweeps import worlds
from plantjax.types import Mask, Params

Node: TypeAlias = tuple[int, int]
"""(layer of neurons, index of the neuron in it)."""

NEGATIVE, POSITIVE, SHARED = "#0072B2", "#E69F00", "#009E73"
DEPTH, WIDTH = 5, 100
TICKETS = {"planted": "planted", "found": "multishot_synflow"}


def tickets(budget: Budget) -> pd.DataFrame:
    """The kept parameters of planted tickets, and of found ones of the same density, for seed 0.

    Args:
      budget: gives the options of the search.

    Returns:
      A row per kept parameter: task, ticket ("planted" | "found"), finder, layer, kind ("weight" |
      "bias"), source and target neuron, value, shared (kept in both tickets).
    """
    found_by = TICKETS["found"]
    options = {**budget.static, **budget.options_of([found_by]), "epochs": 0}
    rows: list[dict[str, Any]] = []
    for name in tasks.PAPER_TASKS:
        task = tasks.TASKS[name]
        density = worlds.ticket_density(task, DEPTH, WIDTH)
        cell = sweeps.make_cells(task, [0, 0], [density])
        run = sweeps.make_run(task, DEPTH, WIDTH, found_by, **options)
        world = jax.tree.map(lambda a: a[0], jax.jit(jax.vmap(run.world))(cell))
        flat = sweeps.sweep(run, cell)["mask"][0]
        found = ravel_pytree(world.planted.mask)[1](flat)
        both = jax.tree.map(np.logical_and, found, world.planted.mask)
        for ticket, mask in (("planted", world.planted.mask), ("found", found)):
            label = {"task": name, "ticket": ticket, "finder": TICKETS[ticket]}
            rows += [label | row for row in _parameters(world.planted.params, mask, both)]
    return pd.DataFrame(rows)


def draw_tickets(table: pd.DataFrame, path: Path, note: str) -> None:
    """Draws tickets as layered graphs, the planted ones above the found ones."""
    names = list(table["task"].unique())
    figure, grid = plt.subplots(
        2, len(names), figsize=(5.2 * len(names), 9.0), squeeze=False, layout="constrained"
    )
    for row, ticket in zip(grid, TICKETS, strict=True):
        for axes, name in zip(row, names, strict=True):
            part = table[(table["task"] == name) & (table["ticket"] == ticket)]
            draw_graph(axes, part, halo=ticket == "found")
            shared = int(part["shared"].sum())
            words = terminal.count(len(part), "parameter")
            words += "" if ticket == "planted" else f", {shared} of them planted"
            axes.set_title(f"{name}, {part['finder'].iloc[0]}\n{words}", fontsize=10)
    handles = [
        Line2D([], [], color=POSITIVE, label="positive weight"),
        Line2D([], [], color=NEGATIVE, label="negative weight"),
        *(
            Line2D([], [], color=color, marker="o", linestyle="", markeredgecolor="black")
            for color in (POSITIVE, NEGATIVE, "white")
        ),
        Line2D([], [], color=SHARED, linewidth=3, alpha=0.6),
    ]
    labels = ["positive weight", "negative weight", "bias > 0", "bias < 0", "no bias"]
    labels += ["in both tickets"]
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=9, frameon=False)
    figures.finish(figure, path, note)


def draw_graph(axes: Axes, ticket: pd.DataFrame, halo: bool) -> None:
    """Draws one ticket, with edges by weight and nodes by the sign of the bias.

    Args:
      axes: where to draw.
      ticket: the rows of `tickets` for one task and ticket.
      halo: mark the edges that both tickets share.
    """
    weights = ticket[ticket["kind"] == "weight"]
    biases = ticket[ticket["kind"] == "bias"].set_index(["layer", "target"])["value"]
    heights = _heights(ticket)
    for _, rows in weights.groupby("layer"):
        lines = [((a[0], heights[a]), (b[0], heights[b])) for a, b in _edges(rows)]
        size = rows["value"].abs() / rows["value"].abs().max()
        colors = [POSITIVE if value > 0 else NEGATIVE for value in rows["value"]]
        if halo and rows["shared"].any():
            marked = [line for line, shared in zip(lines, rows["shared"], strict=True) if shared]
            axes.add_collection(LineCollection(marked, colors=SHARED, linewidths=5, alpha=0.6))
        axes.add_collection(
            LineCollection(lines, colors=colors, linewidths=0.4 + 2.2 * size, alpha=0.8)
        )
    for (layer, neuron), height in heights.items():
        value = biases.get((layer - 1, neuron), 0.0)
        color = "white" if value == 0 else POSITIVE if value > 0 else NEGATIVE
        axes.plot(layer, height, "o", color=color, markeredgecolor="black", markersize=6, zorder=3)
    last = DEPTH - 1
    for (layer, neuron), height in heights.items():
        if layer in (0, last):
            text, side = (f"x{neuron + 1}", -10) if layer == 0 else (f"y{neuron + 1}", 10)
            axes.annotate(
                *(text, (layer, height)),
                xytext=(side, 0),
                textcoords="offset points",
                ha="right" if layer == 0 else "left",
                va="center",
                fontsize=9,
            )
    axes.set(xlim=(-0.4, last + 0.4), ylim=(-1.12, 1.12))
    axes.set_axis_off()


def _parameters(params: Params, mask: Mask, both: Mask) -> list[dict[str, Any]]:
    """A row per kept parameter."""
    rows = []
    for layer, name in enumerate(sorted(params)):
        for kind, leaf in (("weight", "kernel"), ("bias", "bias")):
            values, shared = np.asarray(params[name][leaf]), np.asarray(both[name][leaf])
            for place in np.argwhere(np.asarray(mask[name][leaf])):
                at = tuple(int(i) for i in place)
                rows.append(
                    {
                        "layer": layer,
                        "kind": kind,
                        "source": at[0] if kind == "weight" else -1,
                        "target": at[-1],
                        "value": float(values[at]),
                        "shared": bool(shared[at]),
                    }
                )
    return rows


def _heights(ticket: pd.DataFrame) -> dict[Node, float]:
    """The height of each neuron, ordered by the mean of its neighbours so that few edges cross."""
    weights = ticket[ticket["kind"] == "weight"]
    used: list[list[int]] = [[] for _ in range(DEPTH)]
    for layer in range(DEPTH):
        sources = weights[weights["layer"] == layer]["source"]
        targets = ticket[ticket["layer"] == layer - 1]["target"]
        used[layer] = sorted({*sources, *targets})
    task = tasks.TASKS[ticket["task"].iloc[0]]
    used[0], used[-1] = list(range(task.n_in)), list(range(task.n_out))
    heights = {
        (layer, neuron): height
        for layer, neurons in enumerate(used)
        for neuron, height in zip(neurons, _even(len(neurons)), strict=True)
    }
    near: dict[Node, list[Node]] = {node: [] for node in heights}
    for start, end in _edges(weights):
        near[start].append(end)
        near[end].append(start)
    for _ in range(3):
        for layer in range(1, DEPTH - 1):
            places = {
                neuron: float(np.mean([heights[node] for node in near[layer, neuron]] or [0.0]))
                for neuron in used[layer]
            }
            order = sorted(used[layer], key=places.__getitem__)
            order.reverse()
            heights |= {(layer, n): h for n, h in zip(order, _even(len(order)), strict=True)}
    return heights


def _even(n: int) -> Sequence[float]:
    return [0.0] if n == 1 else [float(h) for h in np.linspace(1.0, -1.0, n)]


def _edges(weights: pd.DataFrame) -> list[tuple[Node, Node]]:
    places = weights[["layer", "source", "target"]].to_numpy()
    return [((int(at), int(i)), (int(at) + 1, int(j))) for at, i, j in places]
