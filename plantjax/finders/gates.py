"""Gates: learned relaxed masks, steered to an expected count and finally cut to their top k.

A gate finder provides a relaxation, and a rule that sets the price of the count. This file has the
search that they share.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, losses, masks, training
from plantjax.finders import common
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Task

Rule: TypeAlias = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]
]
"""`(memory, step, excess, task slope, count slope) -> (price, memory)`; slopes are norms of
gradients."""


Criterion: TypeAlias = Callable[
    [Callable[[jax.Array], jax.Array], jax.Array, Batch, chex.Numeric], jax.Array
]
"""`(dense, outputs, batch, log_scale) -> scalar`; the outputs are those of the masked network, and
`dense(x)` are those of the mother."""


_Steered: TypeAlias = tuple[jax.Array, jax.Array, optax.OptState]


class Relaxation(NamedTuple):
    """Random gates in [0, 1], one per parameter, that depend on a learned tree of logits.

    Attributes:
      start: `(key, params, density) -> logits`, a tree like params.
      draw: `(key, logits, epoch) -> gates`, trees; epochs count from 0.
      kept: `(logit, epoch) -> P(gate is not 0)`, or the method's own count of a gate, per array.
      native: `(logit) -> bool`, whether the method itself would keep a parameter, per array.
      after: `(logit, epoch) -> logit`, applied at the end of every epoch, per array.
    """

    start: Callable[[Key, Params, chex.Numeric], Params]
    draw: Callable[[Key, Params, jax.Array], Params]
    kept: Callable[[jax.Array, jax.Array], jax.Array]
    native: Callable[[jax.Array], jax.Array]
    after: Callable[[jax.Array, jax.Array], jax.Array] = lambda logit, epoch: logit


@dataclass(frozen=True)
class GateOptions:
    """The numbers of a gate search.

    Attributes:
      scope: scope of the final selection, see `masks.select`; the count is steered as a whole.
      epochs: number of passes over the data E.
      batch_size: samples per step.
      rounds: number of rounds that the Finder reports.
      penalty: first price of sum P(z != 0).
      slack: the count is steered to this multiple of density n.
      invert: keep the lowest logits at the end instead, as a control.
    """

    scope: str
    epochs: int
    batch_size: int
    rounds: int = 1
    penalty: float = 0.0
    slack: float = 1.0
    invert: bool = False


def search_gates(
    task: Task,
    relaxation: Relaxation,
    rule: Rule,
    criterion: Criterion,
    options: GateOptions,
    *,
    apply: Apply,
    optimizer: Callable[[int], optax.GradientTransformation],
) -> Finder:
    """Learns the logits of gates on frozen parameters, and keeps the k highest logits.

    Every step runs the network with parameters theta z, where the gates z are drawn anew. The
    gradient of the search loss is increased by price times the gradient of the excess
    sum P(z != 0) / (density n) - 1. The rule sets the price.

    Args:
      task: defines, for scope "oracle", the layer counts.
      relaxation: defines the gates.
      rule: sets the price in every step.
      criterion: the search loss, see `to_labels`.
      options: the numbers of the search.
      apply: `(params, x) -> outputs`.
      optimizer: `(steps) -> optax optimizer`.

    Returns:
      A Finder. `Found.info` holds "losses", the mean search loss of each epoch [E]; "scale", the
      learned scale of the logits; "expected_kept", sum P(z != 0) at the end; and "native_kept", the
      number of parameters that the method's own threshold would keep.

    Raises:
      ValueError: if a name is unknown or a number is out of range.
    """
    scope = options.scope
    common.check_options(scope=scope, search_epochs=options.epochs, batch_size=options.batch_size)

    def make(network: Apply) -> _GateSearch:
        return _GateSearch(task, relaxation, rule, criterion, options, network, optimizer)

    search = common.on_prunable(make, apply)
    return Finder(search, scope, options.rounds, exact_counts=scope in common.EXACT_SCOPES)


@dataclass(frozen=True)
class _GateSearch:
    """The search of `search_gates`; the fields are its arguments."""

    task: Task
    relaxation: Relaxation
    rule: Rule
    criterion: Criterion
    options: GateOptions
    apply: Apply
    optimizer: Callable[[int], optax.GradientTransformation]

    def __call__(self, key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        options, relaxation = self.options, self.relaxation
        common.check(self.task, params, data, density, batch_size=options.batch_size)
        counts = common.oracle_counts(self.task, params, options.scope)
        start_key, select_key, draw_key, train_key = jax.random.split(key, 4)
        per_epoch = data.x.shape[0] // options.batch_size
        k = masks.number_kept(density, masks.size(params)).astype(jnp.float32)
        like = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), params)
        logits = relaxation.start(start_key, like, jnp.asarray(density, jnp.float32))

        def dense(x: jax.Array) -> jax.Array:
            return self.apply(params, x)

        def objective(
            learned: Params, carry: None, batch: Batch, step: jax.Array
        ) -> tuple[jax.Array, None]:
            step_key = jax.random.fold_in(draw_key, step)
            gates = relaxation.draw(step_key, learned["logits"], step // per_epoch)
            gated = jax.tree.map(lambda p, gate: p * gate.astype(p.dtype), params, gates)
            outputs = self.apply(gated, batch.x)
            return self.criterion(dense, outputs, batch, learned["log_scale"]), carry

        learned, _, values, _ = training.minimize(
            train_key,
            {"logits": logits, "log_scale": jnp.float32(0.0)},
            None,
            data,
            objective,
            optimizer=self._steered(k, per_epoch),
            epochs=options.epochs,
            batch_size=options.batch_size,
            constrain=lambda learned, step: self._after(learned, step, per_epoch),
        )
        logits = learned["logits"]
        ranked = jax.tree.map(jnp.negative, logits) if options.invert else logits
        mask = masks.select(select_key, ranked, density, options.scope, counts=counts)
        info = {
            "losses": values,
            "scale": jnp.exp(learned["log_scale"]),
            "expected_kept": self._expected(logits, jnp.int32(options.epochs - 1)),
            "native_kept": masks.count(jax.tree.map(relaxation.native, logits)),
            **common.not_finite(logits),
        }
        return Found(mask, params, info)

    def _expected(self, logits: Params, epoch: jax.Array) -> jax.Array:
        kept = self.relaxation.kept
        return optax.tree.sum(jax.tree.map(lambda logit: kept(logit, epoch), logits))

    def _steered(self, k: jax.Array, per_epoch: int) -> optax.GradientTransformation:
        slack, penalty = self.options.slack, self.options.penalty
        inner = self.optimizer(self.options.epochs * per_epoch)
        return steer(self._expected, slack * k, self.rule, penalty * k, per_epoch, inner)

    def _after(self, learned: Params, step: jax.Array, per_epoch: int) -> Params:
        """Applies `Relaxation.after` in the last step of an epoch."""
        ended, after = (step + 1) % per_epoch == 0, self.relaxation.after
        logits = jax.tree.map(
            lambda logit: jnp.where(ended, after(logit, step // per_epoch), logit),
            learned["logits"],
        )
        return learned | {"logits": logits}


def steer(
    expected: Callable[[Params, jax.Array], jax.Array],
    wanted: chex.Numeric,
    rule: Rule,
    memory: chex.Numeric,
    per_epoch: int,
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Adds the price of the excess expected(logits) / wanted - 1 to what an optimizer minimises.

    Args:
      expected: `(logits, epoch) -> scalar`, the expected count.
      wanted: the target of the count.
      rule: sets the price in every step.
      memory: initial memory of the rule.
      per_epoch: steps per epoch.
      optimizer: any optax optimizer; gradient and loss that it sees have the price in them.

    Returns:
      An optax optimizer of trees {"logits", "log_scale"}; its state is (step, memory, inner state).
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(learned: Params) -> _Steered:
        return jnp.int32(0), jnp.asarray(memory, jnp.float32), inner.init(learned)

    def update(
        gradient: Params, state: _Steered, learned: Params, **extra: Any
    ) -> tuple[Params, _Steered]:
        step, memory, within = state

        def excess_of(logits: Params) -> jax.Array:
            return expected(logits, step // per_epoch) / wanted - 1.0

        excess, slope = jax.value_and_grad(excess_of)(learned["logits"])
        task = gradient["logits"]
        slopes = optax.tree.norm(task), optax.tree.norm(slope)
        price, memory = rule(memory, step, excess, *slopes)
        task = jax.tree.map(lambda part, count: part + price * count, task, slope)
        gradient = gradient | {"logits": task}
        if extra:
            value, value_fn = extra["value"], extra["value_fn"]
            extra |= {
                "value": value + price * excess,
                "grad": gradient,
                "value_fn": lambda tried: value_fn(tried) + price * excess_of(tried["logits"]),
            }
        updates, within = inner.update(gradient, within, learned, **extra)
        return updates, (step + 1, memory, within)

    return optax.GradientTransformationExtraArgs(init, update)


def to_labels(task: Task, loss: str) -> Criterion:
    """The criterion that compares outputs with labels by a loss in `losses.SEARCH_LOSSES`.

    Raises:
      ValueError: if the name is unknown.
    """
    common.check_options(loss=loss)
    search_loss = losses.SEARCH_LOSSES[loss](task)
    return lambda dense, outputs, batch, log_scale: search_loss(outputs, batch.y, log_scale)


def dual_ascent(rate: float, damping: float) -> Rule:
    """Prices the count by an augmented Lagrangian: price = multiplier + damping * excess.

    The multiplier grows by rate * excess in every step; it may become negative. Without damping the
    count would oscillate around its target.

    Raises:
      ValueError: if the rate is not positive or the damping is negative.
    """
    checks.positive("dual_rate", rate)
    checks.interval("damping", damping, 0.0, math.inf)

    def rule(
        multiplier: jax.Array, step: jax.Array, excess: jax.Array, task: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del step, task, count
        return multiplier + damping * excess, multiplier + rate * excess

    return rule


def adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with cosine decay to zero over `steps`, so that gates are at rest when they are cut."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def below_one(density: chex.Numeric) -> jax.Array:
    """The density, but at most 0.999, because logits of gates would be infinite at 1."""
    return jnp.minimum(jnp.asarray(density, jnp.float32), 0.999)
