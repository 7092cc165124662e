"""Trees layer by layer: the arrays of one parent path as one vector, in the order of sorted paths.

The layers are those of scope "layer" and "oracle" of `masks.select`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks


def shapes(tree: Any) -> list[list[tuple[int, ...]]]:
    """The shapes of the arrays of every layer; the tree holds at least one array.

    >>> import jax.numpy as jnp
    >>> shapes({"layer_00": {"bias": jnp.zeros(2), "kernel": jnp.ones((1, 2))}})
    [[(2,), (1, 2)]]
    """
    _, leaves, groups = _layers(tree)
    return [[np.shape(leaves[i]) for i in group] for group in groups]


def ravel(tree: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """One vector per layer, and the function that makes such vectors a tree again.

    >>> import jax.numpy as jnp
    >>> tree = {"layer_00": {"bias": jnp.zeros(2), "kernel": jnp.ones((1, 2))}}
    >>> vectors, unravel = ravel(tree)
    >>> vectors[0].tolist(), unravel(vectors)["layer_00"]["kernel"].tolist()
    ([0.0, 0.0, 1.0, 1.0], [[1.0, 1.0]])
    """
    structure, leaves, groups = _layers(tree)

    def unravel(vectors: list[jax.Array]) -> Any:
        restored = list(leaves)
        for group, vector in zip(groups, vectors, strict=True):
            ends = np.cumsum([np.size(leaves[i]) for i in group])[:-1]
            for i, part in zip(group, jnp.split(vector, ends), strict=True):
                restored[i] = jnp.reshape(part, np.shape(leaves[i]))
        return jax.tree.unflatten(structure, restored)

    vectors = [jnp.concatenate([jnp.ravel(leaves[i]) for i in group]) for group in groups]
    return vectors, unravel


def _layers(tree: Any) -> tuple[Any, list[Any], list[list[int]]]:
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    groups: dict[str, list[int]] = {}
    for index, (path, _) in enumerate(pairs):
        groups.setdefault(checks.path_name(path).rpartition("/")[0], []).append(index)
    return structure, [leaf for _, leaf in pairs], list(groups.values())
