"""The benchmark's tables; on narrow terminals without ranges, and then as lists."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from plantjax.jobs import terminal

TIMES = ("workload (width)", "networks", "ms a network", "range", "of peak")
PEERS = ("training by", "ms a network", "times ours", "range", "loss", "ours")
COSTS = ("workload (width)", "networks", "MB a network", "compile s", "from cache s")


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints times, then memory and compilation, then how peers and rivals compare."""
    times, costs = [], []
    for row in results:
        name, networks = _name(row), str(row["networks"])
        if "seconds_per_network" in row:
            spread = "-".join(f"{1e3 * value:.4g}" for value in row["spread"])
            each = f"{1e3 * row['seconds_per_network']:.4g}"
            times.append([name, networks, each, spread, _share(row)])
        if "peak_memory_bytes" in row:
            memory = f"{1e-6 * row['peak_memory_bytes']:.3f}"
            compiling = [row.get(f"compile_seconds_{kind}") for kind in ("cold", "warm")]
            words = ["" if seconds is None else f"{seconds:.1f}" for seconds in compiling]
            costs.append([name, networks, memory, *words])
    short = [[*row[:3], row[4]] for row in times]
    terminal.show(
        console,
        terminal.table(TIMES, times),
        terminal.table([*TIMES[:3], TIMES[4]], short),
        terminal.listed(TIMES, times),
    )
    if costs:
        terminal.show(console, terminal.table(COSTS, costs), terminal.listed(COSTS, costs))
    compared = [peer(row) for row in results if "times_ours" in row]
    if compared:
        terminal.show(console, terminal.table(PEERS, compared), terminal.listed(PEERS, compared))
    for row in results:
        faster = rivals(row)
        if faster:
            terminal.say(console, f"{_name(row)}: times faster than {faster}")


def rivals(row: dict[str, Any]) -> str:
    """How many times faster than each rival, with the range of the turns, and the losses."""
    words = []
    if row.get("peer_ratio"):
        low, high = row["peer_ratio_spread"]
        words.append(f"PyTorch {row['peer_ratio']:.1f} ({low:.1f}-{high:.1f})")
    if "peer_loss" in row:
        words.append(f"losses {row['loss']:.3g}, {row['peer_loss']:.3g}")
    words += [
        f"{name.removeprefix('ratio_').replace('_', ' ')} {value:.1f}"
        for name, value in row.items()
        if name.startswith("ratio_") and not name.endswith("spread")
    ]
    return "; ".join(words)


def peer(row: dict[str, Any]) -> list[str]:
    """How a peer's training compares with ours; losses that are not alike are marked."""
    low, high = row["times_ours_spread"]
    mark = "" if row["losses_alike"] else " (not alike)"
    return [
        row["name"],
        f"{1e3 * row['seconds_per_network']:.4g}",
        f"{row['times_ours']:.2f}",
        f"{low:.2f}-{high:.2f}",
        f"{row['loss']:.3g}{mark}",
        f"{row['our_loss']:.3g}",
    ]


def _name(row: dict[str, Any]) -> str:
    return row["name"] + (f" ({row['width']})" if "width" in row else "")


def _share(row: dict[str, Any]) -> str:
    if row.get("fraction_of_peak") is None:
        return ""
    gigaflops, gigabytes = row["gflops"], row["gbytes_per_second"]
    speed = f"{gigaflops:.0f} GFLOP/s" if gigaflops else f"{gigabytes:.1f} GB/s"
    return f"{row['fraction_of_peak']:.0%}, {speed}"
