"""The tidy table of a sweep: one row per cell and stage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SHARED = {
    "kept_density": "kept_density",
    "kept": "kept",
    "ticket_value": "ticket/value",
    "target_value": "target/value",
    "precision": "recovery/precision",
    "recall": "recovery/recall",
    "iou": "recovery/iou",
    "lift": "recovery/lift",
    "feasible_recall": "recovery/feasible_recall",
    "live_density": "recovery/live_density",
    "collapsed": "recovery/collapsed",
}
"""Columns of the table that both stages share, and the results they come from."""

COLUMNS = (
    *("task", "depth", "width", "finder", "scope", "rounds", "noise", "seed"),
    *("density", "density_name", "kept_density", "kept", "stage", "metric", "value", "value_raw"),
    *("ticket_value", "target_value", "ticket_density", "ticket_density_weights"),
    *("precision", "recall", "iou", "lift", "feasible_recall", "live_density", "collapsed"),
    *("constant", "status", "seconds"),
)
"""Order of the table's columns."""

FURTHER = "metric/"
"""Before the names of further metrics in the results of a stage, as in "pruned/metric/NAME"."""

TAKEN = frozenset(
    {
        *COLUMNS,
        *("id", "mother", "rescale", "level", "mask"),
        *("seeds", "mean", "median", "min", "max", "ticket"),  # of summaries, as the next ones
        *("excess", "reached", "dead", "diverged"),
    }
)
"""Names that columns have already."""


def to_levels(results: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[Any]]) -> Any:
    """One row per (cell, level) of finders that prune in several rounds or levels.

    Args:
      results: of `sweep`; the entries "search/NAME" of shape [C, R] become columns NAME.
      labels: columns that say what each cell is, sequences of length C.

    Returns:
      A pandas DataFrame: the labels, `level` from 1 to R, and what the finder tells of each level
      ("kept_density", "live_density", "collapsed", for multishot the training "loss"); without
      rows where a finder has a single round.

    >>> import numpy as np
    >>> table = to_levels({"search/kept_density": np.array([[0.5, 0.25]])}, {"seed": [7]})
    >>> table["seed"].tolist(), table["level"].tolist(), table["kept_density"].tolist()
    ([7, 7], [1, 2], [0.5, 0.25])
    """
    import pandas as pd  # an extra: the core does not need it

    kept = results.get("search/kept_density")
    if kept is None or kept.shape[1] == 1:
        return pd.DataFrame()
    cells, rounds = kept.shape
    shared = {name: np.repeat(np.asarray(column), rounds) for name, column in labels.items()}
    told = {
        name.removeprefix("search/"): np.ravel(values)
        for name, values in results.items()
        if name.startswith("search/") and values.shape == (cells, rounds)
    }
    return pd.DataFrame({**shared, "level": np.tile(np.arange(1, rounds + 1), cells), **told})


def to_frame(results: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[Any]]) -> Any:
    """The tidy table: one row per (cell, stage), stages "pruned" (strong) and "trained" (weak).

    Args:
      results: of `sweep`, arrays [C].
      labels: columns that say what each cell is (task, seed, density, ...), sequences of length C.

    Returns:
      A pandas DataFrame, the columns of COLUMNS first, in their order, those of further metrics
      last. `status` is "diverged" where a value or a training loss is not finite.

    >>> import numpy as np
    >>> results = {f"pruned/{name}": np.array([0.9]) for name in ("value", "value_raw", "seconds")}
    >>> table = to_frame(results | {"pruned/constant": np.array([False])}, {"task": ["circle"]})
    >>> table[["task", "stage", "value", "status"]].values.tolist()
    [['circle', 'pruned', 0.9, 'ok']]
    """
    import pandas as pd  # an extra: the core does not need it

    shared = {column: results[name] for column, name in SHARED.items() if name in results}
    frames = []
    for stage in ("pruned", "trained"):
        if f"{stage}/value" not in results:
            continue
        value = np.asarray(results[f"{stage}/value"])
        diverged = results.get(f"{stage}/diverged", np.zeros(len(value), bool))
        columns = {
            "stage": stage,
            "value": value,
            "value_raw": results[f"{stage}/value_raw"],
            "constant": np.asarray(results[f"{stage}/constant"], bool),
            "status": np.where(np.isfinite(value) & ~diverged, "ok", "diverged"),
            "seconds": results[f"{stage}/seconds"],
        }
        prefix = f"{stage}/{FURTHER}"
        further = {n.removeprefix(prefix): a for n, a in results.items() if n.startswith(prefix)}
        frames.append(pd.DataFrame({**labels, **shared, **columns, **further}))
    table = pd.concat(frames).sort_index(kind="stable").reset_index(drop=True)
    first = [name for name in COLUMNS if name in table]
    return table[first + [name for name in table if name not in first]]
