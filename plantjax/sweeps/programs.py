"""The programs of a run: world, search, evaluation and training, for a batch of one size."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plantjax.sweeps import compiling, worlds
from plantjax.sweeps.compiling import Program, program
from plantjax.sweeps.runs import AdvanceLevel, BeginLevels, Run
from plantjax.types import Cell


class Levels(NamedTuple):
    """The programs of a search that runs level by level."""

    begin: Program
    advance: Program
    finish: Program


class Programs(NamedTuple):
    """The programs of a run for a batch of one size."""

    world: Program
    search: Program | None  # None if the search runs in levels
    levels: Levels | None
    evaluate: Program
    fit: Program | None

    def present(self) -> Iterator[Program]:
        """All that there are."""
        parts = (self.world, *(self.levels or (self.search,)), self.evaluate, self.fit)
        return (part for part in parts if part is not None)


def build(run: Run, cells: Cell, mesh: Mesh, by_levels: bool) -> Programs:
    """Compiles the programs for cells of these shapes, a batch for all devices of the mesh."""
    with compiling.TRACING:  # one group at a time, so that the first can start early
        world = program(run.world, mesh, cells, in_turn=run.in_turn)
        search, levels = None, None
        if by_levels and run.finder.levels is not None:
            levels = _levels(run, cells, world.out_info, mesh)
            found = levels.finish.out_info
        else:
            search = program(run.search, mesh, cells, world.out_info, in_turn=run.in_turn)
            found = search.out_info
        found = found._replace(info={})
        evaluate = program(run.evaluate, mesh, world.out_info, found, in_turn=run.in_turn)
        arguments = (cells, world.out_info, found)
        fit = None
        if run.fit is not None:
            fit = program(run.fit, mesh, *arguments, in_turn=run.in_turn)
    parts = Programs(world, search, levels, evaluate, fit)
    compiling.compile_all(parts.present())
    return parts


def _levels(run: Run, cells: Cell, world: Any, mesh: Mesh) -> Levels:
    """The programs of a search in levels."""
    finder, size = run.finder, int(jax.tree.leaves(cells)[0].shape[0])
    assert finder.levels is not None
    begin = program(BeginLevels(run.search), mesh, cells, world, in_turn=run.in_turn)
    state, index = begin.out_info, jax.ShapeDtypeStruct((size,), jnp.int32)
    arguments = (cells, world, state, index)
    advance = program(AdvanceLevel(run.search), mesh, *arguments, in_turn=run.in_turn)
    told = {
        name: jax.ShapeDtypeStruct((size, finder.rounds), metric.dtype)
        for name, metric in advance.out_info[1].items()
    }
    return Levels(begin, advance, program(finder.levels.finish, mesh, state, told))


def default_batch(n: int, devices: int = 1) -> int:
    """Cells per device and call: 2 on CPU, where more exceed the caches, else up to 512 of n."""
    if jax.default_backend() == "cpu":
        return 2
    return int(min(512, max(2, 1 << (-(-n // devices) - 1).bit_length())))


def fitting_batch(run: Run, cells: Cell, n: int, mesh: Mesh, by_levels: bool) -> int:
    """Cells per device and call: the default number, halved until all programs fit."""
    if run.in_turn:
        return 1

    def parts(batch: int) -> Iterator[Program]:
        return build(run, resized(cells, batch * mesh.size), mesh, by_levels).present()

    return compiling.fitting(default_batch(n, mesh.size), parts)


def resized(batch: Any, size: int) -> Any:
    """The shapes of cells, or of what comes of them, for a batch of this size."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), batch)


def example(size: int) -> Cell:
    """So many cells, for their shapes."""
    numbers = jnp.ones(size, jnp.float32)
    return Cell(
        jax.random.split(jax.random.key(0, impl=worlds.PRNG), size), numbers, numbers, numbers
    )
