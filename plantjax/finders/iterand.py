"""IteRand: edge-popup whose pruned parameters are drawn anew from time to time."""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, losses, masks, nets, training
from plantjax.finders import common
from plantjax.finders.edge_popup_scores import SCORE_INITS, Selection, begin, sgd, straight
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Prunable, Task


@common.on_floats
def iterand(
    task: Task,
    *,
    apply: Apply = nets.apply,
    scope: str = "global",
    rate: float = 0.1,
    every: int | None = None,
    search_epochs: int = 10,
    batch_size: int = 32,
    search_learning_rate: float = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    loss: str = "scale-free",
    init: str = "equal",
    prunable: Prunable | None = None,
) -> Finder:
    """Learns scores as edge-popup does, and every so often draws a share of the pruned anew.

    After every K steps each parameter that is pruned then is replaced, with probability `rate`, by
    a random entry of its array in the mother: by a draw from its initial distribution, if its
    entries are identically distributed. So search is not limited to the mother's parameters, and
    the mask is a ticket only with the parameters that it ends with.

    Args:
      task: defines the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: where scores compete, see `masks.select`; the paper uses "local".
      rate: probability r of being drawn anew, in [0, 1]; 0 is edge-popup.
      every: number of steps K; by default those of an epoch.
      search_epochs: number of passes over the data.
      batch_size: samples per step.
      search_learning_rate: as in `edge_popup`.
      optimizer: optax optimizer to use instead.
      loss: a name in `losses.SEARCH_LOSSES`.
      init: initial scores, as in `edge_popup`.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf.

    Returns:
      A Finder of kind "trained". `Found.params` are the parameters after the last draw.
      `Found.info` holds "losses", the mean search loss of each epoch [E], and "drawn", the share of
      the prunable parameters that differ from the mother's.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Chijiwa et al. 2021, algorithm 1, https://arxiv.org/abs/2106.09269; r = 0.1 as there.
    """
    common.check_options(
        scope=scope,
        loss=loss,
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.interval("rate", rate, 0.0, 1.0)
    checks.choice("init", init, SCORE_INITS)
    if every is not None:
        checks.integer("every", every, 1)
    search = _IteRand(
        task=task,
        apply=apply,
        scope=scope,
        rate=rate,
        every=every,
        epochs=search_epochs,
        batch_size=batch_size,
        learning_rate=search_learning_rate,
        optimizer=optimizer,
        loss=loss,
        init=init,
        prunable=common.prunable_of(apply, prunable),
    )
    return Finder(search, scope, exact_counts=scope in common.EXACT_SCOPES, kind="trained")


@dataclass(frozen=True)
class _IteRand:
    """The search of `iterand`; its fields are the checked options."""

    task: Task
    apply: Apply
    scope: str
    rate: float
    every: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: optax.GradientTransformation | None
    loss: str
    init: str
    prunable: Prunable | None

    def __call__(self, key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        prunable, size = self.prunable, self.batch_size
        common.check(self.task, params, data, density, prunable=prunable, batch_size=size)
        counts = common.oracle_counts(self.task, params, self.scope)
        init_key, select_key, draw_key, train_key = jax.random.split(key, 4)
        selection = Selection(select_key, params, self.scope, counts, prunable)
        per_epoch = data.x.shape[0] // size
        steps, every = self.epochs * per_epoch, self.every or per_epoch
        final = jnp.asarray(density, jnp.float32)
        search_loss = losses.SEARCH_LOSSES[self.loss](self.task)

        def objective(
            learned: Params, carry: tuple[jax.Array, Params], batch: Batch, step: jax.Array
        ) -> tuple[jax.Array, tuple[jax.Array, Params]]:
            near, current = carry
            scores = learned["scores"]
            mask, near = selection.mask(scores, final, step, near)
            current = jax.lax.cond(
                (step > 0) & (step % every == 0),
                lambda: redrawn(
                    jax.random.fold_in(draw_key, step), params, current, mask, self.rate
                ),
                lambda: current,
            )
            masked = jax.tree.map(straight, current, mask, scores)
            outputs = self.apply(masked, batch.x)
            return search_loss(outputs, batch.y, learned["log_scale"]), (near, current)

        learned, (near, current), values, _ = training.minimize(
            train_key,
            begin(init_key, params, self.init),
            (masks.unknown(params, self.scope, prunable), params),
            data,
            objective,
            optimizer=self.optimizer or sgd(self.learning_rate, steps),
            epochs=self.epochs,
            batch_size=size,
        )
        mask, _ = selection.mask(learned["scores"], final, jnp.int32(steps), near)
        changed = jax.tree.map(jnp.not_equal, current, params)
        drawn = masks.count(changed, prunable) / masks.size(params, prunable)
        return Found(mask, current, {"losses": values, "drawn": drawn})


def redrawn(key: Key, source: Params, current: Params, mask: Mask, rate: chex.Numeric) -> Params:
    """Replaces pruned entries, each with probability `rate`, by random entries of the source.

    Args:
      key: consumed.
      source: the arrays to draw from, with replacement.
      current: a tree of the same structure.
      mask: entries that are kept stay.
      rate: in [0, 1].

    Returns:
      A tree like `current`.
    """
    place_key, chance_key = jax.random.split(key)
    chances = draws.uniform(chance_key, current)
    leaves, structure = jax.tree.flatten(source)
    keys = jax.random.split(place_key, len(leaves))
    fresh = [
        jnp.ravel(leaf)[jax.random.randint(k, jnp.shape(leaf), 0, leaf.size, jnp.int32)]
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.map(
        lambda new, old, kept, chance: jnp.where(kept | (chance >= rate), old, new),
        jax.tree.unflatten(structure, fresh),
        current,
        mask,
        chances,
    )
