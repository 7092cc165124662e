"""Liveness: which parameters lie on a path of kept ones from the inputs to the outputs."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from plantjax.nets.wirings import INPUT, Wiring, channels, leaves, matrix, replace, rows
from plantjax.types import Mask, Params


def live(params: Params, mask: Mask, wiring: Wiring) -> Mask:
    """The part of a mask on paths from an input or a positive bias to an output.

    See `masks.live`. A channel of an image is one unit, and counts as reached behind a batch norm.

    Raises:
      ValueError: as `wirings.channels`.

    >>> import plantjax as pj
    >>> params = {
    ...     "layer_00": {"kernel": jnp.ones((1, 2)), "bias": jnp.zeros(2)},
    ...     "layer_01": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)},
    ... }
    >>> mask = jax.tree.map(lambda leaf: leaf > 0, params)
    >>> mask["layer_01"]["kernel"] = jnp.array([[True], [False]])  # nothing reads the second unit
    >>> live(params, mask, pj.nets.wirings.chain(params))["layer_00"]["kernel"].tolist()
    [[True, False]]
    """
    sizes = channels(params, wiring)
    kept, fed = leaves(mask), _fed(leaves(params), leaves(mask), wiring, sizes)
    output = wiring.nodes[-1]
    read = {node: jnp.zeros(size, bool) for node, size in sizes.items()}
    read[output], fed[output] = ~read[output], ~read[output]
    result = dict(kept)
    for node in reversed(wiring.nodes):
        used, source = read[node] & fed[node], wiring.carried(node)
        if source is not None:
            read[source] = read[source] | used[: sizes[source]]
        for part in wiring.writers(node):
            needed = matrix(kept[part.kernel]) & used[None, :]
            sources = jnp.any(needed, axis=1).reshape(-1, sizes[part.reads])
            read[part.reads] = read[part.reads] | jnp.any(sources, axis=0)
            result |= {path: kept[path] & used for path in part.leaves if path != part.kernel}
            paths = needed & rows(fed[part.reads], kept[part.kernel])[:, None]
            result[part.kernel] = paths.reshape(kept[part.kernel].shape)
    return replace(mask, result)


def connected(mask: Mask, wiring: Wiring) -> jax.Array:
    """Whether some path of kept weights leads from an input to an output; bool [].

    >>> import plantjax as pj
    >>> mask = {"layer_00": {"kernel": jnp.array([[True, False]])}}
    >>> mask["layer_01"] = {"kernel": jnp.array([[False], [True]])}
    >>> bool(connected(mask, pj.nets.wirings.chain(mask)))
    False
    """
    fed = _fed(None, leaves(mask), wiring, channels(mask, wiring, "mask"))
    return jnp.any(fed[wiring.nodes[-1]])


def _fed(
    values: Mapping[str, jax.Array] | None,
    kept: Mapping[str, jax.Array],
    wiring: Wiring,
    sizes: Mapping[str, int],
) -> dict[str, jax.Array]:
    """For each node, which channels are reached from inputs and positive biases by kept weights.

    Biases count only if their values are given; a batch norm then makes all its channels reached.
    """
    fed = {INPUT: jnp.ones(sizes[INPUT], bool)}
    for node in wiring.nodes:
        source = wiring.carried(node)
        reached = jnp.zeros(sizes[node], bool)
        if source is not None:
            reached = reached.at[: sizes[source]].set(fed[source])
        for part in wiring.writers(node):
            paths = matrix(kept[part.kernel]) & rows(fed[part.reads], kept[part.kernel])[:, None]
            reached = reached | jnp.any(paths, axis=0)
            if values is not None and part.bias is not None:
                reached = reached | (kept[part.bias] & (values[part.bias] > 0))
            if values is not None and part.scale is not None:
                reached = jnp.ones_like(reached)
        fed[node] = reached
    return fed
