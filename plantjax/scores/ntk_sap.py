"""NTK-SAP: keep what changes how the outputs answer to a small change of all parameters."""

import jax
import jax.numpy as jnp

from plantjax import checks, draws, masks
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn


def ntk_sap(apply: Apply, loss: Loss, *, resample: bool = True, epsilon: float = 0.01) -> ScoreFn:
    """Scores |m d/dm sum ||f(x; m theta) - f(x; m (theta + epsilon N))||^2|, x and N ~ N(0, 1).

    The sum, over epsilon^2, estimates the nuclear norm of the tangent kernel. Data serve for their
    shape alone. Made to be iterated.

    Args:
      apply: `(params, x) -> outputs`.
      loss: not used.
      resample: draw theta anew each time, so that the mask suits all networks of this kind; False
        keeps the mother's parameters.
      epsilon: size of the change.

    Returns:
      A ScoreFn.

    Raises:
      ValueError: if epsilon is not positive.

    Source: Wang et al. 2023, algorithm 1, https://arxiv.org/abs/2304.02840. Theta is drawn there
    from the initialisation; here, where any pytree may come, from N(0, s^2) with s the root mean
    square of the kept entries of each array: our reading.
    """
    del loss
    checks.positive("epsilon", epsilon)

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        x_key, change_key, theta_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, batch.x.shape)
        masked = masks.apply(params, mask)  # NaN in a pruned entry cannot leak
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
    """Normal numbers of the root mean square of each array's kept entries."""

    def size(masked: jax.Array, kept: jax.Array) -> jax.Array:
        number = jnp.maximum(jnp.sum(kept, dtype=jnp.int32), 1)
        return jnp.sqrt(jnp.sum(jnp.square(masked)) / number.astype(masked.dtype))

    return jax.tree.map(lambda p, m, n: size(p, m) * n, params, mask, draws.normal(key, params))
