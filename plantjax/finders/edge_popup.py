"""Edge-popup: learns scores of frozen parameters; every forward pass keeps the highest."""

from dataclasses import dataclass, replace

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, losses, masks, nets, training
from plantjax.finders import common
from plantjax.finders.edge_popup_scores import (
    COUNTED,
    SCORE_INITS,
    Selection,
    begin,
    flip,
    objective,
    sgd,
    signed_straight,
    straight,
)
from plantjax.masks import schedules
from plantjax.types import (
    Apply,
    Batch,
    Finder,
    Found,
    Head,
    Key,
    Mask,
    Params,
    Prunable,
    Schedule,
    Task,
)

ANNEALS = ("none", "epoch", "step")
HEADS = {"none": None, "reference": jax.nn.softmax}


@common.on_floats
def edge_popup(
    task: Task,
    *,
    apply: Apply = nets.apply,
    scope: str = "local",
    anneal: str = "none",
    anneal_share: float = 1.0,
    schedule: str | Schedule = "exponential",
    search_epochs: int = 10,
    batch_size: int = 32,
    search_learning_rate: float = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    loss: str = "scale-free",
    head: str = "none",
    init: str = "fan_in",
    prunable: Prunable | None = None,
    budget: str = "all",
    transform: training.Transform | None = None,
    signed: bool = False,
    invert: bool = False,
) -> Finder:
    """Learns scores s of frozen parameters theta; the mask keeps the highest |s|.

    The gradient is straight-through: dL/ds = dL/d(m theta) theta sign(s) for all parameters, kept
    or not, with sign(0) = 1.

    Args:
      task: defines the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: where scores compete, see `masks.select`; the paper uses "local" (kernel and bias
        apart).
      anneal: "none": the final density throughout; "epoch": `schedule(density, e, E)` in epoch
        e = 1, 2, ...; "step": the same per step.
      anneal_share: share of the run after which the final density is reached, in (0, 1].
      schedule: a name in `masks.SCHEDULES`, or such a function.
      search_epochs: number of passes over the data E.
      batch_size: samples per step.
      search_learning_rate: initial learning rate of SGD (momentum 0.9, weight decay 5e-4, cosine
        decay over the run).
      optimizer: optax optimizer to use instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", "robust", or "plain", the task's own.
      head: "reference" appends the softmax of the paper's code, which makes regression impossible.
      init: "fan_in": U(+-1 / sqrt(fan_in)), biases like the weights of their layer; "equal":
        |0.1 U| everywhere.
      prunable: predicate on leaf paths; by default `apply.prunable`, or else every leaf.
      budget: "all" counts every kept parameter; "live" counts and keeps only those on live paths
        (`masks.select_live`; needs scope "global" and a dense chain).
      transform: random change of the inputs of every step, see `training.fit`.
      signed: flip the parameters whose score is negative, theta sign(s), and use
        dL/ds = dL/d(m theta) theta. This is our reading of signed supermasks, which keep |s| above
        a fixed threshold instead of the top k. The result is not a subnetwork of the mother.
      invert: keep the lowest |s| at the end instead, as a control.

    Returns:
      A Finder. `Found.info` holds "losses", the mean search loss of each epoch [E], and "scale",
      the learned scale of the logits.

    Raises:
      ValueError: if a name is unknown or a number is out of range.

    Source: Ramanujan et al. 2020, https://arxiv.org/abs/1911.13299; annealing: paper, section 4.3;
      signed: Koster et al. 2022, https://arxiv.org/abs/2201.13361, formula uncertain.

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = pj.finders.edge_popup(task, anneal="step", search_epochs=2)
    >>> found = jax.eval_shape(find, keys[2], mother, data, 0.5)
    >>> found.mask["layer_01"]["kernel"].shape, found.info["losses"].shape
    ((10, 10), (2,))
    """
    common.check_options(
        scope=scope,
        loss=loss,
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.choice("anneal", anneal, ANNEALS)
    checks.choice("head", head, HEADS)
    checks.choice("init", init, SCORE_INITS)
    checks.choice("budget", budget, COUNTED)
    if budget == "live":
        checks.choice("scope with budget='live'", scope, ("global",))
    checks.interval("anneal_share", anneal_share, 0.0, 1.0, open_low=True)
    prunable = common.prunable_of(apply, prunable)
    popup = _EdgePopup(
        task=task,
        apply=apply,
        head=HEADS[head],
        scope=scope,
        annealing=_Annealing(anneal, anneal_share, schedules.get(schedule), search_epochs),
        epochs=search_epochs,
        batch_size=batch_size,
        learning_rate=search_learning_rate,
        optimizer=optimizer,
        loss=loss,
        init=init,
        prunable=prunable,
        budget=budget,
        transform=transform,
        signed=signed,
        invert=invert,
    )
    # Leaves that are not prunable have no signs to learn.
    search = common.on_prunable(popup.on, apply, prunable) if signed else popup
    exact = scope in common.EXACT_SCOPES and budget == "all"
    kind = "signed" if signed else "subnetwork"
    return Finder(search, scope, exact_counts=exact, head=popup.head, kind=kind)


@dataclass(frozen=True)
class _Annealing:
    """How the density falls during a search, see `edge_popup`."""

    anneal: str
    share: float
    schedule: Schedule
    epochs: int

    def density(self, final: chex.Numeric, step: jax.Array, per_epoch: int) -> jax.Array:
        """The density in a step; the final one throughout if there is no annealing."""
        if self.anneal == "none":
            return jnp.asarray(final, jnp.float32)
        by_epoch = self.anneal == "epoch"
        rounds = max(1, round(self.share * self.epochs * (1 if by_epoch else per_epoch)))
        done = 1 + (step // per_epoch if by_epoch else step)
        return self.schedule(final, jnp.minimum(done, rounds), rounds)


@dataclass(frozen=True)
class _EdgePopup:
    """The search of `edge_popup`; its fields are the checked options."""

    task: Task
    apply: Apply
    head: Head | None
    scope: str
    annealing: _Annealing
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: optax.GradientTransformation | None
    loss: str
    init: str
    prunable: Prunable | None
    budget: str
    transform: training.Transform | None
    signed: bool
    invert: bool

    def on(self, apply: Apply) -> "_EdgePopup":
        """The same search on a network whose leaves are all prunable."""
        return replace(self, apply=apply, prunable=None)

    def __call__(self, key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        prunable, size = self.prunable, self.batch_size
        common.check(self.task, params, data, density, prunable=prunable, batch_size=size)
        if self.budget == "live":
            common.check_chain("a live budget", self.apply, params)
        counts = common.oracle_counts(self.task, params, self.scope)
        init_key, select_key, train_key = jax.random.split(key, 3)
        selection = Selection(select_key, params, self.scope, counts, prunable, self.budget)
        per_epoch = data.x.shape[0] // size
        steps = self.epochs * per_epoch

        def mask_at(scores: Params, near: jax.Array, step: jax.Array) -> tuple[Mask, jax.Array]:
            now = self.annealing.density(density, step, per_epoch)
            return selection.mask(scores, now, step, near)

        search_loss = losses.SEARCH_LOSSES[self.loss](self.task)
        network = common.with_head(self.apply, self.head)
        masked = signed_straight if self.signed else straight
        learned, near, values, _ = training.minimize(
            train_key,
            begin(init_key, params, self.init),
            masks.unknown(params, self.scope, prunable),
            data,
            objective(params, network, search_loss, mask_at, masked),
            optimizer=self.optimizer or sgd(self.learning_rate, steps),
            epochs=self.epochs,
            batch_size=size,
            transform=self.transform,
        )
        scores, final = learned["scores"], jnp.asarray(density, jnp.float32)
        mask, _ = selection.mask(scores, final, jnp.int32(steps), near, self.invert)
        info = {"losses": values, "scale": jnp.exp(learned["log_scale"])}
        info |= common.not_finite(scores, prunable)
        own = jax.tree.map(flip, params, scores) if self.signed else params
        return Found(mask, own, info)
