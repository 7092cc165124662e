"""Rewired: dynamic sparse training, whose mask moves while the weights are trained."""

from functools import partial

import chex
import jax
import optax

from plantjax import checks, masks, nets, rewiring, scores, training
from plantjax.allocations import ALLOCATIONS
from plantjax.finders import common
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Task


def rewired(
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
) -> Finder:
    """Trains a random mask, some of whose places move as it goes, for weak tickets only.

    Every so many steps t of T each layer drops the share fraction / 2 (1 + cos(pi t / (stop T))) of
    its kept parameters, those of the smallest |w|, and grows as many others: anywhere (SET), or
    where the dense gradient is largest (RigL).

    The mask starts with the counts of the allocation, and `rewiring.rewire` changes it. Parameters
    that were pruned come back, at zero, so the mask is no ticket of the mother as it stands. Weak
    training goes on where this training ends.

    Args:
      task: gives the loss.
      grow: one of `rewiring.GROWTHS`: "random" is SET, "gradient" RigL.
      apply: `(params, x) -> outputs`.
      allocation: a name in `allocations.ALLOCATIONS`: how many each layer keeps throughout.
      search_epochs: passes over the data.
      batch_size: samples per step.
      search_learning_rate: of Adam.
      optimizer: any optax optimizer instead.
      every: as in `rewiring.rewire`.
      stop: as in `rewiring.rewire`.
      fraction: as in `rewiring.rewire`.

    Returns:
      A Finder; `Found.params` are the trained parameters, zero where pruned; `Found.info` holds
      "losses" [E], and "kept_of_start", the share of the first mask that is left.

    Raises:
      ValueError: if a name is unknown or a number out of range.

    Source: SET, Mocanu et al. 2018, https://arxiv.org/abs/1707.04780; RigL, Evci et al. 2020,
    https://arxiv.org/abs/1911.11134; see `rewiring.rewire`.

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.rewired(task, grow="gradient", search_epochs=2, every=1))
    >>> found = find(keys[2], mother, data, 0.5)
    >>> int(pj.masks.count(found.mask)), bool(found.info["kept_of_start"] < 1)
    (71, True)
    """
    checks.choice("allocation", allocation, ALLOCATIONS)
    common.check_options(
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    inner = optimizer or optax.adam(search_learning_rate)
    rewire = partial(rewiring.rewire, inner, grow=grow, every=every, stop=stop, fraction=fraction)
    rewire(jax.random.key(0), None, steps=0)  # checks the options
    score_fn = scores.get("random")(apply, task.loss)

    def objective(
        params: Params, carry: None, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, None]:
        del step
        return task.loss(apply(params, batch.x), batch.y), carry

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, batch_size=batch_size)
        keys = jax.random.split(key, 4)
        values = score_fn(keys[0], params, masks.full(params), data)
        counts = ALLOCATIONS[allocation](params, density)
        start = masks.select(keys[1], values, density, "oracle", counts=counts)
        steps = search_epochs * (data.x.shape[0] // batch_size)
        (trained, state, _), losses = training.descend(
            keys[2],
            masks.apply(params, start),
            None,
            data,
            objective,
            optimizer=rewire(keys[3], start, steps=steps),
            epochs=search_epochs,
            batch_size=batch_size,
        )
        left = masks.overlap(start, state.mask) / masks.count(start)
        return Found(state.mask, trained, {"losses": losses, "kept_of_start": left})

    return Finder(search, scope="oracle", kind="trained")
