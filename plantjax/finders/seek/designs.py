"""Designs of a new unit: in-edges by a beam search, out-edges by flips on the quadratic model."""

import jax
import jax.numpy as jnp

from plantjax.finders.seek import beam, linear, subnetwork
from plantjax.finders.seek.beam import Site
from plantjax.finders.seek.linear import Rest
from plantjax.finders.seek.subnetwork import matmul

FLIPS = 6  # of out-edges of a design


def find(site: Site, rest: Rest, options: beam.Options) -> tuple[beam.Designs, jax.Array]:
    """The best sets of in-edges, and their out-edges.

    In the last hidden layer K is padded outputs, which are left out while it searches.

    Args:
      site: where the unit is put in.
      rest: the layers above the next pre-activations.
      options: how broad to search.

    Returns:
      (P designs, out-edges bool [P, K]).
    """
    size, n_out = site.reachable.shape[0], rest.n_out

    def search(site: Site) -> tuple[beam.Designs, jax.Array]:
        found = beam.search(site, options)
        return found, subnetwork.resized(out_edges(site, found), size)

    def at_the_end(site: Site) -> tuple[beam.Designs, jax.Array]:
        model = linear.Model(site.model.gradient[:, :n_out], site.model.roots[:, :, :n_out])
        few = {"weights_out": site.weights_out[:, :n_out], "reachable": site.reachable[:n_out]}
        return search(site._replace(**few, model=model))

    return jax.lax.cond(rest.layer == rest.weights.shape[0], at_the_end, search, site)


def out_edges(site: Site, designs: beam.Designs) -> jax.Array:
    """Out-edges of designs by greedy flips on the quadratic model, bool [P, K]; never none.

    Each flip is the one that lowers the predicted objective most; the first is always made.
    """
    f = jax.nn.relu(designs.drive)  # [P, N]
    weights = site.weights_out[designs.unit]  # [P, K]
    slope = weights * matmul(f, site.model.gradient)
    n, k = site.model.gradient.shape
    gram = jnp.einsum(
        "onk,onl->nkl", site.model.roots, site.model.roots, precision="highest"
    ).reshape(n, k * k)
    square = matmul(jnp.square(f), gram).reshape(-1, k, k)
    square = square * weights[:, :, None] * weights[:, None, :]
    own = jnp.diagonal(square, axis1=1, axis2=2)

    def flip(_: int, kept: jax.Array) -> jax.Array:
        inter = jnp.einsum("pkl,pl->pk", square, kept.astype(jnp.float32), precision="highest")
        add = slope + 0.5 * own + inter + site.price
        drop = 0.5 * own - slope - inter - site.price
        change = jnp.where(kept, drop, add)
        change = jnp.where(site.reachable[None, :], change, jnp.inf)
        best = jnp.argmin(change, axis=1).astype(jnp.int32)
        made = (jnp.min(change, axis=1) < 0) | ~jnp.any(kept, axis=1)
        return kept ^ (made[:, None] & (jnp.arange(k, dtype=jnp.int32)[None, :] == best[:, None]))

    return jax.lax.fori_loop(0, FLIPS, flip, jnp.zeros(weights.shape, bool))
