"""Compaction: a pruned network as a smaller dense one that computes the same function.

Units that nothing kept reads are dropped. Units that read nothing kept are constant: their values
go into the biases of the next layer. Behind a convolution that is not exact at the borders, where
it reads zeros instead; there all constant channels become a single one.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, nets
from plantjax.masks.select import apply as apply_mask
from plantjax.masks.select import size
from plantjax.nets import wirings
from plantjax.nets.wirings import INPUT, Layer, Wiring
from plantjax.types import Apply, Mask, Params


def compact(params: Params, mask: Mask, wiring: Wiring | None = None) -> Params:
    """The masked network as a smaller dense network with the same outputs.

    Inputs and outputs stay, and so does every layer, with at least one unit. Works on concrete
    arrays, because the new shapes depend on them. `nets.apply` runs the result of a dense chain,
    `network.fitted(small)` that of a `nets.vgg`; a module of your own needs the new widths.

    Args:
      params: a chain of dense layers and convolutions with ReLU between them; pools, strides and
        flattening do not matter. Batch norms must be folded first (`nets.fold`).
      mask: a mask with the structure of the params.
      wiring: how the layers connect, a chain as well; by default in natural order of the names.

    Returns:
      Params with the structure of the params and smaller arrays.

    Raises:
      ValueError: if the mask does not match, the network is no chain, has batch norms, or the
        arrays are not concrete.

    >>> import jax, plantjax as pj
    >>> mother = pj.nets.init(jax.random.key(0), (1, 50, 50, 1))
    >>> planted = pj.plant(jax.random.key(1), pj.targets.relu(depth=4), mother)
    >>> pj.nets.widths(pj.compact(planted.params, planted.mask))
    (1, 1, 1, 1)
    """
    checks.mask("mask", mask, "params", params)
    if not checks.is_concrete(params, mask):
        raise ValueError("params and mask must be concrete in compact, got traced arrays.")
    wiring = wirings.chain(params) if wiring is None else wiring
    channels = wirings.channels(params, wiring)
    _check(wiring)
    leaves = wirings.leaves(apply_mask(params, mask))
    parts, incoming = [], _Units.inputs(channels[INPUT])
    for layer in wiring.layers:
        parts.append(_Part.read(leaves, layer, incoming))
        incoming = parts[-1].outgoing()
    wanted = np.arange(channels[wiring.nodes[-1]])
    found: dict[str, jax.Array] = {}
    constant = False  # whether the next layer reads a channel of ones
    for part in reversed(parts):
        inputs = part.used(wanted) if part is not parts[0] else np.arange(channels[INPUT])
        reads_constant = part is not parts[0] and bool(part.extra[:, wanted].any())
        spare = not (inputs.size or reads_constant)  # a layer keeps one unit at least
        inputs = np.zeros(1, int) if spare else inputs
        found |= part.written(leaves, inputs, wanted, reads_constant, constant, spare)
        wanted, constant = inputs, reads_constant
    return wirings.replace(params, found)


def savings(
    params: Params,
    small: Params,
    x: jax.Array,
    *,
    apply: Apply = nets.apply,
    small_apply: Apply | None = None,
) -> dict[str, float]:
    """How many times smaller a compact network is.

    Args:
      params: of the network before.
      small: as `compact` returns them.
      x: inputs [N, ...], for the number of operations.
      apply: the network before.
      small_apply: the network after, if it is another function.

    Returns:
      {"parameters", "operations"}: factors of at least about 1. Operations are those that XLA
      counts for one run of x.

    >>> import jax, plantjax as pj
    >>> mother = pj.nets.init(jax.random.key(0), (1, 50, 50, 1))
    >>> planted = pj.plant(jax.random.key(1), pj.targets.relu(depth=4), mother)
    >>> small = pj.compact(planted.params, planted.mask)
    >>> round(pj.masks.savings(mother, small, jnp.ones((8, 1)))["parameters"])  # 2701 / 6
    450
    """
    operations = [_operations(apply, params, x), _operations(small_apply or apply, small, x)]
    return {
        "parameters": size(params) / size(small),
        "operations": operations[0] / max(operations[1], 1.0),
    }


def _operations(apply: Apply, params: Params, x: jax.Array) -> float:
    analysis = jax.jit(apply).lower(params, x).cost_analysis()
    return float((analysis or {}).get("flops", math.nan))


def _check(wiring: Wiring) -> None:
    """Raises ValueError unless the wiring is a chain without batch norms."""
    nodes = [INPUT, *(layer.writes for layer in wiring.layers)]
    if wiring.carries or [layer.reads for layer in wiring.layers] != nodes[:-1]:
        raise ValueError("params must be a chain in compact, got shortcuts or branches.")
    for layer in wiring.layers:
        if layer.scale is not None or layer.shift is not None:
            raise ValueError(f"batch norms must be folded before compacting, got {layer.scale}.")


@dataclass(frozen=True)
class _Units:
    """The units that a layer reads: which vary with the inputs, and the values of the others."""

    varying: np.ndarray  # bool [C]
    values: np.ndarray  # [C], 0 where they vary

    @classmethod
    def inputs(cls, number: int) -> "_Units":
        return cls(np.ones(number, bool), np.zeros(number))


@dataclass(frozen=True)
class _Part:
    """A layer, in float64: what it reads of varying units, of constant ones, and its bias."""

    layer: Layer
    weights: np.ndarray  # [T, C, O], T places; zero for constant units
    extra: np.ndarray  # [T, O], what constant channels add that the bias cannot
    bias: np.ndarray  # [O]

    @classmethod
    def read(cls, leaves: dict[str, Any], layer: Layer, units: _Units) -> "_Part":
        kernel = np.asarray(leaves[layer.kernel])
        weights = kernel.astype(np.float64).reshape(-1, units.varying.size, kernel.shape[-1])
        constant = np.einsum("tco,c->to", weights, units.values)
        bias = np.zeros(kernel.shape[-1])
        if layer.bias is not None:
            bias = np.asarray(leaves[layer.bias], np.float64)
        if layer.bias is not None and (kernel.ndim == 2 or weights.shape[0] == 1):
            bias, constant = bias + constant.sum(axis=0), np.zeros_like(constant)
        return cls(layer, weights * units.varying[None, :, None], constant, bias)

    def outgoing(self) -> _Units:
        """The units that it writes, after their ReLU."""
        varying = (self.weights != 0).any(axis=(0, 1)) | (self.extra != 0).any(axis=0)
        return _Units(varying, np.where(varying, 0.0, np.maximum(self.bias, 0.0)))

    def used(self, outputs: np.ndarray) -> np.ndarray:
        """The indices of the units that these outputs read."""
        return np.flatnonzero((self.weights[:, :, outputs] != 0).any(axis=(0, 2)))

    def written(
        self,
        leaves: dict[str, Any],
        inputs: np.ndarray,
        outputs: np.ndarray,
        reads_constant: bool,
        writes_constant: bool,
        spare: bool,
    ) -> dict[str, jax.Array]:
        """The new leaves; constant channels come after all others, and a spare input is zero."""
        weights = self.weights[:, inputs][:, :, outputs]
        weights = np.zeros_like(weights) if spare else weights
        bias = self.bias[outputs]
        if reads_constant:
            weights = np.concatenate([weights, self.extra[:, None, outputs]], axis=1)
        if writes_constant:
            weights = np.pad(weights, ((0, 0), (0, 0), (0, 1)))
            bias = np.append(bias, 1.0)
        kernel = leaves[self.layer.kernel]
        shape = (*kernel.shape[:-2], -1, weights.shape[-1])
        found = {self.layer.kernel: jnp.asarray(weights.reshape(shape), kernel.dtype)}
        if self.layer.bias is not None:
            found[self.layer.bias] = jnp.asarray(bias, kernel.dtype)
        return found
