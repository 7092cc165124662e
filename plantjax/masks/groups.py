"""Groups: the parameters that compete with each other in a scope, as vectors or rows.

A layer consists of the arrays with the same parent path.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.types import Params, Prunable

SCOPES = ("global", "local", "layer", "channel", "oracle")
"""Where parameters compete: all together, or within each array, layer or channel; with "oracle",
within each layer for given counts."""


def flatten(tree: Params) -> tuple[list[str], list[Any], Any]:
    """The paths ("layer_00/kernel") and the leaves, both in sorted order, and the structure."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    return [checks.path_name(path) for path, _ in pairs], [leaf for _, leaf in pairs], structure


def members(paths: list[str], scope: str, prunable: Prunable | None = None) -> list[list[int]]:
    """The indices of the leaves of each group, groups in natural order ("channel": layers)."""
    names = {
        "global": lambda path: "",
        "local": lambda path: path,
        **dict.fromkeys(("layer", "channel", "oracle"), lambda path: path.rpartition("/")[0]),
    }
    found: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        if prunable is None or prunable(path):
            found.setdefault(names[scope](path), []).append(index)
    if not found:
        raise ValueError(f"prunable must allow at least one leaf of {', '.join(paths)}, got none.")
    return [found[name] for name in sorted(found, key=checks.natural)]


def gather(arrays: list[jax.Array], members: list[list[int]], scope: str) -> list[jax.Array]:
    """The entries of each group as one vector [n], or for scope "channel" as rows [C, n]."""
    if scope == "channel":
        return [_rows([arrays[i] for i in group]) for group in members]
    return [jnp.concatenate([jnp.ravel(arrays[i]) for i in group]) for group in members]


def scatter(part: jax.Array, like: list[Any]) -> list[jax.Array]:
    """The inverse of `gather`: splits a vector or matrix into arrays of the shapes of `like`."""
    parts = jnp.split(jnp.ravel(part.T), np.cumsum([np.size(leaf) for leaf in like])[:-1])
    return [jnp.reshape(part, np.shape(leaf)) for part, leaf in zip(parts, like, strict=True)]


def layer_shapes(tree: Any, prunable: Prunable | None = None) -> list[list[tuple[int, ...]]]:
    """The shapes of the arrays of each layer; the tree has at least one array.

    >>> import jax.numpy as jnp
    >>> layer_shapes({"layer_00": {"bias": jnp.zeros(2), "kernel": jnp.ones((1, 2))}})
    [[(2,), (1, 2)]]
    """
    paths, leaves, _ = flatten(tree)
    return [[np.shape(leaves[i]) for i in group] for group in members(paths, "layer", prunable)]


def ravel_layers(
    tree: Any, prunable: Prunable | None = None
) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """One vector per layer, and the function that turns such vectors back into a tree.

    Leaves that are not prunable are left out, and come back as they are.

    >>> import jax.numpy as jnp
    >>> tree = {"layer_00": {"bias": jnp.zeros(2), "kernel": jnp.ones((1, 2))}}
    >>> vectors, unravel = ravel_layers(tree)
    >>> vectors[0].tolist(), unravel(vectors)["layer_00"]["kernel"].tolist()
    ([0.0, 0.0, 1.0, 1.0], [[1.0, 1.0]])
    """
    paths, leaves, structure = flatten(tree)
    layers = members(paths, "layer", prunable)

    def unravel(vectors: list[jax.Array]) -> Any:
        restored = list(leaves)
        for layer, vector in zip(layers, vectors, strict=True):
            for i, leaf in zip(layer, scatter(vector, [leaves[i] for i in layer]), strict=True):
                restored[i] = leaf
        return jax.tree.unflatten(structure, restored)

    return gather(leaves, layers, "layer"), unravel


def partition(params: Params, prunable: Prunable) -> tuple[Params, Callable[..., Params]]:
    """The prunable leaves as a tree of their own, and the function that puts them back.

    Args:
      params: any pytree of arrays.
      prunable: predicate on leaf paths.

    Returns:
      (leaves by path, `(leaves by path, others) -> tree`), where `others` is a value for all other
      leaves; by default they are those of `params`.

    Raises:
      ValueError: if no leaf is prunable.

    >>> import jax.numpy as jnp
    >>> tree = {"kernel": jnp.ones(2), "scale": jnp.ones(1)}
    >>> leaves, merged = partition(tree, lambda path: path == "kernel")
    >>> list(leaves), merged({"kernel": jnp.zeros(2)})["scale"].tolist()
    (['kernel'], [1.0])
    """
    paths, leaves, structure = flatten(params)
    free = {paths[index]: leaves[index] for index in members(paths, "global", prunable)[0]}

    def merged(part: Params, others: bool | None = None) -> Params:
        rest = leaves if others is None else [jnp.full(jnp.shape(p), others) for p in leaves]
        whole = [part.get(path, leaf) for path, leaf in zip(paths, rest, strict=True)]
        return jax.tree.unflatten(structure, whole)

    return free, merged


def _rows(arrays: list[jax.Array]) -> jax.Array:
    """The entries of a layer as rows [C, n], one per output channel (last axis)."""
    shapes = [jnp.shape(leaf) for leaf in arrays]
    if len({shape[-1:] for shape in shapes}) > 1 or not shapes[0]:
        raise ValueError(f"scope 'channel' wants arrays of equal last axes in a layer: {shapes}.")
    return jnp.concatenate([jnp.reshape(leaf, (-1, shapes[0][-1])) for leaf in arrays]).T
