"""Gem-Miner: gates rounded in every forward pass; the lowest are frozen off period by period."""

from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, losses, masks, nets, training
from plantjax.finders import common, gates
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Task


@common.on_floats
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
    """Learns p in [0, 1] of frozen parameters theta; keeps active parameters with p > 0.5.

    p starts at U(0, 1) and is clamped to [0, 1] after every step. The gradient is straight-through:
    dL/dp = dL/d(m theta) theta for active parameters. The loss has a penalty 1e-4 ||p||^2. At the
    start of the epochs T, 2 T, ... the ceil(r active) lowest p of the active parameters, weights
    and biases together, are frozen off. Here r = 1 - density^(1 / J), and J = floor((E - 1) / T) is
    the number of these epochs.

    The mask is the rounded one. It keeps at most k parameters, often fewer, because parameters with
    p <= 0.5 were not part of the network while p was learned.

    Args:
      task: defines the loss.
      apply: `(params, x) -> outputs`.
      search_epochs: number of passes over the data E.
      period: number of epochs T between two freezes.
      batch_size: samples per step.
      search_learning_rate: initial learning rate of Adam, with cosine decay over the run. The
        published SGD (rate 0.1, momentum 0.9) loses half of the accuracy on Circle.
      optimizer: optax optimizer to use instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", "robust", or "plain", the task's own.
      penalty: weight of ||p||^2.

    Returns:
      A Finder without exact counts. `Found.info` holds "losses", the mean search loss of each epoch
      [E]; "scale", the learned scale of the logits; "active", the number of parameters that are not
      frozen off; and "native_kept", the number of those with p > 0.5.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Sreenivasan et al. 2022, https://arxiv.org/abs/2202.12002, algorithm 1
    """
    common.check_options(
        loss=loss,
        search_epochs=search_epochs,
        period=period,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.interval("penalty", penalty, 0.0, 1.0)
    make = partial(
        _GemMiner,
        task,
        epochs=search_epochs,
        period=period,
        batch_size=batch_size,
        learning_rate=search_learning_rate,
        optimizer=optimizer,
        loss=loss,
        penalty=penalty,
    )
    return Finder(common.on_prunable(make, apply), exact_counts=False)


@dataclass(frozen=True)
class _GemMiner:
    """The search of `gem_miner`; its fields are the checked options."""

    task: Task
    apply: Apply
    epochs: int
    period: int
    batch_size: int
    learning_rate: float
    optimizer: optax.GradientTransformation | None
    loss: str
    penalty: float

    def __call__(self, key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(self.task, params, data, density, batch_size=self.batch_size)
        start_key, freeze_key, select_key, train_key = jax.random.split(key, 4)
        per_epoch = data.x.shape[0] // self.batch_size
        steps, freezes = self.epochs * per_epoch, (self.epochs - 1) // self.period
        share = 1.0 - jnp.power(jnp.asarray(density, jnp.float32), 1.0 / max(freezes, 1))
        search_loss = losses.SEARCH_LOSSES[self.loss](self.task)

        def objective(
            learned: Params, active: Mask, batch: Batch, step: jax.Array
        ) -> tuple[jax.Array, Mask]:
            p = learned["p"]
            if freezes:
                active = jax.lax.cond(
                    (step > 0) & (step % (self.period * per_epoch) == 0),
                    lambda: freeze(jax.random.fold_in(freeze_key, step), p, active, share),
                    lambda: active,
                )
            effective = jax.tree.map(_straight_through, params, p, active)
            outputs = self.apply(effective, batch.x)
            value = search_loss(outputs, batch.y, learned["log_scale"])
            square = optax.tree.sum(jax.tree.map(jnp.square, p))
            # The penalty has a gradient, but does not count in the reported loss.
            return value + self.penalty * (square - jax.lax.stop_gradient(square)), active

        learned, active, values, _ = training.minimize(
            train_key,
            {"p": draws.uniform(start_key, params), "log_scale": jnp.float32(0.0)},
            masks.full(params),
            data,
            objective,
            optimizer=self.optimizer or gates.adam(self.learning_rate, steps),
            epochs=self.epochs,
            batch_size=self.batch_size,
            constrain=lambda learned, step: learned | {"p": _clamp(learned["p"])},
        )
        rounded = jax.tree.map(lambda p, on: on & (p > 0.5), learned["p"], active)
        info = {
            "losses": values,
            "scale": jnp.exp(learned["log_scale"]),
            "active": masks.count(active),
            "native_kept": masks.count(rounded),
            **common.not_finite(learned["p"]),
        }
        mask = masks.select(select_key, learned["p"], density, within=rounded)
        return Found(mask, params, info)


def freeze(key: Key, p: Params, active: Mask, share: chex.Numeric) -> Mask:
    """Turns off the ceil(share active) lowest active p, but never all; ties are broken at random.

    Args:
      key: consumed.
      p: a tree like the mask.
      active: the active parameters.
      share: share of them to turn off, in [0, 1].

    Returns:
      The parameters that stay active.
    """
    count = masks.count(active).astype(jnp.float32)
    # By rounding, a share of 0.5 of 10 may come out above 5, which must not turn off 6.
    off = jnp.ceil(share * count - 1e-6 * count)
    kept = jnp.maximum(count - off, 1.0)
    return masks.select(key, jax.lax.stop_gradient(p), kept / masks.size(p), within=active)


def _straight_through(param: jax.Array, p: jax.Array, on: jax.Array) -> jax.Array:
    """The parameter if it is active and p > 0.5, else 0; the gradient for an active p is theta."""
    kept = jnp.where(on & (p > 0.5), param, 0.0)
    return kept + jnp.where(on, param, 0.0) * (p - jax.lax.stop_gradient(p))


def _clamp(p: Params) -> Params:
    return jax.tree.map(lambda leaf: jnp.clip(leaf, 0.0, 1.0), p)
