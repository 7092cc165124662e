"""Settings of all tests: no implicit promotion, two CPU devices, quick compilation."""

import gc
import itertools
import os
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import jax
import pytest

from plantjax import programs

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MOST_MAPPINGS = 40_000
"""Of memory; every compiled program takes a dozen and more, and Linux ends a process at 65,530."""
_finished = itertools.count(1)


def pytest_collection_finish() -> None:
    """What was imported and collected is no garbage: tracing is faster if none looks for it."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Quick tests compile without optimisation, which is quicker, unless they are marked."""
    quick = not any(item.get_closest_marker(name) for name in ("slow", "optimised"))
    if jax.config.read("jax_disable_most_optimizations") and not quick:
        programs.forget()
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Drops the compiled programs of earlier tests before they are too many for one process."""
    mappings = Path("/proc/self/maps")
    if next(_finished) % 5 or not mappings.exists():
        return
    if mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        programs.forget()
