"""A job: its options, and the context that checks them, joins processes and locks folders."""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import jax

from plantjax import checks, metrics
from plantjax.jobs import folder, plugins, processes
from plantjax.jobs.fingerprint import fingerprint
from plantjax.jobs.processes import Team

METRICS, PLUGINS = "metrics", "plugin"
"""Names of two settings: the registered metrics, and the hashes of plugins."""


@dataclass(frozen=True)
class Operation:
    """Options that say how a script runs; none of them changes a result."""

    out: Path
    """Folder for results; a run with the same settings goes on where it stopped."""
    chunk: int | None = None
    """Cells per result file (default: 8 for each CPU device, 512 for each accelerator)."""
    devices: int | None = None
    """Devices that share the cells (default: all; on a CPU one for every core)."""
    force: bool = False
    """Start afresh: delete the results that are in the folder."""
    plugin: tuple[str, ...] = ()
    """Python files or modules of your own, imported first: what they register is known by name."""
    checkpoint_seconds: float | None = None
    """Save searches in levels (multishot) this often, and resume in mid-cell."""
    coordinator: str | None = None
    """Several processes share the job: HOST:PORT of the first, or "auto", as JAX detects it."""
    processes: int | None = None
    """Number of processes that share the job."""
    process: int | None = None
    """Index of this process, from 0."""
    executor: Literal["local", "ray"] = "local"
    """Where to compute: in this process, or by the workers of a Ray cluster (extra "ray")."""
    ray_address: str | None = None
    """Address of the Ray cluster, or "auto" (default: one on this machine)."""
    ray_cpus: float = 1.0
    """CPU cores of a Ray task."""
    ray_gpus: float = 0.0
    """GPUs of a Ray task."""

    def operation(self) -> dict[str, Any]:
        """These options alone, without the settings of a script that inherits them."""
        return {field.name: getattr(self, field.name) for field in fields(Operation)}

    def check_operation(self) -> None:
        """Raises ValueError, naming the option, if one of these is out of range."""
        if self.chunk is not None:
            checks.integer("--chunk", self.chunk, 1)
        if self.devices is not None:
            checks.integer("--devices", self.devices, 1)
        if self.checkpoint_seconds is not None:
            checks.interval("--checkpoint-seconds", self.checkpoint_seconds, 0.0, 1e9)
        processes.check(self.coordinator, self.processes, self.process)
        checks.interval("--ray-cpus", self.ray_cpus, 0.0, 1e6)
        checks.interval("--ray-gpus", self.ray_gpus, 0.0, 1e6)
        if self.executor == "ray":
            if importlib.util.find_spec("ray") is None:
                raise ValueError(
                    "--executor ray needs the package ray: pip install 'plantjax[ray]', or use "
                    "--executor local."
                )
            if self.coordinator is not None:
                raise ValueError("--coordinator goes with --executor local, got ray.")
        elif self.ray_address is not None:
            raise ValueError("--ray-address goes with --executor ray, got local.")

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""

    def settings(self) -> dict[str, Any]:
        """Everything that changes a result, as JSON-ready values."""
        operation = {*self.operation(), "show_list"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in operation}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def sources(self) -> Sequence[Path]:
        """Folders, besides plantjax, with sources that its results depend on."""
        return ()

    def folders(self) -> dict[Path, dict[str, Any]]:
        """The folders that the job writes to, and the settings that each belongs to."""
        return {self.out: self.settings()}


class InputError(ValueError):
    """Bad input, found before any compute: one line on stderr, exit code 2."""


@contextlib.contextmanager
def checking_input() -> Any:
    """Turns the ValueErrors of argument checks into InputErrors."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error


@contextlib.contextmanager
def job(options: Operation) -> Iterator[Team]:
    """Checks all options, joins the job's other processes, and locks its folders.

    Yields:
      The processes of the job, most often this one alone.

    Raises:
      InputError: on bad input, or if another job holds a folder.
      MachineError: if the processes do not come together.
    """
    use_compilation_cache()
    with contextlib.ExitStack() as stack:
        with checking_input():
            options.check_operation()
            _use_devices(options.devices)
            joined = processes.joined(options.coordinator, options.processes, options.process)
            team = stack.enter_context(joined)
            if options.devices is not None and options.devices > jax.local_device_count():
                raise ValueError(
                    f"--devices must be at most {jax.local_device_count()}, the devices there are, "
                    f"got {options.devices}."
                )
            options.check()
            folders = _folders(options)
            for path, settings in folders.items():
                folder.check(path, settings, options.force)
            opened = folder.opened(folders, sys.argv, options.force, team)
            stack.enter_context(opened)
        yield team


def finished(options: Operation) -> bool:
    """Whether all results exist already; does not touch a device.

    Raises:
      InputError: on bad input.
    """
    with checking_input():
        options.check_operation()
        if options.force or processes.several(os.environ) or options.coordinator is not None:
            return False
        folders = _folders(options)
    return all(folder.finished(path, settings) for path, settings in folders.items())


def _folders(options: Operation) -> dict[Path, dict[str, Any]]:
    """The settings by folder, with the code, registered metrics and plugins added."""
    added: dict[str, Any] = {folder.CODE: fingerprint(options.sources())}
    if metrics.names():
        added[METRICS] = metrics.names()
    if options.plugin:
        added[PLUGINS] = plugins.settings(options.plugin)
    return {path: settings | added for path, settings in options.folders().items()}


def _use_devices(number: int | None) -> None:
    """Makes one virtual device per CPU core, or `number`; call before the first use of JAX.

    XLA's own threads do not help products as small as these; a device per core does.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX has started: its devices are what they are
            jax.config.update("jax_num_cpu_devices", number or cores or 1)


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk for the next start of a script.

    JAX_COMPILATION_CACHE_DIR names another folder; an empty one turns the cache off. Without a
    folder that can be written, it is off as well, and a line on stderr says so.
    """
    where = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if where is None:
        with contextlib.suppress(RuntimeError):  # no HOME, and a user whom the system doesn't know
            where = str(Path.home() / ".cache" / "plantjax" / "xla")
    if where is None or not _writable(where):
        place = "the home folder is not known" if where is None else f"{where} cannot be written"
        print(
            f"warning: compiled programs are not kept: {place}; JAX_COMPILATION_CACHE_DIR names "
            "another folder.",
            file=sys.stderr,
        )
        where = None
    jax.config.update("jax_compilation_cache_dir", where or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _writable(folder: str) -> bool:
    """Whether a folder can be made and written; true for none, and for a store of JAX's own."""
    if not folder or "://" in folder:
        return True
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
