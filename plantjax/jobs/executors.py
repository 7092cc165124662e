"""Executors compute cells, in this process or on the workers of a Ray cluster.

An executor takes the missing work and yields each piece once it is saved.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
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

AHEAD = 2
"""Number of groups whose programs compile ahead of the one that runs."""
RETRIES = 20
"""How often Ray restarts a task whose worker died."""


class Work(NamedTuple):
    """Cells of one group that are still missing in a folder, in blocks that run as one."""

    folder: Path
    group: Group
    blocks: list[list[dict[str, Any]]]


class Done(NamedTuple):
    """Cells that were computed and saved."""

    group: Group
    cells: int


Say: TypeAlias = Callable[[str], None]
Executor: TypeAlias = Callable[[Sequence[Work], Operation, Say], Iterator[Done]]
"""`(work, operation, say) -> pieces that are done`; `say` prints a line."""


def here(work: Sequence[Work], operation: Operation, say: Say) -> Iterator[Done]:
    """Computes in this process, on all its devices; the next groups compile meanwhile."""
    devices = operation.devices or jax.local_device_count()
    most: int | None = None
    for item in _prepared(work, devices):
        for block in item.blocks:
            for cells, size in compute(item, block, devices, operation, say, most):
                most = size if size < len(block) else most
                yield Done(item.group, cells)


def on_ray(work: Sequence[Work], operation: Operation, say: Say) -> Iterator[Done]:
    """Computes every block as a Ray task, which is restarted if its worker dies."""
    del say
    import ray

    if not ray.is_initialized():
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
        ): item.group
        for item in work
        for block in item.blocks
    }
    try:
        while pending:
            finished, _ = ray.wait(list(pending))
            for reference in finished:
                try:
                    cells = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    reason = str(error).split("\n")[0].rstrip(".")
                    raise MachineError(f"Ray has lost a task: {reason}. {SAVED}") from error
                yield Done(pending.pop(reference), cells)
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)


def compute(
    item: Work,
    cells: Sequence[dict[str, Any]],
    devices: int,
    operation: Operation,
    say: Say,
    most: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Computes and saves cells, at most `most` at a time, and fewer if memory runs out.

    Yields:
      (cells saved, cells at a time).

    Raises:
      jax.errors.JaxRuntimeError: if memory does not suffice for two cells a device.
    """
    size = min(most or len(cells), len(cells))
    start = 0
    while start < len(cells):
        part = cells[start : start + size]
        try:
            chunk = item.group.compute(part, devices, _keeping(item, part, operation))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or size <= 2 * devices:
                raise
            size = max(2 * devices, -(-size // 2))
            say(f"Out of memory: going on with {size} cells at a time.")
            continue
        save(item.folder, chunk)
        start += len(part)
        yield len(part), size


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


def _task(item: Work, operation: Operation, code: Mapping[str, Any]) -> int:
    """The Ray task: computes one block on the worker's devices, if it runs the same code."""
    use_compilation_cache()
    for plugin in operation.plugin:
        plugins.load(plugin)
    differ = differences(code, fingerprint())
    if differ:
        raise MachineError(f"a Ray worker runs other code than this process ({'; '.join(differ)}).")
    (block,) = item.blocks
    done = compute(item, block, jax.local_device_count(), operation, print)
    return sum(cells for cells, _ in done)


def _prepared(work: Sequence[Work], devices: int) -> Iterator[Work]:
    """Yields each piece of work once its programs are compiled, and compiles ahead."""
    threads = ThreadPoolExecutor(AHEAD)
    started: list[Future[None]] = []
    try:
        for index, item in enumerate(work):
            for _, group, blocks in work[len(started) : index + 1 + AHEAD]:
                started.append(threads.submit(group.prepare, max(map(len, blocks)), devices))
            futures.wait([started[index]])  # should it have failed, the run will say so
            yield item
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


EXECUTORS: dict[str, Executor] = {"local": here, "ray": on_ray}
"""The registry of executors."""
