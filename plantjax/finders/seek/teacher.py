"""Labels from small free networks: a few are trained on the data, and vote on it and around it.

Strong tickets fit the noise of labels, and the places of 9,000 samples. A trained network of a few
thousand free parameters knows the classes much better than any sparse mask. Its labels have little
noise, and can be had at any place.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from plantjax import losses, masks, nets, training
from plantjax.finders.seek.subnetwork import matmul
from plantjax.types import Batch, Key, Params

WIDTH, EPOCHS, BATCH, RATE, DECAY = 64, 160, 128, 1e-2, 1e-3
POWER = 0.35  # of the training loss; with much more, a network may ignore a whole class
WORSE = 0.01  # a member has no vote if it is wrong this much more often than the best
COPIES, JITTER = 2, 0.05  # copies of the inputs, moved by up to this share of their range


def relabelled(key: Key, data: Batch, classes: int, members: int) -> Batch:
    """The inputs and jittered copies of them, all with the labels of trained networks.

    Args:
      key: consumed.
      data: N samples with labels.
      classes: number of classes O.
      members: number of networks; their class probabilities are averaged.

    Returns:
      (1 + COPIES) N samples, those of the data first and in their order.
    """
    train_key, jitter_key = jax.random.split(key)
    trained = jax.lax.map(
        lambda member: _train(member, data, classes), jax.random.split(train_key, members)
    )
    x = jnp.concatenate([data.x, _jittered(jitter_key, data.x)])

    def vote(params: Params) -> tuple[jax.Array, jax.Array]:
        share = jax.nn.softmax(_outputs(params, x))
        wrong = jnp.argmax(share[: data.y.shape[0]], axis=1).astype(jnp.int32) != data.y
        return share, jnp.mean(wrong.astype(jnp.float32))

    votes, wrong = jax.lax.map(vote, trained)  # [members, N, O], [members]
    trusted = (wrong <= jnp.min(wrong) + WORSE)[:, None, None]
    total = jnp.sum(jnp.where(trusted, votes, 0.0), axis=0)
    return Batch(x, jnp.argmax(total, axis=1).astype(data.y.dtype))


def _train(key: Key, data: Batch, classes: int) -> Params:
    init_key, train_key = jax.random.split(key)
    flat, unravel = ravel_pytree(nets.init(init_key, (data.x.shape[1], WIDTH, WIDTH, classes)))
    params = {"flat": flat}  # one array compiles in less time than a tree
    batch = min(BATCH, data.x.shape[0])
    steps = EPOCHS * (data.x.shape[0] // batch)
    trained, _ = training.fit(
        train_key,
        params,
        masks.full(params),
        data,
        apply=lambda params, x: _outputs(unravel(params["flat"]), x),
        loss=partial(losses.robust_cross_entropy, power=POWER),
        optimizer=optax.adamw(optax.cosine_decay_schedule(RATE, steps), weight_decay=DECAY),
        epochs=EPOCHS,
        batch_size=batch,
    )
    return unravel(trained["flat"])


def _outputs(params: Params, x: jax.Array) -> jax.Array:
    """Outputs of a chain with GELU: its smooth boundaries need fewer samples than those of ReLU."""
    *hidden, last = nets.layers(params)
    for layer in hidden:
        x = jax.nn.gelu(matmul(x, layer["kernel"]) + layer["bias"][None, :])
    return matmul(x, last["kernel"]) + last["bias"][None, :]


def _jittered(key: Key, x: jax.Array) -> jax.Array:
    """Copies of the inputs [COPIES N, I], moved at random and reflected into their range."""
    low, high = jnp.min(x, axis=0, keepdims=True), jnp.max(x, axis=0, keepdims=True)
    copies = jnp.tile(x, (COPIES, 1))
    moves = jax.random.uniform(
        key, copies.shape, minval=-JITTER, maxval=JITTER, dtype=jnp.float32
    ) * (high - low)
    copies = copies + moves
    copies = jnp.where(copies > high, 2 * high - copies, copies)
    return jnp.where(copies < low, 2 * low - copies, copies)
