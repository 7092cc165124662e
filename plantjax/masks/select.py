"""Selection of the highest scores at an exact density, and basic operations on masks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.masks import patterns, thresholds, topk
from plantjax.masks.counts import even, kept_per_group
from plantjax.masks.groups import flatten, gather, members, scatter
from plantjax.nets import liveness, wirings
from plantjax.types import Key, Mask, Params, Prunable


def select(
    key: Key,
    scores: Params,
    density: chex.Numeric,
    scope: str = "global",
    within: Mask | None = None,
    counts: jax.Array | None = None,
    *,
    prunable: Prunable | None = None,
) -> Mask:
    """Keeps the highest scores: exactly k = clip(floor(density n + 0.5), 1, n) of n.

    Scores are ordered like floats: +0 equals -0, denormals are distinct, -inf is the lowest number,
    and NaN comes after it. Ties are broken by random priorities from the key. Works under jit, and
    under vmap over key, scores and density.

    Patterns are scopes too. "N:M", as in "2:4", keeps min(N, k of M) of every M consecutive inputs
    of an output, and "fan_in" k inputs of every output, in each array. "AxB", as in "4x4", keeps k
    of an array's blocks of A inputs and B outputs; "whole_channels" k output channels of a layer.
    The highest mean scores are kept. Where M, A or B is no divisor, the last group or block is
    smaller; a group keeps as many as others, or all that it has. A bias has one input.

    Args:
      key: consumed.
      scores: pytree of float arrays.
      density: in (0, 1]; may be traced.
      scope: what shares k in proportion to its size. "global": everything together; "local": every
        array; "layer": every layer (the arrays with the same parent path); "channel": every output
        channel (last axis) of a layer; "oracle": every layer, by `counts` and up to its size.
        Shares are rounded by largest remainder; arrays and layers keep at least one if k allows it.
      within: a mask; entries pruned there stay pruned. If fewer than k are left, all are kept.
      counts: int [L], only for "oracle": numbers per layer, in natural order of their paths.
      prunable: predicate on leaf paths; by default every leaf is prunable.

    Returns:
      A mask with the structure of the scores.

    Raises:
      ValueError: if the scope is unknown, (concrete) density is outside (0, 1], `within` does not
        match the scores, a score is not a float array, counts are missing, superfluous or not [L],
        or the arrays of a layer have different numbers of channels (scope "channel").

    Source: paper, section 4; `docs/differences.md` says how the authors' code differs.

    >>> import jax, jax.numpy as jnp
    >>> scores = {"kernel": jnp.array([[3.0, 1.0], [2.0, 0.0]])}
    >>> select(jax.random.key(0), scores, 0.5)["kernel"].tolist()
    [[True, False], [True, False]]
    """
    return reselect(key, scores, density, None, scope, within, counts, prunable=prunable)[0]


def reselect(
    key: Key,
    scores: Params,
    density: chex.Numeric,
    near: jax.Array | None,
    scope: str = "global",
    within: Mask | None = None,
    counts: jax.Array | None = None,
    *,
    prunable: Prunable | None = None,
) -> tuple[Mask, jax.Array]:
    """The same as `select`, but faster if the scores have changed little since the last call.

    Args:
      key: consumed.
      scores: see `select`, as for all other arguments except `near`.
      density: in (0, 1].
      near: the thresholds returned by the last call; None or zeros (see `unknown`) in the first.
      scope: where parameters compete.
      within: a mask; entries pruned there stay pruned.
      counts: only for "oracle".
      prunable: predicate on leaf paths.

    Returns:
      (the mask of `select`, regardless of `near`; thresholds uint32 [G], one per group).

    Raises:
      ValueError: as for `select`.

    >>> key, scores = jax.random.key(0), {"kernel": jnp.array([3.0, 1.0])}
    >>> mask, near = reselect(key, scores, 0.5, None)
    >>> reselect(key, scores, 0.5, near)[0]["kernel"].tolist()
    [True, False]
    """
    patterns.check_scope("scope", scope)
    checks.density(density)
    if within is not None:
        checks.mask("within", within, "scores", scores)
    paths, leaves, structure = flatten(scores)
    pattern = patterns.parse(scope)
    groups = members(paths, "local" if pattern else scope, prunable)
    for i in (i for group in groups for i in group):
        if not checks.is_float(leaves[i]):
            raise ValueError(
                f"scores[{paths[i]}] must be floats, got {jnp.result_type(leaves[i])}."
            )
    if pattern is not None:
        inner = None if within is None else jax.tree.leaves(within)
        kept_leaves = patterns.select(key, paths, leaves, density, pattern, inner, prunable)
        return jax.tree.unflatten(structure, kept_leaves), unknown(scores, scope, prunable)
    values = gather(topk.of_one_dtype(leaves), groups, scope)
    kept = kept_per_group(density, scope, [value.size for value in values], counts)
    allowed = None if within is None else gather(jax.tree.leaves(within), groups, scope)
    if scope == "channel":
        rows = [even(k, value.shape[0]) for k, value in zip(kept, values, strict=True)]
        marks, near = topk.top_of_rows(key, values, rows, allowed, near)
    else:
        marks, near = topk.top(key, values, kept, allowed, near)
    masks = [jnp.ones(jnp.shape(leaf), bool) for leaf in leaves]
    for group, part in zip(groups, marks, strict=True):
        for i, leaf in zip(group, scatter(part, [leaves[i] for i in group]), strict=True):
            masks[i] = leaf
    return jax.tree.unflatten(structure, masks), near


def unknown(params: Params, scope: str = "global", prunable: Prunable | None = None) -> jax.Array:
    """Thresholds for the first `reselect`: zeros uint32 [G].

    >>> import jax.numpy as jnp
    >>> unknown({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "local").tolist()
    [0, 0]
    """
    paths, leaves, _ = flatten(params)
    if patterns.parse(scope) is not None:
        return jnp.zeros(0, jnp.uint32)
    groups = members(paths, scope, prunable)
    if scope == "channel":
        return jnp.zeros(sum(jnp.shape(leaves[group[0]])[-1] for group in groups), jnp.uint32)
    return jnp.zeros(len(groups), jnp.uint32)


def full(params: Params) -> Mask:
    """The mask that keeps everything.

    >>> import jax.numpy as jnp
    >>> full({"w": jnp.zeros(2)})["w"].tolist()
    [True, True]
    """
    return jax.tree.map(lambda p: jnp.ones(jnp.shape(p), bool), params)


def nonzero(params: Params) -> Mask:
    """The mask that keeps the entries that are not zero.

    >>> import jax.numpy as jnp
    >>> nonzero({"w": jnp.array([0.0, -1.0])})["w"].tolist()
    [False, True]
    """
    return jax.tree.map(lambda p: jnp.ones(p.shape, bool) if checks.is_key(p) else p != 0, params)


def apply(params: Params, mask: Mask) -> Params:
    """Sets pruned parameters to exactly zero, even where they are NaN; random keys stay.

    Raises:
      ValueError: if the mask does not have the structure and shapes of the params, or is not bool.

    >>> import jax.numpy as jnp
    >>> apply({"w": jnp.array([2.0, jnp.nan])}, {"w": jnp.array([True, False])})["w"].tolist()
    [2.0, 0.0]
    """
    checks.mask("mask", mask, "params", params)
    return jax.tree.map(
        lambda p, m: p if checks.is_key(p) else jnp.where(m, p, jnp.zeros_like(p)), params, mask
    )


def count(mask: Mask, prunable: Prunable | None = None) -> jax.Array:
    """Number of kept prunable parameters, int32.

    >>> import jax.numpy as jnp
    >>> int(count({"w": jnp.array([True, False])}))
    1
    """
    return _total(mask, prunable)


def size(params: Params, prunable: Prunable | None = None) -> int:
    """Number of prunable parameters n.

    >>> import jax.numpy as jnp
    >>> size({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
    9
    >>> size({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, lambda path: path == "kernel")
    6
    """
    paths, leaves, _ = flatten(params)
    return sum(
        int(np.size(leaf))
        for path, leaf in zip(paths, leaves, strict=True)
        if prunable is None or prunable(path)
    )


def density(mask: Mask, prunable: Prunable | None = None) -> jax.Array:
    """Fraction of the prunable parameters that are kept, float32.

    >>> import jax.numpy as jnp
    >>> float(density({"kernel": jnp.array([True, False])}))
    0.5
    """
    return count(mask, prunable).astype(jnp.float32) / size(mask, prunable)


def overlap(mask: Mask, other: Mask, prunable: Prunable | None = None) -> jax.Array:
    """Number of entries kept in both masks, int32.

    Raises:
      ValueError: if the masks do not match.

    >>> import jax.numpy as jnp
    >>> int(overlap({"w": jnp.array([True, False])}, {"w": jnp.array([True, True])}))
    1
    """
    checks.mask("other", other, "mask", mask)
    return _total(jax.tree.map(jnp.logical_and, mask, other), prunable)


def group_counts(mask: Mask, scope: str = "layer", prunable: Prunable | None = None) -> jax.Array:
    """Kept entries per group of a scope (see `select`), int32 [G], in natural order of the paths.

    >>> import jax, plantjax
    >>> params = plantjax.nets.init(jax.random.key(0), (2, 8, 4))
    >>> group_counts(full(params)).tolist(), group_counts(full(params), "local").tolist()
    ([24, 36], [8, 16, 4, 32])
    """
    paths, leaves, _ = flatten(mask)
    if (pattern := patterns.parse(scope)) is not None:
        _, parts = patterns.tiles(paths, leaves, pattern, prunable)
    else:
        parts = gather(leaves, members(paths, scope, prunable), scope)
    return jnp.concatenate([jnp.sum(jnp.atleast_2d(part), 1, dtype=jnp.int32) for part in parts])


def live(params: Params, mask: Mask, wiring: wirings.Wiring | None = None) -> Mask:
    """The part of a mask that lies on paths from an input or a positive bias to an output.

    fwd is true for inputs; for unit j it is any_i(m_ij fwd_i) or (b_j is kept and b_j > 0). bwd is
    true for outputs; for unit i it is any_j(m_ij bwd_j). A weight is live if m_ij fwd_i bwd_j. A
    bias is live if it is kept, bwd_j and, in hidden layers, fwd_j. A channel of an image is a unit.

    Args:
      params: a chain of dense layers and convolutions, or structured as in the wiring; only the
        signs of the biases are used.
      mask: a mask with the structure of the params.
      wiring: how the layers connect; by default a chain.

    Returns:
      A mask contained in `mask`, with which the masked network computes the same function.

    Raises:
      ValueError: if params is not a chain, does not match the wiring, or the mask does not match.

    >>> import jax, jax.numpy as jnp, plantjax
    >>> params = plantjax.nets.init(jax.random.key(0), (2, 2, 1))
    >>> mask = full(params)
    >>> mask["layer_01"]["kernel"] = jnp.array([[True], [False]])  # the second unit is not read
    >>> live(params, mask)["layer_00"]["kernel"].tolist()
    [[True, False], [True, False]]
    """
    checks.mask("mask", mask, "params", params)
    return liveness.live(params, mask, wirings.chain(params) if wiring is None else wiring)


def _total(mask: Mask, prunable: Prunable | None) -> jax.Array:
    paths, leaves, _ = flatten(mask)
    counted = [
        leaf for path, leaf in zip(paths, leaves, strict=True) if prunable is None or prunable(path)
    ]
    return jnp.sum(thresholds.totals(counted), dtype=jnp.int32)
