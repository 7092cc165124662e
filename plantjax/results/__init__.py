"""The published results of the benchmark as a table, without running anything.

`load()` reads the release's table, one row per finder, task, mother, density and stage; its columns
are explained in docs/results.md.
"""

from plantjax.results.table import load, write

__all__ = ["load", "write"]
