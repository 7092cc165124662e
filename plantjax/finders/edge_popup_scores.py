"""Scores of edge-popup: initial values, masks of the largest, straight-through gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from plantjax import checks, draws, losses, masks
from plantjax.types import Apply, Batch, Key, Mask, Params, Prunable

SCORE_INITS = ("fan_in", "equal")
COUNTED = ("all", "live")


@dataclass(frozen=True)
class Selection:
    """Selects the parameters with the largest |scores| during one search.

    Attributes:
      key: folded with the step to break ties.
      params: of the mother.
      scope: see `masks.select`.
      counts: layer counts for scope "oracle", else None.
      prunable: predicate on leaf paths, or None.
      budget: one of `COUNTED`.
    """

    key: Key
    params: Params
    scope: str
    counts: jax.Array | None
    prunable: Prunable | None
    budget: str = "all"

    def mask(
        self,
        scores: Params,
        density: jax.Array,
        step: jax.Array,
        near: jax.Array,
        invert: bool = False,
    ) -> tuple[Mask, jax.Array]:
        """Returns the mask and its thresholds; `near` are the last ones, see `masks.reselect`."""
        sizes = jax.tree.map(jnp.abs, jax.lax.stop_gradient(scores))
        sizes = jax.tree.map(jnp.negative, sizes) if invert else sizes
        key = jax.random.fold_in(self.key, step)
        if self.budget == "live":
            return masks.reselect_live(key, sizes, self.params, density, near)
        scope, counts, prunable = self.scope, self.counts, self.prunable
        return masks.reselect(key, sizes, density, near, scope, counts=counts, prunable=prunable)


def objective(
    params: Params,
    network: Apply,
    search_loss: losses.SearchLoss,
    mask_at: Callable[[Params, jax.Array, jax.Array], tuple[Mask, jax.Array]],
    effective: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> Callable[[Params, jax.Array, Batch, jax.Array], tuple[jax.Array, jax.Array]]:
    """The search loss of the masked network, as `training.minimize` takes it.

    Args:
      params: of the mother, frozen.
      network: `(params, x) -> outputs`.
      search_loss: loss of the masked network.
      mask_at: `(scores, thresholds, step) -> (mask, thresholds)`.
      effective: `(parameters, kept, scores) -> masked parameters`, array by array.

    Returns:
      `(learned, thresholds, batch, step) -> (loss, thresholds)`, with `learned` as `begin` returns
      it.
    """

    def loss(
        learned: Params, near: jax.Array, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        scores = learned["scores"]
        mask, near = mask_at(scores, near, step)
        masked = jax.tree.map(effective, params, mask, scores)
        outputs = network(masked, batch.x)
        return search_loss(outputs, batch.y, learned["log_scale"]), near

    return loss


def begin(key: Key, params: Params, init: str) -> Params:
    """Initial values of the learned tree: "scores" like params, and "log_scale" of the logits."""
    return {"scores": _initial(key, params, init), "log_scale": jnp.float32(0.0)}


def sgd(learning_rate: chex.Numeric, steps: int, warmup: int = 0) -> optax.GradientTransformation:
    """SGD with momentum 0.9, weight decay 5e-4 in the gradient, and cosine decay over `steps`.

    In the first `warmup` of these steps the learning rate rises from zero.
    """
    rates = optax.cosine_decay_schedule(learning_rate, steps)
    if warmup:
        rates = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    return optax.chain(
        optax.add_decayed_weights(5e-4),
        optax.trace(decay=0.9),
        optax.scale_by_learning_rate(rates),
    )


def straight(param: jax.Array, kept: jax.Array, score: jax.Array) -> jax.Array:
    """The masked parameter, with gradient theta sign(s) for its score."""
    moved = flip(param, score) * (score - jax.lax.stop_gradient(score))
    return jnp.where(kept, param, 0.0) + moved


def signed_straight(param: jax.Array, kept: jax.Array, score: jax.Array) -> jax.Array:
    """The masked parameter times the sign of its score, with gradient theta for the score."""
    moved = param * (score - jax.lax.stop_gradient(score))
    return jnp.where(kept, flip(param, score), 0.0) + moved


def flip(param: jax.Array, score: jax.Array) -> jax.Array:
    """The parameter times sign(s), with sign(0) = 1."""
    return jnp.where(score >= 0, param, -param)


def _initial(key: Key, params: Params, init: str) -> Params:
    """Initial scores; the fan-in of a layer is that of its largest array."""
    drawn = draws.symmetric(key, params)
    if init == "equal":
        return jax.tree.map(lambda draw: jnp.abs(0.1 * draw), drawn)

    def layer_of(path: Any) -> str:
        return checks.path_name(path).rpartition("/")[0]

    fan_in: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        layer = layer_of(path)
        fan_in[layer] = max(fan_in.get(layer, 1), math.prod(np.shape(leaf)[:-1]))
    return jax.tree_util.tree_map_with_path(
        lambda path, draw: fan_in[layer_of(path)] ** -0.5 * draw, drawn
    )
