"""What the benchmark measures: searches, training, planting and selection as batched programs."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from plantjax import masks, nets, planting, sweeps, tasks
from plantjax.masks import topk
from plantjax.sweeps import worlds
from plantjax.types import Batch, Params

TASK, DEPTH, DENSITY, EPOCHS = "circle", 5, 0.1, 10
BATCH_SIZE = 32
LEVELS, LEVEL_EPOCHS = 10, 5


@dataclass(frozen=True)
class Workload:
    """A program and what one call of it does.

    Attributes:
      name: in the results.
      function: pure, jitted by the benchmark.
      arguments: its arguments, the networks as leading axis.
      networks: how many one call works on.
      flops: floating-point operations per network in matrix products; 0 where none matter.
      bytes: least bytes per network to be read and written; 0 where products matter.
      loss: `result -> final training loss`, to be compared with the peer's.
      peer: the peer's request, or None.
      warm_up: what to change in it for a first, shorter request.
      rivals: other ways to do the same: name to function of the same arguments.
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
    """The workloads on whole networks, `batch` of them in one program."""
    task = tasks.TASKS[TASK]
    cells = sweeps.make_cells(task, range(batch), [DENSITY])
    runs = {
        name: sweeps.make_run(task, DEPTH, width, name, epochs=epochs)
        for name in ("magnitude", "edge_popup", "synflow100", "multishot_magnitude")
    }
    run = runs["magnitude"]
    world = jax.jit(jax.vmap(run.world))(cells)
    found = jax.jit(jax.vmap(run.search))(cells, world)._replace(info={})
    assert run.fit is not None
    passes = _flops_per_sample(width) * world.train.x.shape[1]

    def multishot(cells: Any, world: Any) -> Any:
        search = runs["multishot_magnitude"]
        assert search.fit is not None
        return search.fit(cells, world, search.search(cells, world)._replace(info={}))

    def plant(keys: Any, mothers: Any) -> Any:
        return planting.plant(keys, task.target(DEPTH), mothers, "norm", True)

    keys = jax.random.split(jax.random.key(1), batch)
    widths = worlds.mother_widths(task, DEPTH, width)
    mothers = jax.jit(jax.vmap(lambda key: nets.init(key, widths)))(keys)
    size = 4.0 * worlds.mother_size(task, DEPTH, width)
    return [
        Workload(
            "singleshot",
            jax.vmap(run.fit),
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
        Workload(
            "edge_popup",
            jax.vmap(runs["edge_popup"].search),
            (cells, world),
            batch,
            flops=passes * EPOCHS,
            loss=lambda result: float(result.info["losses"][:, -1].mean()),
            peer={"workload": "edge_popup", "epochs": EPOCHS},
            warm_up={"epochs": 1},
        ),
        Workload(
            "synflow100",
            jax.vmap(runs["synflow100"].search),
            (cells, world),
            batch,
            bytes=100 * 4 * size,  # read by scoring and selection, scores written and read
            peer={"workload": "synflow"},
            warm_up={"rounds": 2},
        ),
        Workload("planting", jax.vmap(plant), (keys, mothers), batch, bytes=2 * size),
    ]


def one_network(width: int = 100) -> tuple[Params, Batch]:
    """The first of the networks, and its training data, for the peer."""
    task = tasks.TASKS[TASK]
    cells = sweeps.make_cells(task, [0, 1], [DENSITY])
    run = sweeps.make_run(task, DEPTH, width, "magnitude")
    world = jax.tree.map(lambda leaf: leaf[0], jax.jit(jax.vmap(run.world))(cells))
    return world.planted.params, world.train


def selection(n: int, batch: int) -> Workload:
    """Selection of a tenth of n scores, `batch` times at once, and two ways to do it by sorting."""
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


def _flops_per_sample(width: int) -> float:
    """Forward, gradients of weights and of activations, two operations per product each."""
    widths = worlds.mother_widths(tasks.TASKS[TASK], DEPTH, width)
    pairs = [n_in * n_out for n_in, n_out in pairwise(widths)]
    return 6.0 * sum(pairs) - 2.0 * pairs[0]
