"""Recovery: compares a found mask with the planted one, which takes a known ground truth.

Hidden units are exchangeable and other tickets exist, so recovery should never be read alone: a
mask can miss the planted one and still be a ticket.
"""

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, masks, nets
from plantjax.nets import liveness, wirings
from plantjax.types import Apply, Mask, Metrics, Params, Planted, Prunable


def compare(
    params: Params,
    found_mask: Mask,
    planted: Planted,
    *,
    scope: str = "global",
    wiring: wirings.Wiring | None = None,
    apply: Apply = nets.apply,
    prunable: Prunable | None = None,
) -> Metrics:
    """Compares a found mask F with the planted mask T.

    Args:
      params: the mother's parameters (the signs of the biases decide which paths are live).
      found_mask: F.
      planted: the ground truth, with mask T.
      scope: where parameters competed, for the feasible recall.
      wiring: how the layers connect; by default the attribute of `apply`.
      apply: the network; `nets.apply` is known to be a chain.
      prunable: predicate on leaf paths; only prunable parameters count, by default all.

    Returns:
      Float32 scalars. Over all parameters, and with the suffix "_weights" over kernels only:
      "precision" |F and T| / |F|, "recall" |F and T| / |T|, "f1", "iou". Per layer:
      "layer_00/precision", "layer_00/recall", ... Also "lift" (precision / density of T),
      "feasible_recall" (the most that the counts of the scope allow), "live_density" (live
      parameters / n), "connected" (1 if the inputs reach some output), and "collapsed" (layers
      without a kept weight). Where the wiring is not known, the values per layer, "live_density"
      and "connected" are missing.

    Raises:
      ValueError: if masks and params do not match, or the scope is unknown.

    Source: paper, section 4; `masks.live` defines the live paths.

    >>> import jax, plantjax as pj
    >>> mother = pj.nets.init(jax.random.key(0), (1, 9, 1))
    >>> planted = jax.jit(pj.plant)(jax.random.key(1), pj.targets.relu(depth=3), mother)
    >>> metrics = jax.jit(pj.recovery.compare)(planted.params, pj.masks.full(mother), planted)
    >>> float(metrics["recall"]), int(metrics["collapsed"])
    (1.0, 0)
    """
    masks.check_scope("scope", scope)
    checks.mask("found_mask", found_mask, "params", params)
    checks.mask("planted.mask", planted.mask, "params", params)
    weights = [leaf for leaf in jax.tree.leaves(found_mask) if jnp.ndim(leaf) >= 2]
    true_weights = [leaf for leaf in jax.tree.leaves(planted.mask) if jnp.ndim(leaf) >= 2]
    result = _agreement(found_mask, planted.mask, prunable)
    result["lift"] = result["precision"] / masks.density(planted.mask, prunable)
    result |= {f"{k}_weights": v for k, v in _agreement(weights, true_weights).items()}
    result["feasible_recall"] = feasible_recall(found_mask, planted.mask, scope, prunable)
    result["collapsed"] = collapsed(found_mask)
    wiring = wiring or wirings.of(apply, params)
    if wiring is not None:
        found, true = wirings.leaves(found_mask), wirings.leaves(planted.mask)
        for layer in wiring.layers:
            parts = [{path: mask[path] for path in layer.leaves} for mask in (found, true)]
            agreement = _agreement(parts[0], parts[1])
            result |= {f"{layer.name}/{key}": agreement[key] for key in ("precision", "recall")}
        result["live_density"] = masks.density(masks.live(params, found_mask, wiring), prunable)
        result["connected"] = liveness.connected(found_mask, wiring).astype(jnp.float32)
    return result


def feasible_recall(
    found_mask: Mask,
    planted_mask: Mask,
    scope: str = "global",
    prunable: Prunable | None = None,
) -> jax.Array:
    """The highest recall possible for a mask with as many entries per group as the found mask.

    With the same density in every layer it is far below 1 for tickets whose layers differ.

    Args:
      found_mask: F.
      planted_mask: T.
      scope: what a group is. "global": everything; "local": an array; "channel": an output channel;
        "layer" and "oracle": a layer.
      prunable: predicate on leaf paths; only prunable parameters count.

    Returns:
      sum over groups of min(|F|, |T|) / |T|, a float32 scalar.

    >>> import jax.numpy as jnp
    >>> found = {"a": {"w": jnp.array([True, False])}, "b": {"w": jnp.array([True, True])}}
    >>> planted = {"a": {"w": jnp.array([True, True])}, "b": {"w": jnp.array([False, False])}}
    >>> float(feasible_recall(found, planted)), float(feasible_recall(found, planted, "layer"))
    (1.0, 0.5)
    """
    found = masks.group_counts(found_mask, scope, prunable)
    true = masks.group_counts(planted_mask, scope, prunable)
    return _ratio(
        jnp.sum(jnp.minimum(found, true), dtype=jnp.int32), jnp.sum(true, dtype=jnp.int32)
    )


def collapsed(mask: Mask) -> jax.Array:
    """Number of kernels (arrays of two or more axes) without a kept weight, float32.

    >>> import jax.numpy as jnp
    >>> float(collapsed({"kernel": jnp.zeros((2, 2), bool), "bias": jnp.zeros(2, bool)}))
    1.0
    """
    weights = [leaf for leaf in jax.tree.leaves(mask) if jnp.ndim(leaf) >= 2]
    return sum((~jnp.any(leaf)).astype(jnp.float32) for leaf in weights) + jnp.float32(0.0)


def is_constant(outputs: jax.Array) -> jax.Array:
    """True if the outputs [N, O] vary over the samples only by rounding, as in a dead network.

    >>> import jax.numpy as jnp
    >>> bool(is_constant(jnp.ones((5, 2)))), bool(is_constant(jnp.eye(5)))
    (True, False)
    """
    chex.assert_rank(outputs, 2)
    spread = jnp.max(outputs, axis=0) - jnp.min(outputs, axis=0)
    return jnp.all(spread <= 1e-6 * jnp.max(jnp.abs(outputs), axis=0))


def _agreement(found: Mask, true: Mask, prunable: Prunable | None = None) -> Metrics:
    both = masks.overlap(found, true, prunable)
    n_found, n_true = masks.count(found, prunable), masks.count(true, prunable)
    return {
        "precision": _ratio(both, n_found),
        "recall": _ratio(both, n_true),
        "f1": _ratio(2 * both, n_found + n_true),
        "iou": _ratio(both, n_found + n_true - both),
    }


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    whole = whole.astype(jnp.float32)
    return part.astype(jnp.float32) / checks.divisor(whole)
