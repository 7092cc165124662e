"""Movement: how far training would move a weight away from zero."""

import jax
import jax.numpy as jnp

from plantjax import checks, masks
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn


def movement(apply: Apply, loss: Loss, *, steps: int = 10, learning_rate: float = 1e-3) -> ScoreFn:
    """Scores -sum_t theta_t dL/dtheta_t over steps of gradient descent on the kept parameters.

    A weight that grows in size scores above zero, one that shrinks below. Gradients are those of
    the masked network, taken for pruned weights as well (straight-through), which stay as they are.
    With frozen weights this is the sum of the steps that edge-popup takes with the scores.

    Args:
      apply: `(params, x) -> outputs`.
      loss: `(outputs, y) -> scalar`.
      steps: number of steps, each on the whole batch.
      learning_rate: of plain gradient descent; 0 freezes the weights.

    Returns:
      A ScoreFn.

    Raises:
      ValueError: if a number is out of range.

    Source: Sanh et al. 2020, section 4, https://arxiv.org/abs/2005.07683. There scores and weights
    are trained together, on a mask that follows the scores; here the mask of a round is fixed, and
    rounds (as in `singleshot`) make it follow.

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> def apply(params, x):
    ...     return x @ params["w"]
    >>> params, mask = {"w": jnp.array([[1.0], [-2.0]])}, {"w": jnp.ones((2, 1), bool)}
    >>> batch = pj.types.Batch(jnp.array([[3.0, 1.0]]), jnp.zeros((1, 1)))
    >>> score = movement(apply, lambda f, y: jnp.sum(f - y), steps=2, learning_rate=0.5)
    >>> score(jax.random.key(0), params, mask, batch)["w"].tolist()  # theta: [1, -2], [-0.5, -2.5]
    [[-1.5], [4.5]]
    """
    checks.integer("steps", steps, 1)
    checks.interval("learning_rate", learning_rate, 0.0, 1e6)

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key

        def objective(weights: Params) -> jax.Array:
            return loss(apply(weights, batch.x), batch.y)

        def step(state: tuple[Params, Params], _: None) -> tuple[tuple[Params, Params], None]:
            weights, total = state
            gradient = jax.grad(objective)(masks.apply(weights, mask))
            total = jax.tree.map(lambda t, w, g: t - w * g, total, weights, gradient)
            weights = jax.tree.map(
                lambda w, g, m: jnp.where(m, w - learning_rate * g, w), weights, gradient, mask
            )
            return (weights, total), None

        start = (params, jax.tree.map(jnp.zeros_like, params))
        (_, total), _ = jax.lax.scan(step, start, length=steps)
        return total

    return score
