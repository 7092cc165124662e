"""Convolutional networks: VGG and ResNet as Flax modules, and as pure functions of parameters.

Parameters are `layer_00`, `layer_01`, ... in network order, `kernel` and `bias` each, and
`norm_00`, ... (`scale`, `bias`) where batch norm follows a layer; these are not prunable. Images
are NHWC and of any size: pools of size 2 halve it, rounding up, and the last layer reads the mean
over all pixels. A `Network` is the apply that planting and finders take, and knows its wiring.

Sources: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556; He et al. 2016,
https://arxiv.org/abs/1512.03385
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from plantjax import checks, nets
from plantjax.types import Apply, Key, Params
from plantjax.wirings import INPUT, Layer, Wiring

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
"""Channels and blocks of the stages, by depth; both for small images, with a 3 x 3 stem."""

SHORTCUTS = ("project", "pad")
DTYPES = ("float32", "bfloat16")
EPSILON = 1e-5
"""Added to the variances of batch norm."""


class _Net(nn.Module):
    """What VGG and ResNet share. Products are full float32, or bfloat16 but for the last layer."""

    n_out: int = 10
    batch_norm: bool = False
    dtype: str = "float32"

    def conv(
        self, x: jax.Array, index: int, width: int, frozen: bool, size: int = 3, stride: int = 1
    ) -> jax.Array:
        """Layer `index`, a convolution, and its batch norm."""
        dtype = jnp.dtype(self.dtype)
        x = nn.Conv(
            width,
            (size, size),
            stride,
            dtype=dtype,
            precision="highest",
            name=_name("layer", index),
        )(x)
        if not self.batch_norm:
            return x
        return nn.BatchNorm(
            frozen, momentum=0.0, epsilon=EPSILON, dtype=dtype, name=_name("norm", index)
        )(x)

    def head(self, x: jax.Array, index: int) -> jax.Array:
        """The last layer, of the mean over pixels."""
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.n_out, precision="highest", name=_name("layer", index))(x)

    def wire(self, index: int, reads: str, writes: str) -> Layer:
        """The layer `index` of `conv`."""
        name, norm = _name("layer", index), _name("norm", index)
        scales = (f"{norm}/scale", f"{norm}/bias") if self.batch_norm else ()
        return Layer(f"{name}/kernel", f"{name}/bias", reads, writes, *scales)


class VGG(_Net):
    """Blocks of 3 x 3 convolutions, a max pool after each but the last, and one dense layer."""

    blocks: Sequence[Sequence[int]] = VGGS[16]

    @nn.compact
    def __call__(self, x: jax.Array, frozen: bool = False) -> jax.Array:
        """Maps images [N, H, W, C] to outputs [N, O]; batch norm takes frozen statistics or x's."""
        index = 0
        for number, widths in enumerate(self.blocks):
            x = nn.max_pool(x, (2, 2), (2, 2), "SAME") if number else x
            for width in widths:
                x = nn.relu(self.conv(x, index, width, frozen))
                index += 1
        return self.head(x, index)

    def wiring(self) -> Wiring:
        """A chain."""
        count = sum(len(widths) for widths in self.blocks)
        nodes = [INPUT, *(f"{index:02d}" for index in range(count))]
        layers = [self.wire(i, *nodes[i : i + 2]) for i in range(count)]
        last = self.clone(batch_norm=False).wire(count, nodes[-1], "output")
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
        """Maps images [N, H, W, C] to outputs [N, O]; batch norm takes frozen statistics or x's."""
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
        """A stream, which blocks write or carry on."""
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
        last = self.clone(batch_norm=False).wire(len(layers), stream, "output")
        return Wiring((*layers, last), tuple(carries))

    def plan(self) -> list[tuple[int, int, bool]]:
        """Width and stride of every block, and whether it changes the shape of the stream."""
        firsts = [
            stage > 0 and block == 0
            for stage, (_, n) in enumerate(self.stages)
            for block in range(n)
        ]
        widths = [width for width, n in self.stages for _ in range(n)]
        return [
            (width, 2 if first else 1, first) for width, first in zip(widths, firsts, strict=True)
        ]


@dataclass(frozen=True)
class Network:
    """A network as an apply: `network(params, x [N, H, W, C]) -> outputs [N, O]`.

    Batch norm takes the statistics of x, as in training; `inference` gives the apply with others.
    """

    module: VGG | ResNet

    def __call__(self, params: Params, x: jax.Array) -> jax.Array:
        """Runs the network."""
        if not self.module.batch_norm:
            return self._run({"params": params}, x)
        return self._with_statistics(params, x)[0]

    @property
    def wiring(self) -> Wiring:
        """How its layers hang together."""
        return self.module.wiring()

    def prunable(self, path: str) -> bool:
        """Kernels and biases of layers are prunable, batch norms are not."""
        return path.startswith("layer_")

    def flow(self, params: Params, x: jax.Array) -> jax.Array:
        """Runs the network with statistics of mean 0 and variance 1, for SynFlow."""
        return self.inference(_fresh(params))(params, x)

    def inference(self, statistics: Params) -> Apply:
        """The apply with given statistics of the batch norms, as `statistics` returns them."""
        others = {"batch_stats": statistics} if self.module.batch_norm else {}
        return lambda params, x: self._run({"params": params, **others}, x, frozen=True)

    def statistics(self, params: Params, x: jax.Array, batch_size: int) -> Params:
        """Means and variances before the batch norms, averaged over batches.

        Args:
          params: of a network with batch norms.
          x: images [N, H, W, C]; the last partial batch is dropped.
          batch_size: 1 to N.

        Returns:
          {"norm_00": {"mean": [O], "var": [O]}, ...}.

        Raises:
          ValueError: if batch_size is out of range.
        """
        checks.integer("batch_size", batch_size, 1, x.shape[0])
        count = x.shape[0] // batch_size
        batches = x[: count * batch_size].reshape(count, batch_size, *x.shape[1:])
        seen = jax.lax.map(lambda batch: self._with_statistics(params, batch)[1], batches)
        return jax.tree.map(lambda values: jnp.mean(values, axis=0), seen)

    def init(
        self, key: Key, image: Sequence[int], scheme: str = "he", bias_scale: float = 1.0
    ) -> Params:
        """Draws parameters as `nets.init` does, with fan-in kh kw I.

        Args:
          key: consumed.
          image: the shape (H, W, C) of the inputs.
          scheme: as in `nets.init`. The product of a layer's biases is over the shortest way from
            the input to it.
          bias_scale: factor of all biases; the paper has 0.06 for VGG16.

        Returns:
          Params, float32; batch norms have scale 1 and bias 0.

        Raises:
          ValueError: if image has not three positive sizes, or the scheme is unknown.
        """
        checks.choice("scheme", scheme, nets.SCHEMES)
        if len(image) != 3:
            raise ValueError(f"image must be (H, W, C), got {tuple(image)}.")
        for side in image:
            checks.integer("image", side, 1)
        x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), x)["params"]
        sizes = _sizes(shapes, self.wiring, scheme)
        flat = [shapes[name][leaf].shape for name in sizes for leaf in ("kernel", "bias")]
        draws = iter(nets.draw(key, flat, uniform=scheme == "uniform"))
        params = {}
        for name, (kernel_size, bias_size) in sizes.items():
            kernel, bias = next(draws), next(draws)
            zero = scheme == "he_zero_bias"
            params[name] = {
                "kernel": kernel_size * kernel,
                "bias": jnp.zeros_like(bias) if zero else bias_scale * bias_size * bias,
            }
        for name in set(shapes) - set(sizes):
            shape = shapes[name]["scale"].shape
            params[name] = {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}
        return params

    def _with_statistics(self, params: Params, x: jax.Array) -> tuple[jax.Array, Params]:
        variables = {"params": params, "batch_stats": _fresh(params)}
        outputs, seen = self._run(variables, x, mutable=["batch_stats"])
        return outputs, seen["batch_stats"]

    def _run(self, variables: Params, x: jax.Array, **options: Any) -> Any:
        return self.module.apply(variables, x, **options)


def vgg(
    depth: int,
    width: float = 1.0,
    *,
    n_out: int = 10,
    batch_norm: bool = False,
    dtype: str = "float32",
) -> Network:
    """VGG11, 13, 16 or 19 for small images.

    Args:
      depth: in `VGGS`.
      width: multiplies all channels; at least one is left.
      n_out: number of outputs O.
      batch_norm: after every convolution.
      dtype: "float32" or "bfloat16", of the computation; parameters and outputs are float32.

    Returns:
      A Network.

    Raises:
      ValueError: if depth or dtype is unknown, or a number is out of range.

    >>> import jax
    >>> network = vgg(11, width=0.125)
    >>> params = network.init(jax.random.key(0), (32, 32, 3))
    >>> network(params, jax.numpy.zeros((2, 32, 32, 3))).shape
    (2, 10)
    """
    _check(depth, VGGS, width, n_out, dtype)
    blocks = tuple(tuple(_times(width, channels) for channels in block) for block in VGGS[depth])
    return Network(VGG(n_out, batch_norm, dtype, blocks))


def resnet(
    depth: int,
    width: float = 1.0,
    *,
    n_out: int = 10,
    batch_norm: bool = False,
    dtype: str = "float32",
    shortcut: str | None = None,
) -> Network:
    """ResNet20 or 18 for small images.

    Args:
      depth: in `RESNETS`.
      width: multiplies all channels; at least one is left.
      n_out: number of outputs O.
      batch_norm: after every convolution.
      dtype: as in `vgg`.
      shortcut: "pad" (the default of 20) or "project" (that of 18).

    Returns:
      A Network.

    Raises:
      ValueError: if depth, dtype or shortcut is unknown, or a number is out of range.
    """
    _check(depth, RESNETS, width, n_out, dtype)
    shortcut = shortcut or ("pad" if depth == 20 else "project")
    checks.choice("shortcut", shortcut, SHORTCUTS)
    stages = tuple((_times(width, channels), blocks) for channels, blocks in RESNETS[depth])
    return Network(ResNet(n_out, batch_norm, dtype, stages, shortcut))


def fold(params: Params, statistics: Params) -> Params:
    """Folds batch norms into the layers before them.

    kernel g / sqrt(v + eps) and beta + (b - mean) g / sqrt(v + eps), for any sign of g. Mask the
    params first: a zero stays zero in a kernel, but not in a bias.

    Args:
      params: of a network with batch norms.
      statistics: as `Network.statistics` returns them.

    Returns:
      Params of the same network without batch norm; its outputs are those of `inference`.

    Raises:
      ValueError: if a norm has no statistics.
    """
    folded = {}
    for name in (name for name in params if name.startswith("layer_")):
        layer, norm = params[name], name.replace("layer", "norm")
        if norm in params:
            if norm not in statistics:
                raise ValueError(f"statistics must hold {norm}, got {sorted(statistics)}.")
            seen = statistics[norm]
            gain = params[norm]["scale"] / jnp.sqrt(seen["var"] + EPSILON)
            bias = params[norm]["bias"] + (layer["bias"] - seen["mean"]) * gain
            layer = {"kernel": layer["kernel"] * gain[None, None, None, :], "bias": bias}
        folded[name] = dict(layer)
    return folded


def _name(kind: str, index: int) -> str:
    return nets.layer_name(index).replace("layer", kind)


def _fresh(params: Params) -> Params:
    """Statistics of mean 0 and variance 1 for all norms."""
    scales = {name: part["scale"] for name, part in params.items() if name.startswith("norm_")}
    return {
        name: {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}
        for name, scale in scales.items()
    }


def _sizes(shapes: Any, wiring: Wiring, scheme: str) -> dict[str, tuple[float, float]]:
    """Sizes of the kernel and the bias of every layer, in network order."""
    sizes, reached = {}, {INPUT: 1.0}
    for layer in wiring.layers:
        *window, _ = shapes[layer.name]["kernel"].shape
        kernel = nets.kernel_size(window, scheme)
        bias = reached[layer.reads] * kernel
        sizes[layer.name] = (kernel, bias)
        carried = wiring.carried(layer.writes)
        others = reached.get(layer.writes, 0.0)
        reached[layer.writes] = reached[carried] if carried else max(bias, others)
    return sizes


def _times(width: float, channels: int) -> int:
    return max(1, round(width * channels))


def _check(depth: int, known: Any, width: float, n_out: int, dtype: str) -> None:
    if depth not in known:
        raise ValueError(f"depth must be one of {', '.join(map(str, known))}, got {depth!r}.")
    checks.positive("width", width)
    checks.integer("n_out", n_out, 1)
    checks.choice("dtype", dtype, DTYPES)
