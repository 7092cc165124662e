"""The benchmark's workloads: searches, training, planting and selection as batched programs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from plantjax import masks, nets, planting, sweeps, tasks
from plantjax.masks import topk
from plantjax.sweeps import worlds
from plantjax.types import Cell, Found, Params

TASK, DEPTH, DENSITY, EPOCHS = "circle", 5, 0.1, 10
WIDTH = 100
"""Of the mothers that peers train."""
BATCH_SIZE = 32
LEVELS, LEVEL_EPOCHS = 10, 5


@dataclass(frozen=True)
class Workload:
    """A program, and how much work one call of it does.

    Attributes:
      name: name in the results.
      function: a pure function, which the benchmark jits.
      arguments: its arguments, with the networks as leading axis.
      networks: number of networks per call.
      flops: floating-point operations per network in matrix products; 0 if they do not matter.
      bytes: least number of bytes per network to read and write; 0 if products matter instead.
      loss: `result -> final training loss`, to compare with the peer's.
      peer: the request to the peer, or None.
      warm_up: changes to that request for a first, shorter one.
      rivals: other implementations by name, functions of the same arguments.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    networks: int
    flops: float = 0.0
    bytes: float = 0.0
    loss: Callable[[Any], float] | None = None
    peer: dict[str, Any] | None = None
    warm_up: dict[str, Any] | None = None
    rivals: dict[str, Callable[..., Any]] | None = None


def networks(width: int, batch: int, epochs: int = EPOCHS) -> list[Workload]:
    """The workloads on whole networks, with `batch` of them in one program."""
    task = tasks.TASKS[TASK]
    cells = sweeps.make_cells(task, range(batch), [DENSITY])
    world = jax.jit(jax.vmap(_run("magnitude", width).world))(cells)
    return [
        *_trained(cells, world, width, batch, epochs),
        *_searched(cells, world, width, batch),
        _planted(width, batch),
    ]


def _trained(cells: Any, world: Any, width: int, batch: int, epochs: int) -> list[Workload]:
    """Workloads that end with weak training: after one pruning, and after ten levels of it."""
    once, levels = (_run(name, width, epochs) for name in ("magnitude", "multishot_magnitude"))
    assert once.fit is not None
    found = jax.jit(jax.vmap(once.search))(cells, world)._replace(info={})

    def multishot(cells: Any, world: Any) -> Any:
        assert levels.fit is not None
        return levels.fit(cells, world, levels.search(cells, world)._replace(info={}))

    passes = _flops_per_epoch(world, width)
    return [
        Workload(
            "singleshot",
            jax.vmap(once.fit),
            (cells, world, found),
            batch,
            flops=passes * epochs,
            loss=lambda result: float(result["trained/loss"].mean()),
            peer={"workload": "singleshot", "epochs": epochs},
            warm_up={"epochs": 1},
        ),
        Workload(
            "multishot",
            jax.vmap(multishot),
            (cells, world),
            batch,
            flops=passes * (LEVELS * LEVEL_EPOCHS + epochs),
            loss=lambda result: float(result["trained/loss"].mean()),
            peer={"workload": "multishot", "levels": LEVELS, "level_epochs": LEVEL_EPOCHS}
            | {"epochs": epochs},
            warm_up={"levels": 1, "level_epochs": 1, "epochs": 1},
        ),
    ]


def _searched(cells: Any, world: Any, width: int, batch: int) -> list[Workload]:
    """Workloads that only search."""
    return [
        Workload(
            "edge_popup",
            jax.vmap(_run("edge_popup", width).search),
            (cells, world),
            batch,
            flops=_flops_per_epoch(world, width) * EPOCHS,
            loss=lambda result: float(result.info["losses"][:, -1].mean()),
            peer={"workload": "edge_popup", "epochs": EPOCHS},
            warm_up={"epochs": 1},
        ),
        Workload(
            "synflow100",
            jax.vmap(_run("synflow100", width).search),
            (cells, world),
            batch,
            bytes=100 * 4 * _bytes(width),  # scoring and selection read, scores written and read
            peer={"workload": "synflow"},
            warm_up={"rounds": 2},
        ),
    ]


def _planted(width: int, batch: int) -> Workload:
    """Planting of the target in random mothers."""
    task, keys = tasks.TASKS[TASK], jax.random.split(jax.random.key(1), batch)
    widths = worlds.mother_widths(task, DEPTH, width)
    mothers = jax.jit(jax.vmap(lambda key: nets.init(key, widths)))(keys)

    def plant(keys: Any, mothers: Any) -> Any:
        return planting.plant(keys, task.target(DEPTH), mothers, "norm", True)

    return Workload("planting", jax.vmap(plant), (keys, mothers), batch, bytes=2 * _bytes(width))


def magnitude(count: int) -> tuple[Cell, worlds.World, Found]:
    """The first networks as peers get them: cells, worlds, and the masks that magnitude found."""
    cells = sweeps.make_cells(tasks.TASKS[TASK], range(count), [DENSITY])
    run = _run("magnitude", WIDTH)
    world = jax.jit(jax.vmap(run.world))(cells)
    return cells, world, jax.jit(jax.vmap(run.search))(cells, world)._replace(info={})


def searches(width: int, batch: int, finders: Sequence[str]) -> list[Workload]:
    """The searches of these finders, each with its own options."""
    cells = sweeps.make_cells(tasks.TASKS[TASK], range(batch), [DENSITY])
    world = jax.jit(jax.vmap(_run("magnitude", width).world))(cells)
    return [
        Workload(name, jax.vmap(_run(name, width).search), (cells, world), batch)
        for name in finders
    ]


def selection(n: int, batch: int) -> Workload:
    """Selection of a tenth of n scores, `batch` times at once, with two rivals that sort."""
    keys = jax.random.split(jax.random.key(2), batch)
    scores = jax.jit(jax.vmap(lambda key: jax.random.normal(key, (n,))))(keys)
    k = int(masks.number_kept(DENSITY, n))

    def select(key: Any, scores: Any) -> Any:
        return masks.select(key, {"kernel": scores}, DENSITY)["kernel"]

    def by_argsort(key: Any, scores: Any) -> Any:
        del key
        return jnp.zeros(n, bool).at[jnp.argsort(scores)[n - k :]].set(True)

    def by_key_sort(key: Any, scores: Any) -> Any:
        del key
        ordered = topk.order_keys(scores)
        return ordered >= jnp.sort(ordered)[n - k]

    return Workload(
        f"selection_{n:.2g}".replace("+0", ""),
        jax.vmap(select),
        (keys, scores),
        batch,
        bytes=5.0 * n,
        rivals={"argsort": jax.vmap(by_argsort), "key_sort": jax.vmap(by_key_sort)},
    )


def compaction() -> list[Workload]:
    """Outputs of compact networks: of a planted ticket, and of a VGG11 without half its channels.

    The rival is the masked network before compaction.
    """
    task, key = tasks.TASKS[TASK], jax.random.key(3)
    mother = nets.init(key, worlds.mother_widths(task, DEPTH, 100))
    planted = planting.plant(key, task.target(DEPTH), mother)
    network = nets.vgg(11, width=0.25)
    params = network.init(key, (32, 32, 3))
    mask = masks.full(params)
    for name in list(params)[:-1]:
        sizes = jnp.sum(jnp.square(params[name]["kernel"]), axis=(0, 1, 2))
        kept = sizes >= jnp.median(sizes)
        mask[name] = jax.tree.map(lambda leaf, k=kept: jnp.broadcast_to(k, leaf.shape), mask[name])
    return [
        _compacted("compact_ticket", nets.apply, planted.params, planted.mask, (10_000, 2)),
        _compacted("compact_vgg", network, params, mask, (64, 32, 32, 3)),
    ]


def _compacted(
    name: str, network: Any, params: Params, mask: Any, shape: tuple[int, ...]
) -> Workload:
    masked, small = masks.apply(params, mask), masks.compact(params, mask)
    fitted = network.fitted(small) if hasattr(network, "fitted") else network
    x = jax.random.normal(jax.random.key(4), shape)
    return Workload(
        name,
        lambda small, masked, x: fitted(small, x),
        (small, masked, x),
        networks=1,
        bytes=4.0 * masks.size(small),
        rivals={"masked": lambda small, masked, x: network(masked, x)},
    )


def _run(finder: str, width: int, epochs: int = EPOCHS) -> sweeps.Run:
    return sweeps.make_run(tasks.TASKS[TASK], DEPTH, width, finder, epochs=epochs)


def _bytes(width: int) -> float:
    """Bytes of a mother's parameters."""
    return 4.0 * worlds.mother_size(tasks.TASKS[TASK], DEPTH, width)


def _flops_per_epoch(world: Any, width: int) -> float:
    """Operations of an epoch of training, in a batch of worlds."""
    return _flops_per_sample(width) * world.train.x.shape[1]


def _flops_per_sample(width: int) -> float:
    """Operations of training: forward, gradients of weights and activations, two per product."""
    widths = worlds.mother_widths(tasks.TASKS[TASK], DEPTH, width)
    pairs = [n_in * n_out for n_in, n_out in pairwise(widths)]
    return 6.0 * sum(pairs) - 2.0 * pairs[0]
