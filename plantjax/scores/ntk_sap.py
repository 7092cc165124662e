"""NTK-SAP: how much a parameter affects the response of outputs to a small change of parameters."""

import jax
import jax.numpy as jnp

from plantjax import checks, draws, masks
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn


def ntk_sap(apply: Apply, loss: Loss, *, resample: bool = True, epsilon: float = 0.01) -> ScoreFn:
    """Scores |m d/dm sum ||f(x; m theta) - f(x; m (theta + epsilon N))||^2|, x and N ~ N(0, 1).

    The sum divided by epsilon^2 estimates the nuclear norm of the tangent kernel. Only the shape of
    the data is used. The score is meant for many rounds.

    Args:
      apply: `(params, x) -> outputs`.
      loss: not used.
      resample: draw theta anew in each call, so that the mask suits all networks of this shape;
        False uses the mother's parameters.
      epsilon: size of the change of theta.

    Returns:
      A ScoreFn.

    Raises:
      ValueError: if epsilon is not positive.

    Source: Wang et al. 2023, algorithm 1, https://arxiv.org/abs/2304.02840. The paper draws theta
    from the initialisation. Ours must work for any pytree, so it draws from N(0, s^2), where s is
    the root mean square of the kept entries of each array.
    """
    del loss
    checks.positive("epsilon", epsilon)

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        x_key, change_key, theta_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, batch.x.shape, jnp.float32).astype(batch.x.dtype)
        masked = masks.apply(params, mask)  # removes NaN in pruned entries
        theta = _redrawn(theta_key, masked, mask) if resample else masked
        changed = jax.tree.map(
            lambda p, n: p + epsilon * n, theta, draws.normal(change_key, params)
        )

        def distance(gates: Params) -> jax.Array:
            first, second = (
                apply(jax.tree.map(jnp.multiply, gates, p), x) for p in (theta, changed)
            )
            return jnp.sum(jnp.square(first - second))

        gates = jax.tree.map(lambda m, p: m.astype(p.dtype), mask, params)
        gradient = jax.grad(distance)(gates)
        return jax.tree.map(lambda m, g: jnp.abs(m * g), gates, gradient)

    return score


def _redrawn(key: Key, params: Params, mask: Mask) -> Params:
    """Draws normal numbers, scaled to the root mean square of each array's kept entries."""

    def size(masked: jax.Array, kept: jax.Array) -> jax.Array:
        number = jnp.maximum(jnp.sum(kept, dtype=jnp.int32), 1)
        return jnp.sqrt(jnp.sum(jnp.square(masked)) / number.astype(masked.dtype))

    return jax.tree.map(lambda p, m, n: size(p, m) * n, params, mask, draws.normal(key, params))
