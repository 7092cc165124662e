"""Compiled programs: vmapped functions, traced and compiled once per shape and shared by all users.

XLA releases Python's global lock while it compiles. So the programs of a group compile in parallel,
and those of a sweep's next group compile in a thread of their own while the current group runs.
Tracing holds the lock, so only one thread traces at a time. With several devices, each runs the
vmapped function on its own share of the batch; they exchange nothing and never wait for each other.
"""

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

KEPT_PROGRAMS = 64
"""Number of cached programs. One takes up to 300 memory mappings, of which Linux allows 65,530."""
ROOM = 4 * 10**9
"""Temporary bytes that a program may take on an accelerator before its batch is made smaller."""
AXIS = "cells"
TRACING = threading.RLock()
"""The lock held while tracing."""
Function: TypeAlias = Callable[..., Any]


def mesh_of(devices: int | None = None) -> Mesh:
    """A mesh with one axis, "cells", over the first devices of this process (default: all)."""
    return Mesh(np.asarray(jax.local_devices()[:devices]), (AXIS,))


def share(mesh: Mesh, tree: Any) -> Any:
    """Shards the leading axis of all leaves over the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


class Program:
    """A vmapped function, traced for arguments of given shapes; it compiles when first needed.

    Attributes:
      out_info: pytree of `jax.ShapeDtypeStruct`, the shapes and dtypes of the results.
    """

    def __init__(self, lowered: jax.stages.Lowered) -> None:
        """Keeps the lowered function; nothing is compiled yet."""
        self.out_info = lowered.out_info
        self._compile = lowered.compile
        self._compiled: jax.stages.Compiled | None = None
        self._lock = threading.Lock()

    def compile(self) -> jax.stages.Compiled:
        """The executable, compiled on the first call; other threads wait for it."""
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile()
                del self._compile  # frees the lowered program
            return self._compiled

    def temporary_bytes(self) -> int:
        """What it needs besides arguments and results on each device; 0 if XLA does not tell."""
        memory = self.compile().memory_analysis()
        return 0 if memory is None else int(memory.temp_size_in_bytes)

    def __call__(self, *arguments: Any) -> Any:
        """Starts the program on a batch sharded over its devices, and returns the results."""
        return self.compile()(*arguments)


def program(function: Function, mesh: Mesh, *arguments: Any, in_turn: bool = False) -> Program:
    """The program of a vmapped function for arguments of these shapes and dtypes.

    Args:
      function: pure and hashable; equal functions share a program.
      mesh: the devices that share the batch; their number divides its size.
      *arguments: pytrees of arrays or of `jax.ShapeDtypeStruct`, with the batch as leading axis.
      in_turn: compute the batch one by one instead of vmapping.

    Returns:
      The program. It is cached, so equal calls return the same object.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    with TRACING:
        return _program(function, in_turn, mesh, structure, shapes)


def compile_all(parts: Iterable[Program]) -> None:
    """Compiles programs in parallel."""
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(Program.compile, parts):
            pass


def fitting(batch: int, programs: Callable[[int], Iterable[Program]], room: int = ROOM) -> int:
    """The largest batch, halved as often as needed, at which no program exceeds its room.

    Args:
      batch: cells per device that are wanted.
      programs: gives the programs for a batch.
      room: temporary bytes of a program on each device.

    Returns:
      The batch, at least 2; programs are compiled for every batch that was tried.
    """
    while batch > 2:
        try:
            need = max(part.temporary_bytes() for part in programs(batch))
        except jax.errors.JaxRuntimeError as error:  # compilers for TPUs refuse what is too large
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            need = 2 * room
        if need <= room:
            break
        batch = max(2, batch >> math.ceil(math.log2(need / room)))
    return batch


@lru_cache(maxsize=KEPT_PROGRAMS)
def _program(
    function: Function, in_turn: bool, mesh: Mesh, structure: Any, shapes: tuple[Any, ...]
) -> Program:
    if in_turn:
        function = jax.custom_batching.sequential_vmap(function)
    return Program(_lower(function, mesh, structure, shapes))


def forget() -> None:
    """Frees all compiled programs that are not in use, including those in JAX's own caches."""
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
