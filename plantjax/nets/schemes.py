"""Schemes of initialisation: from standard draws to the kernel and the bias of one layer.

All but "uniform" have He's root mean square; they differ in how the entries of a kernel depend on
each other.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

SCHEMES = ("he", "he_zero_bias", "uniform", "orthogonal", "looks_linear")


def kernel_size(window: Sequence[int], scheme: str) -> float:
    """Root mean square of a kernel [*window, O], or for "uniform" the bound of its entries.

    >>> kernel_size((8,), "he"), kernel_size((3, 3, 16), "he") == (2 / 144) ** 0.5
    (0.5, True)
    """
    return float(((6.0 if scheme == "uniform" else 2.0) / math.prod(window)) ** 0.5)


def kernel(drawn: jax.Array, scheme: str, first: bool, last: bool) -> jax.Array:
    """The kernel of a layer, from standard draws of its shape.

    Args:
      drawn: [*window, O] of N(0, 1), or of U[-1, 1] for "uniform".
      scheme: one of SCHEMES. "orthogonal": rows or columns of the matrix [I, O] (or [kh kw I, O])
        are orthogonal, whichever are fewer. "looks_linear": units 2 a and 2 a + 1 are opposites,
        K[2 a + s, 2 b + t] = (-1)^(s + t) M[a, b] with an orthogonal M, so that a chain without
        biases is linear at first. With an odd number of units the last one has no partner.
      first: whether the layer reads the inputs, which are no pairs.
      last: whether it writes the outputs, which are no pairs.

    Returns:
      A kernel of the same shape.

    Source: Saxe et al. 2014, https://arxiv.org/abs/1312.6120 (orthogonal); Balduzzi et al. 2017,
    section 3, https://arxiv.org/abs/1702.08591 (looks-linear); Burkholz and Dubatovka 2019,
    https://arxiv.org/abs/1806.06362, for both together. They scale first and last layers
    differently; here He's scale keeps mothers of all schemes alike.

    >>> import jax, jax.numpy as jnp
    >>> k = kernel(jax.random.normal(jax.random.key(0), (6, 6)), "orthogonal", False, False)
    >>> bool(jnp.allclose(k.T @ k, 2 * jnp.eye(6), atol=1e-5))
    True
    """
    size = kernel_size(drawn.shape[:-1], scheme)
    if scheme == "orthogonal":
        return size * _orthogonal(drawn)
    if scheme != "looks_linear":
        return size * drawn
    n_in, n_out = drawn.shape[-2:]
    ins, outs = n_in if first else -(-n_in // 2), n_out if last else -(-n_out // 2)
    whole = _orthogonal(drawn[..., :ins, :outs])
    for axis, paired in ((-2, not first), (-1, not last)):
        if paired:
            whole = _mirrored(whole, axis)
    return size * whole[..., :n_in, :n_out]


def bias(drawn: jax.Array, scheme: str, size: float, last: bool) -> jax.Array:
    """The bias of a layer, from standard draws [O]; opposite units have opposite biases.

    >>> import jax.numpy as jnp
    >>> bias(jnp.array([1.0, 9.0, 2.0]), "looks_linear", 0.5, False).tolist()
    [0.5, -0.5, 4.5]
    """
    if scheme == "he_zero_bias":
        return jnp.zeros_like(drawn)
    if scheme == "looks_linear" and not last:
        drawn = _mirrored(drawn[: -(-drawn.size // 2)], 0)[: drawn.size]
    return size * drawn


def _mirrored(array: jax.Array, axis: int) -> jax.Array:
    """Each entry along an axis, followed by its negative."""
    axis = axis % array.ndim
    shape = list(array.shape)
    shape[axis] *= 2
    return jnp.reshape(jnp.stack([array, -array], axis + 1), shape)


def _orthogonal(drawn: jax.Array) -> jax.Array:
    """An orthogonal matrix from a normal one, scaled to a root mean square of 1."""
    matrix = jnp.reshape(drawn, (-1, drawn.shape[-1]))
    wide = matrix.shape[0] < matrix.shape[1]
    q, r = jnp.linalg.qr(matrix.T if wide else matrix)
    q = q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)[None, :]  # makes it uniformly distributed
    return jnp.reshape((q.T if wide else q) * max(matrix.shape) ** 0.5, drawn.shape)
