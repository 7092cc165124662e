"""Scopes: where parameters compete, and the arrays of those that do as one vector, or as rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.types import Params, Prunable

SCOPES = ("global", "local", "layer", "channel", "oracle")
"""Where parameters compete: everywhere, in their array, layer, channel, layers of given counts."""


def leaves(tree: Params) -> tuple[list[str], list[Any], Any]:
    """Paths ("layer_00/kernel") and leaves, both in sorted order, and the structure."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    return [checks.path_name(path) for path, _ in pairs], [leaf for _, leaf in pairs], structure


def groups(paths: list[str], scope: str, prunable: Prunable | None) -> list[list[int]]:
    """Indices of the leaves that compete with one another, or channel by channel."""
    names = {
        "global": lambda path: "",
        "local": lambda path: path,
        **dict.fromkeys(("layer", "channel", "oracle"), lambda path: path.rpartition("/")[0]),
    }
    found: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        if prunable is None or prunable(path):
            found.setdefault(names[scope](path), []).append(index)
    return list(found.values())


def gather(arrays: list[jax.Array], groups: list[list[int]], scope: str) -> list[jax.Array]:
    """The entries of every group as one vector [n]; of scope "channel" as rows [C, n]."""
    if scope == "channel":
        return [_rows([arrays[i] for i in group]) for group in groups]
    return [jnp.concatenate([jnp.ravel(arrays[i]) for i in group]) for group in groups]


def _rows(arrays: list[jax.Array]) -> jax.Array:
    shapes = [jnp.shape(leaf) for leaf in arrays]
    if len({shape[-1:] for shape in shapes}) > 1 or not shapes[0]:
        raise ValueError(f"scope 'channel' wants arrays of equal last axes in a layer: {shapes}.")
    return jnp.concatenate([jnp.reshape(leaf, (-1, shapes[0][-1])) for leaf in arrays]).T


def scatter(part: jax.Array, like: list[jax.Array]) -> list[jax.Array]:
    """The arrays that `gather` made one."""
    flat = jnp.ravel(part.T)
    parts = jnp.split(flat, np.cumsum([leaf.size for leaf in like])[:-1])
    return [jnp.reshape(part, leaf.shape) for part, leaf in zip(parts, like, strict=True)]
