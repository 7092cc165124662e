"""Forensic: looks for the traces of planting, without any data."""

import chex
import jax

from plantjax import audit, masks, nets
from plantjax.finders import common
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Prunable, Task


@common.on_floats
def forensic(
    task: Task,
    *,
    apply: Apply = nets.apply,
    scope: str = "global",
    prunable: Prunable | None = None,
) -> Finder:
    """Keeps the parameters that look most as if they had been planted, whatever the data.

    The score is `audit.evidence`: how much more often detectors find something than in the same
    network with its entries in random order. They look for twins (units whose weights point in the
    same direction), evenly spaced kinks, units with weights of one sign, and unusual norms. Ties,
    such as parameters without evidence, are broken at random. This is no pruning algorithm: it
    shows how much of a ticket can be told without data, so that recall alone proves little.

    Args:
      task: only used for checks, and for scope "oracle".
      apply: not run; its attribute `prunable` counts.
      scope: see `masks.select`.
      prunable: predicate on leaf paths; by default `apply.prunable`, or else every leaf.

    Returns:
      A Finder; `Found.info` holds "evident", the share of parameters with any evidence.

    Raises:
      ValueError: if the scope is unknown.

    Source: ours; docs/audit.md reports what it finds.

    >>> import jax, plantjax as pj
    >>> pj.finders.forensic(pj.TASKS["circle"]).exact_counts
    True
    """
    common.check_options(scope=scope)
    prunable = common.prunable_of(apply, prunable)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, prunable=prunable)
        counts = common.oracle_counts(task, params, scope)
        audit_key, select_key = jax.random.split(key)
        evidence = audit.evidence(audit_key, params)
        mask = masks.select(select_key, evidence, density, scope, counts=counts, prunable=prunable)
        evident = jax.tree.map(lambda leaf: leaf > 0, evidence)
        return Found(mask, params, {"evident": masks.density(evident, prunable)})

    return Finder(search, scope, exact_counts=scope in common.EXACT_SCOPES)
