"""Dynamic sparse training (SET, RigL): training with `optim.rewire`, from a random first mask."""

from functools import partial

import chex
import jax
import optax

from plantjax import checks, masks, nets, optim, scores, training
from plantjax.finders import common
from plantjax.masks.allocations import ALLOCATIONS
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Prunable, Task


@common.on_floats
def sparse_training(
    task: Task,
    *,
    grow: str,
    apply: Apply = nets.apply,
    allocation: str = "erk",
    search_epochs: int = 10,
    batch_size: int = 32,
    search_learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    every: int = 100,
    stop: float = 0.75,
    fraction: float = 0.3,
    prunable: Prunable | None = None,
) -> Finder:
    """Trains a sparse network whose mask changes during training.

    The result is a trained network, so there is no strong ticket.

    At every change, in step t of T, each layer drops the share fraction / 2 (1 + cos(pi t / (stop
    T))) of its kept parameters, those of the smallest |w|, and grows as many others: at random
    (SET), or where the dense gradient is largest (RigL).

    The first mask is random with the layer counts of the allocation; `optim.rewire` changes it.
    Pruned parameters may come back at zero, so the mask is no ticket of the untrained mother.
    Weak training continues from the trained parameters.

    Args:
      task: defines the loss.
      grow: one of `optim.GROWTHS`: "random" is SET, "gradient" RigL.
      apply: `(params, x) -> outputs`.
      allocation: a name in `allocations.ALLOCATIONS`; sets the counts of all layers throughout.
      search_epochs: number of passes over the data E.
      batch_size: samples per step.
      search_learning_rate: learning rate of Adam.
      optimizer: optax optimizer to use instead.
      every: as in `optim.rewire`.
      stop: share of the training after which the mask is fixed, in [0, 1].
      fraction: as in `optim.rewire`.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A Finder. `Found.params` are the trained parameters, zero where pruned. `Found.info` holds
      "losses", the mean loss of each epoch [E], and "kept_of_start", the share of the first mask
      that is still kept.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: SET, Mocanu et al. 2018, https://arxiv.org/abs/1707.04780; RigL, Evci et al. 2020,
    https://arxiv.org/abs/1911.11134; see `optim.rewire`.
    """
    checks.choice("allocation", allocation, ALLOCATIONS)
    common.check_options(
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    inner = optimizer or optax.adam(search_learning_rate)
    prunable = common.prunable_of(apply, prunable)
    rewired = partial(
        optim.rewire, inner, grow=grow, every=every, fraction=fraction, prunable=prunable
    )
    checks.interval("stop", stop, 0.0, 1.0)
    rewired(density=1.0, end=1)  # checks the options
    score_fn = scores.get("random")(apply, task.loss)

    def objective(
        params: Params, carry: None, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, None]:
        del step
        return task.loss(apply(params, batch.x), batch.y), carry

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, prunable=prunable, batch_size=batch_size)
        keys = jax.random.split(key, 4)
        values = score_fn(keys[0], params, masks.full(params), data)
        counts = ALLOCATIONS[allocation](params, density, prunable)
        start = masks.select(keys[1], values, density, "oracle", counts=counts, prunable=prunable)
        steps = search_epochs * (data.x.shape[0] // batch_size)
        trained, _, losses, state = training.minimize(
            keys[2],
            masks.apply(params, start),
            None,
            data,
            objective,
            optimizer=rewired(mask=start, end=stop * steps, key=keys[3]),
            epochs=search_epochs,
            batch_size=batch_size,
        )
        mask = optim.mask(state)
        left = masks.overlap(start, mask, prunable) / masks.count(start, prunable)
        return Found(mask, trained, {"losses": losses, "kept_of_start": left})

    return Finder(search, scope="oracle", kind="trained")
