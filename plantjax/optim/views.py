"""What an optimizer between two masks sees of trees, and what leaves it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from plantjax import checks
from plantjax.optim.packing import Packed
from plantjax.types import Params

Leaves: TypeAlias = Mapping[str, jax.Array]
"""Prunable leaves, or their masks, by path."""

_TOLD = ("value", "grad", "value_fn")
"""What optax's line searches are told; further arguments are those of `value_fn`."""


def entering(structure: Any, tree: Sequence[Any], leaves: Sequence[Any], packed: Packed) -> Params:
    """A tree as the inner optimizer sees it: masked, and without leaves that are not floats."""
    masks, shown = packed.unpack(), []
    for path, value, leaf in zip(packed.paths, tree, leaves, strict=True):
        if path in masks:
            shown.append(jnp.where(masks[path], value, jnp.zeros_like(value)))
        else:
            shown.append(value if checks.is_float(leaf) else optax.MaskedNode())
    return jax.tree.unflatten(structure, shown)


def told_of(
    extra: Mapping[str, Any], structure: Any, leaves: Sequence[Any], packed: Packed
) -> dict[str, Any]:
    """What an update is told beside its gradient, with that of the sparse network in its place.

    Line searches get `grad` masked, and `value` and `value_fn` of the masked parameters; where
    there is no `value_fn`, the value stays.
    """
    told = dict(extra)
    if extra.get("grad") is not None:
        told["grad"] = entering(structure, structure.flatten_up_to(extra["grad"]), leaves, packed)
    if (whole := extra.get("value_fn")) is not None:

        def sparse(tried: Params, *further: Any, **named: Any) -> jax.Array:
            shown = entering(structure, structure.flatten_up_to(tried), leaves, packed)
            back = [
                leaf if isinstance(value, optax.MaskedNode) else value
                for value, leaf in zip(structure.flatten_up_to(shown), leaves, strict=True)
            ]
            value: jax.Array = whole(jax.tree.unflatten(structure, back), *further, **named)
            return value

        told["value_fn"] = sparse
        if "value" in extra:
            others = {name: extra[name] for name in extra if name not in _TOLD}
            told["value"] = sparse(jax.tree.unflatten(structure, leaves), **others)
    return told


def leaving(structure: Any, updates: Params, leaves: Sequence[Any], packed: Packed) -> Params:
    """The updates, such that pruned entries become zero and leaves that are not floats stay."""
    masks, left = packed.unpack(), []
    for path, u, leaf in zip(packed.paths, structure.flatten_up_to(updates), leaves, strict=True):
        if path in masks:
            with jax.numpy_dtype_promotion("standard"):  # the wider type, since -p must be exact
                dtype = jnp.promote_types(u.dtype, leaf.dtype)
            left.append(jnp.where(masks[path], u.astype(dtype), -leaf.astype(dtype)))
        else:
            left.append(u if checks.is_float(leaf) else jnp.zeros_like(leaf))
    return jax.tree.unflatten(structure, left)


def cleaned(inner: optax.OptState, params: Params, packed: Packed, masks: Leaves) -> Any:
    """The inner state with zeros at the pruned entries of what belongs to a leaf.

    That is a float array whose path in the state ends with the path of the leaf and whose shape
    ends with its shape, as a moment's does in whatever chain or wrapper.
    """
    ends = [tuple(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    known = {
        end: masks[path] for end, path in zip(ends, packed.paths, strict=True) if path in masks
    }

    def clean(path: tuple[Any, ...], leaf: Any) -> Any:
        ends = (path[start:] for start in range(len(path) + 1))
        mask = next((known[end] for end in ends if end in known), None)
        if mask is None or not checks.is_float(leaf):
            return leaf
        if leaf.shape[max(leaf.ndim - mask.ndim, 0) :] != mask.shape:
            return leaf
        return jnp.where(jnp.broadcast_to(mask, leaf.shape), leaf, jnp.zeros_like(leaf))

    return jax.tree_util.tree_map_with_path(clean, inner)
