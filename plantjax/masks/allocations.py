"""Allocations: how many parameters each layer keeps, from shapes and a traced density alone.

`ALLOCATIONS[name](params, density)` returns counts int32 [L] in the order of the layers, for the
scope "oracle" of `masks.select`. They sum to its k exactly, and none exceeds the size of its layer.
A layer consists of the arrays with the same parent path, so biases get the density of their layer.
"""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.masks import groups
from plantjax.masks.counts import apportion, number_kept
from plantjax.types import Params, Prunable

_TOTAL = 1 << 28  # shares become integers with about this sum; twice the sum fits into 32 bits
_BISECTIONS = 60


def uniform(params: Params, density: chex.Numeric, prunable: Prunable | None = None) -> jax.Array:
    """Uniform: the same density in every layer.

    Args:
      params: a pytree of arrays.
      density: in (0, 1]; may be traced.
      prunable: predicate on leaf paths; layers without prunable leaves get no count.

    Returns:
      Counts int32 [L].

    Raises:
      ValueError: if a (concrete) density is outside (0, 1].

    Source: baseline, as in Evci et al. 2020, section 3, https://arxiv.org/abs/1911.11134, where the
    first layer stays dense; here it does not.

    >>> import jax, plantjax as pj
    >>> params = pj.nets.init(jax.random.key(0), (2, 20, 20, 1))  # layers of 60, 420 and 21
    >>> jax.jit(pj.masks.uniform)(params, 0.2).tolist()
    [12, 84, 4]
    """
    sizes, _ = _layers(params, density, prunable)
    return apportion(jnp.asarray(sizes, jnp.int32), sizes, number_kept(density, sum(sizes)))


def erk(params: Params, density: chex.Numeric, prunable: Prunable | None = None) -> jax.Array:
    """Erdos-Renyi-kernel: d_l = c sum(shape_l) / prod(shape_l), for kernels of shape shape_l.

    Layers whose density would exceed 1 are kept entirely, and c is solved for the others.

    Args:
      params: a pytree of arrays; the kernel of a layer is its largest array.
      density: in (0, 1]; may be traced.
      prunable: predicate on leaf paths; layers without prunable leaves get no count.

    Returns:
      Counts int32 [L].

    Raises:
      ValueError: if a (concrete) density is outside (0, 1].

    Source: Evci et al. 2020, section 3, https://arxiv.org/abs/1911.11134; for dense layers Mocanu
    et al. 2018, https://arxiv.org/abs/1707.04780.

    >>> import jax, plantjax as pj
    >>> params = pj.nets.init(jax.random.key(0), (2, 20, 20, 1))  # layers of 60, 420 and 21
    >>> jax.jit(pj.masks.erk)(params, 0.2).tolist()
    [35, 44, 21]
    """
    sizes, kernels = _layers(params, density, prunable)
    raw = [sum(kernel) / math.prod(kernel) for kernel in kernels]
    shares = _rounded([r * n for r, n in zip(raw, sizes, strict=True)])
    return apportion(shares, sizes, number_kept(density, sum(sizes)))


def igq(params: Params, density: chex.Numeric, prunable: Prunable | None = None) -> jax.Array:
    """Ideal gas quotas: d_l = 1 / (F n_l + 1), n_l the size of the layer; F >= 0 is solved for.

    Args:
      params: a pytree of arrays.
      density: in (0, 1]; may be traced.
      prunable: predicate on leaf paths; layers without prunable leaves get no count.

    Returns:
      Counts int32 [L].

    Raises:
      ValueError: if a (concrete) density is outside (0, 1].

    Source: Vysogorets and Kempe 2021, section 5, https://arxiv.org/abs/2107.02306. There n_l counts
    only weights, here also biases.

    >>> import jax, plantjax as pj
    >>> params = pj.nets.init(jax.random.key(0), (2, 20, 20, 1))  # layers of 60, 420 and 21
    >>> jax.jit(pj.masks.igq)(params, 0.2).tolist()
    [30, 54, 16]
    """
    sizes, _ = _layers(params, density, prunable)
    k = number_kept(density, sum(sizes))
    n = jnp.asarray(sizes, jnp.float32)

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # logarithms of F n_max
        middle = (low + high) / 2
        enough = jnp.sum(_quotas(middle, n)) >= k.astype(jnp.float32)
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    ends = jnp.float32(-30.0), jnp.float32(30.0 + math.log(sum(sizes)))
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, ends)
    kept = _quotas(low, n)
    shares = (kept / jnp.sum(kept) * _TOTAL).astype(jnp.int32)
    return apportion(shares, sizes, k)


def smart_ratio(
    params: Params,
    density: chex.Numeric,
    prunable: Prunable | None = None,
    *,
    last: float = 0.3,
    by_square: bool = False,
) -> jax.Array:
    """Smart ratio: d_l = min(1, c ((L - l + 1)^2 + (L - l + 1))), l = 1, 2, ...; d_L = 0.3.

    Args:
      params: a pytree of arrays, its layers in natural order of their paths.
      density: in (0, 1]; may be traced.
      prunable: predicate on leaf paths; layers without prunable leaves get no count.
      last: density of the last layer. It keeps fewer parameters if the total k is smaller, and more
        only if all other layers are full.
      by_square: divide d_l by l^2, as the paper does for VGG.

    Returns:
      Counts int32 [L].

    Raises:
      ValueError: if a (concrete) density is outside (0, 1] or last outside [0, 1].

    Source: Su et al. 2020, https://arxiv.org/abs/2009.11094. The released code keeps 0.3 of every
    dense layer of a convolutional network, and passes the excess of full layers on to the others,
    starting at the input. We keep 0.3 of the last layer only, and share the rest among all other
    layers in proportion. The case where 0.3 exceeds the total k is our interpretation.

    >>> import jax, plantjax as pj
    >>> params = pj.nets.init(jax.random.key(0), (2, 20, 20, 1))  # layers of 60, 420 and 21
    >>> jax.jit(pj.masks.smart_ratio)(params, 0.2).tolist()
    [21, 73, 6]
    """
    checks.interval("last", last, 0.0, 1.0)
    sizes, _ = _layers(params, density, prunable)
    k = number_kept(density, sum(sizes))
    inner, size = sizes[:-1], sizes[-1]
    kept = jnp.minimum(k, math.floor(last * size + 0.5))
    kept = jnp.maximum(kept, k - sum(inner))
    if not inner:
        return kept[None]
    place = np.arange(1, len(sizes), dtype=np.float64)
    raw = np.square(len(sizes) - place + 1) + (len(sizes) - place + 1)
    raw = raw / np.square(place) if by_square else raw
    counts = apportion(_rounded(list(raw * inner)), inner, k - kept)
    return jnp.append(counts, kept)


def _layers(
    params: Params, density: chex.Numeric, prunable: Prunable | None
) -> tuple[list[int], list[tuple[int, ...]]]:
    """The size of each layer, and the shape of its largest array."""
    checks.density(density)
    shapes = groups.layer_shapes(params, prunable)
    sizes = [sum(math.prod(shape) for shape in layer) for layer in shapes]
    return sizes, [max(layer, key=math.prod) or (1,) for layer in shapes]


def _rounded(shares: list[float]) -> jax.Array:
    """Shares rounded to integers, int32 [L], at least 1 each."""
    total = sum(shares)
    return jnp.asarray([max(1, round(share / total * _TOTAL)) for share in shares], jnp.int32)


def _quotas(log_force: jax.Array, sizes: jax.Array) -> jax.Array:
    """n_l / (F n_l + 1), F = exp(log_force) / max n."""
    return sizes / (jnp.exp(log_force) * (sizes / jnp.max(sizes)) + 1.0)


ALLOCATIONS: dict[str, Callable[..., jax.Array]] = checks.Names(
    {
        "uniform": uniform,
        "erk": erk,
        "igq": igq,
        "smart_ratio": smart_ratio,
    }
)
"""The registry of allocations: a new one takes one function and one entry here."""
