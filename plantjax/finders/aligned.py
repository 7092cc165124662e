"""Aligned: a mask that is found on another initialisation, carried over by permuting units."""

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, masks, nets, training
from plantjax.finders import common
from plantjax.finders.multishot import multishot
from plantjax.nets import chains
from plantjax.types import Apply, Batch, Finder, Found, Key, MakeScore, Mask, Params, Prunable, Task


@common.on_floats
def aligned(
    task: Task,
    *,
    apply: Apply = nets.apply,
    score: str | MakeScore = "magnitude",
    rounds: int = 1,
    scope: str = "global",
    level_epochs: int = 5,
    align_epochs: int = 5,
    batch_size: int = 32,
    search_learning_rate: float = 1e-3,
    prunable: Prunable | None = None,
) -> Finder:
    """Searches another mother, and permutes the found mask's units to fit this one.

    The other mother has the entries of this one, permuted within every array, as in the control
    "reinitialised". `multishot` finds a mask for it. Both mothers are trained densely, and the
    hidden units of each layer are matched one to one, such that the sum of the correlations of
    their activations over the data is largest.

    Args:
      task: defines the loss.
      apply: `(params, x) -> outputs`, of a chain of dense layers with ReLU.
      score: as in `multishot`, like rounds, scope and level_epochs.
      rounds: number of levels.
      scope: one of `masks.SCOPES`, see `masks.select`; no pattern, as inputs of units move.
      level_epochs: number of passes over the data in each level.
      align_epochs: number of passes over the data before matching; 0 matches the mothers.
      batch_size: samples per step.
      search_learning_rate: learning rate of Adam.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A Finder for chains of dense layers; `Found.params` are this mother's parameters.
      `Found.info` holds "correlation", the mean correlation of matched units.

    Raises:
      ValueError: if an option is unknown or out of range, or the network is no chain.

    Source: Adnan et al. 2025, https://arxiv.org/abs/2505.05143. We match activations; whether the
    dense networks are those of the first level there is uncertain.
    """
    checks.integer("align_epochs", align_epochs, 0)
    checks.choice("scope", scope, masks.SCOPES)  # units that move tear patterns apart
    finder = multishot(
        task,
        score=score,
        apply=apply,
        rounds=rounds,
        scope=scope,
        level_epochs=level_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
        prunable=prunable,
    )

    def dense(key: Key, params: Params, data: Batch) -> Params:
        trained, _ = training.fit(
            key,
            params,
            masks.full(params),
            data,
            apply=apply,
            loss=task.loss,
            optimizer=optax.adam(search_learning_rate),
            epochs=align_epochs,
            batch_size=batch_size,
        )
        return trained

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check_chain("aligned", apply, params)
        other_key, find_key, *train_keys = jax.random.split(key, 4)
        other = draws.permuted(other_key, params)
        mask = finder(find_key, other, data, density).mask
        mine, theirs = (dense(k, p, data) for k, p in zip(train_keys, (params, other), strict=True))
        orders, correlation = matching(mine, theirs, data.x)
        return Found(carried(mask, orders), params, {"correlation": correlation})

    return Finder(search, finder.scope, finder.rounds, finder.exact_counts)


def matching(params: Params, other: Params, x: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """The units of the other chain that resemble those of the first, layer by layer.

    Args:
      params: a chain of L layers.
      other: a chain of the same widths.
      x: inputs [N, I].

    Returns:
      (int32 [H] for each of the L - 1 hidden layers, the unit of the other chain for each unit of
      the first; mean correlation of matched units).
    """
    orders, found = [], []
    for one, two in zip(hidden(params, x), hidden(other, x), strict=True):
        similar = jnp.matmul(one.T, two, precision="highest")
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            rows, columns = optax.assignment.hungarian_algorithm(-similar)
        order = columns[jnp.argsort(rows)].astype(jnp.int32)
        orders.append(order)
        found.append(similar[jnp.arange(order.size, dtype=jnp.int32), order])
    mean = jnp.mean(jnp.concatenate(found)) if found else jnp.float32(1.0)
    return orders, mean


def carried(mask: Mask, orders: list[jax.Array]) -> Mask:
    """The mask of a chain with the units of each hidden layer in the given order."""
    moved = []
    for before, layer, after in zip(
        [None, *orders], nets.layers(mask), [*orders, None], strict=True
    ):
        kernel, bias = layer["kernel"], layer["bias"]
        if before is not None:
            kernel = kernel[before, :]
        if after is not None:
            kernel, bias = kernel[:, after], bias[after]
        moved.append({"kernel": kernel, "bias": bias})
    return chains.with_layers(mask, moved)


def hidden(params: Params, x: jax.Array) -> list[jax.Array]:
    """Activations [N, H] of each hidden layer, with mean 0 and length 1 over the samples."""
    normalised = []
    for layer in nets.layers(params)[:-1]:
        x = jnp.matmul(x, layer["kernel"], precision="highest") + layer["bias"][None, :]
        x = jax.nn.relu(x)
        centred = x - jnp.mean(x, axis=0)[None, :]
        length = jnp.sqrt(jnp.sum(jnp.square(centred), axis=0))
        normalised.append(centred / checks.divisor(length)[None, :])
    return normalised
