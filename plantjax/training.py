"""Masked training: one scan over epochs and batches, pruned parameters exactly zero throughout."""

import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params


def fit(
    key: Key,
    params: Params,
    mask: Mask,
    data: Batch,
    *,
    apply: Apply,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
) -> tuple[Params, jax.Array]:
    """Trains the kept parameters; the pruned ones start, stay and end at exactly zero.

    Gradients and updates are both masked, so that no optimizer can revive a pruned parameter: not
    by its state, nor by weight decay or noise. Every epoch draws a new permutation of the data
    (key folded with the epoch); the last partial batch is dropped.

    Args:
      key: consumed.
      params: pytree of float arrays, where training starts.
      mask: of the params' structure.
      data: N training samples.
      apply: `(params, x) -> outputs`.
      loss: `(outputs, y) -> scalar`.
      optimizer: any optax optimizer; its hyper-parameters may be traced.
      epochs: number of passes over the data, 0 or more.
      batch_size: samples per step, 1 to N.

    Returns:
      (trained params, mean training loss of each epoch [epochs]).

    Raises:
      ValueError: if trees do not match, (concrete) params are not finite, epochs is negative, or
        batch_size is not in [1, N], or (concrete) labels of a dense chain are not in [0, O).
    """
    checks.batch(data)
    n = data.x.shape[0]
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1, n)
    checks.finite("params", params)
    params = masks.apply(params, mask)
    if nets.is_chain(params):
        checks.labels(data.y, nets.widths(params)[-1])
    steps = n // batch_size

    def step(
        state: tuple[Params, optax.OptState], batch: Batch
    ) -> tuple[tuple[Params, optax.OptState], jax.Array]:
        params, opt_state = state
        value, gradient = jax.value_and_grad(lambda p: loss(apply(p, batch.x), batch.y))(params)
        with jax.numpy_dtype_promotion("standard"):  # optax does not run under "strict"
            updates, opt_state = optimizer.update(masks.apply(gradient, mask), opt_state, params)
        params = optax.apply_updates(params, masks.apply(updates, mask))
        return (params, opt_state), value

    def epoch(
        state: tuple[Params, optax.OptState], index: jax.Array
    ) -> tuple[tuple[Params, optax.OptState], jax.Array]:
        order = jax.random.permutation(jax.random.fold_in(key, index), n)
        order = order[: steps * batch_size].reshape(steps, batch_size)
        state, values = jax.lax.scan(step, state, jax.tree.map(lambda a: a[order], data))
        return state, jnp.mean(values)

    start = (params, optimizer.init(params))
    (params, _), losses = jax.lax.scan(epoch, start, jnp.arange(epochs))
    return params, losses
