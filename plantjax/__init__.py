"""Plant sparse tickets in large random networks, and let pruning algorithms seek them.

From what stands alone to what uses it: types, targets, nets, data, tasks, masks (`compact`),
planting (`plant`), audit, scores, training, recovery, metrics, finders, theory, interchange, sweeps
(`evaluate`), results. `plantjax.jobs`, which runs a sweep in a results folder, is imported
by itself: it needs the extra "experiments".
"""

from plantjax import (
    audit,
    data,
    finders,
    interchange,
    losses,
    masks,
    metrics,
    nets,
    optim,
    recovery,
    results,
    scores,
    sweeps,
    targets,
    tasks,
    theory,
    training,
    types,
)
from plantjax.data import DATASETS
from plantjax.finders import FINDERS, REFERENCES
from plantjax.masks import compact
from plantjax.metrics import METRICS
from plantjax.planting import plant
from plantjax.scores import SCORES
from plantjax.sweeps import evaluate
from plantjax.tasks import TASKS
from plantjax.types import Batch, Found, Planted

__version__ = "0.2.0"

__all__ = [
    "DATASETS",
    "FINDERS",
    "METRICS",
    "REFERENCES",
    "SCORES",
    "TASKS",
    "Batch",
    "Found",
    "Planted",
    "audit",
    "compact",
    "data",
    "evaluate",
    "finders",
    "interchange",
    "losses",
    "masks",
    "metrics",
    "nets",
    "optim",
    "plant",
    "recovery",
    "results",
    "scores",
    "sweeps",
    "targets",
    "tasks",
    "theory",
    "training",
    "types",
]
