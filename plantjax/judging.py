"""Judging what was found: the masked network on held-out data, beside the ticket and the target."""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import jax
import jax.numpy as jnp

from plantjax import masks, metrics, programs, recovery
from plantjax.finders import common
from plantjax.metrics import Judged, Registered
from plantjax.tables import FURTHER
from plantjax.types import Apply, Batch, Found, Head, Mask, Metrics, Params, Task
from plantjax.worlds import World

IMAGES = 1000
"""Images that are evaluated at once."""

Measure: TypeAlias = Callable[[World, Mask, Params, jax.Array], Metrics]
"""`(world, found mask, trained params, outputs) -> metrics` after training."""


@lru_cache(maxsize=programs.KEPT)
def judge_of(
    task: Task,
    scope: str,
    head: Head | None,
    apply: Apply,
    of_mask: Registered,
    further: Registered,
    signed: bool = False,
) -> Callable[[World, Found], Metrics]:
    """`(world, found) -> metrics` of the ticket without training, of the mask and further ones.

    "signed" finds are judged with their own parameters, all others with the mother's.
    """
    network = common.with_head(apply, head)

    def judge(world: World, found: Found) -> Metrics:
        params = found.params if signed else world.planted.params
        outputs = outputs_of(network, masks.apply(params, found.mask), world.test.x)
        judged = _judged(task, scope, apply, world, found.mask, params, outputs)
        ticket = evaluate(task, judged.ticket_outputs, world.test)
        target = evaluate(task, outputs_of(apply, world.target, world.test.x), world.test)
        compared = judged.recovery | metrics.measured(of_mask, judged)
        return {
            **{f"pruned/{k}": v for k, v in evaluate(task, outputs, world.test).items()},
            "ticket/value": ticket["value"],
            "target/value": target["value"],
            **{f"recovery/{k}": v for k, v in compared.items()},
            "kept": masks.count(found.mask),
            "kept_density": masks.density(found.mask),
            "mask": flat_mask(found.mask),
            **_further("pruned", further, judged),
        }

    return judge


@lru_cache(maxsize=programs.KEPT)
def measure_of(task: Task, scope: str, apply: Apply, further: Registered) -> Measure:
    """The further metrics of a network that was trained."""

    def measure(world: World, mask: Mask, params: Params, outputs: jax.Array) -> Metrics:
        judged = _judged(task, scope, apply, world, mask, params, outputs)
        return _further("trained", further, judged)

    return measure


def _judged(
    task: Task,
    scope: str,
    apply: Apply,
    world: World,
    mask: Mask,
    params: Params,
    outputs: jax.Array,
) -> Judged:
    planted = world.planted
    ticket = masks.apply(planted.params, planted.mask)
    wiring = getattr(apply, "wiring", None)
    return Judged(
        task=task,
        params=params,
        mask=mask,
        planted=planted,
        test=world.test,
        outputs=outputs,
        ticket_outputs=outputs_of(apply, ticket, world.test.x),
        recovery=recovery.compare(planted.params, mask, planted, scope=scope, wiring=wiring),
    )


def _further(stage: str, further: Registered, judged: Judged) -> Metrics:
    values = metrics.measured(further, judged)
    return {f"{stage}/{FURTHER}{name}": value for name, value in values.items()}


def evaluate(task: Task, outputs: jax.Array, test: Batch) -> Metrics:
    """The task's metric on held-out data, raw as well, and whether the outputs are constant."""
    found = task.evaluate(outputs, test.y)
    value = found[task.metric]
    return {
        "value": value,
        "value_raw": found.get(f"{task.metric}_raw", value),
        "constant": recovery.is_constant(outputs),
    }


def outputs_of(network: Apply, params: Params, x: jax.Array) -> jax.Array:
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
