"""Metrics: what tables tell of a ticket beside its value, each a function of what is judged.

`METRICS[name](judged)` is a scalar, and a column of the table. Those of the mask alone stand among
the columns that every table has (`tables.SHARED`) and are computed once; each further one is
computed for both stages, and its column comes last.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from plantjax.tables import SHARED, TAKEN
from plantjax.types import Batch, Mask, Metrics, Params, Planted, Task


class Judged(NamedTuple):
    """A network that is judged, masked by what was found, and the truth beside it.

    Attributes:
      task: has loss and `evaluate`.
      params: the network's parameters: the mother's ("pruned"; of signed finds their own), or those
        after training ("trained").
      mask: the found mask F.
      planted: the truth: the mother's parameters, the planted mask T, the factors of its outputs.
      test: held-out data.
      outputs: of the masked network on them [N, O].
      ticket_outputs: of the planted ticket, untrained, on them [N, O].
      recovery: F against T, see `recovery.compare`.
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
"""`(judged) -> scalar`; pure, it jits and vmaps."""

Registered: TypeAlias = tuple[tuple[str, Metric], ...]
"""Metrics with their names, hashable."""


def precision(judged: Judged) -> jax.Array:
    """Share of what was kept that is planted, |F and T| / |F|."""
    return judged.recovery["precision"]


def recall(judged: Judged) -> jax.Array:
    """Share of what is planted that was kept, |F and T| / |T|."""
    return judged.recovery["recall"]


def iou(judged: Judged) -> jax.Array:
    """Intersection over union, |F and T| / |F or T|."""
    return judged.recovery["iou"]


def lift(judged: Judged) -> jax.Array:
    """Precision over that of chance, the planted density."""
    return judged.recovery["lift"]


def feasible_recall(judged: Judged) -> jax.Array:
    """The highest recall that the budgets of the finder's scope allow."""
    return judged.recovery["feasible_recall"]


def live_density(judged: Judged) -> jax.Array:
    """Share of all parameters that are kept and live: on a path from the inputs to the outputs.

    NaN for networks whose wiring is not known.
    """
    return judged.recovery.get("live_density", jnp.float32(jnp.nan))


def collapsed(judged: Judged) -> jax.Array:
    """Number of layers without a kept weight."""
    return judged.recovery["collapsed"]


METRICS: dict[str, Metric] = {
    "precision": precision,
    "recall": recall,
    "iou": iou,
    "lift": lift,
    "feasible_recall": feasible_recall,
    "live_density": live_density,
    "collapsed": collapsed,
}
"""The registry of metrics: a new one takes one function and one entry here."""


def names() -> list[str]:
    """The metrics whose columns come last: all but those that every table has.

    Raises:
      ValueError: if one has the name of another column.
    """
    further = [name for name in METRICS if SHARED.get(name) != f"recovery/{name}"]
    for name in further:
        if name in TAKEN:
            raise ValueError(f"METRICS must have names that no column has, got {name!r}.")
    return further


def registered() -> tuple[Registered, Registered]:
    """The registry as it is now: (metrics of the mask alone, all further ones).

    Programs that measure depend on these, so that none is used after the registry has changed.

    Raises:
      ValueError: if a metric has the name of another column.
    """
    further = names()
    of_mask = tuple((name, metric) for name, metric in METRICS.items() if name not in further)
    return of_mask, tuple((name, METRICS[name]) for name in further)


def measured(metrics: Registered, judged: Judged) -> Metrics:
    """What the metrics say.

    Raises:
      ValueError: if one of them gives no scalar.
    """
    values = {name: jnp.asarray(metric(judged)) for name, metric in metrics}
    for name, value in values.items():
        if value.shape:
            raise ValueError(f"metric {name!r} must be a scalar, got shape {value.shape}.")
    return values
