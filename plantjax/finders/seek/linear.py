"""A quadratic model of the log loss in the pre-activations of one layer.

The layers above are linear in it, with their ReLUs as they are at the present network, and the loss
has its Gauss-Newton curvature. Moves are predicted by it, and then evaluated exactly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek.loss import Aim, Goal, Sample
from plantjax.finders.seek.subnetwork import Stack, through


class Model(NamedTuple):
    """log loss(z + d) - log loss(z) = sum G d + 1/2 sum (A d)^2, summed over samples and outputs.

    Attributes:
      gradient: G [N, K], of the log loss in the pre-activations.
      roots: A [O, N, K].
    """

    gradient: jax.Array
    roots: jax.Array


def model(goal: Goal, aim: Aim, following: jax.Array, rest: Stack, sample: Sample) -> Model:
    """The model at pre-activations `following` [N, K] of a layer, with the layers after it."""
    outputs, pull = jax.vjp(lambda values: through(rest, values), following)
    slope = jax.grad(goal.log_loss)(outputs, sample, aim)  # [N, O]
    units = jnp.eye(outputs.shape[1], dtype=jnp.float32)
    jacobian = jax.vmap(lambda row: pull(jnp.broadcast_to(row[None], outputs.shape))[0])(units)
    roots = goal.roots(outputs, sample, aim)
    return Model(
        jnp.einsum("no,onk->nk", slope, jacobian, precision="highest"),
        jnp.einsum("nor,rnk->onk", roots, jacobian, precision="highest"),
    )


def moved(at: Model, change: jax.Array) -> Model:
    """The model at pre-activations that are changed by `change` [N, K], which is predicted too."""
    along = jnp.einsum("onk,nk->on", at.roots, change, precision="highest")
    bend = jnp.einsum("on,onk->nk", along, at.roots, precision="highest")
    return Model(at.gradient + bend, at.roots)


def predicted(at: Model, change: jax.Array) -> jax.Array:
    """The predicted change of the log loss, for a change [N, K] of the pre-activations."""
    along = jnp.einsum("onk,nk->on", at.roots, change, precision="highest")
    return jnp.sum(at.gradient * change) + 0.5 * jnp.sum(jnp.square(along))
