"""PX: the share of a parameter in a bound on the trace of the tangent kernel, by paths.

The bound is a product of two sums over paths: one of data and of the units that they activate, one
of squared weights. Each is the output of an auxiliary network.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from plantjax import masks
from plantjax.masks import groups
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, Prunable, ScoreFn

_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "checkpoint")
"""Primitives that run a traced function once."""


def px(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores theta^2 dR/dtheta^2, R = sum over outputs k of A_k V_k, from sums over paths.

    V_k is output k of the network with weights theta^2 on an input of ones. A_k is the sum over
    samples of output k of a network that has kept weights 1, no biases, squared data, and the
    network's own active units in place of ReLU. Kernels and biases of a layer have the same sum of
    scores as those of every other layer, R, if biases are zero.

    ReLUs (maxima with 0) are replaced by the active units; other functions are applied as they are.
    Weights 1 are divided by their fan-in, which in chains is one common factor. Leaves that are not
    prunable by the apply's attribute keep their sizes. An apply with a `flow` (for batch norm) is
    replaced by it.

    Source: Iurada et al. 2024, https://arxiv.org/abs/2406.01820; the released code squares the
    derivative, we follow the formula of the paper. The loss is not used.

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> params = pj.nets.init(jax.random.key(0), (2, 8, 8, 3), "he_zero_bias")
    >>> batch = pj.types.Batch(jax.random.normal(jax.random.key(1), (20, 2)), None)
    >>> score = jax.jit(pj.SCORES["px"](pj.nets.apply, None))
    >>> found = score(jax.random.key(2), params, pj.masks.full(params), batch)
    >>> sums = [float(jnp.sum(layer["kernel"])) for layer in found.values()]
    >>> max(sums) / min(sums) < 1.0001
    True
    """
    del loss
    flow = getattr(apply, "flow", apply)
    prunable = getattr(apply, "prunable", None)

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key
        masked = masks.apply(params, mask)
        squares = jax.tree.map(jnp.square, masked)
        active = gated(flow, masked, _ones(params, mask, prunable), batch.x, jnp.square(batch.x))
        weight = jax.lax.stop_gradient(jnp.sum(active, axis=0))  # A [O]
        ones = jnp.ones((1, *batch.x.shape[1:]), batch.x.dtype)
        slope = jax.grad(lambda s: jnp.sum(weight[None] * flow(s, ones)))(squares)
        return jax.tree.map(jnp.multiply, squares, slope)

    return score


def gated(apply: Apply, params: Params, others: Params, x: jax.Array, z: jax.Array) -> jax.Array:
    """The network with other parameters and inputs, whose ReLUs pass what passes in the first.

    Args:
      apply: `(params, x) -> outputs`; maxima with 0 are its ReLUs.
      params: that say with x which units are active.
      others: that the result is computed with, from z.
      x: inputs.
      z: inputs of the same shape.

    Returns:
      Outputs of the shape of `apply(params, x)`.

    >>> import jax, jax.numpy as jnp
    >>> def apply(w, x):
    ...     return jax.nn.relu(w * x)
    >>> x = jnp.array([-1.0, 1.0])
    >>> gated(apply, jnp.float32(2.0), jnp.float32(-3.0), x, jnp.ones(2)).tolist()
    [0.0, -3.0]
    """
    closed = jax.make_jaxpr(apply)(params, x)
    own, other = (jax.tree.leaves(pair) for pair in ((params, x), (others, z)))
    (result,) = _run(closed, list(zip(own, other, strict=True)))
    return result[1]


def _run(closed: core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    """Runs a traced function on pairs: its own values, and those of the gated network."""
    jaxpr = closed.jaxpr
    known: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {v: (c, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}

    def read(atom: Any) -> Any:
        return (atom.val, atom.val) if isinstance(atom, core.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        pairs = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in _CALLS:
            results = _run(eqn.params.get("jaxpr") or eqn.params["call_jaxpr"], pairs)
        elif eqn.primitive.name == "max" and _is_zero(eqn.invars[1]):
            own, other = pairs[0]
            results = [(jnp.maximum(own, 0), jnp.where(own > 0, other, jnp.zeros_like(other)))]
        else:
            both = [eqn.primitive.bind(*side, **eqn.params) for side in zip(*pairs, strict=True)]
            results = list(zip(*both, strict=True)) if eqn.primitive.multiple_results else [both]
        known |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_zero(atom: Any) -> bool:
    return isinstance(atom, core.Literal) and not np.any(atom.val)


def _ones(params: Params, mask: Mask, prunable: Prunable | None) -> Params:
    """The weights of the network of active paths."""

    def one(path: str, leaf: jax.Array, kept: jax.Array) -> jax.Array:
        if prunable is not None and not prunable(path):
            return jnp.abs(leaf)
        if leaf.ndim < 2:
            return jnp.zeros_like(leaf)
        return kept.astype(leaf.dtype) * (leaf.shape[-1] / leaf.size)

    paths, leaves, structure = groups.flatten(params)
    return jax.tree.unflatten(structure, list(map(one, paths, leaves, jax.tree.leaves(mask))))
