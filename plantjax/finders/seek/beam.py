"""In-edges of a new unit: a beam search over units of the mother and sets of their in-edges.

A set of in-edges makes an activation f [N]. With out-weights w its effect on the log loss is that
of the quadratic model, e_k = w_k <f, G_k> + w_k^2 <f^2, sum_o A_ok^2> / 2 + price for out-edge k
alone. The score of a set takes the best out-edge in full, and half of what the others promise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plantjax.finders.seek.linear import Model
from plantjax.finders.seek.subnetwork import matmul


class Options(NamedTuple):
    """Static options of a beam search.

    Attributes:
      breadth: number of candidate units of the mother, and of sets that are kept per size.
      levels: largest number of in-edges, the bias included.
      pool: number of sets of each size that are returned.
    """

    breadth: int
    levels: int
    pool: int


class Site(NamedTuple):
    """Where a unit is to be put in: C candidates, R possible in-edges, K possible out-edges.

    Attributes:
      fed: inputs and a column of ones [N, R].
      weights_in: of the candidates [R, C].
      weights_out: of the candidates [C, K].
      usable: in-edges that are worth something: those of live units, and the bias [R].
      reachable: units of the next layer that lead on to an output [K].
      allowed: candidates that are free [C].
      model: the quadratic model, without the old unit.
      price: of one parameter.
      most: number of rows that are no padding, float; no set is larger.
    """

    fed: jax.Array
    weights_in: jax.Array
    weights_out: jax.Array
    usable: jax.Array
    reachable: jax.Array
    allowed: jax.Array
    model: Model
    price: jax.Array
    most: jax.Array


class Designs(NamedTuple):
    """Units with in-edges.

    Attributes:
      unit: index of the candidate, int [P].
      kept_in: its in-edges, bool [P, R].
      drive: its pre-activations, [P, N].
      score: predicted objective [P]; infinite for sets that are none.
    """

    unit: jax.Array
    kept_in: jax.Array
    drive: jax.Array
    score: jax.Array


def search(site: Site, options: Options) -> Designs:
    """The best sets of 1 to `levels` in-edges, `pool` of each size.

    Args:
      site: where the unit is put in, with C = breadth candidates.
      options: how broad to search.

    Returns:
      P = pool min(levels, R) designs.
    """
    n, size = site.fed.shape
    breadth = site.weights_in.shape[1]
    unit_labels, edge_labels = _labels(breadth), _labels(breadth + size)[breadth:]
    curvature = jnp.sum(jnp.square(site.model.roots), axis=0)  # [N, K]
    fed, weights_in = site.fed.T, site.weights_in.T  # samples last, so that rows are contiguous

    def grow(level: jax.Array, beam: Designs) -> Designs:
        terms = weights_in[beam.unit][:, :, None] * fed[None]  # [B, R, N]
        drive = jnp.reshape(beam.drive[:, None, :] + terms, (-1, n))
        unit = jnp.repeat(beam.unit, size)
        kept_in = jnp.reshape(
            beam.kept_in[:, None, :] | jnp.eye(size, dtype=bool)[None], (-1, size)
        )
        score = scores(site, curvature, jax.nn.relu(drive), unit) + site.price * level
        fresh = ~beam.kept_in & site.usable[None, :] & jnp.isfinite(beam.score)[:, None]
        score = jnp.where(jnp.ravel(fresh), score, jnp.inf)
        labels = jnp.sum(jnp.where(kept_in, edge_labels[None, :], 0), axis=1, dtype=jnp.uint32)
        chosen, score = _distinct(score, labels + unit_labels[unit], breadth)
        old, edge = chosen // size, chosen % size
        unit = beam.unit[old]
        drive = beam.drive[old] + weights_in[unit, edge][:, None] * fed[edge]
        return Designs(unit, kept_in[chosen], drive, score)

    def stop(_: jax.Array, beam: Designs) -> Designs:
        return beam._replace(score=jnp.full_like(beam.score, jnp.inf))

    def step(beam: Designs, level: jax.Array) -> tuple[Designs, Designs]:
        beam = jax.lax.cond(level <= site.most, grow, stop, level, beam)
        return beam, jax.tree.map(lambda leaf: leaf[: options.pool], beam)

    empty = Designs(
        jnp.arange(breadth, dtype=jnp.int32),
        jnp.zeros((breadth, size), bool),
        jnp.zeros((breadth, n), jnp.float32),
        jnp.where(site.allowed, 0.0, jnp.inf).astype(jnp.float32),
    )
    levels = min(options.levels, size)
    _, pools = jax.lax.scan(step, empty, jnp.arange(1.0, levels + 1.0, dtype=jnp.float32))
    return jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[2:])), pools)


def scores(site: Site, curvature: jax.Array, activations: jax.Array, unit: jax.Array) -> jax.Array:
    """Predicted objectives [F] of activations [F, N] of candidates `unit` [F], without in-edges."""
    weights = site.weights_out[unit]  # [F, K]
    each = weights * matmul(activations, site.model.gradient)
    each = each + 0.5 * jnp.square(weights) * matmul(jnp.square(activations), curvature)
    each = jnp.where(site.reachable[None, :], each + site.price, 0.0)
    gains = jnp.minimum(each, 0.0)
    return 0.5 * jnp.min(each, axis=1) + 0.5 * jnp.sum(gains, axis=1)


def _labels(n: int) -> jax.Array:
    """Fixed random numbers, uint32 [n]; sets whose sums of them are equal are taken for equal."""
    numbers = np.random.default_rng(0).integers(0, 2**32, n, np.uint32)
    return jnp.asarray(numbers)


def _distinct(score: jax.Array, labels: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """(indices, scores) of the n lowest scores, equal labels once; infinite where none is left."""
    many = min(2 * n, score.shape[0])
    lowest, chosen = jax.lax.top_k(-score, many)
    labels = labels[chosen]
    earlier = jnp.tril(jnp.ones((many, many), bool), -1)
    again = jnp.any((labels[:, None] == labels[None, :]) & earlier, axis=1)
    lowest = jnp.where(again, -jnp.inf, lowest)
    lowest, order = jax.lax.top_k(lowest, n)
    return chosen[order], -lowest
