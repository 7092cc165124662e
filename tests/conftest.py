"""Settings of all tests: no implicit promotion, two CPU devices, quick compilation."""

import gc
import itertools
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from plantjax.sweeps import compiling

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MOST_MAPPINGS = 40_000
"""Of memory; every compiled program takes a dozen and more, and Linux ends a process at 65,530."""
OLDER = "--xla_cpu_use_fusion_emitters=false"
"""XLA's older emitters, which compile small programs in half the time; later ones may lack them."""
USERS = {"xla_cpu_use_fusion_emitters": True}
"""Of one program: compiled as users compile it, whatever the flags say."""
CACHING = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
"""Settings of the process that scripts change; a test's script must not change them for others."""
_caching = {name: getattr(jax.config, name) for name in CACHING}
_finished = itertools.count(1)
_compile = jax.stages.Lowered.compile


def pytest_configure(config: pytest.Config) -> None:
    """The README's command, and no other, uses the older emitters, if this XLA has them."""
    if config.option.markexpr != "not slow" or hasattr(config, "workerinput"):
        return  # workers inherit the environment
    flags = f"{os.environ['XLA_FLAGS']} {OLDER}"
    start = [sys.executable, "-c", "import jax; jax.devices()"]  # ends at a flag it does not know
    if not subprocess.run(
        start, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, check=False
    ).returncode:
        os.environ["XLA_FLAGS"] = flags


def pytest_collection_finish() -> None:
    """What was imported and collected is no garbage: tracing is faster if none looks for it."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Where tests run, JAX starts with the older emitters; what tests start in turn does not."""
    if OLDER in os.environ["XLA_FLAGS"] and session.config.getoption("dist", "no") == "no":
        jax.devices()
        os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace(f" {OLDER}", "")
        jax.stages.Lowered.compile = _compile_as_marked


def _compile_as_marked(
    lowered: jax.stages.Lowered, compiler_options: dict | None = None
) -> jax.stages.Compiled:
    """Programs of sweeps are to the bit those of users in tests marked slow or optimised."""
    users = {} if jax.config.read("jax_disable_most_optimizations") else USERS
    return _compile(lowered, {**users, **(compiler_options or {})} or None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Quick tests compile without optimisation, which is quicker, unless they are marked."""
    quick = not any(item.get_closest_marker(name) for name in ("slow", "optimised"))
    if jax.config.read("jax_disable_most_optimizations") and not quick:
        compiling.forget()
    jax.config.update("jax_disable_most_optimizations", quick)
    if any(getattr(jax.config, name) != value for name, value in _caching.items()):
        for name, value in _caching.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Drops the compiled programs of earlier tests before they are too many for one process."""
    mappings = Path("/proc/self/maps")
    if next(_finished) % 5 or not mappings.exists():
        return
    if mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        compiling.forget()
