"""Convolutions as matrix products of patches, which is many times faster in loops on CPUs.

In a scan, XLA's CPU backend runs convolutions and their gradients far below the speed of its matrix
products. Under vmap over kernels this becomes a batch of products instead of a grouped convolution.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def by_patches(
    x: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str,
    *,
    precision: Any = None,
    **others: Any,
) -> jax.Array:
    """Convolves like `jax.lax.conv_general_dilated`, up to rounding.

    Args:
      x: images [N, H, W, I].
      kernel: [kh, kw, I, O].
      window_strides: two positive numbers.
      padding: "SAME".
      precision: precision of the matrix product.
      **others: further arguments that Flax passes; groups and dilations must be 1.

    Returns:
      Images [N, H', W', O], H' = ceil(H / stride).

    Raises:
      ValueError: for any other padding, groups or dilations.

    >>> import jax.numpy as jnp
    >>> image, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> by_patches(image, kernel, (1, 1), "SAME")[0, 0, :, 0].tolist()
    [4.0, 6.0, 6.0, 4.0]
    """
    dilations = {*(others.get("lhs_dilation") or ()), *(others.get("rhs_dilation") or ())}
    if padding != "SAME" or others.get("feature_group_count", 1) != 1 or dilations - {1}:
        raise ValueError(f"padding must be 'SAME', without groups or dilation, got {padding!r}.")
    high, wide = (
        _Axis(size, taps, stride)
        for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], window_strides, strict=True)
    )
    padded = jnp.pad(x, ((0, 0), high.edges, wide.edges, (0, 0)))
    lines = jnp.concatenate([padded[:, :, wide.reach(j)] for j in wide.seen], axis=-1)
    patches = jnp.concatenate([lines[:, high.reach(i)] for i in high.seen], axis=-1)
    matrix = kernel[high.window, wide.window].reshape(-1, kernel.shape[-1])
    outputs = jnp.matmul(patches.reshape(-1, matrix.shape[0]), matrix, precision=precision)
    return outputs.reshape(x.shape[0], high.outputs, wide.outputs, -1)


class _Axis:
    """One axis of an image under a window: its padding, and the pixels that each tap sees."""

    def __init__(self, size: int, taps: int, stride: int) -> None:
        self.outputs, self.stride = -(-size // stride), stride
        missing = max((self.outputs - 1) * stride + taps - size, 0)
        before = missing // 2
        self.edges = (before, missing - before)
        last = (self.outputs - 1) * stride
        # taps that see only padding contribute nothing
        self.seen = [tap for tap in range(taps) if tap - before < size and tap + last >= before]
        self.window = slice(self.seen[0], self.seen[-1] + 1)

    def reach(self, tap: int) -> slice:
        """The pixels that a tap sees, one for each output."""
        return slice(tap, tap + (self.outputs - 1) * self.stride + 1, self.stride)
