"""Training against its peers: the same networks and data, in turns, on one core.

The library trains as a sweep calls it, `batch` networks in a program, evaluation included. Each
turn of a peer follows one of the library, and the ratio of the two is what counts, because load on
the machine disturbs both alike.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from plantjax import sweeps
from plantjax.jobs import terminal
from plantjax.tasks import TASKS
from timing import jax_peers, measure, workloads
from timing.client import Peer


class Entry(NamedTuple):
    """A peer.

    Attributes:
      about: what it is, for tables.
      train: a function of `jax_peers`, or the name of a workload of `torch_peer`.
      networks: numbers of networks that it trains at once, each a row of the results.
    """

    about: str
    train: Callable[..., Any] | str
    networks: tuple[int, ...]


PEERS = {
    "plain_jax": Entry("Flax, optax, a jitted step in a loop", jax_peers.python_loop, (1,)),
    "vmap_scan": Entry("the same under vmap and scan", jax_peers.vmap_scan, (2, 25, 128)),
    "torch_loop": Entry("PyTorch, a loop over a DataLoader", "singleshot", (1,)),
    "torch_func": Entry("PyTorch, torch.func.vmap", "ensemble", (8, 64)),
}
"""The registry of peers."""
ALIKE = 0.15
"""Relative difference up to which mean losses of the last epoch count as alike."""
Turn = Callable[[int], tuple[float, float]]
"""`(seed) -> (seconds, mean loss)` of all networks of a peer, compiled before."""


class Ours(NamedTuple):
    """The library's training: its program, the arguments for each batch, and its losses [N]."""

    program: Callable[..., Any]
    batches: list[Any]
    losses: np.ndarray


def most(batch: int) -> int:
    """The largest number of networks of a peer, rounded up to whole batches."""
    return math.ceil(max(n for peer in PEERS.values() for n in peer.networks) / batch) * batch


def compare(
    batch: int, epochs: int, turns: int, worker: Peer | None, console: Console
) -> list[dict[str, Any]]:
    """One row for each peer and number of networks.

    Args:
      batch: networks that the library trains in one program.
      epochs: passes over the data.
      turns: of each peer.
      worker: PyTorch; None leaves its peers out.
      console: for progress.

    Returns:
      Rows with seconds per network, how many times ours they are, and both mean losses.
    """
    arguments = workloads.magnitude(most(batch))
    ours = _ours(arguments, batch, epochs)
    pairs = [
        (name, n, _turn(peer.train, arguments, n, epochs, worker))
        for name, peer in PEERS.items()
        if worker is not None or not isinstance(peer.train, str)
        for n in _numbers(peer, batch)
    ]
    theirs: dict[str, list[tuple[float, float]]] = {f"{name}_{n}": [] for name, n, _ in pairs}
    mine: dict[str, list[tuple[float, float]]] = {name: [] for name in theirs}
    for index in range(turns):
        for name, n, turn in pairs:
            terminal.say(console, f"  training by {name}, {n} networks ...", style="dim")
            part = ours.batches[index % len(ours.batches)]
            mine[f"{name}_{n}"].append(measure.timed(partial(ours.program, *part)))
            theirs[f"{name}_{n}"].append(turn(index))
    return [
        {"about": PEERS[name].about, "epochs": epochs}
        | _row(f"{name}_{n}", n, theirs[f"{name}_{n}"], mine[f"{name}_{n}"], ours, batch)
        for name, n, _ in pairs
    ]


def _numbers(peer: Entry, batch: int) -> list[int]:
    """A peer's numbers of networks; one of JAX that takes several also takes as many as ours."""
    several = len(peer.networks) > 1 and not isinstance(peer.train, str)
    return sorted({*peer.networks, batch} if several else peer.networks)


def _ours(arguments: Any, batch: int, epochs: int) -> Ours:
    run = sweeps.make_run(
        TASKS[workloads.TASK], workloads.DEPTH, workloads.WIDTH, "magnitude", epochs=epochs
    )
    assert run.fit is not None
    batches = list(_batches(arguments, batch))
    program = jax.jit(jax.vmap(run.fit)).lower(*batches[0]).compile()
    losses = [np.asarray(program(*part)["trained/loss"]) for part in batches]
    return Ours(program, batches, np.concatenate(losses))


def _batches(arguments: Any, batch: int) -> Iterator[Any]:
    for start in range(0, arguments[0].density.shape[0], batch):
        yield jax.tree.map(lambda a, start=start: a[start : start + batch], arguments)


def _turn(
    train: Callable[..., Any] | str, arguments: Any, n: int, epochs: int, worker: Peer | None
) -> Turn:
    """A peer, ready to run on the first n networks."""
    if isinstance(train, str):
        assert worker is not None
        request = {"workload": train, "density": workloads.DENSITY}
        request |= {} if n == 1 else {"networks": n}
        worker.ask(request | {"epochs": 1})
        return lambda seed: _asked(worker, request | {"epochs": epochs, "seed": seed}, n)
    _, world, found = jax.tree.map(lambda a: a[:n], arguments)
    inputs = (found.params, found.mask, world.train)
    if hasattr(train, "lower"):
        program = train.lower(*inputs, 0, epochs=epochs).compile()
        return lambda seed: _called(lambda: program(*inputs, seed))
    train(*inputs, 0, 1)
    return lambda seed: _called(lambda: train(*inputs, seed, epochs))


def _called(train: Callable[[], Any]) -> tuple[float, float]:
    kept: list[Any] = []
    seconds, _ = measure.timed(lambda: kept.append(jax.block_until_ready(train())))
    return seconds, float(np.mean(kept[0]))


def _asked(worker: Peer, request: dict[str, Any], n: int) -> tuple[float, float]:
    reply = worker.ask(request)
    return reply["process_seconds"], reply["loss"]


def _row(
    name: str,
    n: int,
    theirs: list[tuple[float, float]],
    mine: list[tuple[float, float]],
    ours: Ours,
    batch: int,
) -> dict[str, Any]:
    """Times per network, the ratio turn by turn, and the losses of the same networks."""
    seconds = [each / n for each, _ in theirs]
    own = [each / batch for each, _ in mine]
    ratios = [other / one for other, one in zip(seconds, own, strict=True)]
    loss, our_loss = float(np.mean([loss for _, loss in theirs])), float(np.mean(ours.losses[:n]))
    return {
        "width": workloads.WIDTH,
        "name": name,
        "networks": n,
        "seconds_per_network": float(np.median(seconds)),
        "spread": [min(seconds), max(seconds)],
        "our_seconds_per_network": float(np.median(own)),
        "our_spread": [min(own), max(own)],
        "times_ours": float(np.median(ratios)),
        "times_ours_spread": [min(ratios), max(ratios)],
        "loss": loss,
        "our_loss": our_loss,
        "losses_alike": abs(loss / our_loss - 1.0) <= ALIKE,
    }
