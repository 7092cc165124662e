"""Gates: relaxed masks that are learned, steered to a count, and cut to their top k.

A finder of gates gives a relaxation and a rule that prices the count; the search is here.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import losses, masks, training
from plantjax.finders import common
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Task

Rule: TypeAlias = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]
]
"""`(memory, step, excess, task slope, count slope) -> (price, memory)`; slopes are norms."""


Criterion: TypeAlias = Callable[[Params, jax.Array, Batch, chex.Numeric], jax.Array]
"""`(params, outputs, batch, log_scale) -> scalar`, of a masked network with these outputs."""


class Relaxation(NamedTuple):
    """Gates in [0, 1], one per parameter, drawn from what is learned: a tree of logits.

    Attributes:
      start: `(key, params, density) -> logits`, a tree like params.
      draw: `(key, logits, epoch) -> gates`, trees; epochs count from 0.
      kept: `(logit, epoch) -> P(gate is not 0)`, or what the method counts for it, array by array.
      native: `(logit) -> bool`, what the method itself would keep at the end, array by array.
      after: `(logit, epoch) -> logit` at the end of every epoch, array by array.
    """

    start: Callable[[Key, Params, chex.Numeric], Params]
    draw: Callable[[Key, Params, jax.Array], Params]
    kept: Callable[[jax.Array, jax.Array], jax.Array]
    native: Callable[[jax.Array], jax.Array]
    after: Callable[[jax.Array, jax.Array], jax.Array] = lambda logit, epoch: logit


def search_gates(
    task: Task,
    relaxation: Relaxation,
    rule: Rule,
    criterion: Criterion,
    *,
    apply: Apply,
    optimizer: Callable[[int], optax.GradientTransformation],
    epochs: int,
    batch_size: int,
    scope: str,
    rounds: int = 1,
    penalty: float = 0.0,
    slack: float = 1.0,
    invert: bool = False,
) -> Finder:
    """Learns the logits of frozen parameters' gates, and keeps the k highest, in {0, 1}.

    Every step runs the network with theta z, z drawn anew. To the gradient of the search loss comes
    price times that of the excess sum P(z != 0) / (density n) - 1, the price set by the rule.

    Args:
      task: gives, for scope "oracle", the layer counts.
      relaxation: of the masks.
      rule: sets the price of every step.
      criterion: what is minimised, see `to_labels`.
      apply: `(params, x) -> outputs`.
      optimizer: `(steps) -> optax optimizer`.
      epochs: passes over the data E.
      batch_size: samples per step.
      scope: of the final selection, see `masks.select`; the count is steered as a whole.
      rounds: what the Finder tells.
      penalty: weight of sum P(z != 0) at the start.
      slack: the count is steered to this multiple of density n.
      invert: keep the lowest logits in the end, as a control.

    Returns:
      A Finder. `Found.info` holds "losses" of the relaxed network, each epoch's mean [E], "scale",
      the learned scale of the logits, "expected_kept", sum P(z != 0) at the end, and "native_kept",
      how many the method's own threshold would keep.

    Raises:
      ValueError: if a name is unknown or a number out of range.
    """
    common.check_options(scope=scope, search_epochs=epochs, batch_size=batch_size)

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, batch_size=batch_size)
        counts = common.oracle_counts(task, params, scope)
        start_key, select_key, draw_key, train_key = jax.random.split(key, 4)
        n, per_epoch = masks.size(params), data.x.shape[0] // batch_size
        k = masks.number_kept(density, n).astype(jnp.float32)
        logits = relaxation.start(start_key, params, jnp.asarray(density, jnp.float32))

        def expected(logits: Params, epoch: jax.Array) -> jax.Array:
            return optax.tree.sum(jax.tree.map(lambda s: relaxation.kept(s, epoch), logits))

        def objective(
            learned: Params, carry: None, batch: Batch, step: jax.Array
        ) -> tuple[jax.Array, None]:
            step_key = jax.random.fold_in(draw_key, step)
            gates = relaxation.draw(step_key, learned["logits"], step // per_epoch)
            outputs = apply(jax.tree.map(jnp.multiply, params, gates), batch.x)
            return criterion(params, outputs, batch, learned["log_scale"]), carry

        def after(learned: Params, step: jax.Array) -> Params:
            ended = (step + 1) % per_epoch == 0
            logits = jax.tree.map(
                lambda logit: jnp.where(ended, relaxation.after(logit, step // per_epoch), logit),
                learned["logits"],
            )
            return learned | {"logits": logits}

        learned, _, values, _ = training.minimize(
            train_key,
            {"logits": logits, "log_scale": jnp.float32(0.0)},
            None,
            data,
            objective,
            optimizer=optax.chain(
                steer(expected, slack * k, rule, penalty * k, per_epoch),
                optimizer(epochs * per_epoch),
            ),
            epochs=epochs,
            batch_size=batch_size,
            constrain=after,
        )
        logits = learned["logits"]
        ranked = jax.tree.map(jnp.negative, logits) if invert else logits
        mask = masks.select(select_key, ranked, density, scope, counts=counts)
        info = {
            "losses": values,
            "scale": jnp.exp(learned["log_scale"]),
            "expected_kept": expected(logits, jnp.int32(epochs - 1)),
            "native_kept": masks.count(jax.tree.map(relaxation.native, logits)),
        }
        return Found(mask, params, info)

    return Finder(search, scope, rounds, exact_counts=scope in common.EXACT_SCOPES)


def steer(
    expected: Callable[[Params, jax.Array], jax.Array],
    wanted: chex.Numeric,
    rule: Rule,
    memory: chex.Numeric,
    per_epoch: int,
) -> optax.GradientTransformation:
    """Adds price times the gradient of the excess expected(logits) / wanted - 1 to "logits".

    Args:
      expected: `(logits, epoch) -> scalar`, the expected count.
      wanted: the count to be reached.
      rule: sets the price in every step.
      memory: the rule's first.
      per_epoch: steps of an epoch.

    Returns:
      An optax transformation of trees {"logits", "log_scale"}; its state is (step, memory).
    """

    def init(learned: Params) -> tuple[jax.Array, jax.Array]:
        del learned
        return jnp.int32(0), jnp.asarray(memory, jnp.float32)

    def update(
        gradient: Params, state: tuple[jax.Array, jax.Array], learned: Params
    ) -> tuple[Params, tuple[jax.Array, jax.Array]]:
        step, memory = state
        excess, slope = jax.value_and_grad(
            lambda logits: expected(logits, step // per_epoch) / wanted - 1.0
        )(learned["logits"])
        task = gradient["logits"]
        slopes = optax.tree.norm(task), optax.tree.norm(slope)
        price, memory = rule(memory, step, excess, *slopes)
        task = jax.tree.map(lambda part, count: part + price * count, task, slope)
        return gradient | {"logits": task}, (step + 1, memory)

    return optax.GradientTransformation(init, update)


def to_labels(task: Task, loss: str) -> Criterion:
    """The search loss of this name in `losses.SEARCH_LOSSES`, of outputs and labels.

    Raises:
      ValueError: if the name is unknown.
    """
    common.check_options(loss=loss)
    search_loss = losses.SEARCH_LOSSES[loss](task)
    return lambda params, outputs, batch, log_scale: search_loss(outputs, batch.y, log_scale)


def dual_ascent(rate: float, damping: float) -> Rule:
    """The price of a constraint, by the augmented Lagrangian: multiplier + damping excess.

    The multiplier grows by rate times the excess of every step; it may be negative. Without damping
    the count would swing around what is wanted.
    """

    def rule(
        multiplier: jax.Array, step: jax.Array, excess: jax.Array, task: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del step, task, count
        return multiplier + damping * excess, multiplier + rate * excess

    return rule


def adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a cosine to zero over `steps`: gates that still move are cut wrongly."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def below_one(density: chex.Numeric) -> jax.Array:
    """The density, but at most 0.999: at 1 the logits of gates would be infinite."""
    return jnp.minimum(jnp.asarray(density, jnp.float32), 0.999)
