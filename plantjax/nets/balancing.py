"""Balancing: rescales a positive network node by node, so that its sum of paths stays in range.

All channels of a node are multiplied by 2^t: kernels by 2^(t_written - t_read), biases by
2^t_written. ReLU, pools and sums commute with such factors, powers of two cause no rounding, and
the outputs change by one common factor.
"""

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.nets import wirings
from plantjax.nets.wirings import INPUT, Layer, Wiring
from plantjax.types import Apply, Params

Powers: TypeAlias = dict[str, jax.Array]
"""The exponent t of each node, int32 []; that of the input is 0."""

_Bound: TypeAlias = tuple[jax.Array, jax.Array]
"""A bound on activations as a pair (b [1, C], power), which stands for b 2^-power."""


def balance(params: Params, wiring: Wiring) -> Params:
    """Rescales a positive network so that the largest activation of every node is about one.

    Activations are not computed but bounded by those of a pixel far from all borders: the bound of
    a channel is the sum of its kernel entries times the bounds of their inputs, plus the bias.
    Nodes joined by shortcuts share one power, half-way between their smallest and largest.

    Args:
      params: parameters without negative entries, structured as in the wiring.
      wiring: how the layers connect.

    Returns:
      Params of the same structure. On an all-ones input the outputs are those of `params` times a
      power of two.
    """
    sizes, leaves = wirings.channels(params, wiring), wirings.leaves(params)
    bounds: dict[str, _Bound] = {INPUT: (jnp.ones((1, sizes[INPUT])), jnp.int32(0))}
    for node in wiring.nodes:
        parts = [_grown(leaves, layer, bounds[layer.reads]) for layer in wiring.writers(node)]
        source = wiring.carried(node)
        if source is not None:
            bound, power = bounds[source]
            parts.append((jnp.pad(bound, ((0, 0), (0, sizes[node] - sizes[source]))), power))
        bounds[node] = _unit(parts)
    return scale(params, wiring, _shared({node: p for node, (_, p) in bounds.items()}, wiring))


def scale(params: Params, wiring: Wiring, powers: Mapping[str, jax.Array]) -> Params:
    """Multiplies all channels of a node by 2^t, with one exponent t per node; the input has 0."""
    leaves = wirings.leaves(params)
    scaled = {}
    for layer in wiring.layers:
        power = powers[layer.writes]
        scaled[layer.kernel] = times_power(leaves[layer.kernel], power - powers[layer.reads])
        for path in (layer.bias, layer.shift):
            if path is not None:
                scaled[path] = times_power(leaves[path], power)
    return wirings.replace(params, scaled)


def follows(apply: Apply, params: Params, x: jax.Array, wiring: Wiring) -> jax.Array:
    """Tests by scaling the nodes whether a network seems to match its wiring; bool [].

    A network whose shapes form a chain may still have shortcuts or lack ReLUs. Then factors that
    differ from node to node change the outputs by more than the factor of the last node.

    Args:
      apply: the network.
      params: its parameters, balanced.
      x: an input.
      wiring: the wiring to test, without shortcuts.
    """
    powers = {node: 12 * (index % 3 - 1) for index, node in enumerate((*wiring.nodes, INPUT))}
    powers[INPUT] = 0

    def run(times: jax.Array) -> jax.Array:  # one program for both, so that bits can be compared
        scaled = scale(params, wiring, {node: times * power for node, power in powers.items()})
        return times_power(jnp.sum(apply(scaled, x)), -times * powers[wiring.nodes[-1]])

    plain, shifted = jax.lax.map(run, jnp.arange(2))
    return jnp.abs(plain - shifted) <= 1e-6 * jnp.abs(plain)


def times_power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """Multiplies by 2^exponent like `ldexp`, in a fifth of the time.

    It multiplies by three powers of two in the range of floats, which together reach from the
    largest float to zero and back.

    >>> import jax.numpy as jnp
    >>> float(times_power(jnp.float32(3.0), jnp.int32(-1)))
    1.5
    """
    exponent = jnp.clip(exponent, -378, 378)
    third = exponent // 3
    for part in (third, third, exponent - 2 * third):
        x = x * jnp.ldexp(jnp.float32(1.0), part)
    return x


def _grown(leaves: Mapping[str, jax.Array], layer: Layer, read: _Bound) -> _Bound:
    """The bound on a layer's outputs, given the bound on its inputs."""
    bound, power = read
    kernel = wirings.matrix(leaves[layer.kernel])
    patch = wirings.rows(bound[0], leaves[layer.kernel])[None, :]
    grown = jnp.matmul(patch, kernel, precision="highest")
    if layer.bias is not None:
        grown = grown + times_power(leaves[layer.bias], power)[None, :]
    if layer.scale is not None:
        grown = grown * leaves[layer.scale][None, :]
    if layer.shift is not None:
        grown = grown + times_power(leaves[layer.shift], power)[None, :]
    return grown, power


def _unit(parts: list[_Bound]) -> _Bound:
    """The sum of bounds, normalised so that its largest entry is in [0.5, 1)."""
    total, least = parts[0]
    if len(parts) > 1:
        least = jnp.min(jnp.stack([power for _, power in parts]))
        total = sum(
            (times_power(b, least - p) for b, p in parts[1:]),
            times_power(total, least - parts[0][1]),
        )
    peak = jnp.max(total)
    _, exponent = jnp.frexp(checks.divisor(peak))
    return times_power(total, -exponent), least - exponent


def _shared(powers: Powers, wiring: Wiring) -> Powers:
    """One power for all nodes joined by shortcuts; 0 for those joined with the input."""
    groups = {node: [node] for node in powers}
    for node, source in wiring.carries:
        joined = groups[node] + groups[source]
        groups |= dict.fromkeys(joined, joined)
    shared = {}
    for node, group in groups.items():
        among = jnp.stack([powers[member] for member in group])
        middle = (jnp.min(among) + jnp.max(among)) // 2
        shared[node] = jnp.int32(0) if INPUT in group else middle
    return shared
