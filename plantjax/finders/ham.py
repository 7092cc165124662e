"""HAM: a mask chosen before training, and a hyperbolic mirror step after each optimizer step."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets, training
from plantjax.finders import common
from plantjax.finders.layer_budgets import layer_budgets
from plantjax.types import Apply, Batch, Finder, Found, Key, MakeScore, Params, Prunable, Task

LARGEST_EXPONENT = 5.0


@common.on_floats
def ham(
    task: Task,
    *,
    apply: Apply = nets.apply,
    score: str | MakeScore = "random",
    allocation: str = "erk",
    alpha: float = 200.0,
    beta: float = 1e-3,
    search_epochs: int = 10,
    batch_size: int = 32,
    search_learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    prunable: Prunable | None = None,
) -> Finder:
    """Trains with a fixed mask, chosen before training, with `mirrored` around the optimizer.

    Weak training continues from the trained parameters.

    Args:
      task: defines the loss and the size of the score batch.
      apply: `(params, x) -> outputs`.
      score: of the mask, as in `layer_budgets`.
      allocation: layer counts of the mask, a name in `masks.ALLOCATIONS`.
      alpha: as in `mirrored`.
      beta: as in `mirrored`.
      search_epochs: number of passes over the data.
      batch_size: samples per step.
      search_learning_rate: learning rate of Adam, and of the mirror step.
      optimizer: optax optimizer to use instead of Adam.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A Finder of kind "trained". `Found.params` are the trained parameters, zero where pruned.
      `Found.info` holds "losses", the mean loss of each epoch [E], and "flipped", the share of the
      kept parameters whose sign has changed.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Jacobs et al. 2025, https://arxiv.org/abs/2506.02630; alpha, beta and the bound of the
    exponent are those of the released code. Adam is our choice.
    """
    common.check_options(
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    rule = mirrored(
        optimizer or optax.adam(search_learning_rate), search_learning_rate, alpha, beta
    )
    prunable = common.prunable_of(apply, prunable)
    chosen = layer_budgets(task, allocation=allocation, score=score, apply=apply, prunable=prunable)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, prunable=prunable, batch_size=batch_size)
        mask_key, train_key = jax.random.split(key)
        mask = chosen(mask_key, params, data, density).mask
        trained, values = training.fit(
            train_key,
            params,
            mask,
            data,
            apply=apply,
            loss=task.loss,
            optimizer=rule,
            epochs=search_epochs,
            batch_size=batch_size,
        )
        flips = jax.tree.map(lambda a, b: a * b < 0, trained, params)
        flipped = masks.count(flips, prunable) / masks.count(mask, prunable)
        return Found(mask, trained, {"losses": values, "flipped": flipped})

    return Finder(search, scope="oracle", kind="trained")


def mirrored(
    optimizer: optax.GradientTransformation,
    learning_rate: float,
    alpha: float = 200.0,
    beta: float = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer followed by theta <- theta exp(-learning_rate (alpha sign(theta) g + beta)).

    g is the gradient and theta what the optimizer has made of the parameter. The step is that of a
    mirror descent in hyperbolic geometry, as m w would take: small weights shrink or grow by their
    own size. Only arrays of two or more axes take it. The exponent is bounded by 5 either way.

    Args:
      optimizer: any optax optimizer.
      learning_rate: of the mirror step.
      alpha: weight of the gradient, at least 0.
      beta: rate of decay, at least 0.

    Returns:
      An optax optimizer with the state of the inner one; its `update` needs the parameters.

    Raises:
      ValueError: if a number is out of range.

    >>> import jax.numpy as jnp, optax
    >>> params, gradient = {"k": jnp.array([[1.0, -1.0]])}, {"k": jnp.array([[0.5, 0.5]])}
    >>> rule = mirrored(optax.sgd(0.0), 1.0, alpha=2.0, beta=0.0)
    >>> updates, _ = rule.update(gradient, rule.init(params), params)
    >>> jnp.log(jnp.abs(optax.apply_updates(params, updates)["k"])).round(4).tolist()
    [[-1.0, 1.0]]
    """
    for name, value in (("learning_rate", learning_rate), ("alpha", alpha), ("beta", beta)):
        checks.interval(name, value, 0.0, 1e6)
    inner = optax.with_extra_args_support(optimizer)

    def update(
        gradient: Params, state: optax.OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, optax.OptState]:
        if params is None:
            raise ValueError("params must be given to the update of mirrored, got None.")
        updates, state = inner.update(gradient, state, params, **extra)

        def step(p: jax.Array, u: jax.Array, g: jax.Array) -> jax.Array:
            if p.ndim < 2:
                return u
            moved = p + u
            rate = -learning_rate * (alpha * jnp.sign(moved) * g + beta)
            return moved * jnp.exp(jnp.clip(rate, -LARGEST_EXPONENT, LARGEST_EXPONENT)) - p

        return jax.tree.map(step, params, updates, gradient), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
