"""Gem-Miner: rounded gates in every forward pass, the lowest frozen off period by period."""

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, losses, masks, nets, training
from plantjax.finders import common, gates
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Task


def gem_miner(
    task: Task,
    *,
    apply: Apply = nets.apply,
    search_epochs: int = 20,
    period: int = 5,
    batch_size: int = 32,
    search_learning_rate: float = 0.01,
    optimizer: optax.GradientTransformation | None = None,
    loss: str = "scale-free",
    penalty: float = 1e-4,
) -> Finder:
    """Learns p in [0, 1] of frozen parameters theta; kept is what is active and has p > 0.5.

    p starts at U(0, 1) and is clamped after every step; straight-through: dL/dp = dL/d(m theta)
    theta where active. To the loss comes 1e-4 ||p||^2. At the start of the epochs T, 2 T, ... the
    ceil(r active) lowest p of the active ones, over weights and biases together, are frozen off,
    r = 1 - density^(1 / J) with J = floor((E - 1) / T), the number of such epochs.

    The mask is the rounded one: it keeps at most k, often fewer, because parameters with p <= 0.5
    were never part of the network that was learned.

    Args:
      task: gives the loss.
      apply: `(params, x) -> outputs`.
      search_epochs: passes over the data E.
      period: T, epochs between two freezes.
      batch_size: samples per step.
      search_learning_rate: of Adam, cosine over the run. The published SGD of rate 0.1 and
        momentum 0.9 loses half of the accuracy on Circle.
      optimizer: any optax optimizer instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", or "plain", the task's.
      penalty: weight of ||p||^2.

    Returns:
      A Finder without exact counts. `Found.info` holds "losses", the search loss of each epoch [E],
      "scale", the learned scale of the logits, "active", the parameters that are not frozen off,
      and "native_kept", those of them with p > 0.5.

    Raises:
      ValueError: if a name is unknown or a number out of range.

    Source: Sreenivasan et al. 2022, https://arxiv.org/abs/2202.12002, algorithm 1

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.gem_miner(task, search_epochs=2))
    >>> found = find(keys[2], mother, data, 0.5)
    >>> bool(pj.masks.count(found.mask) <= 71), found.info["losses"].shape
    (True, (2,))
    """
    common.check_options(
        loss=loss,
        search_epochs=search_epochs,
        period=period,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.interval("penalty", penalty, 0.0, 1.0)
    search_loss = losses.SEARCH_LOSSES[loss](task)
    freezes = (search_epochs - 1) // period

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, batch_size=batch_size)
        start_key, freeze_key, select_key, train_key = jax.random.split(key, 4)
        per_epoch = data.x.shape[0] // batch_size
        share = 1.0 - jnp.power(jnp.asarray(density, jnp.float32), 1.0 / max(freezes, 1))

        def objective(
            learned: Params, active: Mask, batch: Batch, step: jax.Array
        ) -> tuple[jax.Array, Mask]:
            p = learned["p"]
            if freezes:
                active = jax.lax.cond(
                    (step > 0) & (step % (period * per_epoch) == 0),
                    lambda: freeze(jax.random.fold_in(freeze_key, step), p, active, share),
                    lambda: active,
                )
            effective = jax.tree.map(_straight_through, params, p, active)
            value = search_loss(apply(effective, batch.x), batch.y, learned["log_scale"])
            square = optax.tree.sum(jax.tree.map(jnp.square, p))
            # The penalty steers, but is no part of the loss that is told.
            return value + penalty * (square - jax.lax.stop_gradient(square)), active

        steps = search_epochs * per_epoch
        learned, active, values, _ = training.minimize(
            train_key,
            {"p": draws.uniform(start_key, params), "log_scale": jnp.float32(0.0)},
            masks.full(params),
            data,
            objective,
            optimizer=optimizer or gates.adam(search_learning_rate, steps),
            epochs=search_epochs,
            batch_size=batch_size,
            constrain=lambda learned, step: learned | {"p": _clamp(learned["p"])},
        )
        rounded = jax.tree.map(lambda p, on: on & (p > 0.5), learned["p"], active)
        info = {
            "losses": values,
            "scale": jnp.exp(learned["log_scale"]),
            "active": masks.count(active),
            "native_kept": masks.count(rounded),
        }
        mask = masks.select(select_key, learned["p"], density, within=rounded)
        return Found(mask, params, info)

    return Finder(search, exact_counts=False)


def freeze(key: Key, p: Params, active: Mask, share: chex.Numeric) -> Mask:
    """Turns off the ceil(share active) lowest p of the active, but the highest; ties at random."""
    count = masks.count(active).astype(jnp.float32)
    # A share of 0.5 of 10 may come out above 5 by rounding, which is no reason to freeze 6.
    off = jnp.ceil(share * count - 1e-6 * count)
    kept = jnp.maximum(count - off, 1.0)
    return masks.select(key, jax.lax.stop_gradient(p), kept / masks.size(p), within=active)


def _straight_through(param: jax.Array, p: jax.Array, on: jax.Array) -> jax.Array:
    """The parameter where it is active and p > 0.5, else 0; with gradient theta to an active p."""
    kept = jnp.where(on & (p > 0.5), param, 0.0)
    return kept + jnp.where(on, param, 0.0) * (p - jax.lax.stop_gradient(p))


def _clamp(p: Params) -> Params:
    return jax.tree.map(lambda leaf: jnp.clip(leaf, 0.0, 1.0), p)
