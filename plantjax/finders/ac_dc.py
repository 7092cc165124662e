"""AC/DC: alternating phases of dense and of sparse training, the last one sparse."""

from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets, optim, training
from plantjax.finders import common
from plantjax.optim.packing import Packed
from plantjax.optim.sparse import Sparse
from plantjax.optim.views import Leaves
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Prunable, Task


@common.on_floats
def ac_dc(
    task: Task,
    *,
    apply: Apply = nets.apply,
    phases: int = 6,
    search_epochs: int = 12,
    batch_size: int = 32,
    search_learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    scope: str = "global",
    prunable: Prunable | None = None,
) -> Finder:
    """Trains dense and sparse in turns; a sparse phase begins with the largest |w| of that time.

    The phases are equally long. In a dense phase all parameters are trained, those that were pruned
    starting at zero with zeros for their moments. The mask is that of the last phase, which is
    sparse. Weak training continues from the trained parameters.

    Args:
      task: defines the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      phases: number of phases, dense and sparse together, an even number.
      search_epochs: number of passes over the data, over all phases.
      batch_size: samples per step.
      search_learning_rate: learning rate of Adam.
      optimizer: optax optimizer to use instead.
      scope: see `masks.select`.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A Finder of kind "trained". `Found.params` are the trained parameters, zero where pruned.
      `Found.info` holds "losses", the mean loss of each epoch [E].

    Raises:
      ValueError: if a number is out of range or phases is odd.

    Source: Peste et al. 2021, algorithm 1, https://arxiv.org/abs/2106.12379. There a dense warm-up
    and the last phase are longer than others, and an end without dense phases is possible.
    """
    common.check_options(
        scope=scope,
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.integer("phases", phases, 2)
    if phases % 2:
        raise ValueError(f"phases must be even, so that the last one is sparse, got {phases}.")
    inner = optimizer or optax.adam(search_learning_rate)
    prunable = common.prunable_of(apply, prunable)

    def objective(
        params: Params, carry: None, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, None]:
        del step
        return task.loss(apply(params, batch.x), batch.y), carry

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, prunable=prunable, batch_size=batch_size)
        counts = common.oracle_counts(task, params, scope)
        train_key, select_key = jax.random.split(key)
        select = partial(masks.select, scope=scope, counts=counts)
        rule = alternating(
            inner,
            select_key,
            density,
            phases,
            steps=search_epochs * (data.x.shape[0] // batch_size),
            select=select,
            prunable=prunable,
        )
        trained, _, values, state = training.minimize(
            train_key,
            params,
            None,
            data,
            objective,
            optimizer=rule,
            epochs=search_epochs,
            batch_size=batch_size,
        )
        return Found(optim.mask(state), trained, {"losses": values})

    return Finder(search, scope, exact_counts=scope in common.EXACT_SCOPES, kind="trained")


def alternating(
    optimizer: optax.GradientTransformation,
    key: Key,
    density: chex.Numeric,
    phases: int,
    steps: int,
    select: Callable[..., Leaves],
    prunable: Prunable | None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with phases that are dense and sparse in turns, the last one sparse.

    Args:
      optimizer: the inner optimizer.
      key: consumed.
      density: share of the prunable parameters that sparse phases keep.
      phases: an even number.
      steps: number of steps in all.
      select: `(key, sizes, density) -> masks`.
      prunable: predicate on leaf paths, or None.

    Returns:
      An optax optimizer with a `SparseState`.
    """

    def phase(step: jax.Array) -> jax.Array:  # from the end, which is always sparse
        return phases - 1 - (steps - 1 - step) * phases // steps

    def due(step: jax.Array) -> jax.Array:
        first = (step == 0) & (phase(step) % 2 == 1)
        return first | ((step > 0) & (phase(step) != phase(step - 1)))

    def change(step: jax.Array, params: Leaves, gradient: Leaves, mask: Leaves) -> Leaves:
        del gradient
        sizes = jax.tree.map(jnp.abs, params)
        sparse = select(jax.random.fold_in(key, step), sizes, density)
        return jax.tree.map(lambda m: m | (phase(step) % 2 == 0), sparse)

    def start(params: Params, packed: Packed) -> Leaves:
        return packed.unpack()

    return Sparse(optimizer, start, prunable, due, change).transformation()
