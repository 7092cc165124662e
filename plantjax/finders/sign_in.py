"""Sign-In: a mask chosen before training, and training of products, which change signs easily."""

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets, training
from plantjax.finders import common
from plantjax.finders.layer_budgets import layer_budgets
from plantjax.types import Apply, Batch, Finder, Found, Key, MakeScore, Params, Prunable, Task


@common.on_floats
def sign_in(
    task: Task,
    *,
    apply: Apply = nets.apply,
    score: str | MakeScore = "random",
    allocation: str = "erk",
    beta: float = 1.0,
    search_epochs: int = 10,
    batch_size: int = 32,
    search_learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    prunable: Prunable | None = None,
) -> Finder:
    """Trains theta = m w on a mask that is chosen before, so that more signs of theta are learned.

    Factors start, and start again after each epoch, with m w = theta and m^2 - w^2 = beta, m > 0.
    The optimizer moves both; gradient flow keeps m^2 - w^2. Where theta passes zero, w does, while
    m stays away from it. All leaves are products, also those that are not prunable. Weak training
    continues from the trained products.

    Args:
      task: defines the loss and the size of the score batch.
      apply: `(params, x) -> outputs`.
      score: of the mask, as in `layer_budgets`.
      allocation: layer counts of the mask, a name in `masks.ALLOCATIONS`.
      beta: positive; large values slow w down less.
      search_epochs: number of passes over the data.
      batch_size: samples per step.
      search_learning_rate: learning rate of Adam.
      optimizer: optax optimizer to use instead.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A Finder of kind "trained". `Found.params` are the trained m w, zero where pruned.
      `Found.info` holds "losses", the mean loss of each epoch [E], and "flipped", the share of the
      kept parameters whose sign has changed.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Gadhikar et al. 2025, https://arxiv.org/abs/2504.12801. How often factors start again is
    our reading (after each epoch), as is Adam.
    """
    common.check_options(
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.positive("beta", beta)
    inner = optimizer or optax.adam(search_learning_rate)
    prunable = common.prunable_of(apply, prunable)
    chosen = layer_budgets(task, allocation=allocation, score=score, apply=apply, prunable=prunable)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, prunable=prunable, batch_size=batch_size)
        mask_key, train_key = jax.random.split(key)
        mask = chosen(mask_key, params, data, density).mask
        per_epoch = data.x.shape[0] // batch_size

        def product(learned: Params) -> Params:
            return masks.apply(jax.tree.map(jnp.multiply, learned["m"], learned["w"]), mask)

        def objective(
            learned: Params, carry: None, batch: Batch, step: jax.Array
        ) -> tuple[jax.Array, None]:
            del step
            return task.loss(apply(product(learned), batch.x), batch.y), carry

        def restarted(learned: Params, step: jax.Array) -> Params:
            due = (step + 1) % per_epoch == 0
            return jax.lax.cond(due, lambda: split(product(learned), beta), lambda: learned)

        learned, _, values, _ = training.minimize(
            train_key,
            split(masks.apply(params, mask), beta),
            None,
            data,
            objective,
            optimizer=inner,
            epochs=search_epochs,
            batch_size=batch_size,
            constrain=restarted,
        )
        trained = product(learned)
        flips = jax.tree.map(lambda a, b: a * b < 0, trained, params)
        flipped = masks.count(flips, prunable) / masks.count(mask, prunable)
        return Found(mask, trained, {"losses": values, "flipped": flipped})

    return Finder(search, scope="oracle", kind="trained")


def split(theta: Params, beta: chex.Numeric) -> Params:
    """The trees "m" and "w" with m w = theta, m > 0 and m^2 - w^2 = beta.

    >>> import jax.numpy as jnp
    >>> found = split({"k": jnp.array([-2.0])}, 3.0)
    >>> found["m"]["k"].tolist(), found["w"]["k"].tolist()
    ([2.0], [-1.0])
    """

    def larger(leaf: jax.Array) -> jax.Array:
        root = jnp.sqrt(jnp.square(beta) + 4.0 * jnp.square(leaf))
        return jnp.sqrt((root + beta) / 2.0)

    m = jax.tree.map(larger, theta)
    return {"m": m, "w": jax.tree.map(jnp.divide, theta, m)}
