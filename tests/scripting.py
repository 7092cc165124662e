"""What tests of scripts share: a compilation cache that is not the user's, starts, results."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pandas as pd
import pytest
from jax.experimental.compilation_cache import compilation_cache

from plantjax.finders import FINDERS
from plantjax.jobs import folder
from plantjax.metrics import METRICS
from plantjax.scores import SCORES
from plantjax.sweeps import compiling
from plantjax.tasks import TASKS

ROOT = Path(__file__).parent.parent
CACHING = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
"""Settings of the process that scripts change."""
SHAPE = ["--tasks", "relu", "--depth", "3", "--width", "8", "--epochs", "1"]
"""The smallest cells there are; the same ones in many tests, which so share their programs."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One compilation cache for the scripts of all tests, or that of JAX_COMPILATION_CACHE_DIR.

    Afterwards JAX's settings are as they were, and compiled programs are forgotten.
    """
    before = {name: getattr(jax.config, name) for name in CACHING}
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(base / "xla"))
        patch.setenv("COLUMNS", "200")
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    compiling.forget()


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Forgets afterwards what was registered meanwhile, and the plugins that did it."""
    registries = (SCORES, TASKS, METRICS, FINDERS._entries)
    before, modules = [dict(registry) for registry in registries], set(sys.modules)
    try:
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)
        for name in set(sys.modules) - modules:
            if name.startswith("plantjax_plugin_"):
                del sys.modules[name]


def start(script: str, *words: str, cwd: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """A process of a script, with devices of its own and not those of the tests."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *words],
        cwd=cwd,
        env={**os.environ, "XLA_FLAGS": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def table(out: Path) -> pd.DataFrame:
    """The results, without the time that they took."""
    return pd.read_csv(out / "results.csv").drop(columns="seconds")


def masks(out: Path) -> dict[str, bytes]:
    """The mask of every cell."""
    return {
        name: mask.tobytes()
        for chunk in folder.load(out)
        for name, mask in zip(chunk.ids, chunk.results["mask"], strict=True)
    }


def contents(path: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}
