"""Plant sparse tickets in large random networks, and let pruning algorithms seek them.

See README.md; the modules, from what stands alone to what uses it: types, targets, nets, tasks,
wirings, convnets, planting, masks, scores, training, finders, controls, recovery, metrics, sweeps,
theory, data.
"""

from plantjax import (
    allocations,
    controls,
    convnets,
    data,
    existence,
    finders,
    interchange,
    losses,
    masks,
    metrics,
    nets,
    planting,
    recovery,
    rewiring,
    runs,
    schedules,
    scores,
    sweeps,
    targets,
    tasks,
    theory,
    training,
    types,
    wirings,
    worlds,
)
from plantjax.data import DATASETS
from plantjax.finders import FINDERS, REFERENCES
from plantjax.metrics import METRICS
from plantjax.planting import plant
from plantjax.scores import SCORES
from plantjax.tasks import TASKS

__version__ = "0.1.0"

__all__ = [
    "DATASETS",
    "FINDERS",
    "METRICS",
    "REFERENCES",
    "SCORES",
    "TASKS",
    "allocations",
    "controls",
    "convnets",
    "data",
    "existence",
    "finders",
    "interchange",
    "losses",
    "masks",
    "metrics",
    "nets",
    "plant",
    "planting",
    "recovery",
    "rewiring",
    "runs",
    "schedules",
    "scores",
    "sweeps",
    "targets",
    "tasks",
    "theory",
    "training",
    "types",
    "wirings",
    "worlds",
]
