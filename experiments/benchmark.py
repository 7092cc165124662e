"""Benchmark: time per network of every workload, against the device's limits and a PyTorch peer."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from rich.console import Console

from plantjax import checks, sweeps
from plantjax.finders import FINDERS
from plantjax.jobs import chunks, cli, terminal
from plantjax.jobs.folder import origin
from plantjax.jobs.job import checking_input
from plantjax.tasks import TASKS
from timing import measure, table, workloads
from timing.client import Peer
from timing.workloads import Workload

REPEATS = 5
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """Measure plantjax on this device."""

    out: Path = Path("results/benchmark.json")
    """File for the results."""
    quick: bool = False
    """Ten minutes on a CPU: width 100 alone, fewer networks, selection up to 10^6."""
    peer: bool = False
    """Take turns with a plain PyTorch implementation (needs torch==2.13.0)."""
    peer_python: str = sys.executable
    """The Python that has torch."""
    finders: Annotated[tuple[str, ...], cli.known(FINDERS)] = ()
    """Finders whose searches are measured as well."""
    batch: int | None = None
    """Networks per program (default: 2 on CPU, 512 on an accelerator)."""
    plugin: tuple[str, ...] = ()
    """Python files or modules of your own, imported first: what they register is known by name."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        if self.batch is not None:
            checks.integer("--batch", self.batch, 2)
        for name in self.finders:
            checks.choice("--finders", name, FINDERS)
        if self.out.is_dir() or not self.out.suffix:
            raise ValueError(f"--out must be a file such as results.json, got {self.out}.")


def run(settings: Settings, console: Console) -> list[dict[str, Any]]:
    """Measures everything; one object per workload."""
    measure.pin()
    accelerated = jax.default_backend() != "cpu"
    batch = settings.batch or (512 if accelerated else 2)
    limits = {"flops": measure.product_rate(), "bytes": measure.copy_rate()}
    device = jax.devices()[0]
    terminal.say(
        console,
        f"{device.device_kind} ({platform.machine()}): {limits['flops'] / 1e9:.0f} GFLOP/s in "
        f"matrix products, {limits['bytes'] / 1e9:.0f} GB/s copied; {batch} networks a program",
    )
    results = []
    peer = Peer(settings.peer_python, *workloads.one_network()) if settings.peer else None
    for width in (100,) if settings.quick else (100, 300, 1000):
        for item in workloads.networks(width, batch) + workloads.searches(
            width, batch, settings.finders
        ):
            asked = peer if width == 100 else None
            results.append({"width": width} | measured(item, limits, asked, console))
    for n in (10**4, 10**6) if settings.quick else (10**4, 10**6, 15 * 10**6):
        item = workloads.selection(n, 25 if n <= 10**4 else 2)
        results.append(measured(item, limits, None, console))
    results += [measured(item, limits, None, console) for item in workloads.compaction()]
    if peer is not None:
        peer.stop()
    results += memory((2, 16, 128), console)
    results += growth((8, 512) if settings.quick else (2, 16, 128, 1024), console)
    return results if accelerated else results + scaling(console)


def measured(
    item: Workload, limits: dict[str, float], peer: Peer | None, console: Console
) -> dict[str, Any]:
    """One workload, taking turns with its rivals and the peer."""
    terminal.say(console, f"  {item.name} ...", style="dim")
    program = measure.compiled(item.function, *item.arguments)
    rivals = {
        name: jax.jit(rival).lower(*item.arguments).compile()
        for name, rival in (item.rivals or {}).items()
    }
    result = jax.block_until_ready(program.program(*item.arguments))
    for rival in rivals.values():
        jax.block_until_ready(rival(*item.arguments))
    asked = peer if item.peer else None
    if asked is not None:
        asked.ask({**(item.peer or {}), **(item.warm_up or {}), "density": workloads.DENSITY})
    ours: list[tuple[float, float]] = []
    theirs: list[dict[str, Any]] = []
    others: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for index in range(REPEATS):
        ours.append(measure.timed(lambda: program.program(*item.arguments)))
        for name, rival in rivals.items():
            others[name].append(measure.timed(partial(rival, *item.arguments)))
        if asked is not None:
            request = {**(item.peer or {}), "density": workloads.DENSITY, "seed": index}
            theirs.append(asked.ask(request))
    row = _row(item, program, measure.timing(ours), limits)
    for name, samples in others.items():
        pairs = [other[0] / mine[0] for other, mine in zip(samples, ours, strict=True)]
        row[f"ratio_{name}"] = float(np.median(pairs))
    if theirs:
        row |= _against_peer(item, ours, theirs)
        if item.loss is not None:
            row |= {"loss": item.loss(result)}
            row |= {"peer_loss": float(np.mean([reply["loss"] for reply in theirs]))}
    return row


def _row(
    item: Workload, program: measure.Compiled, timing: measure.Timing, limits: dict[str, float]
) -> dict[str, Any]:
    """Time, share of the device's limit, memory and compilation of one workload."""
    each = timing.process / item.networks
    rates = {"flops": item.flops / each, "bytes": item.bytes / each}
    kind = "flops" if item.flops else "bytes"
    return {
        "name": item.name,
        "networks": item.networks,
        "seconds_per_network": each,
        "wall_seconds_per_network": timing.wall / item.networks,
        "networks_per_second": 1.0 / each,
        "gflops": rates["flops"] / 1e9 if item.flops else None,
        "gbytes_per_second": rates["bytes"] / 1e9 if item.bytes else None,
        "fraction_of_peak": rates[kind] / limits[kind] if item.flops or item.bytes else None,
        "peak_memory_bytes": program.memory // item.networks,
        "compile_seconds_cold": program.cold,
        "compile_seconds_warm": program.warm,
        "spread": [timing.low / item.networks, timing.high / item.networks],
        "peer_ratio": None,
    }


def _against_peer(
    item: Workload, ours: Sequence[tuple[float, float]], theirs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """How many times as long the peer takes, turn by turn."""
    pairs = [
        reply["process_seconds"] * item.networks / mine[0]
        for reply, mine in zip(theirs, ours, strict=True)
    ]
    return {
        "peer_ratio": float(np.median(pairs)),
        "peer_ratio_spread": [min(pairs), max(pairs)],
        "peer_seconds": float(np.median([reply["process_seconds"] for reply in theirs])),
        "peer": item.peer,
    }


def memory(numbers: Sequence[int], console: Console) -> list[dict[str, Any]]:
    """Memory per network of the program that trains, by the number of networks that share it."""
    run = sweeps.make_run(workloads.TASK, workloads.DEPTH, 100, "magnitude")
    assert run.fit is not None
    rows = []
    for n in numbers:
        console.print(f"  memory of {n} networks ...", style="dim")
        cells = sweeps.make_cells(TASKS[workloads.TASK], range(n), [workloads.DENSITY])
        world = jax.eval_shape(jax.vmap(run.world), cells)
        found = jax.eval_shape(jax.vmap(run.search), cells, world)._replace(info={})
        program = jax.jit(jax.vmap(run.fit)).lower(cells, world, found).compile()
        each = measure.memory(program) // n
        rows.append({"name": "training_memory", "networks": n, "peak_memory_bytes": each})
    return rows


def growth(numbers: Sequence[int], console: Console) -> list[dict[str, Any]]:
    """Time per network of a whole sweep (world, search, judgement, one epoch), by their number."""
    run = sweeps.make_run(workloads.TASK, workloads.DEPTH, 100, "magnitude", epochs=1)
    rows = []
    for n in numbers:
        console.print(f"  {n} networks ...", style="dim")
        cells = sweeps.make_cells(TASKS[workloads.TASK], range(n), [workloads.DENSITY])
        sweeps.prepare(run, sweeps.default_batch(n))
        samples = [measure.timed(partial(sweeps.sweep, run, cells)) for _ in range(3)]
        timing = measure.timing(samples)
        rows.append(
            {
                "name": "sweep_one_epoch",
                "networks": n,
                "seconds_per_network": timing.process / n,
                "networks_per_second": n / timing.process,
                "spread": [timing.low / n, timing.high / n],
            }
        )
    return rows


def scaling(console: Console, networks: int = 64) -> list[dict[str, Any]]:
    """Networks per second of a sweep on one core, and on all of them: a device for each.

    In processes of their own, which take turns: this one is pinned to a core.
    """
    cores = measure.all_cores()
    samples: dict[int, list[float]] = {1: [], len(cores): []}
    for _ in range(REPEATS):
        for number, seconds in samples.items():
            console.print(f"  {networks} networks on {number} cores ...", style="dim")
            command = [sys.executable, "-m", "timing.throughput", str(networks)]
            command += map(str, cores[:number])
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
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


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "benchmark.py")
        settings.check()
    console = Console()
    results = run(settings, console)
    table.show(results, console)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    made = origin(sys.argv)
    chunks.write_json(settings.out, [row | made for row in results])
    terminal.say(console, f"Results: {settings.out}")


if __name__ == "__main__":
    cli.run(main)
