"""Compiled programs: a vmapped function per shape, traced and compiled once, whoever asks first.

XLA compiles without holding Python's lock, so the programs of a group compile side by side, and
those of the next group of a sweep in a thread of their own while the present group runs. Tracing
does hold it, so one thread traces at a time. Over several devices every device runs the
vmapped function on its own share of the batch: nothing is exchanged, and no device waits.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

KEPT_PROGRAMS = 64
"""Programs that are kept compiled: one takes up to 300 mappings of memory, Linux allows 65,530."""
AXIS = "cells"
TRACING = threading.RLock()
"""Held by the thread that traces."""
Function: TypeAlias = Callable[..., Any]


def mesh_of(devices: int | None = None) -> Mesh:
    """A mesh with the one axis "cells" over the first devices of this process (default: all)."""
    return Mesh(np.asarray(jax.local_devices()[:devices]), (AXIS,))


def share(mesh: Mesh, tree: Any) -> Any:
    """Spreads the leading axis of all leaves over the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


class Program:
    """A vmapped function for arguments of given shapes, traced; it compiles when first needed.

    Attributes:
      out_info: pytree of `jax.ShapeDtypeStruct`, what a call returns.
    """

    def __init__(self, lowered: jax.stages.Lowered) -> None:
        """Compiles nothing yet."""
        self.out_info = lowered.out_info
        self._compile = lowered.compile
        self._compiled: jax.stages.Compiled | None = None
        self._lock = threading.Lock()

    def compile(self) -> jax.stages.Compiled:
        """The executable; threads that ask meanwhile wait for the first."""
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile()
                del self._compile  # frees the lowered program
            return self._compiled

    def __call__(self, *arguments: Any) -> Any:
        """Starts the program on a batch that is shared over its devices; returns its results."""
        return self.compile()(*arguments)


def program(function: Function, mesh: Mesh, *arguments: Any, in_turn: bool = False) -> Program:
    """The program of a function, vmapped, for arguments of these shapes and dtypes.

    Args:
      function: pure and hashable; equal functions share a program.
      mesh: the devices that share the batch; their number divides it.
      *arguments: pytrees of arrays, or of `jax.ShapeDtypeStruct`, with the batch as leading axis.
      in_turn: compute the batch one by one instead.

    Returns:
      The program, the same one for the same arguments.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    with TRACING:
        return _program(function, in_turn, mesh, structure, shapes)


def compile_all(parts: Iterable[Program]) -> None:
    """Compiles programs side by side."""
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(Program.compile, parts):
            pass


@lru_cache(maxsize=KEPT_PROGRAMS)
def _program(
    function: Function, in_turn: bool, mesh: Mesh, structure: Any, shapes: tuple[Any, ...]
) -> Program:
    if in_turn:
        function = jax.custom_batching.sequential_vmap(function)
    return Program(_lower(function, mesh, structure, shapes))


def forget() -> None:
    """Frees all compiled programs that nobody holds, these and JAX's own."""
    _program.cache_clear()
    jax.clear_caches()


def _lower(
    function: Function, mesh: Mesh, structure: Any, shapes: tuple[Any, ...]
) -> jax.stages.Lowered:
    batched = jax.vmap(function)
    if mesh.size > 1:
        spec = PartitionSpec(AXIS)
        batched = jax.shard_map(batched, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    structs = [jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes]
    return jax.jit(batched).lower(*jax.tree.unflatten(structure, structs))
