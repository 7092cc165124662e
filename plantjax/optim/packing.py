"""Masks as bits: eight entries in a byte, with all that is needed to unpack them as static data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.masks import groups
from plantjax.types import Mask, Params, Prunable


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["bits"],
    meta_fields=["paths", "shapes", "structure"],
)
@dataclass(frozen=True)
class Packed:
    """The mask of a tree, as one pytree node whose leaves are bytes.

    An array is packed along its longest axis, so that its other axes can stay sharded over devices.

    Attributes:
      bits: uint8, one array for each prunable leaf; None for the others, which are kept.
      paths: the paths of all leaves.
      shapes: their shapes.
      structure: the structure of the tree.
    """

    bits: tuple[jax.Array | None, ...]
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    structure: Any

    def pick(self, leaves: Sequence[Any]) -> dict[str, Any]:
        """The prunable ones among all leaves of a tree, by path."""
        every = zip(self.bits, self.paths, leaves, strict=True)
        return {path: leaf for bits, path, leaf in every if bits is not None}

    def replace(self, masks: Mapping[str, jax.Array]) -> "Packed":
        """The same tree with other masks, by path, for its prunable leaves."""
        bits = tuple(
            None if old is None else pack(masks[path])
            for old, path in zip(self.bits, self.paths, strict=True)
        )
        return Packed(bits, self.paths, self.shapes, self.structure)

    def unpack(self) -> dict[str, jax.Array]:
        """The masks of the prunable leaves by path; axes before those of the leaf are a batch."""
        every = zip(self.bits, self.paths, self.shapes, strict=True)
        return {path: unpack(bits, shape) for bits, path, shape in every if bits is not None}

    def tree(self) -> Mask:
        """The mask of the whole tree, all true where leaves are not prunable."""
        masks = self.unpack()
        first = next(path for path in self.paths if path in masks)
        own = len(self.shapes[self.paths.index(first)])
        batch = masks[first].shape[: masks[first].ndim - own]
        leaves = [
            masks[path] if path in masks else jnp.ones((*batch, *shape), bool)
            for path, shape in zip(self.paths, self.shapes, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)

    def density(self) -> jax.Array:
        """The share of the prunable entries that is kept, float32, for each tree of a batch."""
        sizes = [
            int(np.prod(shape))
            for bits, shape in zip(self.bits, self.shapes, strict=True)
            if bits is not None
        ]
        kept = sum(
            jnp.sum(
                jax.lax.population_count(bits).astype(jnp.int32),
                axis=_own_axes(bits, shape),
                dtype=jnp.int32,
            )
            for bits, shape in zip(self.bits, self.shapes, strict=True)
            if bits is not None
        )
        return jnp.asarray(kept, jnp.float32) / sum(sizes)


def describe(params: Params, prunable: Prunable | None) -> Packed:
    """A mask that keeps everything; only leaves of floats that `prunable` allows can be pruned.

    Raises:
      ValueError: if that is no leaf at all.
    """
    paths, leaves, structure = groups.flatten(params)
    floats = {path for path, leaf in zip(paths, leaves, strict=True) if checks.is_float(leaf)}

    def allowed(path: str) -> bool:
        return path in floats and (prunable is None or prunable(path))

    groups.members(paths, "global", allowed)  # raises if there are none
    bits = tuple(
        pack(jnp.ones(jnp.shape(leaf), bool)) if allowed(path) else None
        for path, leaf in zip(paths, leaves, strict=True)
    )
    return Packed(bits, tuple(paths), tuple(jnp.shape(leaf) for leaf in leaves), structure)


def pack(mask: jax.Array) -> jax.Array:
    """A bool array as bytes, along its longest axis.

    >>> import jax.numpy as jnp
    >>> pack(jnp.ones((2, 9), bool)).tolist()
    [[255, 128], [255, 128]]
    """
    mask = jnp.atleast_1d(mask)
    return jnp.packbits(mask, axis=_axis(mask.shape))


def unpack(bits: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `pack` for an array of this shape, or for a batch of such arrays."""
    inner = shape or (1,)
    batch = bits.shape[: bits.ndim - len(inner)]
    axis = _axis(inner)
    mask = jnp.unpackbits(bits, axis=axis, count=inner[axis]).astype(bool)
    return jnp.reshape(mask, (*batch, *shape))


def _axis(shape: tuple[int, ...]) -> int:
    """The longest axis, the last of equally long ones, counted from the end."""
    return -1 - int(np.argmax(shape[::-1]))


def _own_axes(bits: jax.Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of an array of bytes that are not those of a batch."""
    return tuple(range(bits.ndim - max(len(shape), 1), bits.ndim))
