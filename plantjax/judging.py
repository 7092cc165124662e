"""Judging what was found: the masked network on held-out data, beside the ticket and the target."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp

from plantjax import masks, programs, recovery
from plantjax.finders import common
from plantjax.types import Apply, Batch, Found, Head, Mask, Metrics, Params, Task
from plantjax.worlds import World

IMAGES = 1000
"""Images that are evaluated at once."""


@lru_cache(maxsize=programs.KEPT)
def judge_of(
    task: Task, scope: str, head: Head | None, apply: Apply, signed: bool = False
) -> Callable[[World, Found], Metrics]:
    """`(world, found) -> metrics` of the ticket without training, `signed` with its parameters."""
    network = common.with_head(apply, head)
    wiring = getattr(apply, "wiring", None)

    def judge(world: World, found: Found) -> Metrics:
        planted = world.planted
        params = found.params if signed else planted.params
        pruned = evaluate(task, network, masks.apply(params, found.mask), world.test)
        ticket = masks.apply(planted.params, planted.mask)
        ticket = evaluate(task, apply, ticket, world.test)
        target = evaluate(task, apply, world.target, world.test)
        compared = recovery.compare(planted.params, found.mask, planted, scope=scope, wiring=wiring)
        return {
            **{f"pruned/{k}": v for k, v in pruned.items()},
            "ticket/value": ticket["value"],
            "target/value": target["value"],
            **{f"recovery/{k}": v for k, v in compared.items()},
            "kept": masks.count(found.mask),
            "kept_density": masks.density(found.mask),
            "mask": flat_mask(found.mask),
        }

    return judge


def evaluate(task: Task, network: Apply, params: Params, test: Batch) -> Metrics:
    """The task's metric on held-out data, raw as well, and whether the outputs are constant."""
    outputs = _run(network, params, test.x)
    metrics = task.evaluate(outputs, test.y)
    value = metrics[task.metric]
    return {
        "value": value,
        "value_raw": metrics.get(f"{task.metric}_raw", value),
        "constant": recovery.is_constant(outputs),
    }


def _run(network: Apply, params: Params, x: jax.Array) -> jax.Array:
    """The outputs; of many images some at a time, for what lies between the layers is large."""
    if x.ndim < 4 or x.shape[0] <= IMAGES:
        return network(params, x)
    whole = x.shape[0] // IMAGES * IMAGES
    parts = x[:whole].reshape(-1, IMAGES, *x.shape[1:])
    outputs = jax.lax.map(lambda part: network(params, part), parts)
    outputs = outputs.reshape(whole, -1)
    if whole == x.shape[0]:
        return outputs
    return jnp.concatenate([outputs, network(params, x[whole:])])


def flat(tree: Params) -> jax.Array:
    """A tree of arrays of one dtype as one vector [P], leaves in tree order.

    >>> import jax.numpy as jnp
    >>> flat({"a": jnp.zeros(1), "b": jnp.ones((1, 2))}).tolist()
    [0.0, 1.0, 1.0]
    """
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def flat_mask(mask: Mask) -> jax.Array:
    """A mask as one bool vector [P], leaves in tree order."""
    return flat(mask)
