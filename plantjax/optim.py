"""Optimizers that keep a network sparse, as wrappers around any optax optimizer."""

import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks
from plantjax.types import Mask, Params


def keep_pruned(
    optimizer: optax.GradientTransformation, mask: Mask
) -> optax.GradientTransformationExtraArgs:
    """Trains the kept parameters only; pruned ones stay, or become, exactly zero.

    The optimizer sees the sparse network: gradients and parameters are masked before they enter, so
    that norms for clipping, moments, averages and weight decay know nothing of pruned entries, not
    even of NaN in them. Updates are masked when they leave.

    Args:
      optimizer: any optax optimizer, also a chain with clipping or averaging.
      mask: pytree of bool arrays with the structure of the parameters.

    Returns:
      An optax optimizer; its `update` needs the parameters.

    Raises:
      ValueError: when it is used, if the parameters do not fit the mask or are not given.

    >>> import jax.numpy as jnp, optax, plantjax as pj
    >>> params, mask = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([True, False])}
    >>> clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))
    >>> optimizer = pj.optim.keep_pruned(clipped, mask)
    >>> gradient = {"w": jnp.array([0.5, 100.0])}
    >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.75, 0.0]
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Params) -> optax.OptState:
        return inner.init(masks.apply(params, mask))

    def update(
        gradient: Params, state: optax.OptState, params: Params | None = None, **extra: object
    ) -> tuple[Params, optax.OptState]:
        if params is None:
            raise ValueError("params must be given to the update of keep_pruned, got None.")
        checks.mask("mask", mask, "params", params)
        kept = masks.apply(params, mask)
        updates, state = inner.update(masks.apply(gradient, mask), state, kept, **extra)
        return jax.tree.map(lambda m, u, p: jnp.where(m, u, -p), mask, updates, params), state

    return optax.GradientTransformationExtraArgs(init, update)
