"""The benchmark's training in plain JAX: a Flax module, optax, and the two loops that people write.

`python_loop` calls a jitted step for every batch, network after network. `vmap_scan` puts all
epochs into one program with `lax.scan`, and vmaps that over networks, as purejaxrl does. Both train
as `plantjax` does: Adam, float32, a new order of the samples for every epoch, and pruned parameters
that start at zero and get no gradient.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from plantjax import masks, nets
from plantjax.types import Batch, Mask, Params

BATCH_SIZE = 32
OPTIMIZER = optax.adam(1e-3)


class Network(nn.Module):
    """A dense ReLU network."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The class scores of x [B, I]."""
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width, precision="highest")(x))
        return nn.Dense(self.widths[-1], precision="highest")(x)


def python_loop(params: Params, mask: Mask, data: Batch, seed: int, epochs: int) -> np.ndarray:
    """Trains network after network, batch after batch.

    Args:
      params: chains with a leading axis over networks [N, ...].
      mask: masks of these.
      data: training samples [N, S, ...].
      seed: of the orders of the samples.
      epochs: passes over the data.

    Returns:
      The mean loss of each network's last epoch [N].
    """
    random, last = np.random.default_rng(seed), []
    for index in range(data.y.shape[0]):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], (params, mask))
        state, kept = _start(*one)
        x, y = np.asarray(data.x[index]), np.asarray(data.y[index])
        for _ in range(epochs):
            losses = []
            for rows in _batches(random.permutation(len(x))):
                state, loss = _step(state, kept, x[rows], y[rows])
                losses.append(loss)
        last.append(np.mean(jax.device_get(losses)))
    return np.array(last)


@partial(jax.jit, static_argnames="epochs")
def vmap_scan(params: Params, mask: Mask, data: Batch, seed: int, epochs: int) -> jax.Array:
    """Trains all networks at once in one program; arguments and result as of `python_loop`."""

    def train(params: Params, mask: Mask, data: Batch, key: jax.Array) -> jax.Array:
        start, kept = _start(params, mask)

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
            return _step(state, kept, *batch)

        def epoch(state: TrainState, key: jax.Array) -> tuple[TrainState, jax.Array]:
            rows = _batches(jax.random.permutation(key, data.y.shape[0]))
            state, losses = jax.lax.scan(step, state, jax.tree.map(lambda a: a[rows], data))
            return state, jnp.mean(losses)

        _, losses = jax.lax.scan(epoch, start, jax.random.split(key, epochs))
        return losses[-1]

    keys = jax.random.split(jax.random.key(seed), data.y.shape[0])
    return jax.vmap(train)(params, mask, data, keys)


@jax.jit
def _step(state: TrainState, kept: Any, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
    def loss_of(params: Any) -> jax.Array:
        logits = state.apply_fn({"params": params}, x)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    gradients = jax.tree.map(jnp.multiply, gradients, kept)
    return state.apply_gradients(grads=gradients), loss


@lru_cache
def _network(widths: tuple[int, ...]) -> Network:
    return Network(widths)  # one object, so that its states share a compiled step


def _start(params: Params, mask: Mask) -> tuple[TrainState, Any]:
    """The state before training, and the mask in floats, both as Flax names the layers."""
    network = _network(nets.widths(params)[1:])
    pruned, kept = (
        {f"Dense_{index}": layer for index, layer in enumerate(nets.layers(tree))}
        for tree in (masks.apply(params, mask), mask)
    )
    kept = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), kept)
    return TrainState.create(apply_fn=network.apply, params=pruned, tx=OPTIMIZER), kept


def _batches(order: Any) -> Any:
    """The order of the samples in batches; those of the last partial batch are left out."""
    steps = len(order) // BATCH_SIZE
    return order[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)
