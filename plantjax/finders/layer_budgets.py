"""Layer budgets: a budget per layer, from the shapes alone, filled at random or by a score."""

import chex
import jax

from plantjax import checks, masks, nets, scores
from plantjax.finders import common
from plantjax.masks.allocations import ALLOCATIONS
from plantjax.types import Apply, Batch, Finder, Found, Key, MakeScore, Params, Prunable, Task


@common.on_floats
def layer_budgets(
    task: Task,
    *,
    allocation: str,
    score: str | MakeScore = "random",
    apply: Apply = nets.apply,
    prunable: Prunable | None = None,
) -> Finder:
    """Keeps the highest scores in every layer, as many as the allocation gives it.

    Args:
      task: defines the loss and the size of the score batch.
      allocation: a name in `masks.ALLOCATIONS`.
      score: a name in `scores.SCORES`, or such a function.
      apply: `(params, x) -> outputs`.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A Finder of scope "oracle", because it keeps given numbers per layer; they add up to k.

    Raises:
      ValueError: if a name is unknown.

    Source: ERK, Evci et al. 2020, https://arxiv.org/abs/1911.11134; IGQ, Vysogorets and Kempe 2021,
    https://arxiv.org/abs/2107.02306; smart ratio, Su et al. 2020, https://arxiv.org/abs/2009.11094
    """
    checks.choice("allocation", allocation, ALLOCATIONS)
    prunable = common.prunable_of(apply, prunable)
    score_fn = scores.get(score)(apply, task.loss)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, prunable=prunable)
        batch_key, score_key, select_key = jax.random.split(key, 3)
        batch = common.score_batch(batch_key, task, data)
        values = score_fn(score_key, params, masks.full(params), batch)
        counts = ALLOCATIONS[allocation](params, density, prunable)
        mask = masks.select(select_key, values, density, "oracle", counts=counts, prunable=prunable)
        return Found(mask, params, common.not_finite(values, prunable))

    return Finder(search, scope="oracle")
