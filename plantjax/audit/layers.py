"""Detectors work on one layer at a time: a kernel as a matrix, and its bias."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.nets import wirings
from plantjax.types import Params

ScoreLayer: TypeAlias = Callable[[jax.Array, jax.Array | None], tuple[jax.Array, jax.Array | None]]
"""`(kernel [R, O], bias [O] or None) -> scores of both`."""


def by_layer(params: Params, score: ScoreLayer) -> Params:
    """Scores of all parameters, layer by layer.

    A layer is an array of two or more axes [..., O], with the vectors [O] beside it, of which the
    first is its bias; vectors without such an array are scored as a bias alone, with an empty
    kernel.

    Args:
      params: any pytree of float arrays.
      score: applied to every layer.

    Returns:
      A tree like params, float32.

    Raises:
      ValueError: if a leaf is not a float array, or not finite.
    """
    checks.finite("params", params)
    found: dict[str, jax.Array] = {}
    groups: dict[str, dict[str, jax.Array]] = {}
    for path, leaf in wirings.leaves(params).items():
        parent = path.rpartition("/")[0]
        groups.setdefault(parent, {})[path] = jnp.asarray(leaf, jnp.float32)
    for group in groups.values():
        vectors = {path: leaf for path, leaf in group.items() if leaf.ndim < 2}
        for path, leaf in group.items():
            if leaf.ndim < 2:
                continue
            beside = next((p for p, v in vectors.items() if v.shape == leaf.shape[-1:]), None)
            bias = None if beside is None else vectors.pop(beside)
            kernel_scores, bias_scores = score(leaf.reshape(-1, leaf.shape[-1]), bias)
            found[path] = kernel_scores.reshape(leaf.shape)
            if beside is not None and bias_scores is not None:
                found[beside] = bias_scores
        for path, leaf in vectors.items():
            _, scores = score(jnp.zeros((0, leaf.size), leaf.dtype), leaf.ravel())
            found[path] = jnp.zeros_like(leaf) if scores is None else scores.reshape(leaf.shape)
    return wirings.replace(params, found)
