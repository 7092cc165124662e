"""Measuring on one pinned core: process and wall time, compilation time, the device's limits.

Things that are compared take turns within one run, so that other load on the machine affects them
equally.
"""

import contextlib
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Timing(NamedTuple):
    """Seconds of one call: median process and wall time, and the range of the process times.

    On an accelerator the process only waits, so wall time replaces process time.
    """

    process: float
    wall: float
    low: float
    high: float


class Compiled(NamedTuple):
    """A program, its compile times with an empty and a filled cache, and its memory in bytes."""

    program: Callable[..., Any]
    cold: float
    warm: float
    memory: int


_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def all_cores() -> list[int]:
    """The cores that this process could use when it started."""
    return _CORES


def pin(cores: Collection[int] | None = None) -> None:
    """Pins this process to these cores (by default its last one); call it before using JAX.

    Does nothing on systems that cannot pin processes.
    """
    if _CORES:
        os.sched_setaffinity(0, _CORES[-1:] if cores is None else cores)


def may_accelerate() -> bool:
    """Whether JAX may find an accelerator, whose compiler then should have all cores.

    Found out without asking JAX, which would start its threads.
    """
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "libtpu")
    asked = os.environ.get("JAX_PLATFORMS", "")
    return asked != "cpu" and any(importlib.util.find_spec(name) for name in plugins)


def compiled(function: Callable[..., Any], *arguments: Any) -> Compiled:
    """Compiles twice: with an empty cache, and again with the cache filled."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder, _cache(folder):
        for _ in range(2):
            jax.clear_caches()
            clock = time.perf_counter()
            program = jax.jit(function).lower(*arguments).compile()
            seconds.append(time.perf_counter() - clock)
    return Compiled(program, seconds[0], seconds[1], memory(program))


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Process and wall seconds of one call."""
    wall, process = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    process, wall = time.process_time() - process, time.perf_counter() - wall
    return (process if jax.default_backend() == "cpu" else wall), wall


def timing(samples: list[tuple[float, float]]) -> Timing:
    """Medians and range of repeated calls, each as returned by `timed`."""
    process = [sample[0] for sample in samples]
    wall = [sample[1] for sample in samples]
    return Timing(statistics.median(process), statistics.median(wall), min(process), max(process))


def repeated(run: Callable[[], Any], times: int) -> Timing:
    """Times a call repeatedly, after one call to warm up."""
    jax.block_until_ready(run())
    return timing([timed(run) for _ in range(times)])


def product_rate(size: int = 1024, times: int = 7) -> float:
    """Floating-point operations per second of a large float32 matrix product, best of `times`."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    return 2.0 * size**3 / repeated(lambda: product(a), times).low


def copy_rate(size: int = 1 << 26, times: int = 7) -> float:
    """Bytes read and written per second when adding 1 to a large float32 array, best of `times`."""
    a = jnp.zeros(size, jnp.float32)
    add = jax.jit(lambda a: a + 1.0)
    return 2.0 * 4.0 * size / repeated(lambda: add(a), times).low


def memory(program: jax.stages.Compiled) -> int:
    """Bytes that the compiler reserves for arguments, results and temporaries."""
    analysis = program.memory_analysis()
    if analysis is None:
        return 0
    sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(int(getattr(analysis, name)) for name in sizes)


@contextlib.contextmanager
def _cache(folder: str) -> Iterator[None]:
    from jax.experimental.compilation_cache import compilation_cache

    wanted = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in wanted}
    compilation_cache.reset_cache()
    for name, value in wanted.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        compilation_cache.reset_cache()
        for name, value in before.items():
            jax.config.update(name, value)
