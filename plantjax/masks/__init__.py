"""Masks of kept parameters: selection at an exact density, application, counts, live paths.

A mask is a pytree of bool arrays with the structure of the parameters. `prunable` is a predicate on
a leaf's path ("layer_00/kernel"); leaves that it rejects are kept entirely and never counted.
"""

from plantjax.masks.allocations import ALLOCATIONS, erk, igq, smart_ratio, uniform
from plantjax.masks.compact import compact, savings
from plantjax.masks.counts import number_kept
from plantjax.masks.groups import SCOPES, partition
from plantjax.masks.patterns import PATTERNS, check_scope
from plantjax.masks.schedules import SCHEDULES
from plantjax.masks.select import (
    apply,
    count,
    density,
    full,
    group_counts,
    live,
    nonzero,
    overlap,
    reselect,
    select,
    size,
    unknown,
)
from plantjax.masks.select_live import reselect_live, select_live

__all__ = [
    "ALLOCATIONS",
    "PATTERNS",
    "SCHEDULES",
    "SCOPES",
    "apply",
    "check_scope",
    "compact",
    "count",
    "density",
    "erk",
    "full",
    "group_counts",
    "igq",
    "live",
    "nonzero",
    "number_kept",
    "overlap",
    "partition",
    "reselect",
    "reselect_live",
    "savings",
    "select",
    "select_live",
    "size",
    "smart_ratio",
    "uniform",
    "unknown",
]
