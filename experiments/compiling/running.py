"""Runs compiled programs on a device that is there: their time, and that of each kernel."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from plantjax import sweeps
from plantjax.sweeps.compiling import program, share
from plantjax.tasks import TASKS

REPEATS, DENSITY, MOST = 3, 0.1, 40
"""Timed runs; density of the cells; number of kernels that a profile names."""


class Inputs:
    """Cells, worlds and found masks of one task, as the programs of a sweep get them."""

    def __init__(self, task: str, run: sweeps.Run, mesh: Mesh, networks: int) -> None:
        """Draws the worlds, and lets the run's finder find the masks.

        Its search is compiled here, apart from the program whose compilation is timed.
        """
        cells = sweeps.make_cells(TASKS[task], range(networks), [DENSITY])
        self.cells = share(mesh, cells)
        self.world = program(run.world, mesh, self.cells)(self.cells)
        found = jax.jit(jax.vmap(run.search))(self.cells, self.world)
        self.found = share(mesh, found._replace(info={}))

    def of(self, part: str) -> tuple[Any, ...]:
        """The arguments of a program: "world", "evaluate", "train" or the name of a finder."""
        known = {
            "world": (self.cells,),
            "evaluate": (self.world, self.found),
            "train": (self.cells, self.world, self.found),
        }
        return known.get(part, (self.cells, self.world))


def seconds(run: Callable[[], Any]) -> float:
    """Median wall seconds, after one run to warm up."""
    jax.block_until_ready(run())
    samples = []
    for _ in range(REPEATS):
        clock = time.perf_counter()
        jax.block_until_ready(run())
        samples.append(time.perf_counter() - clock)
    return statistics.median(samples)


def profile(run: Callable[[], Any]) -> list[dict[str, Any]]:
    """What the device does in one run, line by line of the profiler's record.

    Returns:
      For each line (a stream of a GPU, a thread of a CPU, or what the profiler derives of them):
      its plane and name, its events and their seconds in all, and the MOST names that take the
      longest, each with events and seconds. Lines overlap, so their seconds do not add up.
    """
    from jax.profiler import ProfileData

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = list(ProfileData.from_file(str(path)).planes)
        on_device = [plane for plane in planes if plane.name.startswith("/device:")]
        return [
            {"plane": plane.name, "line": line.name} | _totals(line)
            for plane in on_device or planes
            for line in plane.lines
        ]


def _totals(line: Any) -> dict[str, Any]:
    totals: dict[str, list[float]] = {}
    for event in line.events:
        total = totals.setdefault(event.name, [0, 0.0])
        total[0] += 1
        total[1] += 1e-9 * event.duration_ns
    longest = sorted(totals.items(), key=lambda item: -item[1][1])
    return {
        "events": sum(int(count) for count, _ in totals.values()),
        "seconds": sum(seconds for _, seconds in totals.values()),
        "longest": [
            {"name": name, "events": int(count), "seconds": seconds}
            for name, (count, seconds) in longest[:MOST]
        ],
    }
