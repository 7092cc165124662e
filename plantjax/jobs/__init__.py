"""Jobs: a sweep in a results folder, resumable, locked, on one machine or many.

What the scripts in experiments/ are made of, for scripts of one's own; see examples/own_script.py.
Needs the extra "experiments".
"""

from plantjax.jobs.chunks import StoreError

try:
    from plantjax.jobs.figures import figure
    from plantjax.jobs.grids import HALF, TICKET, Grid, Group
    from plantjax.jobs.job import InputError, Operation
    from plantjax.jobs.runner import run
    from plantjax.jobs.summary import aggregate, show
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"plantjax.jobs needs {error.name}: pip install 'plantjax[experiments]' brings it.",
        name=error.name,
    ) from error

__all__ = [
    "HALF",
    "TICKET",
    "Grid",
    "Group",
    "InputError",
    "Operation",
    "StoreError",
    "aggregate",
    "figure",
    "run",
    "show",
]
