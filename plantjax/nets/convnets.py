"""Convolutional networks: VGG and ResNet as Flax modules and as pure functions of parameters.

Parameters are `layer_00`, `layer_01`, ... in network order, each with `kernel` and `bias`, and
`norm_00`, ... (`scale` and `bias`, not prunable) where batch norm follows a layer. Images are NHWC
and of any size: pools halve it, rounding up, and the last layer reads the mean over all pixels. A
`Network` is the function that planting and finders take; it knows its wiring.

Sources: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556; He et al. 2016,
https://arxiv.org/abs/1512.03385
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.nets import chains
from plantjax.nets.batch_norm import EPSILON, Network, fold
from plantjax.nets.patches import by_patches
from plantjax.nets.wirings import INPUT, Layer, Wiring, layer

__all__ = ["RESNETS", "SHORTCUTS", "VGG", "VGGS", "Network", "ResNet", "fold", "resnet", "vgg"]

VGGS = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}
"""Channels of the convolutions between the pools, by depth."""

RESNETS = {
    18: ((64, 2), (128, 2), (256, 2), (512, 2)),
    20: ((16, 3), (32, 3), (64, 3)),
}
"""(channels, blocks) of the stages, by depth; both are for small images, with a 3 x 3 stem."""

SHORTCUTS = ("project", "pad")
DTYPES = ("float32", "bfloat16")
CONVOLUTIONS = {"direct": None, "patches": by_patches}
"""Implementations of convolutions: XLA's own, or matrix products, which are faster on a CPU."""


class _Net(nn.Module):
    """Base of VGG and ResNet, in full float32, or in bfloat16 except for the last layer."""

    n_out: int = 10
    batch_norm: bool = False
    dtype: str = "float32"
    convolution: str = "direct"

    def conv(
        self, x: jax.Array, index: int, width: int, frozen: bool, size: int = 3, stride: int = 1
    ) -> jax.Array:
        """Layer `index`: a convolution, with its batch norm if there is one."""
        dtype = jnp.dtype(self.dtype)
        x = nn.Conv(
            width,
            (size, size),
            stride,
            dtype=dtype,
            precision="highest",
            conv_general_dilated=CONVOLUTIONS[self.convolution],
            name=_name("layer", index),
        )(x)
        if not self.batch_norm:
            return x
        return nn.BatchNorm(
            frozen, momentum=0.0, epsilon=EPSILON, dtype=dtype, name=_name("norm", index)
        )(x)

    def head(self, x: jax.Array, index: int) -> jax.Array:
        """The last layer: a dense layer on the mean over pixels."""
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.n_out, precision="highest", name=_name("layer", index))(x)

    def wire(self, index: int, reads: str, writes: str) -> Layer:
        """Layer `index` of the wiring, with its batch norm if it is a convolution."""
        part, norm = layer(_name("layer", index), reads, writes), _name("norm", index)
        if writes == "output" or not self.batch_norm:
            return part
        return part._replace(scale=f"{norm}/scale", shift=f"{norm}/bias")


class VGG(_Net):
    """Blocks of 3 x 3 convolutions, a max pool after each but the last, and one dense layer."""

    blocks: Sequence[Sequence[int]] = VGGS[16]

    @nn.compact
    def __call__(self, x: jax.Array, frozen: bool = False) -> jax.Array:
        """Maps images [N, H, W, C] to outputs [N, O]; `frozen` batch norms use given statistics."""
        index = 0
        for number, widths in enumerate(self.blocks):
            x = nn.max_pool(x, (2, 2), (2, 2), "SAME") if number else x
            for width in widths:
                x = nn.relu(self.conv(x, index, width, frozen))
                index += 1
        return self.head(x, index)

    def fitted(self, params: Any) -> "VGG":
        """The same module with the channel numbers of params."""
        kernels = iter(layer["kernel"] for layer in map(params.get, chains.ordered(params)))
        blocks = tuple(tuple(next(kernels).shape[-1] for _ in block) for block in self.blocks)
        return self.clone(blocks=blocks)

    def wiring(self) -> Wiring:
        """The wiring of a chain."""
        count = sum(len(widths) for widths in self.blocks)
        nodes = [INPUT, *(f"{index:02d}" for index in range(count))]
        layers = [self.wire(i, *nodes[i : i + 2]) for i in range(count)]
        last = self.wire(count, nodes[-1], "output")
        return Wiring((*layers, last))


class ResNet(_Net):
    """Stages of residual blocks; all but the first halve the image and widen the stream.

    A block is relu(shortcut(x) + conv(relu(conv(x)))). Where the shape changes, the shortcut is a
    1 x 1 convolution ("project") or every second pixel, padded with channels of zeros ("pad").
    """

    stages: Sequence[tuple[int, int]] = RESNETS[20]
    shortcut: str = "pad"

    @nn.compact
    def __call__(self, x: jax.Array, frozen: bool = False) -> jax.Array:
        """Maps images [N, H, W, C] to outputs [N, O]; `frozen` batch norms use given statistics."""
        x = nn.relu(self.conv(x, 0, self.stages[0][0], frozen))
        index = 1
        for width, stride, changes in self.plan():
            inner = nn.relu(self.conv(x, index, width, frozen, stride=stride))
            added = self.conv(inner, index + 1, width, frozen)
            index += 2
            if changes and self.shortcut == "project":
                x = self.conv(x, index, width, frozen, size=1, stride=stride)
                index += 1
            elif changes:
                x = x[:, ::stride, ::stride, :]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - x.shape[3])))
            x = nn.relu(x + added)
        return self.head(x, index)

    def wiring(self) -> Wiring:
        """The wiring of a residual stream, to which blocks add."""
        layers, carries = [self.wire(0, INPUT, "00")], []
        stream = "00"
        for _, _, changes in self.plan():
            index = len(layers)
            inner, block = f"{index:02d}", f"{index + 1:02d}"
            layers += [self.wire(index, stream, inner), self.wire(index + 1, inner, block)]
            if changes and self.shortcut == "project":
                layers.append(self.wire(index + 2, stream, block))
            else:
                carries.append((block, stream))
            stream = block
        last = self.wire(len(layers), stream, "output")
        return Wiring((*layers, last), tuple(carries))

    def plan(self) -> list[tuple[int, int, bool]]:
        """(width, stride, whether the shape of the stream changes) of each block."""
        firsts = [
            stage > 0 and block == 0
            for stage, (_, n) in enumerate(self.stages)
            for block in range(n)
        ]
        widths = [width for width, n in self.stages for _ in range(n)]
        return [
            (width, 2 if first else 1, first) for width, first in zip(widths, firsts, strict=True)
        ]


def vgg(
    depth: int,
    width: float = 1.0,
    *,
    n_out: int = 10,
    batch_norm: bool = False,
    dtype: str = "float32",
    convolution: str = "direct",
) -> Network:
    """VGG11, 13, 16 or 19 for small images.

    Args:
      depth: in `VGGS`.
      width: factor of all channel numbers, each at least 1.
      n_out: number of outputs O.
      batch_norm: whether a batch norm follows each convolution.
      dtype: "float32" or "bfloat16", for the computation; parameters and outputs are float32.
      convolution: "direct", or "patches", which is faster on a CPU (`patches.by_patches`).

    Returns:
      A Network.

    Raises:
      ValueError: if depth, dtype or convolution is unknown, or a number is out of range.

    >>> network = vgg(11, width=0.125)
    >>> params = jax.eval_shape(lambda: network.init(jax.random.key(0), (32, 32, 3)))
    >>> jax.eval_shape(network, params, jnp.zeros((2, 32, 32, 3))).shape
    (2, 10)
    """
    _check(depth, VGGS, width, n_out, dtype, convolution)
    blocks = tuple(tuple(_times(width, channels) for channels in block) for block in VGGS[depth])
    return Network(VGG(n_out, batch_norm, dtype, convolution, blocks))


def resnet(
    depth: int,
    width: float = 1.0,
    *,
    n_out: int = 10,
    batch_norm: bool = False,
    dtype: str = "float32",
    convolution: str = "direct",
    shortcut: str | None = None,
) -> Network:
    """ResNet20 or 18 for small images.

    Args:
      depth: in `RESNETS`.
      width: factor of all channel numbers, each at least 1.
      n_out: number of outputs O.
      batch_norm: whether a batch norm follows each convolution.
      dtype: as in `vgg`.
      convolution: as in `vgg`.
      shortcut: "pad" (the default for ResNet20) or "project" (the default for ResNet18).

    Returns:
      A Network.

    Raises:
      ValueError: if depth, dtype, convolution or shortcut is unknown, or a number is out of range.

    >>> import jax, plantjax as pj
    >>> network = pj.nets.resnet(20, width=0.25)
    >>> len(network.wiring.layers), network.wiring.nodes[:3]
    (20, ('00', '01', '02'))
    """
    _check(depth, RESNETS, width, n_out, dtype, convolution)
    shortcut = shortcut or ("pad" if depth == 20 else "project")
    checks.choice("shortcut", shortcut, SHORTCUTS)
    stages = tuple((_times(width, channels), blocks) for channels, blocks in RESNETS[depth])
    return Network(ResNet(n_out, batch_norm, dtype, convolution, stages, shortcut))


def _name(kind: str, index: int) -> str:
    return chains.layer_name(index).replace("layer", kind)


def _times(width: float, channels: int) -> int:
    return max(1, round(width * channels))


def _check(depth: int, known: Any, width: float, n_out: int, dtype: str, convolution: str) -> None:
    if depth not in known:
        raise ValueError(f"depth must be one of {', '.join(map(str, known))}, got {depth!r}.")
    checks.positive("width", width)
    checks.integer("n_out", n_out, 1)
    checks.choice("dtype", dtype, DTYPES)
    checks.choice("convolution", convolution, CONVOLUTIONS)
