"""Matching: which mother neuron takes the place of each target neuron, and by which factor."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax import checks

_TIE = 1e-5  # cosines this close to the largest are ties


class Match(NamedTuple):
    """The mother channels that one target node takes, and the factors of their activations."""

    place: jax.Array  # int32 [O], mother channel of each target channel; out of range if dead
    factor: jax.Array  # [O]


def match_hidden(
    priority: jax.Array,
    theta: jax.Array,
    rows: jax.Array,
    rule: str,
    begun: Match | None = None,
) -> Match:
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
        place = jnp.argmax(jnp.where(tied, priority, -jnp.inf)).astype(jnp.int32)
        place = jnp.where(alive, place, width)
        return used.at[place].set(True, mode="drop"), place

    items = (_cosine(theta, rows), priority, alive)
    _, place = jax.lax.scan(take, used, items)
    chosen = jnp.where(support, jnp.take(rows, place, axis=0, mode="clip"), 0.0)
    factor = _factor(theta, chosen, rule)
    if begun is None:
        return Match(place, factor)
    kept = begun.place < width
    return Match(jnp.where(kept, begun.place, place), jnp.where(kept, begun.factor, factor))


def match_outputs(theta: jax.Array, rows: jax.Array, rule: str, shared_scale: bool) -> Match:
    """Matches the output layer in place, in order."""
    chosen = jnp.where(theta != 0, rows, 0.0)
    factor = _factor(theta, chosen, rule)
    if shared_scale:
        shared = _factor(theta.reshape(1, -1), chosen.reshape(1, -1), "norm")
        factor = jnp.where(jnp.any(theta != 0, axis=1), shared, 1.0)
    return Match(jnp.arange(theta.shape[0], dtype=jnp.int32), factor)


def widened(match: Match, width: int, wanted: int, new_width: int) -> Match:
    """Extends the match of a carried node [O] to a wider one [wanted], with unmatched channels."""
    more = wanted - match.place.size
    place = jnp.where(match.place < width, match.place, new_width)
    return Match(
        jnp.pad(place, (0, more), constant_values=new_width),
        jnp.pad(match.factor, (0, more), constant_values=1.0),
    )


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
