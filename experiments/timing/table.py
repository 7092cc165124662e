"""The benchmark's tables on the terminal, each within 80 columns."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from plantjax.jobs import summary


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints times, then memory and compilation, then how rivals compare."""
    times = _table("workload (width)", "networks", "ms a network", "range", "of peak")
    costs = _table("workload (width)", "networks", "MB a network", "compile s", "from cache s")
    for row in results:
        name, networks = _name(row), str(row["networks"])
        if "seconds_per_network" in row:
            spread = "-".join(f"{1e3 * value:.4g}" for value in row["spread"])
            each = f"{1e3 * row['seconds_per_network']:.4g}"
            times.add_row(name, networks, each, spread, _share(row))
        if "peak_memory_bytes" in row:
            memory = f"{1e-6 * row['peak_memory_bytes']:.3f}"
            compiling = [row.get(f"compile_seconds_{kind}") for kind in ("cold", "warm")]
            words = ["" if seconds is None else f"{seconds:.1f}" for seconds in compiling]
            costs.add_row(name, networks, memory, *words)
    for table in (times, costs):
        summary.whole(table, console)
    for row in results:
        compared = rivals(row)
        if compared:
            console.print(f"{_name(row)}: times faster than {compared}", soft_wrap=True)


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


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right", no_wrap=True)
    return table


def _name(row: dict[str, Any]) -> str:
    return row["name"] + (f" ({row['width']})" if "width" in row else "")


def _share(row: dict[str, Any]) -> str:
    if row.get("fraction_of_peak") is None:
        return ""
    gigaflops, gigabytes = row["gflops"], row["gbytes_per_second"]
    speed = f"{gigaflops:.0f} GFLOP/s" if gigaflops else f"{gigabytes:.1f} GB/s"
    return f"{row['fraction_of_peak']:.0%}, {speed}"
