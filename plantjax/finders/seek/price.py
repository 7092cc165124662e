"""The price of parameters: its slope is larger above the budget than below, and it is steered."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plantjax.finders.seek.loss import Aim

LOWEST, HIGHEST = 0.01, 25.0  # price of all k parameters together, in log loss
_AIM = 0.985  # a count that is steered to k itself exceeds it half of the time


class Terms(NamedTuple):
    """The traced parts of what a move is judged by: log loss + `cost` - noise * (Gumbel noise).

    Attributes:
      aim: of the goal.
      price: of one parameter, in log loss.
      budget: number of live parameters at which the slope changes, float.
      low: slope below the budget, in units of the price.
      high: slope above.
      noise: size of the noise; moves that are better by much more are always preferred.
    """

    aim: Aim
    price: jax.Array
    budget: jax.Array
    low: jax.Array
    high: jax.Array
    noise: jax.Array


def cost(terms: Terms, total: jax.Array) -> jax.Array:
    """The cost of a number of live parameters, convex with a kink at the budget."""
    below, above = jnp.minimum(total, terms.budget), jnp.maximum(total - terms.budget, 0.0)
    return terms.price * (terms.low * below + terms.high * above)


def slope(terms: Terms, total: jax.Array) -> jax.Array:
    """The cost of one more parameter."""
    return terms.price * jnp.where(total < terms.budget, terms.low, terms.high)


def steered(price: jax.Array, size: jax.Array, budget: jax.Array, rate: jax.Array) -> jax.Array:
    """The next price, which rises with the excess of the count over a little less than the budget.

    Args:
      price: the last one.
      size: number of live parameters, float.
      budget: float.
      rate: largest relative change; 0 leaves the price as it is.
    """
    excess = 2.0 * jnp.log(jnp.maximum(size, 1.0) / (_AIM * budget))
    return jnp.clip(price * jnp.exp(jnp.clip(excess, -rate, rate)), LOWEST, HIGHEST)
