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

import jax
import jax.numpy as jnp

from plantjax import checks, draws, masks
from plantjax.nets import wirings
from plantjax.nets.wirings import INPUT, Layer, Wiring
from plantjax.planting.matching import Match, match_hidden, match_outputs, widened
from plantjax.types import Apply, Key, Params, Planted

RULES = ("norm", "paper")
TOLERANCE = 1e-3
"""Largest error of a ticket, relative to the outputs, that rounding can explain."""


def plant(
    key: Key,
    target: Params,
    mother: Params,
    rule: str = "norm",
    shared_scale: bool = True,
    wiring: Wiring | None = None,
    *,
    apply: Apply | None = None,
    x: jax.Array | None = None,
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
      wiring: how the layers of target and mother connect; by default the attribute of `apply`. For
        dense layers with neither, both are chains.
      apply: the network, `(params, x) -> outputs`, on which the ticket is checked unless something
        is traced: under jit call `Planted.verify` later.
      x: inputs of that check; by default random ones, images of 16 x 16 pixels.

    Returns:
      Planted(params, mask, scale [O]): `apply(masks.apply(params, mask), x)` equals
      `scale * apply(target, x)` up to float32 rounding, with the network's own apply.

    Raises:
      ValueError: if the rule is unknown, depth, inputs, outputs or kernels differ, the mother is
        narrower than the target in a layer, target or mother do not fit the wiring or are not
        chains, (concrete) parameters are not finite, neither wiring nor apply is given for
        convolutions, or `apply` does not compute what the wiring says.

    >>> import jax, plantjax
    >>> target = plantjax.targets.relu(depth=4)
    >>> mother = plantjax.nets.init(jax.random.key(0), (1, 50, 50, 1))
    >>> planted = jax.jit(plantjax.plant)(jax.random.key(1), target, mother)
    >>> int(plantjax.masks.count(planted.mask))
    3
    """
    checks.choice("rule", rule, RULES)
    checks.finite("target", target)
    checks.finite("mother", mother)
    wiring = wiring or getattr(apply, "wiring", None)
    if wiring is None and apply is None and any(leaf.ndim > 2 for leaf in jax.tree.leaves(mother)):
        raise ValueError(
            "wiring or apply must be given for convolutions, because shapes alone do not show "
            "shortcuts or groups."
        )
    pair = (wiring or wirings.chain(target), wiring or wirings.chain(mother))
    _check(target, mother, pair)
    planted = _plant(key, target, mother, pair, rule, shared_scale)
    if apply is not None and checks.is_concrete(planted, target, x):
        error = float(planted.verify(embedded(target, mother, pair), apply, x))
        if not error <= TOLERANCE:
            raise ValueError(
                f"apply must connect the layers as {'a chain' if wiring is None else 'its wiring'},"
                f" got outputs of the ticket that differ from the target's by {error:.2g} of their "
                "size; give the wiring."
            )
    return planted


def embedded(target: Params, mother: Params, pair: tuple[Wiring, Wiring]) -> Params:
    """The target as a network of the mother's shapes, in which all further channels are dead."""
    need, width = wirings.channels(target, pair[0]), wirings.channels(mother, pair[1])
    small, large = wirings.leaves(target), wirings.leaves(mother)
    found = {}
    for old, new in zip(pair[0].layers, pair[1].layers, strict=True):
        wide, shape = width[new.writes] - need[old.writes], large[new.kernel].shape
        kernel = wirings.matrix(small[old.kernel]).reshape(-1, need[old.reads], need[old.writes])
        more = width[new.reads] - need[old.reads]
        found[new.kernel] = jnp.pad(kernel, ((0, 0), (0, more), (0, wide))).reshape(shape)
        if old.bias is not None and new.bias is not None:
            found[new.bias] = jnp.pad(small[old.bias], (0, wide))
    return wirings.replace(mother, found)


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
    matches = {
        INPUT: Match(jnp.arange(need[INPUT], dtype=jnp.int32), jnp.ones(need[INPUT], jnp.float32))
    }
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
            match = match_outputs(theta, row, rule, shared_scale)
        elif source is None:
            match = match_hidden(priorities[node], theta, row, rule)
        else:
            begun = widened(matches[source], width[source], need[node], width[node])
            match = match_hidden(priorities[node], theta, row, rule, begun)
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
    rows = jnp.arange(times, dtype=jnp.int32)[:, None] * width + place[None, :]
    return jnp.where(place[None, :] < width, rows, times * width).ravel()


def _write(
    leaves: dict[str, jax.Array], layer: Layer, theta: jax.Array, rows: jax.Array, match: Match
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Overwrites a mother layer with factor * theta; returns new leaves and their planted mask."""
    new, support = theta * match.factor[:, None], theta != 0
    old_kernel = leaves[layer.kernel]
    old = wirings.matrix(old_kernel)
    cells = (rows[:, None], match.place[None, :])
    first = 0 if layer.bias is None else 1
    planted = jnp.zeros(old.shape, bool).at[cells].set(support[:, first:].T, mode="drop")
    kernel = jnp.zeros_like(old).at[cells].set(new[:, first:].T.astype(old.dtype), mode="drop")
    params = {layer.kernel: jnp.where(planted, kernel, old).reshape(old_kernel.shape)}
    mask = {layer.kernel: planted.reshape(old_kernel.shape)}
    if layer.bias is not None:
        old = leaves[layer.bias]
        planted = jnp.zeros(old.shape, bool).at[match.place].set(support[:, 0], mode="drop")
        bias = jnp.zeros_like(old).at[match.place].set(new[:, 0].astype(old.dtype), mode="drop")
        params[layer.bias], mask[layer.bias] = jnp.where(planted, bias, old), planted
    return params, mask
