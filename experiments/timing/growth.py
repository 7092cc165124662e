"""How time and memory grow with the number of networks, and what more cores bring."""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from plantjax import sweeps
from plantjax.tasks import TASKS
from timing import measure, workloads

REPEATS = 5
EXPERIMENTS = Path(__file__).parent.parent


def memory(console: Console) -> list[dict[str, Any]]:
    """Memory per network of the program that trains, by the number of networks that share it."""
    run = sweeps.make_run(workloads.TASK, workloads.DEPTH, 100, "magnitude")
    assert run.fit is not None
    rows = []
    for n in (2, 16, 128):
        console.print(f"  memory of {n} networks ...", style="dim")
        cells = sweeps.make_cells(TASKS[workloads.TASK], range(n), [workloads.DENSITY])
        world = jax.eval_shape(jax.vmap(run.world), cells)
        found = jax.eval_shape(jax.vmap(run.search), cells, world)._replace(info={})
        program = jax.jit(jax.vmap(run.fit)).lower(cells, world, found).compile()
        each = measure.memory(program) // n
        rows.append({"name": "training_memory", "networks": n, "peak_memory_bytes": each})
    return rows


def growth(numbers: Sequence[int], epochs: int, console: Console) -> list[dict[str, Any]]:
    """Time per network of a whole sweep (world, search, evaluation, training), by their number."""
    run = sweeps.make_run(workloads.TASK, workloads.DEPTH, 100, "magnitude", epochs=epochs)
    rows = []
    for n in numbers:
        console.print(f"  {n} networks ...", style="dim")
        cells = sweeps.make_cells(TASKS[workloads.TASK], range(n), [workloads.DENSITY])
        sweeps.prepare(run, sweeps.default_batch(n))
        samples = [measure.timed(partial(sweeps.sweep, run, cells)) for _ in range(3)]
        timing = measure.timing(samples)
        rows.append(
            {
                "name": "sweep_one_epoch" if epochs == 1 else f"sweep_{epochs}_epochs",
                "networks": n,
                "seconds_per_network": timing.process / n,
                "networks_per_second": n / timing.process,
                "spread": [timing.low / n, timing.high / n],
            }
        )
    return rows


def scaling(console: Console) -> list[dict[str, Any]]:
    """Networks per second of a sweep on one core, and on all of them: a device for each.

    In processes of their own, which take turns: this one is pinned to a core.
    """
    cores, networks = measure.all_cores(), 64
    samples: dict[int, list[float]] = {1: [], len(cores): []}
    for _ in range(REPEATS):
        for number, seconds in samples.items():
            console.print(f"  {networks} networks on {number} cores ...", style="dim")
            command = [sys.executable, "-m", "timing.throughput", str(networks)]
            command += map(str, cores[:number])
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, cwd=EXPERIMENTS
            )
            seconds.append(float(done.stdout))
    rows = []
    for number, seconds in samples.items():
        each = float(np.median(seconds)) / networks
        ratios = [one / more for one, more in zip(samples[1], seconds, strict=True)]
        rows.append(
            {
                "name": f"sweep_on_{number}_cores",
                "networks": networks,
                "seconds_per_network": each,
                "networks_per_second": 1.0 / each,
                "spread": [min(seconds) / networks, max(seconds) / networks],
                "ratio_one_core": float(np.median(ratios)),
                "ratio_one_core_spread": [min(ratios), max(ratios)],
            }
        )
    return rows
