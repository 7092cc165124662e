"""Compiled programs: a vmapped function per shape, compiled once by whichever thread asks first.

XLA compiles without holding Python's lock, so the programs of the next group of a sweep compile in
a thread of their own while the present group runs.
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax

KEPT = 512
"""Programs that are kept compiled, for groups of the same shape to share."""


def compiled(function: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    """The vmapped function, compiled for arguments of these shapes and dtypes.

    Args:
      function: pure; the same object for the same program.
      *arguments: pytrees of arrays, or of `jax.ShapeDtypeStruct`, with the batch as leading axis.

    Returns:
      The executable; its `out_info` tells the shapes of its results.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    return _program(function, structure, shapes).get()


@lru_cache(maxsize=KEPT)
def _program(function: Callable[..., Any], structure: Any, shapes: tuple[Any, ...]) -> "_Program":
    return _Program(function, structure, shapes)


class _Program:
    """A program that is compiled on first use; further users wait for it."""

    def __init__(
        self, function: Callable[..., Any], structure: Any, shapes: tuple[Any, ...]
    ) -> None:
        self._lock = threading.Lock()
        self._make = (function, structure, shapes)
        self._compiled: jax.stages.Compiled | None = None

    def get(self) -> jax.stages.Compiled:
        with self._lock:
            if self._compiled is None:
                function, structure, shapes = self._make
                structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
                arguments = jax.tree.unflatten(structure, structs)
                self._compiled = jax.jit(jax.vmap(function)).lower(*arguments).compile()
            return self._compiled
