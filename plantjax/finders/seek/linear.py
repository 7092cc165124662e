"""A quadratic model of the log loss in the pre-activations of one layer.

The layers above are linear in it, with their ReLUs as they are at the present network, and the loss
has its Gauss-Newton curvature. Moves are predicted by it, and then evaluated exactly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek import subnetwork
from plantjax.finders.seek.loss import Aim, Goal, Sample


class Rest(NamedTuple):
    """The layers above some pre-activations.

    Attributes:
      weights: of all layers, masked, [L, R, C].
      layer: index of the first layer above, L if there is none; int32.
      n_out: number of outputs O; a static number.
    """

    weights: jax.Array
    layer: jax.Array
    n_out: int

    def outputs(self, values: jax.Array) -> jax.Array:
        """Outputs [N, O] at pre-activations [N, C]."""
        return subnetwork.through(self.weights, values, self.layer, self.n_out)


class Model(NamedTuple):
    """log loss(z + d) - log loss(z) = sum G d + 1/2 sum (A d)^2, summed over samples and outputs.

    Attributes:
      gradient: G [N, K], of the log loss in the pre-activations.
      roots: A [O, N, K].
    """

    gradient: jax.Array
    roots: jax.Array


def model(goal: Goal, aim: Aim, following: jax.Array, rest: Rest, sample: Sample) -> Model:
    """The model at pre-activations `following` [N, K] of a layer, with the layers after it."""
    outputs, jacobian = _linearised(following, rest)
    slope = jax.grad(goal.log_loss)(outputs, sample, aim)  # [N, O]
    roots = goal.roots(outputs, sample, aim)
    return Model(
        jnp.einsum("no,onk->nk", slope, jacobian, precision="highest"),
        jnp.einsum("nor,rnk->onk", roots, jacobian, precision="highest"),
    )


def _linearised(following: jax.Array, rest: Rest) -> tuple[jax.Array, jax.Array]:
    """Outputs [N, O], and their derivatives [O, N, K] in the pre-activations [N, K].

    Written out, as JAX does not differentiate backwards through loops of unknown length.
    """
    n_layers, _, width = rest.weights.shape

    def up(layer: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values, active = state
        active = active.at[layer].set(values > 0)
        return subnetwork.forward(rest.weights[layer], values), active

    def down(step: jax.Array, slopes: jax.Array) -> jax.Array:
        layer = n_layers - 1 - step
        kernel = rest.weights[layer][:-1]
        below = jnp.einsum("onk,rk->onr", slopes, kernel, precision="highest")
        return jnp.where(active[layer][None], subnetwork.resized(below, width), 0.0)

    active = jnp.zeros((n_layers, *following.shape), bool)
    values, active = jax.lax.fori_loop(rest.layer, n_layers, up, (following, active))
    slopes = jnp.eye(rest.n_out, width, dtype=jnp.float32)[:, None, :]
    slopes = jnp.broadcast_to(slopes, (rest.n_out, *following.shape))
    slopes = jax.lax.fori_loop(0, n_layers - rest.layer, down, slopes)
    return values[:, : rest.n_out], slopes


def moved(at: Model, change: jax.Array) -> Model:
    """The model at pre-activations that are changed by `change` [N, K], which is predicted too."""
    along = jnp.einsum("onk,nk->on", at.roots, change, precision="highest")
    bend = jnp.einsum("on,onk->nk", along, at.roots, precision="highest")
    return Model(at.gradient + bend, at.roots)


def predicted(at: Model, change: jax.Array) -> jax.Array:
    """The predicted change of the log loss, for a change [N, K] of the pre-activations."""
    along = jnp.einsum("onk,nk->on", at.roots, change, precision="highest")
    return jnp.sum(at.gradient * change) + 0.5 * jnp.sum(jnp.square(along))
