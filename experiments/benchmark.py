"""Benchmark: time per network of every workload, against the device's limits and its peers."""

import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from rich.console import Console

from plantjax import checks
from plantjax.finders import FINDERS
from plantjax.jobs import chunks, cli, terminal
from plantjax.jobs.folder import origin
from plantjax.jobs.job import checking_input
from timing import growth, measure, peers, table, workloads
from timing.client import Peer
from timing.workloads import Workload


@dataclass(frozen=True)
class Settings:
    """Measure plantjax on this device."""

    out: Path = Path("results/benchmark.json")
    """File for the results."""
    quick: bool = False
    """Minutes on a CPU: width 100 alone, fewer networks and turns, selection up to 10^6."""
    peer: bool = False
    """Take turns with plain implementations in PyTorch (needs torch==2.13.0) and JAX."""
    peer_python: str = sys.executable
    """The Python that has torch."""
    finders: Annotated[tuple[str, ...], cli.known(FINDERS)] = ()
    """Finders whose searches are measured as well."""
    batch: int | None = None
    """Networks per program (default: 2 on CPU, 512 on an accelerator)."""
    only: tuple[str, ...] = ()
    """Parts to measure: workloads, selection, compaction, peers (without --peer those in JAX),
    memory, growth (sweeps of more and more networks), scaling (default: all; peers with --peer)."""
    networks: tuple[int, ...] = ()
    """Numbers of networks of the sweeps in growth."""
    epochs: int | None = None
    """Epochs of training in growth (default: 1) and peers (default: 10)."""
    plugin: tuple[str, ...] = ()
    """Python files or modules of your own, imported first: what they register is known by name."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        if self.batch is not None:
            checks.integer("--batch", self.batch, 2)
        if self.epochs is not None:
            checks.integer("--epochs", self.epochs, 1)
        for number in self.networks:
            checks.integer("--networks", number, 2)
        for name in self.only:
            checks.choice("--only", name, PARTS)
        for name in self.finders:
            checks.choice("--finders", name, FINDERS)
        if self.out.is_dir() or not self.out.suffix:
            raise ValueError(f"--out must be a file such as results.json, got {self.out}.")


@dataclass(frozen=True)
class Bench:
    """What all parts share: settings, networks per program, limits of the device, PyTorch."""

    settings: Settings
    console: Console
    batch: int
    limits: dict[str, float]
    peer: Peer | None


def run(settings: Settings, console: Console) -> list[dict[str, Any]]:
    """Measures all parts, or those asked for; one object per workload."""
    if not measure.may_accelerate():
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
    left_out = {"scaling"} if accelerated else set()
    left_out |= set() if settings.peer else {"peers"}
    peer = None
    if settings.peer:
        _, world, _ = workloads.magnitude(peers.most(batch))
        peer = Peer(settings.peer_python, world.planted.params, world.train)
    bench = Bench(settings, console, batch, limits, peer)
    parts = settings.only or [name for name in PARTS if name not in left_out]
    results = [row for name in parts for row in PARTS[name](bench)]
    if peer is not None:
        peer.stop()
    return results


def on_networks(bench: Bench) -> list[dict[str, Any]]:
    """Training, searches and planting."""
    rows = []
    for width in (100,) if bench.settings.quick else (100, 300, 1000):
        for item in workloads.networks(width, bench.batch) + workloads.searches(
            width, bench.batch, bench.settings.finders
        ):
            asked = bench.peer if width == 100 else None
            rows.append({"width": width} | measured(item, bench.limits, asked, bench.console))
    return rows


def selection(bench: Bench) -> list[dict[str, Any]]:
    """Selection of a tenth of many scores."""
    sizes = (10**4, 10**6) if bench.settings.quick else (10**4, 10**6, 15 * 10**6)
    items = [workloads.selection(n, 25 if n <= 10**4 else 2) for n in sizes]
    return [measured(item, bench.limits, None, bench.console) for item in items]


def compaction(bench: Bench) -> list[dict[str, Any]]:
    """Compact networks."""
    return [measured(i, bench.limits, None, bench.console) for i in workloads.compaction()]


def against_peers(bench: Bench) -> list[dict[str, Any]]:
    """Training beside other implementations of it."""
    epochs = bench.settings.epochs or workloads.EPOCHS
    turns = 3 if bench.settings.quick else growth.REPEATS
    return peers.compare(bench.batch, epochs, turns, bench.peer, bench.console)


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
    for index in range(growth.REPEATS):
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


def sweeping(bench: Bench) -> list[dict[str, Any]]:
    """Sweeps of more and more networks."""
    usual = (8, 512) if bench.settings.quick else (2, 16, 128, 1024)
    numbers = bench.settings.networks or usual
    return growth.growth(numbers, bench.settings.epochs or 1, bench.console)


PARTS: dict[str, Callable[[Bench], list[dict[str, Any]]]] = {
    "workloads": on_networks,
    "selection": selection,
    "compaction": compaction,
    "peers": against_peers,
    "memory": lambda bench: growth.memory(bench.console),
    "growth": sweeping,
    "scaling": lambda bench: growth.scaling(bench.console),
}
"""The parts of the benchmark, in their order."""


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
