"""Planting: hide a small sparse target in a large mother network, exactly (Algorithm 1).

Layer by layer, every target neuron takes the unused mother neuron whose parameters point most
nearly in its own direction, and overwrites them by a positive multiple of its own; ReLU carries the
factor to the next layer. The planted mask alone then computes scale_j * target_j.

Source: Fischer and Burkholz, ICLR 2022, Algorithm 1, https://arxiv.org/abs/2111.11153
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax import checks, masks, nets
from plantjax.types import Key, Params, Planted

RULES = ("norm", "paper")
_TIE = 1e-5  # cosines closer than this are ties


class _Match(NamedTuple):
    """Where the neurons of one target layer went, and by which factor they grew."""

    place: jax.Array  # int32 [O], mother neuron of each target neuron; out of range if it is dead
    factor: jax.Array  # [O]


def plant(
    key: Key, target: Params, mother: Params, rule: str = "norm", shared_scale: bool = True
) -> Planted:
    """Plants a target network in a mother network of the same depth.

    Pure; jits and vmaps over keys, mothers and targets of one shape. Dead neurons of the target are
    left out. The key breaks ties between equally good mother neurons, so that tickets do not gather
    at low indices.

    Args:
      key: consumed.
      target: a chain of L dense layers with few nonzero parameters.
      mother: a chain of L dense layers, the same inputs and outputs, at least as wide everywhere.
      rule: the factor of a neuron with parameters theta put in the place of m. "norm":
        ||m|| / ||theta||, the best hidden; "paper": ||m||^2 / (theta . m), or the norm rule where
        the cosine is not positive.
      shared_scale: one factor for all outputs (classification: the argmax is kept), else one per
        output (regression: evaluation rescales per output).

    Returns:
      Planted(params, mask, scale [O]): `nets.apply(masks.apply(params, mask), x)` equals
      `scale * nets.apply(target, x)` to float32 rounding.

    Raises:
      ValueError: if the rule is unknown, depth, inputs or outputs differ, the mother is narrower
        than the target in a layer, or (concrete) parameters are not finite.

    >>> import jax, plantjax
    >>> target = plantjax.targets.relu(depth=4)
    >>> mother = plantjax.nets.init(jax.random.key(0), (1, 50, 50, 1))
    >>> planted = plantjax.plant(jax.random.key(1), target, mother)
    >>> int(plantjax.masks.count(planted.mask))
    3
    """
    _check(target, mother, rule)
    return _plant(key, target, mother, rule, shared_scale)


@partial(jax.jit, static_argnames=("rule", "shared_scale"))
def _plant(key: Key, target: Params, mother: Params, rule: str, shared_scale: bool) -> Planted:
    target = masks.apply(target, masks.live(target, masks.nonzero(target)))
    pairs = list(zip(nets.layers(target), nets.layers(mother), strict=True))
    n_in = pairs[0][0]["kernel"].shape[0]
    before = _Match(jnp.arange(n_in), jnp.ones(n_in))
    shapes = [(small["bias"].size, large["bias"].size) for small, large in pairs[:-1]]
    priorities = nets.draw(key, shapes, uniform=True)  # of the hidden layers, [O, M] each
    params, mask = {}, {}
    for index, (name, (small, large)) in enumerate(zip(sorted(mother), pairs, strict=True)):
        theta = jnp.concatenate(  # [O, 1 + I]: bias and weights, inputs already matched
            [small["bias"][:, None], small["kernel"].T / before.factor[None, :]], axis=1
        )
        rows = jnp.concatenate([large["bias"][:, None], large["kernel"][before.place, :].T], axis=1)
        if index + 1 < len(pairs):
            match = _match_hidden(priorities[index], theta, rows, rule)
        else:
            match = _match_outputs(theta, rows, rule, shared_scale)
        params[name], mask[name] = _write(large, theta, before.place, match)
        before = match
    return Planted(params, mask, before.factor)


def _check(target: Params, mother: Params, rule: str) -> None:
    checks.choice("rule", rule, RULES)
    checks.finite("target", target)
    checks.finite("mother", mother)
    small, large = nets.widths(target), nets.widths(mother)
    if len(small) != len(large):
        raise ValueError(
            f"mother must have the target's {len(small) - 1} layers, got {len(large) - 1}."
        )
    if small[0] != large[0] or small[-1] != large[-1]:
        raise ValueError(
            f"mother must have the target's {small[0]} inputs and {small[-1]} outputs, "
            f"got {large[0]} and {large[-1]}."
        )
    for name, need, width in zip(sorted(mother), small[1:], large[1:], strict=True):
        if width < need:
            raise ValueError(
                f"mother must be at least as wide as the target in every layer, got width {width} "
                f"in {name}, where the target has {need}."
            )


def _match_hidden(priority: jax.Array, theta: jax.Array, rows: jax.Array, rule: str) -> _Match:
    """Greedy matching in the target's order: theta [O, K] against mother neurons rows [M, K].

    Among tied mother neurons a target neuron takes the one of highest priority [O, M].
    """
    support = theta != 0
    alive = jnp.any(support, axis=1)
    width = rows.shape[0]

    def take(
        used: jax.Array, item: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        cosine, priority, alive = item
        cosine = jnp.where(used, -jnp.inf, cosine)
        tied = (cosine >= jnp.max(cosine) - _TIE) & ~used
        place = jnp.argmax(jnp.where(tied, priority, -2.0))  # priorities lie in [-1, 1)
        place = jnp.where(alive, place, width)
        return used.at[place].set(True, mode="drop"), place

    items = (_cosine(theta, rows), priority, alive)
    _, place = jax.lax.scan(take, jnp.zeros(width, bool), items)
    chosen = jnp.where(support, rows[jnp.minimum(place, width - 1)], 0.0)
    return _Match(place, _factor(theta, chosen, rule))


def _match_outputs(theta: jax.Array, rows: jax.Array, rule: str, shared_scale: bool) -> _Match:
    """The output layer is matched in place, in order."""
    chosen = jnp.where(theta != 0, rows, 0.0)
    factor = _factor(theta, chosen, rule)
    if shared_scale:
        shared = _factor(theta.reshape(1, -1), chosen.reshape(1, -1), "norm")
        factor = jnp.where(jnp.any(theta != 0, axis=1), shared, 1.0)
    return _Match(jnp.arange(theta.shape[0]), factor)


def _cosine(theta: jax.Array, rows: jax.Array) -> jax.Array:
    """Cosines [O, M] between theta_i and the entries of row j where theta_i is nonzero."""
    unit = theta / _positive(jnp.max(jnp.abs(theta), axis=1))[:, None]
    support = (theta != 0).astype(theta.dtype)
    product = jnp.matmul(unit, rows.T, precision="highest")
    norms = jnp.matmul(support, jnp.square(rows).T, precision="highest")
    scale = jnp.sqrt(jnp.sum(jnp.square(unit), axis=1)[:, None] * norms)
    return product / _positive(scale)


def _factor(theta: jax.Array, chosen: jax.Array, rule: str) -> jax.Array:
    """The positive factors [O] that take theta [O, K] to the size of the parameters it replaces.

    1 where theta is empty, and where the replaced parameters are all zero.
    """
    peak = _positive(jnp.max(jnp.abs(theta), axis=1))  # keeps squares of large theta finite
    unit = theta / peak[:, None]
    old = jnp.sqrt(jnp.sum(jnp.square(chosen), axis=1))
    new = jnp.sqrt(jnp.sum(jnp.square(unit), axis=1))
    ratio = old / _positive(new)
    if rule == "paper":
        product = jnp.sum(unit * chosen, axis=1)
        ratio = jnp.where(product > 0, jnp.square(old) / _positive(product), ratio)
    return jnp.where((new > 0) & (old > 0), ratio / peak, 1.0)


def _write(
    layer: dict[str, jax.Array], theta: jax.Array, place_in: jax.Array, match: _Match
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Writes factor * theta over the mother's layer; returns the new layer and its planted mask."""
    new = theta * match.factor[:, None]
    old_kernel, old_bias = layer["kernel"], layer["bias"]
    cells = (place_in[:, None], match.place[None, :])
    support = theta != 0
    mask = {
        "kernel": jnp.zeros(old_kernel.shape, bool).at[cells].set(support[:, 1:].T, mode="drop"),
        "bias": jnp.zeros(old_bias.shape, bool).at[match.place].set(support[:, 0], mode="drop"),
    }
    kernel = jnp.zeros_like(old_kernel).at[cells].set(new[:, 1:].T, mode="drop")
    bias = jnp.zeros_like(old_bias).at[match.place].set(new[:, 0], mode="drop")
    return {
        "kernel": jnp.where(mask["kernel"], kernel, old_kernel),
        "bias": jnp.where(mask["bias"], bias, old_bias),
    }, mask


def _positive(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1.0)
