"""Executors compute cells, in this process or on the workers of a Ray cluster.

An executor takes the missing work and yields each piece once it is saved.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax

from plantjax import sweeps
from plantjax.jobs import plugins
from plantjax.jobs.fingerprint import differences, fingerprint
from plantjax.jobs.folder import SAVED, name_of, save
from plantjax.jobs.grids import Group
from plantjax.jobs.job import Operation, use_compilation_cache
from plantjax.jobs.processes import MachineError
from plantjax.jobs.schedule import Schedule
from plantjax.jobs.waiting import NAME, Stop

AHEAD = 2
"""Number of groups whose programs compile ahead of the one that runs."""
RETRIES = 20
"""How often Ray restarts a task whose worker died."""
POLL_SECONDS = 1.0
"""Time between two looks whether to stop."""


class Work(NamedTuple):
    """Cells of one group that are still missing in a folder, in blocks that run as one."""

    folder: Path
    group: Group
    blocks: list[list[dict[str, Any]]]


@dataclass(frozen=True)
class Watch:
    """Who watches an executor.

    Attributes:
      schedule: is told what the executor does.
      say: prints a line.
      stop: whether it is to stop after the program that runs.
    """

    schedule: Schedule
    say: Callable[[str], None]
    stop: Stop


Executor: TypeAlias = Callable[[Sequence[Work], Operation, Watch], Iterator[int]]
"""`(work, operation, watch) -> numbers of cells that are saved`."""


def scheduled(work: Sequence[Work], operation: Operation) -> Schedule:
    """The schedule of the work."""
    ahead = None if operation.executor == "ray" else AHEAD
    groups = (
        (group.program, group.task, group.finder, sum(map(len, blocks)))
        for _, group, blocks in work
    )
    return Schedule(groups, ahead)


def here(work: Sequence[Work], operation: Operation, watch: Watch) -> Iterator[int]:
    """Computes in this process, on all its devices; the next groups compile meanwhile."""
    devices = operation.devices or jax.local_device_count()
    most: int | None = None
    for item in _prepared(work, devices, watch.schedule):
        for block in item.blocks:
            if watch.stop():
                return
            for cells, size in compute(item, block, devices, operation, watch, most):
                most = size if size < len(block) else most
                yield cells


def on_ray(work: Sequence[Work], operation: Operation, watch: Watch) -> Iterator[int]:
    """Computes every block as a Ray task, which is restarted if its worker dies.

    Once it is to stop, no task starts any more, and those that run are not waited for.
    """
    import ray

    if not ray.is_initialized():
        logging.getLogger("ray._private.worker").addFilter(_about_others)
        ray.init(
            operation.ray_address,
            include_dashboard=None if operation.ray_address else False,
            log_to_driver=False,
        )
    # Workers get no settings of the script, whose registries they may only know from a plugin.
    operation = Operation(**{**operation.operation(), "plugin": plugins.absolute(operation.plugin)})
    task = ray.remote(
        num_cpus=operation.ray_cpus, num_gpus=operation.ray_gpus, max_retries=RETRIES
    )(_task)
    code = fingerprint()
    pending = {
        task.remote(
            item._replace(folder=item.folder.absolute(), blocks=[block]), operation, code
        ): item.group.program
        for item in work
        for block in item.blocks
    }
    try:
        while pending and not watch.stop():
            finished, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
            for reference in finished:
                try:
                    cells, seconds = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    reason = str(error).split("\n")[0].rstrip(".")
                    raise MachineError(f"Ray has lost a task: {reason}. {SAVED}") from error
                watch.schedule.ran(pending.pop(reference), cells, seconds)
                yield cells
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)


def compute(
    item: Work,
    cells: Sequence[dict[str, Any]],
    devices: int,
    operation: Operation,
    watch: Watch,
    most: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Computes and saves cells, at most `most` at a time, and fewer if memory runs out.

    If it is to stop, it saves what the running program has computed, and ends.

    Yields:
      (cells saved, cells at a time).

    Raises:
      jax.errors.JaxRuntimeError: if memory does not suffice for two cells a device.
    """
    size = min(most or len(cells), len(cells))
    start, program = 0, item.group.program

    def after(done: int) -> bool:
        watch.schedule.ran(program, done)
        return watch.stop()

    watch.schedule.runs(program)
    while start < len(cells) and not (start and watch.stop()):
        part = cells[start : start + size]
        try:
            chunk = item.group.compute(part, devices, _keeping(item, part, operation), after)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or size <= 2 * devices:
                raise
            size = max(2 * devices, -(-size // 2))
            watch.say(f"Out of memory: going on with {size} cells at a time.")
            continue
        save(item.folder, chunk)
        start += len(chunk.ids)
        yield len(chunk.ids), size


def _keeping(
    item: Work, cells: Sequence[dict[str, Any]], operation: Operation
) -> Callable[[int], sweeps.Keeper] | None:
    """Where searches in levels keep their state; None without --checkpoint-seconds."""
    seconds = operation.checkpoint_seconds
    if seconds is None:
        return None
    from plantjax.jobs.checkpoints import Checkpoint  # Orbax takes a second to import

    name = name_of([c["id"] for c in cells])
    return lambda start: Checkpoint(item.folder / "levels" / f"{name}-{start}", seconds)


def _about_others(record: logging.LogRecord) -> bool:
    """Not Ray's warning that it leaves the signal TERM to us, who heed it."""
    return "SIGTERM handler" not in record.getMessage()


def _task(item: Work, operation: Operation, code: Mapping[str, Any]) -> tuple[int, float]:
    """The Ray task: computes one block on the worker's devices, if it runs the same code.

    Returns:
      (cells, seconds).
    """
    use_compilation_cache()
    for plugin in operation.plugin:
        plugins.load(plugin)
    differ = differences(code, fingerprint())
    if differ:
        raise MachineError(f"a Ray worker runs other code than this process ({'; '.join(differ)}).")
    (block,) = item.blocks
    clock, watch = time.perf_counter(), Watch(scheduled([item], operation), print, lambda: False)
    done = compute(item, block, jax.local_device_count(), operation, watch)
    return sum(cells for cells, _ in done), time.perf_counter() - clock


def _prepared(work: Sequence[Work], devices: int, schedule: Schedule) -> Iterator[Work]:
    """Yields each piece of work once its programs are compiled, and compiles ahead."""

    def prepare(group: Group, cells: int) -> None:
        schedule.compiles(group.program)
        try:
            group.prepare(cells, devices)
        finally:
            schedule.compiled(group.program)

    threads = ThreadPoolExecutor(AHEAD, thread_name_prefix=NAME)
    started: list[Future[None]] = []
    try:
        for index, item in enumerate(work):
            for _, group, blocks in work[len(started) : index + 1 + AHEAD]:
                started.append(threads.submit(prepare, group, max(map(len, blocks))))
            if not started[index].done():
                schedule.waits(item.group.program)
                futures.wait([started[index]])  # should it have failed, the run will say so
            yield item
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


EXECUTORS: dict[str, Executor] = {"local": here, "ray": on_ray}
"""The registry of executors."""
