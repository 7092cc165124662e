"""What all visits of one sweep share, and how they choose among moves."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from plantjax.finders.seek import price, sampling
from plantjax.finders.seek.loss import Goal, Sample
from plantjax.finders.seek.price import Terms


@dataclass(frozen=True)
class Search:
    """Values that all visits of one sweep share.

    Attributes:
      goal: the loss to lower.
      sample: the samples of the sweep.
      terms: what moves are judged by.
      first_samples: number of samples on which moves are predicted and evaluated first.
      finalists: number of moves that are then evaluated on all samples.
    """

    goal: Goal
    sample: Sample
    terms: Terms
    first_samples: int
    finalists: int

    @property
    def first(self) -> Sample:
        """The first samples."""
        return sampling.first(self.sample, self.first_samples)

    def cost(self, totals: jax.Array) -> jax.Array:
        """The cost of numbers of live parameters."""
        return price.cost(self.terms, totals)

    def values(
        self, outputs_of: Callable[[jax.Array, int | None], jax.Array], n: int | None
    ) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """`(moves [M], totals [M]) -> objectives [M]`, exactly, on the first n samples (or all).

        Args:
          outputs_of: `(move, n) -> outputs [n, O]` of the network after the move.
          n: number of samples.
        """
        sample = self.sample if n is None else sampling.first(self.sample, n)

        def value(move: jax.Array) -> jax.Array:
            return self.goal.log_loss(outputs_of(move, n), sample, self.terms.aim)

        def values(moves: jax.Array, totals: jax.Array) -> jax.Array:
            return jax.vmap(value)(moves) + self.cost(totals)

        return values

    def best(
        self,
        noise: jax.Array,
        outputs_of: Callable[[jax.Array, int | None], jax.Array],
        moves: jax.Array,
        totals: jax.Array,
        allowed: jax.Array,
    ) -> jax.Array:
        """The index of the best move: first on some samples, the finalists on all, with noise.

        Args:
          noise: in (0, 1), for Gumbel noise; [finalists].
          outputs_of: `(move, n) -> outputs [n, O]` on the first n samples, or on all if n is None.
          moves: [M]; the first, to change nothing, is always a finalist.
          totals: number of live parameters after each, [M].
          allowed: which moves may be made, [M]; the first always.
        """
        early = self.values(outputs_of, self.first_samples)(moves, totals)
        early = jnp.where(allowed, early, jnp.inf).at[0].set(-jnp.inf)
        _, finalists = jax.lax.top_k(-early, min(self.finalists, early.shape[0]))
        late = self.values(outputs_of, None)(moves[finalists], totals[finalists])
        gumbel = -jnp.log(-jnp.log(jnp.clip(noise[: late.shape[0]], 1e-7, 1.0 - 1e-7)))
        late = jnp.where(allowed[finalists], late - self.terms.noise * gumbel, jnp.inf)
        return finalists[jnp.argmin(late)]
