"""Wall seconds of one sweep on some cores, with a virtual device for each: `NETWORKS CORE...`.

`benchmark.py` runs this as a separate process, because devices and cores must be set before JAX
starts.
"""

import sys
import time

import jax

from plantjax import sweeps
from plantjax.jobs.job import use_compilation_cache
from plantjax.tasks import TASKS
from timing import measure, workloads

EPOCHS = 3


def main() -> None:
    """Prints the seconds, without compilation."""
    networks, *cores = map(int, sys.argv[1:])
    measure.pin(cores)
    jax.config.update("jax_num_cpu_devices", len(cores))
    use_compilation_cache()
    run = sweeps.make_run(workloads.TASK, workloads.DEPTH, 100, "magnitude", epochs=EPOCHS)
    cells = sweeps.make_cells(TASKS[workloads.TASK], range(networks), [workloads.DENSITY])
    sweeps.prepare(run, networks)
    clock = time.perf_counter()
    sweeps.sweep(run, cells)
    print(time.perf_counter() - clock)


if __name__ == "__main__":
    main()
