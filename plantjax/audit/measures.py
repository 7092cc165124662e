"""How well detectors tell the parameters of a ticket from those of its mother."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
from plantjax.audit.detectors import DETECTORS, Detector
from plantjax.nets import wirings
from plantjax.types import Key, Metrics, Planted


def auc(scores: jax.Array, truth: jax.Array) -> jax.Array:
    """The probability that a random true entry scores above a random other one; ties count half.

    This is the area under the ROC curve, by ranks, exact up to the rounding of a sum.

    Args:
      scores: float, of any shape.
      truth: bool, of the same shape.

    Returns:
      A float32 scalar; NaN if all entries are true, or none.

    Raises:
      ValueError: if the shapes differ or truth is not bool.

    >>> import jax.numpy as jnp
    >>> float(auc(jnp.array([3.0, 1.0, 1.0, 0.0]), jnp.array([True, True, False, False])))
    0.875
    """
    _check(scores, truth)
    true = jnp.ravel(truth)
    return _auc(_ranks(jnp.ravel(scores)), true, ~true)


def recall(scores: jax.Array, truth: jax.Array) -> jax.Array:
    """The share of the true entries among as many with the highest scores; ties by chance.

    Args:
      scores: float, of any shape.
      truth: bool, of the same shape.

    Returns:
      Its expected value if ties are broken at random, a float32 scalar; NaN if none is true.

    Raises:
      ValueError: if the shapes differ or truth is not bool.

    >>> import jax.numpy as jnp
    >>> truth = jnp.array([True, True, False, False])
    >>> float(recall(jnp.array([3.0, 1.0, 1.0, 0.0]), truth)), float(recall(jnp.ones(4), truth))
    (0.75, 0.5)
    """
    _check(scores, truth)
    flat, true = jnp.ravel(scores), jnp.ravel(truth)
    order, n_true = jnp.sort(flat), jnp.sum(true, dtype=jnp.int32)
    last = order[jnp.maximum(flat.size - n_true, 0)]  # the lowest score that is still chosen
    above, tied = flat > last, flat == last
    room = _count(true) - _count(above)
    chosen = _count(above & true) + room * _count(tied & true) / _count(tied)
    return chosen / _count(true)


def leaks(
    planted: Planted,
    detectors: Mapping[str, Detector] | None = None,
) -> Metrics:
    """What each detector tells of a ticket; jits and vmaps.

    Args:
      planted: mother and ticket, any pytree.
      detectors: functions by name, by default DETECTORS.

    Returns:
      Float32 scalars: "NAME/auc" and "NAME/recall" over all parameters, and for each array
      "NAME/PATH/auc", as in "twins/layer_03/kernel/auc", which is NaN where all or none are true.

    Raises:
      ValueError: if a parameter is not a finite float.

    >>> import jax.numpy as jnp, plantjax as pj
    >>> params, mask = {"w": jnp.array([3.0, 1.0, 2.0])}, {"w": jnp.array([True, False, False])}
    >>> planted = pj.types.Planted(params, mask, scale=jnp.ones(1))
    >>> float(pj.audit.leaks(planted, {"large": pj.audit.large})["large/w/auc"])
    1.0
    """
    checks.mask("planted.mask", planted.mask, "planted.params", planted.params)
    chosen = DETECTORS if detectors is None else detectors
    truth = wirings.leaves(planted.mask)
    scores = [wirings.leaves(detector(planted.params)) for detector in chosen.values()]
    values = jnp.stack([_flat({path: part[path] for path in truth}) for part in scores])  # [D, P]
    true = _flat(truth)
    owner = np.repeat(np.arange(len(truth)), [mask.size for mask in truth.values()])
    inside = jnp.asarray(owner[None, :] == np.arange(len(truth))[:, None])  # [arrays, P]
    ranks = jax.vmap(_ranks)(values)
    aucs = jax.vmap(_auc, (0, None, None))(ranks, true, ~true)
    within = jax.lax.map(
        lambda part: jax.vmap(_auc, (0, None, None))(ranks, true & part, ~true & part), inside
    )  # [arrays, D]
    recalls = jax.vmap(recall, (0, None))(values, true)
    found: Metrics = {}
    for index, name in enumerate(chosen):
        found |= {f"{name}/auc": aucs[index], f"{name}/recall": recalls[index]}
        found |= {f"{name}/{path}/auc": within[at, index] for at, path in enumerate(truth)}
    return found


def audit(
    draw: Callable[[Key], Planted],
    keys: Key,
    detectors: Mapping[str, Detector] | None = None,
) -> Metrics:
    """The leaks of many mothers.

    Args:
      draw: draws a mother with its ticket; pure.
      keys: [S], one for each mother.
      detectors: functions by name, by default DETECTORS.

    Returns:
      The entries of `leaks`, each [S].

    Raises:
      ValueError: as `draw` and `leaks` do.

    >>> import jax, plantjax as pj
    >>> def draw(key):
    ...     w = jax.random.normal(key, (9,))
    ...     return pj.types.Planted({"w": w}, {"w": w > 0.5}, scale=jax.numpy.ones(1))
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> pj.audit.audit(draw, keys, {"large": pj.audit.large})["large/auc"].shape
    (3,)
    """
    planted = jax.jit(jax.vmap(draw))(keys)
    chosen = DETECTORS if detectors is None else detectors
    found: Metrics = _all_leaks(planted, tuple(chosen.items()))
    return found


@partial(jax.jit, static_argnums=1)
def _all_leaks(planted: Planted, detectors: tuple[tuple[str, Detector], ...]) -> Metrics:
    """`leaks` of mothers [S, ...]; compiled once for all tasks of the same shapes."""
    found: Metrics = jax.lax.map(lambda one: leaks(one, dict(detectors)), planted, batch_size=2)
    return found


def _flat(leaves: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves.values()])


class _Ranks(NamedTuple):
    """The order [P] of scores, and for each the number of entries below it, and not above it."""

    order: jax.Array
    below: jax.Array
    not_above: jax.Array


def _ranks(scores: jax.Array) -> _Ranks:
    order = jnp.argsort(scores)
    ends = (jnp.searchsorted(scores[order], scores, side=side) for side in ("left", "right"))
    return _Ranks(order, *ends)


def _auc(ranks: _Ranks, true: jax.Array, others: jax.Array) -> jax.Array:
    """`auc` between the entries [P] that are `true` and those that are `others`."""
    others_at = jnp.pad(jnp.cumsum(others[ranks.order], dtype=jnp.int32), (1, 0))
    wins = (others_at[ranks.below] + others_at[ranks.not_above]).astype(jnp.float32)
    return jnp.sum(jnp.where(true, wins / (2.0 * _count(others)), 0.0)) / _count(true)


def _count(entries: jax.Array) -> jax.Array:
    return jnp.sum(entries, dtype=jnp.int32).astype(jnp.float32)


def _check(scores: jax.Array, truth: jax.Array) -> None:
    if jnp.shape(scores) != jnp.shape(truth):
        raise ValueError(
            f"scores must have the shape of truth {jnp.shape(truth)}, got {jnp.shape(scores)}."
        )
    if jnp.result_type(truth) != jnp.bool_:
        raise ValueError(f"truth must be a bool array, got {jnp.result_type(truth)}.")
