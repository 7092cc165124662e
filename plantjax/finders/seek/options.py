"""The options of `seek`: defaults by metric, and their checks."""

from typing import Any, NamedTuple

from plantjax import checks
from plantjax.finders.seek import beam, price, units
from plantjax.finders.seek.schedule import Plan
from plantjax.finders.seek.stage import Effort
from plantjax.types import Task


class Options(NamedTuple):
    """All options of a search but those of its starts; `seek` explains them."""

    plan: Plan
    effort: Effort
    noise: float


ACCURACY: dict[str, Any] = {
    **{"restarts": 45, "sweeps": 2, "rungs": 4, "cycles": 2, "cycle_sweeps": 12},
    **{"units": 16, "wide_units": 32, "redesigned": 14, "breadth": 40, "in_edges": 5},
    **{"sweep_samples": 2048, "first_samples": 256},
    **{"sharpen": 1.5, "power": 0.5, "focus": 0.8, "noise": 0.006, "price": 1.0},
    **{"teachers": 2, "pool": 50, "search_epochs": 40, "batch_size": 128},
}
MSE: dict[str, Any] = {
    **{"restarts": 15, "sweeps": 7, "rungs": 3, "cycles": 2, "cycle_sweeps": 20},
    **{"units": 32, "wide_units": 64, "redesigned": 16, "breadth": 64, "in_edges": 4},
    **{"sweep_samples": 1024, "first_samples": 192},
    **{"sharpen": 0.0, "power": 0.0, "focus": 0.0, "noise": 0.012, "price": 3.0},
    **{"teachers": 0, "pool": 50, "search_epochs": 40, "batch_size": 64},
}
DEFAULTS = {"accuracy": ACCURACY, "mse": MSE}
"""Chosen by measurement, see SEEKER.md."""

LEAST = {
    **{"restarts": 1, "sweeps": 1, "rungs": 1, "cycles": 0, "cycle_sweeps": 1},
    **{"units": 1, "wide_units": 1, "redesigned": 0, "breadth": 1, "in_edges": 1},
    **{"sweep_samples": 1, "first_samples": 1, "search_epochs": 1, "batch_size": 1},
    **{"teachers": 0, "pool": 1},
}
"""The smallest value of every option that is an integer."""


def filled(task: Task, given: dict[str, Any]) -> dict[str, Any]:
    """The given options, and the defaults of the task's metric for those that are None.

    Raises:
      ValueError: if an option is out of range.
    """
    usual = DEFAULTS[task.metric]
    found = {name: usual[name] if value is None else value for name, value in given.items()}
    for name, least in LEAST.items():
        checks.integer(name, found[name], least)
    if task.metric != "accuracy":
        checks.integer("teachers", found["teachers"], 0, 0)
    checks.interval("sharpen", found["sharpen"], 0.0, 10.0)
    checks.interval("power", found["power"], 0.0, 1.0)
    checks.interval("focus", found["focus"], 0.0, 0.99)
    checks.interval("price", found["price"], price.LOWEST, price.HIGHEST)
    checks.interval("noise", found["noise"], 1e-9, 1.0)
    return found


def build(found: dict[str, Any], candidates: int, finalists: int) -> Options:
    """The options in groups."""
    plan = Plan(**{name: found[name] for name in Plan._fields})
    search = beam.Options(found["breadth"], found["in_edges"], pool=5)
    effort = Effort(
        units=found["units"],
        wide_units=found["wide_units"],
        sweep_samples=found["sweep_samples"],
        first_samples=found["first_samples"],
        candidates=candidates,
        finalists=finalists,
        sharpen=found["sharpen"],
        power=found["power"],
        price=found["price"],
        redesign=units.Options(found["units"], found["redesigned"], search),
    )
    return Options(plan, effort, found["noise"])
