"""Compiled programs: a vmapped function per shape, compiled once by whichever thread asks first.

XLA compiles without holding Python's lock, so the programs of the next group of a sweep compile in
a thread of their own while the present group runs. Over several devices every device runs the
vmapped function on its own share of the batch: nothing is exchanged, and no device waits.
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

KEPT = 512
"""Programs that are kept compiled, for groups of the same shape to share."""
AXIS = "cells"
Function: TypeAlias = Callable[..., Any]


def mesh_of(devices: int | None = None) -> Mesh:
    """A mesh with the one axis "cells" over the first devices of this process (default: all)."""
    return Mesh(np.asarray(jax.local_devices()[:devices]), (AXIS,))


def share(mesh: Mesh, tree: Any) -> Any:
    """Spreads the leading axis of all leaves over the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def compiled(function: Function, mesh: Mesh, *arguments: Any) -> jax.stages.Compiled:
    """The vmapped function, compiled for arguments of these shapes and dtypes.

    Args:
      function: pure; the same object for the same program.
      mesh: the devices that share the batch; their number divides it.
      *arguments: pytrees of arrays, or of `jax.ShapeDtypeStruct`, with the batch as leading axis.

    Returns:
      The executable; its `out_info` tells the shapes of its results.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    return _program(function, mesh, structure, shapes).get()


@lru_cache(maxsize=KEPT)
def in_turn(function: Function) -> Function:
    """The function, whose vmapped form goes through a batch one by one.

    For convolutions: a batch of kernels makes them grouped, which is slower than one by one.
    """
    return jax.custom_batching.sequential_vmap(function)


class _Program:
    """A program that is compiled on first use; further users wait for it."""

    def __init__(
        self, function: Function, mesh: Mesh, structure: Any, shapes: tuple[Any, ...]
    ) -> None:
        self._lock = threading.Lock()
        self._make = (function, mesh, structure, shapes)
        self._compiled: jax.stages.Compiled | None = None

    def get(self) -> jax.stages.Compiled:
        with self._lock:
            if self._compiled is None:
                self._compiled = _compile(*self._make)
            return self._compiled


@lru_cache(maxsize=KEPT)
def _program(function: Function, mesh: Mesh, structure: Any, shapes: tuple[Any, ...]) -> _Program:
    return _Program(function, mesh, structure, shapes)


def _compile(
    function: Function, mesh: Mesh, structure: Any, shapes: tuple[Any, ...]
) -> jax.stages.Compiled:
    batched = jax.vmap(function)
    if mesh.size > 1:
        spec = PartitionSpec(AXIS)
        batched = jax.shard_map(batched, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    structs = [jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes]
    return jax.jit(batched).lower(*jax.tree.unflatten(structure, structs)).compile()
