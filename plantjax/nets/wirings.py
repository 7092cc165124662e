"""Wirings: how the layers of a parameter tree connect, as a graph of channel groups.

A node is a group of channels: the input, a hidden activation after its ReLU, or the output. A layer
reads one node and writes one. Everything written into a hidden node is summed before its ReLU,

    node = relu(sum of the layers that write it + the node that it carries),

so wirings describe chains as well as residual networks. A node carries another one if an identity
shortcut adds it, possibly padded with zeros to more channels; a projection shortcut is an ordinary
layer. Pools, strides, padding and flattening do not mix channels and need not be described.
All properties of channels follow from the wiring: whether they are live, where a channel of the
target is planted, and by which factor it is scaled.

The kernel [kh, kw, I, O] of a convolution is used as the matrix [kh kw I, O]. Its rows repeat the
channels, as do those of a dense layer after a flattened image [H, W, C], with index
(h W + w) C + c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.nets import chains
from plantjax.types import Apply, Params

INPUT = "input"


class Layer(NamedTuple):
    """A convolution or dense layer; its leaves are given by their paths, as "layer_00/kernel"."""

    kernel: str
    bias: str | None
    reads: str
    writes: str
    scale: str | None = None  # of the batch norm that follows, if any
    shift: str | None = None

    @property
    def name(self) -> str:
        """The name for messages, `layer_00` for the kernel `layer_00/kernel`."""
        return self.kernel.removesuffix("/kernel")

    @property
    def leaves(self) -> tuple[str, ...]:
        """The paths of all parameters of the layer."""
        paths = (self.kernel, self.bias, self.scale, self.shift)
        return tuple(path for path in paths if path is not None)


@dataclass(frozen=True)
class Wiring:
    """Topologically sorted layers, plus identity shortcuts.

    Attributes:
      layers: sorted so that each node except "input" is written before it is read; the node that
        is complete last is the output.
      carries: pairs (node, carried node): the channels of the carried node are added to the first
        channels of the node.

    A block with an identity shortcut, between two other layers:

    >>> block = Wiring(
    ...     layers=(
    ...         layer("layer_00", INPUT, "stem"),
    ...         layer("layer_01", "stem", "inner"),
    ...         layer("layer_02", "inner", "block"),
    ...         layer("layer_03", "block", "output"),
    ...     ),
    ...     carries=(("block", "stem"),),
    ... )
    >>> block.nodes
    ('stem', 'inner', 'block', 'output')
    """

    layers: tuple[Layer, ...]
    carries: tuple[tuple[str, str], ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes except the input, in the order in which they are completed."""
        last = {layer.writes: index for index, layer in enumerate(self.layers)}
        return tuple(sorted(last, key=lambda node: last[node]))

    def writers(self, node: str) -> tuple[Layer, ...]:
        """The layers that write the node."""
        return tuple(layer for layer in self.layers if layer.writes == node)

    def carried(self, node: str) -> str | None:
        """The node that an identity shortcut adds to this one, if any."""
        return dict(self.carries).get(node)


def layer(name: str, reads: str, writes: str) -> Layer:
    """A layer with the parameters `name/kernel` and `name/bias`.

    >>> layer("layer_03", reads="stem", writes="inner").leaves
    ('layer_03/kernel', 'layer_03/bias')
    """
    return Layer(f"{name}/kernel", f"{name}/bias", reads, writes)


def chain(params: Params, names: Sequence[str] | None = None) -> Wiring:
    """The wiring of a chain, in which each layer reads the output of the one before.

    Args:
      params: tree of layers, each with `kernel` [I, O] or [..., I, O], and optionally `bias` [O].
      names: the layers' paths in network order; by default in natural order.

    Returns:
      A Wiring.

    Raises:
      ValueError: if params is not a chain.

    >>> import jax.numpy as jnp
    >>> image = {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)}
    >>> flat = {"kernel": jnp.ones((4 * 4 * 8, 10)), "bias": jnp.ones(10)}
    >>> [layer.name for layer in chain({"layer_00": image, "layer_01": flat}).layers]
    ['layer_00', 'layer_01']
    """
    found = leaves(params)
    if names is None:
        names = sorted({path.rpartition("/")[0] for path in found}, key=checks.natural)
    nodes = [INPUT, *(str(index + 1) for index in range(len(names)))]
    layers = []
    for name, reads, writes in zip(names, nodes[:-1], nodes[1:], strict=True):
        part = layer(name, reads, writes)
        layers.append(part if part.bias in found else part._replace(bias=None))
    wiring = Wiring(tuple(layers))
    try:
        channels(params, wiring)
    except ValueError as error:
        raise ValueError(
            "params must be a chain of dense layers or convolutions, {'layer_00': {'kernel': "
            "[I, O] or [kh, kw, I, O], 'bias': [O]}, ...}, or come with its wiring, got "
            f"{checks.shapes(params)}: {error}"
        ) from None
    return wiring


def of(apply: Apply, params: Params) -> Wiring | None:
    """The attribute `wiring` of the network, that of a chain for `nets.apply`, else None.

    Shapes that fit a chain do not make one: any other function may have shortcuts.
    """
    wiring: Wiring | None = getattr(apply, "wiring", None)
    if wiring is None and apply is chains.apply and chains.is_chain(params):
        return chain(params)
    return wiring


def channels(params: Params, wiring: Wiring, tree: str = "params") -> dict[str, int]:
    """The number of channels of each node, the input first.

    Args:
      params: any tree.
      wiring: its wiring.
      tree: name of params in error messages.

    Raises:
      ValueError: if the wiring reads a node before it is written, does not name each leaf of params
        exactly once, or the shapes of the leaves do not match.
    """
    found = leaves(params)
    _check_order(wiring)
    _check_paths(found, wiring, tree)
    sizes = {INPUT: _inputs(found, wiring)}
    images = {INPUT}  # nodes that a dense layer may read after flattening
    for node in wiring.nodes:
        writers, source = wiring.writers(node), wiring.carried(node)
        width = jnp.shape(found[writers[0].kernel])[-1]
        if source is not None and sizes[source] > width:
            raise ValueError(
                f"node {node} must have the {sizes[source]} channels of {source}, got {width}."
            )
        for part in writers:
            shape = jnp.shape(found[part.kernel])
            need = sizes[part.reads]
            flat = len(shape) == 2 and part.reads in images and shape[0] % need == 0
            if not (shape[-2] == need or flat):
                raise ValueError(
                    f"{tree}[{part.kernel}] must read {need} channels, got shape {shape}."
                )
            for path in part.leaves:
                wanted = (*shape[:-1], width) if path == part.kernel else (width,)
                if jnp.shape(found[path]) != wanted:
                    raise ValueError(
                        f"{tree}[{path}] must have shape {wanted}, got {jnp.shape(found[path])}."
                    )
        sizes[node] = width
        if source in images or any(jnp.ndim(found[part.kernel]) > 2 for part in writers):
            images.add(node)
    return sizes


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree, by path.

    >>> leaves({"layer_00": {"kernel": 1.0, "bias": 2.0}})
    {'layer_00/bias': 2.0, 'layer_00/kernel': 1.0}
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {checks.path_name(path): leaf for path, leaf in pairs}


def replace(tree: Any, values: Mapping[str, Any]) -> Any:
    """The tree with the leaves at these paths replaced."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: values.get(checks.path_name(path), leaf), tree
    )


def matrix(kernel: jax.Array) -> jax.Array:
    """A kernel [..., I, O] as the matrix [rows, O] that multiplies patches."""
    return kernel if kernel.ndim == 2 else kernel.reshape(-1, kernel.shape[-1])


def rows(per_channel: jax.Array, kernel: jax.Array) -> jax.Array:
    """Repeats numbers per channel [C], so that there is one for each row of the kernel's matrix."""
    times = int(np.prod(kernel.shape[:-1])) // per_channel.size
    return per_channel if times == 1 else jnp.tile(per_channel, times)


def _check_order(wiring: Wiring) -> None:
    nodes = wiring.nodes
    sources = [source for _, source in wiring.carries]
    if not nodes:
        raise ValueError("a wiring must have at least one layer, got none.")
    last = {part.writes: index for index, part in enumerate(wiring.layers)}
    for index, part in enumerate(wiring.layers):
        if part.reads != INPUT and last.get(part.reads, index) >= index:
            raise ValueError(f"{part.name} reads {part.reads}, which is not written before it.")
    if INPUT in nodes or nodes[-1] in (*sources, *[part.reads for part in wiring.layers]):
        raise ValueError(f"the last node, {nodes[-1]}, must be the output, and never read.")
    for node, source in wiring.carries:
        if node not in nodes or source not in (INPUT, *nodes[: nodes.index(node)]):
            raise ValueError(f"{node} carries {source}, which is not written before it.")
        if node == nodes[-1]:
            raise ValueError(f"the output {node} must not carry {source}: it is matched in place.")


def _check_paths(found: Mapping[str, Any], wiring: Wiring, tree: str) -> None:
    named = [path for part in wiring.layers for path in part.leaves]
    for path in named:
        if path not in found:
            raise ValueError(f"{tree} must have the leaf {path} that the wiring names.")
    if sorted(named) != sorted(found):
        odd = sorted(set(found) - set(named)) or [p for p in named if named.count(p) > 1]
        raise ValueError(f"the wiring must name every leaf of {tree} once, but not {odd[0]}.")
    for part in wiring.layers:
        if jnp.ndim(found[part.kernel]) < 2:
            raise ValueError(f"{tree}[{part.kernel}] must be a kernel of two axes or more.")


def _inputs(found: Mapping[str, Any], wiring: Wiring) -> int:
    """Channels of the input, as read by convolutions, or by dense layers if there are none."""
    readers = [jnp.shape(found[part.kernel]) for part in wiring.layers if part.reads == INPUT]
    if not readers:
        raise ValueError("a layer must read the input.")
    return max(readers, key=len)[-2]
