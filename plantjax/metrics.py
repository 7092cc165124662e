"""Metrics: the columns of the results table that compare a mask with the planted ticket.

`METRICS[name](judged)` returns a scalar, which becomes a column. The built-in metrics only look at
the mask and are computed once for both stages. Metrics registered later are computed for each stage
and get the last columns.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.types import Batch, Mask, Metrics, Params, Planted, Task


class Judged(NamedTuple):
    """A masked network under evaluation, and the planted ticket to compare it with.

    Attributes:
      task: the task, with its loss and `evaluate`.
      params: the network's parameters. For the stage "pruned" the mother's, or the found ones if
        the finder flips signs; for the stage "trained" those after training.
      mask: the found mask F.
      planted: the ground truth: the mother's parameters, the planted mask T, the output scale.
      test: held-out data.
      outputs: outputs of the masked network on the held-out data [N, O].
      ticket_outputs: outputs of the untrained planted ticket on the same data [N, O].
      recovery: F compared with T, see `recovery.compare`.
    """

    task: Task
    params: Params
    mask: Mask
    planted: Planted
    test: Batch
    outputs: jax.Array
    ticket_outputs: jax.Array
    recovery: Metrics


Metric: TypeAlias = Callable[[Judged], jax.Array]
"""`(judged) -> scalar`; pure, works under jit and vmap."""

Registered: TypeAlias = tuple[tuple[str, Metric], ...]
"""Pairs (name, metric), hashable."""


def precision(judged: Judged) -> jax.Array:
    """Fraction of the kept parameters that are planted, |F and T| / |F|."""
    return judged.recovery["precision"]


def recall(judged: Judged) -> jax.Array:
    """Fraction of the planted parameters that were kept, |F and T| / |T|."""
    return judged.recovery["recall"]


def iou(judged: Judged) -> jax.Array:
    """Intersection over union, |F and T| / |F or T|."""
    return judged.recovery["iou"]


def lift(judged: Judged) -> jax.Array:
    """Precision divided by that of a random mask, which is the planted density."""
    return judged.recovery["lift"]


def feasible_recall(judged: Judged) -> jax.Array:
    """The highest recall that the counts per group of the finder's scope allow."""
    return judged.recovery["feasible_recall"]


def live_density(judged: Judged) -> jax.Array:
    """Fraction of all parameters that are kept and live: on a path from the inputs to the outputs.

    NaN for networks whose wiring is unknown.
    """
    return judged.recovery.get("live_density", jnp.float32(jnp.nan))


def collapsed(judged: Judged) -> jax.Array:
    """Number of layers without a kept weight."""
    return judged.recovery["collapsed"]


_FUNCTIONS = (precision, recall, iou, lift, feasible_recall, live_density, collapsed)
METRICS: dict[str, Metric] = checks.Names({metric.__name__: metric for metric in _FUNCTIONS})
"""The registry of metrics: a new one takes one function, and a place in the line above."""

BUILT_IN = tuple(METRICS)
"""The metrics that every table has."""

SHARED = {
    "kept_density": "kept_density",
    "kept": "kept",
    "ticket_value": "ticket/value",
    "target_value": "target/value",
    "dead_value": "dead/value",
    "ticket_fresh": "ticket/fresh",
    "dead_fresh": "dead/fresh",
    **{name: f"recovery/{name}" for name in BUILT_IN},
}
"""Columns with the same value in both stages, and the entries of the results they come from."""

COLUMNS = (
    *("task", "depth", "width", "finder", "scope", "rounds", "noise", "seed"),
    *("density", "density_name", "kept_density", "kept", "stage", "metric", "value", "value_raw"),
    *("ticket_value", "target_value", "dead_value"),
    *("fresh", "fresh_error", "ticket_fresh", "dead_fresh"),
    *("ticket_density", "ticket_density_weights", *BUILT_IN, "constant", "status", "seconds"),
)
"""The columns of the table, in order."""

FRESH = ("fresh", "fresh_error")
"""Columns of a stage that only sweeps with fresh samples have."""

OVER = "over budget"
"""The status of a mask that keeps more parameters than its density allows."""

FURTHER = "metric/"
"""Prefix of user-registered metrics in the results of a stage, as in "pruned/metric/NAME"."""

LABEL = "label/"
"""Prefix of the columns that identify cells in the results of a sweep, as in "label/seed"."""

TAKEN = frozenset(
    {
        *COLUMNS,
        *("id", "mother", "rescale", "kind", "level", "mask"),
        *("seeds", "median", "min", "max", "ticket"),  # columns of summaries
        *("excess", "reached", "dead", "diverged", "over", "guessed", "tuned", "ruling"),
    }
)
"""Column names that a new metric must not use."""


def names() -> list[str]:
    """Names of the metrics that are not built in; their columns come last.

    Raises:
      ValueError: if a metric has the name of another column.
    """
    further = [name for name in METRICS if name not in BUILT_IN]
    for name in further:
        if name in TAKEN:
            raise ValueError(f"METRICS must have names that no column has, got {name!r}.")
    return further


def registered() -> tuple[Registered, Registered]:
    """The current registry as (built-in metrics, all others).

    Programs that compute metrics depend on these values, so none is reused after the registry has
    changed.

    Raises:
      ValueError: if a metric has the name of another column.
    """
    further = names()
    of_mask = tuple((name, metric) for name, metric in METRICS.items() if name not in further)
    return of_mask, tuple((name, METRICS[name]) for name in further)


def measured(metrics: Registered, judged: Judged) -> Metrics:
    """The values of the metrics, by name.

    Raises:
      ValueError: if a metric does not return a scalar.
    """
    values = {name: jnp.asarray(metric(judged)) for name, metric in metrics}
    for name, value in values.items():
        if value.shape:
            raise ValueError(f"metric {name!r} must be a scalar, got shape {value.shape}.")
    return values


def to_levels(
    results: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[Any]] | None = None
) -> Any:
    """One row per (cell, level), for finders that prune in several rounds or levels.

    Args:
      results: the result of `sweep`; entries "search/NAME" of shape [C, R] become columns NAME.
      labels: columns that identify each cell, sequences of length C; by default as in `to_frame`.

    Returns:
      A pandas DataFrame: the labels, `level` from 1 to R, and the finder's diagnostics of each
      level ("kept_density", "live_density", "collapsed", for multishot the training "loss"). It is
      empty if the finder has a single round.

    >>> import numpy as np
    >>> table = to_levels({"search/kept_density": np.array([[0.5, 0.25]])}, {"seed": [7]})
    >>> table["seed"].tolist(), table["level"].tolist(), table["kept_density"].tolist()
    ([7, 7], [1, 2], [0.5, 0.25])
    """
    pd, labels = _pandas(), _labels(results, labels)
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


def to_frame(
    results: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[Any]] | None = None
) -> Any:
    """The tidy table: one row per (cell, stage), stages "pruned" (strong) and "trained" (weak).

    Args:
      results: the result of `sweep`, arrays [C].
      labels: columns that identify each cell (task, seed, density, ...), sequences of length C; by
        default those that the sweep knows, the entries "label/NAME" of the results.

    Returns:
      A pandas DataFrame with the columns of COLUMNS first, in that order, then those of other
      metrics. `status` is the first that applies: OVER, where the mask keeps more than its density
      allows and so is no ticket (needs a label "density"); "diverged", where a value or a training
      loss is not finite; "scores 0.12 not finite", where the mask rests on such scores; or "ok".

    >>> import numpy as np
    >>> results = {f"pruned/{name}": np.array([0.9]) for name in ("value", "value_raw", "seconds")}
    >>> table = to_frame(results | {"pruned/constant": np.array([False])}, {"task": ["circle"]})
    >>> table[["task", "stage", "value", "status"]].values.tolist()
    [['circle', 'pruned', 0.9, 'ok']]
    """
    pd, labels = _pandas(), _labels(results, labels)
    shared = {column: results[name] for column, name in SHARED.items() if name in results}
    over, broken = _over_budget(results, labels), _broken_scores(results)
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
            **{n: results[f"{stage}/{n}"] for n in FRESH if f"{stage}/{n}" in results},
            "constant": np.asarray(results[f"{stage}/constant"], bool),
            "status": np.where(np.isfinite(value) & ~diverged, broken, "diverged"),
            "seconds": results[f"{stage}/seconds"],
        }
        columns["status"] = np.where(over, OVER, columns["status"])
        prefix = f"{stage}/{FURTHER}"
        further = {n.removeprefix(prefix): a for n, a in results.items() if n.startswith(prefix)}
        frames.append(pd.DataFrame({**labels, **shared, **columns, **further}))
    table = pd.concat(frames).sort_index(kind="stable").reset_index(drop=True)
    first = [name for name in COLUMNS if name in table]
    return table[first + [name for name in table if name not in first]]


def _labels(
    results: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[Any]] | None
) -> Mapping[str, Sequence[Any]]:
    """The given labels, or those in the results."""
    if labels is not None:
        return labels
    return {n.removeprefix(LABEL): list(a) for n, a in results.items() if n.startswith(LABEL)}


def _over_budget(
    results: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[Any]]
) -> np.ndarray | bool:
    """Whether each mask keeps more than k of n parameters, bool [C]."""
    if "density" not in labels or "kept" not in results:
        return False
    kept, density = np.asarray(results["kept"]), np.asarray(labels["density"], np.float32)
    share = np.asarray(results["kept_density"], np.float64)
    n = np.round(kept / np.where(kept > 0, share, 1.0))
    return kept > np.maximum(np.floor(density * n.astype(np.float32) + np.float32(0.5)), 1)


def _broken_scores(results: Mapping[str, np.ndarray]) -> Any:
    """The share of scores that are not finite in the worst round, in words for each cell."""
    share = results.get("search/not_finite")
    if share is None:
        return "ok"
    worst = np.max(np.reshape(share, (len(share), -1)), axis=1)
    return np.array([f"scores {part:.2g} not finite" if part else "ok" for part in worst])


def _pandas() -> Any:
    """pandas, which only tables need."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "tables need pandas: pip install plantjax[experiments]", name="pandas"
        ) from error
    return pandas
