"""Planting: hides a small sparse target in a large mother network, exactly (Algorithm 1).

Layer by layer, each target neuron takes the unused mother neuron whose parameters have the largest
cosine with its own, and overwrites them with a positive multiple of its own. ReLU passes the factor
on to the next layer. The planted mask alone then computes scale_j * target_j. In a convolution a
neuron is a channel. A channel of a residual stream is matched when it is first written, jointly by
all layers that write it there; later layers add to it at the same place and with the same factor.

Source: Fischer and Burkholz, ICLR 2022, Algorithm 1, https://arxiv.org/abs/2111.11153
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax import checks, draws, masks
from plantjax.nets import wirings
from plantjax.nets.wirings import INPUT, Layer, Wiring
from plantjax.types import Key, Params, Planted

RULES = ("norm", "paper")
_TIE = 1e-5  # cosines this close to the largest are ties


class _Match(NamedTuple):
    """The mother channels that one target node takes, and the factors of their activations."""

    place: jax.Array  # int32 [O], mother channel of each target channel; out of range if dead
    factor: jax.Array  # [O]


def plant(
    key: Key,
    target: Params,
    mother: Params,
    rule: str = "norm",
    shared_scale: bool = True,
    wiring: Wiring | None = None,
) -> Planted:
    """Plants a target network in a mother network of the same depth.

    Pure; jits and vmaps over keys, mothers and targets of one shape. Dead neurons of the target are
    omitted. The key breaks ties between equally good mother neurons, so that tickets do not
    accumulate at low indices.

    Args:
      key: consumed.
      target: L layers with few nonzero parameters, dense or convolutions, with ReLU between them.
        Pools (max or mean), strides and flattening do not matter. Batch norms must be folded first
        (`convnets.fold`).
      mother: L layers with the same inputs, outputs and kernel sizes, at least as wide everywhere.
      rule: factor of a neuron whose parameters theta replace m. "norm": ||m|| / ||theta||, which
        hides best; "paper": ||m||^2 / (theta . m), or the norm rule if the cosine is not positive.
      shared_scale: use one factor for all outputs, which preserves the argmax (classification);
        else one per output (regression, where evaluation rescales each output).
      wiring: how the layers of target and mother connect; by default both are chains.

    Returns:
      Planted(params, mask, scale [O]): `apply(masks.apply(params, mask), x)` equals
      `scale * apply(target, x)` up to float32 rounding, with the network's own apply.

    Raises:
      ValueError: if the rule is unknown, depth, inputs, outputs or kernels differ, the mother is
        narrower than the target in a layer, target or mother do not fit the wiring or are not
        chains, or (concrete) parameters are not finite.

    >>> import jax, plantjax
    >>> target = plantjax.targets.relu(depth=4)
    >>> mother = plantjax.nets.init(jax.random.key(0), (1, 50, 50, 1))
    >>> planted = plantjax.plant(jax.random.key(1), target, mother)
    >>> int(plantjax.masks.count(planted.mask))
    3
    """
    checks.choice("rule", rule, RULES)
    checks.finite("target", target)
    checks.finite("mother", mother)
    pair = (wiring or wirings.chain(target), wiring or wirings.chain(mother))
    _check(target, mother, pair)
    return _plant(key, target, mother, pair, rule, shared_scale)


@partial(jax.jit, static_argnames=("pair", "rule", "shared_scale"))
def _plant(
    key: Key,
    target: Params,
    mother: Params,
    pair: tuple[Wiring, Wiring],
    rule: str,
    shared_scale: bool,
) -> Planted:
    """Plants node by node; the two wirings may differ in the paths of leaves only."""
    need, width = wirings.channels(target, pair[0]), wirings.channels(mother, pair[1])
    target = masks.apply(target, masks.live(target, masks.nonzero(target), pair[0]))
    small, large = wirings.leaves(target), wirings.leaves(mother)
    *hidden, output = pair[1].nodes
    shapes = [(need[node], width[node]) for node in hidden]
    drawn = draws.arrays(key, shapes, uniform=True) if hidden else []
    priorities = dict(zip(hidden, drawn, strict=True))
    matches = {INPUT: _Match(jnp.arange(need[INPUT]), jnp.ones(need[INPUT]))}
    params: dict[str, jax.Array] = {}
    mask: dict[str, jax.Array] = {}
    for node in pair[1].nodes:
        writers = list(zip(pair[0].writers(node), pair[1].writers(node), strict=True))
        source = pair[1].carried(node)
        cells, thetas, rows = [], [], []
        for old, new in writers:
            before = matches[new.reads]
            cells.append(_rows_of(before.place, width[new.reads], large[new.kernel]))
            thetas.append(_theta(small, old, before.factor))
            rows.append(_replaced(large, new, cells[-1]))
        theta, row = (jnp.concatenate(parts, axis=1) for parts in (thetas, rows))
        if node == output:
            match = _match_outputs(theta, row, rule, shared_scale)
        elif source is None:
            match = _match_hidden(priorities[node], theta, row, rule)
        else:
            begun = _widened(matches[source], width[source], need[node], width[node])
            match = _match_hidden(priorities[node], theta, row, rule, begun)
        for (_, new), part, place in zip(writers, thetas, cells, strict=True):
            written, planted = _write(large, new, part, place, match)
            params, mask = params | written, mask | planted
        matches[node] = match
    return Planted(wirings.replace(mother, params), wirings.replace(mother, mask), match.factor)


def _check(target: Params, mother: Params, pair: tuple[Wiring, Wiring]) -> None:
    """Raises ValueError unless the target fits into the mother."""
    few, many = (len(wiring.layers) for wiring in pair)
    if few != many:
        raise ValueError(f"mother must have the target's {few} layers, got {many}.")
    need = wirings.channels(target, pair[0], "target")
    width = wirings.channels(mother, pair[1], "mother")
    output = pair[1].nodes[-1]
    small, large = ((sizes[INPUT], sizes[output]) for sizes in (need, width))
    if small != large:
        raise ValueError(
            f"mother must have the target's {small[0]} inputs and {small[1]} outputs, "
            f"got {large[0]} and {large[1]}."
        )
    below, above = wirings.leaves(target), wirings.leaves(mother)
    for old, new in zip(*(wiring.layers for wiring in pair), strict=True):
        if width[new.writes] < need[new.writes]:
            raise ValueError(
                "mother must be at least as wide as the target in every layer, got width "
                f"{width[new.writes]} in {new.name}, where the target has {need[new.writes]}."
            )
        window, other = (
            _window(leaves[part.kernel], sizes[part.reads])
            for leaves, part, sizes in ((below, old, need), (above, new, width))
        )
        if window != other or (old.bias is None) != (new.bias is None):
            raise ValueError(
                f"mother must have the target's kernel size {window} (kernel "
                f"{below[old.kernel].shape}), and a bias where it has one, in {new.name}, got "
                f"{other} (kernel {above[new.kernel].shape})."
            )
        if old.scale is not None or old.shift is not None:
            raise ValueError(f"batch norms must be folded before planting, got {old.scale}.")


def _window(kernel: jax.Array, channels: int) -> tuple[int, ...]:
    """Spatial size of a kernel [..., I, O]; for a dense kernel after flattening, (H W,)."""
    return (*kernel.shape[:-2], kernel.shape[-2] // channels)


def _theta(leaves: dict[str, jax.Array], layer: Layer, factor: jax.Array) -> jax.Array:
    """Bias and weights [O, 1 + rows] of a target layer, whose inputs are already matched."""
    kernel = leaves[layer.kernel]
    weights = wirings.matrix(kernel).T / wirings.rows(factor, kernel)[None, :]
    return _beside(leaves, layer.bias, weights)


def _replaced(leaves: dict[str, jax.Array], layer: Layer, rows: jax.Array) -> jax.Array:
    """The parameters [M, 1 + rows] of a mother layer that a theta may replace."""
    weights = wirings.matrix(leaves[layer.kernel])[rows, :].T
    return _beside(leaves, layer.bias, weights)


def _beside(leaves: dict[str, jax.Array], bias: str | None, weights: jax.Array) -> jax.Array:
    if bias is None:
        return weights
    return jnp.concatenate([leaves[bias][:, None], weights], axis=1)


def _rows_of(place: jax.Array, width: int, kernel: jax.Array) -> jax.Array:
    """Rows of a mother's kernel matrix that read these channels; out of range if they are dead."""
    times = math.prod(kernel.shape[:-1]) // width
    rows = jnp.arange(times)[:, None] * width + place[None, :]
    return jnp.where(place[None, :] < width, rows, times * width).ravel()


def _widened(match: _Match, width: int, wanted: int, new_width: int) -> _Match:
    """Extends the match of a carried node [O] to a wider one [wanted], with unmatched channels."""
    more = wanted - match.place.size
    place = jnp.where(match.place < width, match.place, new_width)
    return _Match(
        jnp.pad(place, (0, more), constant_values=new_width),
        jnp.pad(match.factor, (0, more), constant_values=1.0),
    )


def _match_hidden(
    priority: jax.Array,
    theta: jax.Array,
    rows: jax.Array,
    rule: str,
    begun: _Match | None = None,
) -> _Match:
    """Matches target neurons theta [O, K] greedily, in their order, to mother neurons rows [M, K].

    Ties go to the mother neuron with the highest priority [O, M]. Neurons that already have a place
    and a factor in `begun` keep them.
    """
    support = theta != 0
    alive = jnp.any(support, axis=1)
    width = rows.shape[0]
    used = jnp.zeros(width, bool)
    if begun is not None:
        used = used.at[begun.place].set(True, mode="drop")
        alive = alive & (begun.place >= width)

    def take(
        used: jax.Array, item: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        cosine, priority, alive = item
        cosine = jnp.where(used, -jnp.inf, cosine)
        tied = (cosine >= jnp.max(cosine) - _TIE) & ~used
        place = jnp.argmax(jnp.where(tied, priority, -jnp.inf))
        place = jnp.where(alive, place, width)
        return used.at[place].set(True, mode="drop"), place

    items = (_cosine(theta, rows), priority, alive)
    _, place = jax.lax.scan(take, used, items)
    chosen = jnp.where(support, jnp.take(rows, place, axis=0, mode="clip"), 0.0)
    factor = _factor(theta, chosen, rule)
    if begun is None:
        return _Match(place, factor)
    kept = begun.place < width
    return _Match(jnp.where(kept, begun.place, place), jnp.where(kept, begun.factor, factor))


def _match_outputs(theta: jax.Array, rows: jax.Array, rule: str, shared_scale: bool) -> _Match:
    """Matches the output layer in place, in order."""
    chosen = jnp.where(theta != 0, rows, 0.0)
    factor = _factor(theta, chosen, rule)
    if shared_scale:
        shared = _factor(theta.reshape(1, -1), chosen.reshape(1, -1), "norm")
        factor = jnp.where(jnp.any(theta != 0, axis=1), shared, 1.0)
    return _Match(jnp.arange(theta.shape[0]), factor)


def _cosine(theta: jax.Array, rows: jax.Array) -> jax.Array:
    """Cosines [O, M] between theta_i and row j, over the entries where theta_i is nonzero."""
    unit = theta / checks.divisor(jnp.max(jnp.abs(theta), axis=1))[:, None]
    support = (theta != 0).astype(theta.dtype)
    product = jnp.matmul(unit, rows.T, precision="highest")
    norms = jnp.matmul(support, jnp.square(rows).T, precision="highest")
    scale = jnp.sqrt(jnp.sum(jnp.square(unit), axis=1)[:, None] * norms)
    return product / checks.divisor(scale)


def _factor(theta: jax.Array, chosen: jax.Array, rule: str) -> jax.Array:
    """Positive factors [O] that scale theta [O, K] to the size of the parameters it replaces.

    The factor is 1 if theta is empty, or if the replaced parameters are all zero.
    """
    peak = checks.divisor(jnp.max(jnp.abs(theta), axis=1))  # keeps squares of large theta finite
    unit = theta / peak[:, None]
    old = jnp.sqrt(jnp.sum(jnp.square(chosen), axis=1))
    new = jnp.sqrt(jnp.sum(jnp.square(unit), axis=1))
    ratio = old / checks.divisor(new)
    if rule == "paper":
        product = jnp.sum(unit * chosen, axis=1)
        ratio = jnp.where(product > 0, jnp.square(old) / checks.divisor(product), ratio)
    return jnp.where(old > 0, ratio / peak, 1.0)


def _write(
    leaves: dict[str, jax.Array], layer: Layer, theta: jax.Array, rows: jax.Array, match: _Match
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Overwrites a mother layer with factor * theta; returns new leaves and their planted mask."""
    new, support = theta * match.factor[:, None], theta != 0
    old_kernel = leaves[layer.kernel]
    old = wirings.matrix(old_kernel)
    cells = (rows[:, None], match.place[None, :])
    first = 0 if layer.bias is None else 1
    planted = jnp.zeros(old.shape, bool).at[cells].set(support[:, first:].T, mode="drop")
    kernel = jnp.zeros_like(old).at[cells].set(new[:, first:].T, mode="drop")
    params = {layer.kernel: jnp.where(planted, kernel, old).reshape(old_kernel.shape)}
    mask = {layer.kernel: planted.reshape(old_kernel.shape)}
    if layer.bias is not None:
        old = leaves[layer.bias]
        planted = jnp.zeros(old.shape, bool).at[match.place].set(support[:, 0], mode="drop")
        bias = jnp.zeros_like(old).at[match.place].set(new[:, 0], mode="drop")
        params[layer.bias], mask[layer.bias] = jnp.where(planted, bias, old), planted
    return params, mask
