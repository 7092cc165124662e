"""Evaluation of a masked network on held-out data, alone or compared with the planted ticket."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from plantjax import checks, masks, metrics, nets, recovery
from plantjax.finders.common import with_head
from plantjax.metrics import FURTHER, Judged, Registered
from plantjax.sweeps.worlds import World
from plantjax.types import Apply, Batch, Found, Head, Mask, Metrics, Params, Task, as_arrays

IMAGES, ROWS = 1000, 10_000
"""Number of images, or of other samples, on which a network is run at once."""
BLOCKS = 50
"""Number of blocks of fresh samples whose values tell the standard error."""


def evaluate(
    task: Task,
    params: Params,
    mask: Mask,
    data: Batch,
    *,
    apply: Apply = nets.apply,
    train: Batch | None = None,
) -> Metrics:
    """Evaluates the masked network as it is, which shows whether the mask is a strong ticket.

    For weak tickets, train first (`training.fit`) and pass the trained parameters. Pure; works
    under jit, and under vmap over parameters, masks and data.

    Args:
      task: the task, whose `evaluate` computes the metrics.
      params: parameters of the network; pruned entries do not matter.
      mask: a mask with the structure of the params; `masks.full(params)` for the dense network.
      data: N samples.
      apply: `(params, x) -> outputs`.
      train: training data, whose statistics networks with batch norm use.

    Returns:
      The task's metrics, scalars: "accuracy", or "mse" (after one least-squares factor per output)
      and "mse_raw"; also "constant", whether the outputs do not vary at all (a dead network).

    Raises:
      ValueError: if the mask does not match the parameters, the data does not fit the network, or
        `train` is missing for a network with batch norm.

    >>> import jax, plantjax as pj
    >>> task, target = pj.TASKS["relu"], pj.targets.relu(depth=3)
    >>> data = task.sample(jax.random.key(0), 100, noise=0.0)
    >>> found = pj.evaluate(task, target, pj.masks.nonzero(target), data)
    >>> round(float(found["mse"]), 6), bool(found["constant"])
    (0.0, False)
    """
    params, mask, data = as_arrays((params, mask, data))
    checks.batch(data)
    masked = masks.apply(params, mask)
    network = frozen(apply, masked, None if train is None else train.x)
    outputs = outputs_of(network, masked, data.x)
    return task.evaluate(outputs, data.y) | {"constant": recovery.is_constant(outputs)}


@dataclass(frozen=True)
class FurtherMetrics:
    """The metrics that are computed for each stage: those in `METRICS` that are not built in.

    Like all parts of a run it is compared by value, so that equal runs share compiled programs.
    """

    task: Task
    scope: str
    apply: Apply
    registered: Registered

    def judged(self, world: World, mask: Mask, params: Params, outputs: jax.Array) -> Judged:
        """The argument of the metrics."""
        planted = world.planted
        ticket = masks.apply(planted.params, planted.mask)
        return Judged(
            task=self.task,
            params=params,
            mask=mask,
            planted=planted,
            test=world.test,
            outputs=outputs,
            ticket_outputs=frozen_outputs(self.apply, ticket, world),
            recovery=recovery.compare(
                planted.params,
                mask,
                planted,
                scope=self.scope,
                apply=self.apply,
                prunable=getattr(self.apply, "prunable", None),
            ),
        )

    def values(self, stage: str, judged: Judged) -> Metrics:
        """The metrics of a stage, as entries "STAGE/metric/NAME"."""
        values = metrics.measured(self.registered, judged)
        return {f"{stage}/{FURTHER}{name}": value for name, value in values.items()}


@dataclass(frozen=True)
class EvaluateFound:
    """`(world, found) -> metrics` without training: the ticket's value, recovery, all metrics.

    Attributes:
      built_in: the built-in metrics, which only look at the mask.
      further: all other registered metrics.
      head: applied to the outputs of the finder's networks.
      signed: use the found parameters, with flipped signs, instead of the mother's.
    """

    built_in: Registered
    further: FurtherMetrics
    head: Head | None = None
    signed: bool = False

    def __call__(self, world: World, found: Found) -> Metrics:
        """Evaluates the found mask."""
        task, apply = self.further.task, self.further.apply
        prunable = getattr(apply, "prunable", None)
        params = found.params if self.signed else world.planted.params
        masked = masks.apply(params, found.mask)
        outputs = frozen_outputs(apply, masked, world, self.head)
        fresh = fresh_values(task, apply, masked, world, self.head)
        planted = masks.apply(world.planted.params, world.planted.mask)
        judged = self.further.judged(world, found.mask, params, outputs)
        ticket = values_of(task, judged.ticket_outputs, world.test)
        target = values_of(task, frozen_outputs(apply, world.target, world), world.test)
        compared = judged.recovery | metrics.measured(self.built_in, judged)
        return {
            **{f"pruned/{k}": v for k, v in values_of(task, outputs, world.test).items()},
            **{f"pruned/{k}": v for k, v in fresh.items()},
            **{f"ticket/{k}": v for k, v in fresh_values(task, apply, planted, world).items()},
            "ticket/value": ticket["value"],
            "target/value": target["value"],
            "dead/value": dead_value(task, world.test.y),
            **({"dead/fresh": dead_value(task, world.fresh.y)} if world.fresh is not None else {}),
            **{f"recovery/{k}": v for k, v in compared.items()},
            "kept": masks.count(found.mask, prunable),
            "kept_density": masks.density(found.mask, prunable),
            "mask": ravel_pytree(found.mask)[0],
            **self.further.values("pruned", judged),
        }


def fresh_values(
    task: Task, apply: Apply, params: Params, world: World, head: Head | None = None
) -> Metrics:
    """The task's metric on fresh samples and its standard error; empty if there are none.

    The standard error follows from the spread of the metric over BLOCKS blocks of samples.
    """
    if world.fresh is None:
        return {}
    x, y = world.fresh
    network = with_head(frozen(apply, params, world.train.x), head)
    outputs = outputs_of(network, params, x)
    size = y.shape[0] // BLOCKS
    blocks = jax.tree.map(
        lambda a: a[: BLOCKS * size].reshape(BLOCKS, size, *a.shape[1:]), (outputs, y)
    )
    values = jax.vmap(task.evaluate)(*blocks)[task.metric]
    error = jnp.std(values, ddof=1) / jnp.sqrt(BLOCKS)
    return {"fresh": task.evaluate(outputs, y)[task.metric], "fresh_error": error}


def dead_value(task: Task, y: jax.Array) -> jax.Array:
    """The value of the best constant output."""
    return task.evaluate(best_constant(task, y), y)[task.metric]


def best_constant(task: Task, y: jax.Array) -> jax.Array:
    """The constant outputs [N, O] that suit the data best: its commonest class, or its mean."""
    if task.metric == "accuracy":
        counts = jnp.zeros(task.n_out, jnp.int32).at[y].add(1)
        best = jax.nn.one_hot(jnp.argmax(counts), task.n_out, dtype=jnp.float32)
    else:
        best = jnp.mean(y, axis=0)
    return jnp.broadcast_to(best, (y.shape[0], task.n_out))


def values_of(task: Task, outputs: jax.Array, test: Batch) -> Metrics:
    """The results of a stage: the task's metric, the raw one, and whether outputs are constant."""
    found = task.evaluate(outputs, test.y)
    value = found[task.metric]
    return {
        "value": value,
        "value_raw": found.get(f"{task.metric}_raw", value),
        "constant": recovery.is_constant(outputs),
    }


def frozen(apply: Apply, params: Params, x: jax.Array | None) -> Apply:
    """The network with the batch norm statistics of x, if it has batch norms."""
    return apply.frozen(params, x) if hasattr(apply, "frozen") else apply


def frozen_outputs(
    apply: Apply, params: Params, world: World, head: Head | None = None
) -> jax.Array:
    """The outputs [N, O] on the test data, with the statistics of the training data."""
    network = with_head(frozen(apply, params, world.train.x), head)
    return outputs_of(network, params, world.test.x)


def outputs_of(network: Apply, params: Params, x: jax.Array) -> jax.Array:
    """The outputs [N, O]. Many samples are run in parts, whose hidden layers fit into memory."""
    most = IMAGES if x.ndim >= 4 else ROWS
    if x.shape[0] <= most:
        return network(params, x)
    whole = x.shape[0] // most * most
    parts = x[:whole].reshape(-1, most, *x.shape[1:])
    outputs = jax.lax.map(lambda part: network(params, part), parts)
    outputs = outputs.reshape(whole, -1)
    if whole == x.shape[0]:
        return outputs
    return jnp.concatenate([outputs, network(params, x[whole:])])
