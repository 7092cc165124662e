"""Processes of one job under `jax.distributed`, each with its own devices.

Processes exchange only a job id and heartbeats. They split the chunks by index and meet in the
results folder.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plantjax import checks
from plantjax.jobs import waiting

AUTO = "auto"
JOIN_SECONDS = 120
HEARTBEAT_SECONDS = 40
"""After this silence of one process, the others end."""
SHUTDOWN_SECONDS = 7 * 24 * 3600
"""Processes that are done wait this long for the others."""


class MachineError(RuntimeError):
    """The processes of a job did not come together, or other machines were lost."""


@dataclass(frozen=True)
class Team:
    """The processes of a job.

    Attributes:
      process: the index of this one.
      devices: how many devices each process has.
    """

    process: int = 0
    devices: tuple[int, ...] = (1,)

    @property
    def leads(self) -> bool:
        """Whether this process locks the folder and writes tables and figures."""
        return self.process == 0

    @property
    def size(self) -> int:
        """Number of processes."""
        return len(self.devices)

    def owns(self, block: int) -> bool:
        """Whether this process computes the block: blocks are dealt round-robin to all devices."""
        owners = np.repeat(np.arange(self.size), self.devices)
        return bool(owners[block % len(owners)] == self.process)

    def broadcast(self, number: int) -> int:
        """The leading process's number, below 2^31; waits for all processes."""
        if self.size == 1:
            return number
        first = {device.process_index: device for device in reversed(jax.devices())}
        mesh = Mesh(np.asarray([first[process] for process in sorted(first)]), ("processes",))
        spread, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["processes"], []))
        mine = np.asarray([number if self.leads else 0], np.int32)
        numbers = jax.make_array_from_process_local_data(spread, mine)
        total = jax.jit(lambda a: a.sum(), out_shardings=whole)
        return waiting.called(lambda: int(total(numbers)))


def check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Raises ValueError, naming the option, unless the three options fit together."""
    given = {"--processes": processes, "--process": process}
    if coordinator in (None, AUTO):
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} goes with --coordinator HOST:PORT, got {value} alone.")
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator must be HOST:PORT or '{AUTO}', got {coordinator!r}.")
    for name, value in given.items():
        if value is None:
            raise ValueError(f"--coordinator needs {name}, got none.")
    checks.integer("--processes", processes, 1)
    checks.integer("--process", process, 0, (processes or 1) - 1)


@contextlib.contextmanager
def joined(coordinator: str | None, processes: int | None, process: int | None) -> Iterator[Team]:
    """Joins the job's other processes, if any, before JAX is used, and leaves with them.

    Args:
      coordinator: HOST:PORT of process 0; "auto" lets JAX detect it (SLURM, Kubernetes, TPU pods),
        as None does where the environment tells of several processes.
      processes: how many there are.
      process: the index of this one.

    Raises:
      MachineError: if they do not come together in time.
    """
    if coordinator is None and not several(os.environ):
        yield Team(devices=(jax.local_device_count(),))
        return
    address = None if coordinator in (None, AUTO) else coordinator
    initialize = partial(
        jax.distributed.initialize,
        address,
        processes,
        process,
        initialization_timeout=JOIN_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
    try:
        waiting.called(initialize)
        counts = np.bincount([device.process_index for device in jax.devices()])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MachineError(f"the processes of the job did not come together: {reason}") from error
    yield Team(jax.process_index(), tuple(int(count) for count in counts))
    waiting.called(jax.distributed.shutdown)  # it waits for the others


def several(environment: Mapping[str, str]) -> bool:
    """Whether a launcher has started several processes of one job: SLURM's srun, or a TPU pod."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    return (tasks.isdigit() and int(tasks) > 1) or "," in hosts
