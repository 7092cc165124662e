"""Live budgets: selection that counts only parameters on paths from an input to an output.

At extreme densities most of the highest scores are dead, because no path of kept parameters leads
through them. Here we lower the threshold until live parameters fill the budget, and drop the dead.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, nets
from plantjax.masks import groups, thresholds, topk
from plantjax.masks.counts import number_kept
from plantjax.masks.select import count, live, size
from plantjax.types import Key, Mask, Params


def select_live(key: Key, scores: Params, params: Params, density: chex.Numeric) -> Mask:
    """Keeps the highest scores whose live part (`masks.live`) fits the budget.

    The threshold is the lowest at which at most k = clip(floor(density n + 0.5), 1, n) parameters
    are live. The live count grows with the mask, so bisection finds it. Dead parameters are
    dropped. One more score can bring many parameters to life, so the mask may keep fewer than k,
    but never more. Ties at the threshold are broken by random priorities from the key. Works under
    jit, and under vmap over key, scores, params and density.

    Args:
      key: consumed.
      scores: floats, with the structure of the params.
      params: a chain of dense layers; only the signs of the biases are used.
      density: in (0, 1]; may be traced.

    Returns:
      A mask in which every kept parameter is live.

    Raises:
      ValueError: if params is not a chain, the scores do not match, or (concrete) density is
        outside (0, 1].

    >>> import jax, jax.numpy as jnp
    >>> params = {"layer_00": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}}
    >>> scores = {"layer_00": {"kernel": jnp.array([[4.0, 1.0], [3.0, 2.0]]), "bias": jnp.zeros(2)}}
    >>> select_live(jax.random.key(0), scores, params, 0.5)["layer_00"]["kernel"].tolist()
    [[True, False], [True, True]]
    """
    return reselect_live(key, scores, params, density, None)[0]


def reselect_live(
    key: Key, scores: Params, params: Params, density: chex.Numeric, near: jax.Array | None
) -> tuple[Mask, jax.Array]:
    """The same as `select_live`, but faster if the scores have changed little since the last call.

    Args:
      key: consumed.
      scores: see `select_live`.
      params: see `select_live`.
      density: in (0, 1].
      near: the threshold uint32 [1] returned by the last call; None or zero in the first.

    Returns:
      (the mask of `select_live`, regardless of `near`; the threshold uint32 [1]).

    Raises:
      ValueError: as for `select_live`.
    """
    nets.layers(params)
    checks.same_structure("scores", scores, "params", params)
    checks.density(density)
    leaves, structure = jax.tree.flatten(scores)
    leaves = topk.of_one_dtype(leaves)
    ranked = jax.tree.unflatten(structure, [topk.order_keys(leaf) for leaf in leaves])
    one = np.uint32(1)

    def live_at(ranked: Mask, least: jax.Array) -> Mask:
        return live(params, jax.tree.map(lambda r: r >= least[0], ranked))

    def count_at(ranked: Mask, least: jax.Array) -> jax.Array:
        return count(live_at(ranked, least))[None]

    lowest = jnp.ones(1, jnp.uint32)  # the key of NaN, which keeps everything
    most = count_at(ranked, lowest)
    k = jnp.minimum(number_kept(density, size(params)), most)
    least, number = thresholds.search(partial(count_at, ranked), k, lowest, most, near)
    # `least` has k live parameters, or is the highest threshold with more; then we break its ties.
    mask = live_at(ranked, jnp.where(number == k, least, least + one))
    keys = jax.tree.leaves(ranked)
    ties = count(jax.tree.map(lambda r: r == least[0], ranked))

    def broken(mask: Mask) -> Mask:
        del mask
        priorities = groups.scatter(topk.priorities(key, 0, size(ranked)), keys)
        above, tied, found = thresholds.refined(
            lambda ranks: partial(count_at, jax.tree.unflatten(structure, ranks)),
            [*topk.low_keys(leaves), priorities],
            lambda lowest: [lowest[0]] * len(keys),
            k,
            ([r > least[0] for r in keys], [r == least[0] for r in keys], number),
        )
        kept = [a | (t & (found[0] == k[0])) for a, t in zip(above, tied, strict=True)]
        return live(params, jax.tree.unflatten(structure, kept))

    tied = (number[0] != k[0]) & (ties > 1)
    return thresholds.if_needed(tied, broken, mask), least
