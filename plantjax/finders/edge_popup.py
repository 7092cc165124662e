"""Edge-popup: learn scores of frozen parameters, whose highest are kept in every forward pass."""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from plantjax import checks, draws, losses, masks, nets, training
from plantjax.finders import common, schedules
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Prunable, Schedule, Task

ANNEALS = ("none", "epoch", "step")
HEADS = {"none": None, "reference": jax.nn.softmax}
SCORE_INITS = ("fan_in", "equal")
COUNTED = ("all", "live")


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

    Straight-through: dL/ds = dL/d(m theta) theta sign(s) for all parameters, sign(0) = 1.

    Args:
      task: gives the loss and, for scope "oracle", the layer counts.
      apply: `(params, x) -> outputs`.
      scope: see `masks.select`; "local" (kernel and bias apart) is the paper's.
      anneal: "none": the final density throughout; "epoch": `schedule(density, e, E)` in epoch
        e = 1, 2, ...; "step": the same in steps.
      anneal_share: the final density is reached after this share of the run, in (0, 1].
      schedule: a name in `schedules.SCHEDULES`, or such a function.
      search_epochs: passes over the data E.
      batch_size: samples per step.
      search_learning_rate: of SGD (momentum 0.9, weight decay 5e-4, cosine over the run).
      optimizer: any optax optimizer instead.
      loss: a name in `losses.SEARCH_LOSSES`: "scale-free", or "plain", the task's.
      head: "reference" appends the softmax of the paper's code, which makes regression impossible.
      init: "fan_in": U(+-1 / sqrt(fan_in)), biases like the weights of their layer; "equal":
        |0.1 U| everywhere.
      prunable: predicate on leaf paths; by default the apply's attribute, or every leaf is.
      budget: "all": kept parameters count; "live": only those on live paths do, and only they are
        kept (`masks.select_live`; scope "global", dense chains).
      transform: changes the inputs of every step at random, see `training.fit`.
      signed: parameters of negative scores are flipped, theta sign(s), and dL/ds = dL/d(m theta)
        theta. This is our reading of signed supermasks, which keep |s| above a fixed threshold
        instead of k; what is found is no subnetwork of the mother.
      invert: keep the lowest |s| in the end, as a control.

    Returns:
      A Finder. `Found.info` holds "losses", the search loss of each epoch [E], and "scale", the
      learned scale of the logits.

    Raises:
      ValueError: if a name is unknown or a number out of range.

    Source: Ramanujan et al. 2020, https://arxiv.org/abs/1911.13299; annealing: paper, section 4.3;
      signed: Koster et al. 2022, https://arxiv.org/abs/2201.13361, formula uncertain.

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother, data = pj.nets.init(keys[0], (1, 10, 10, 1)), task.sample(keys[1], 64)
    >>> find = jax.jit(pj.finders.edge_popup(task, anneal="step", search_epochs=2))
    >>> found = find(keys[2], mother, data, 0.5)
    >>> int(pj.masks.count(found.mask)), found.info["losses"].shape
    (71, (2,))
    """
    common.check_options(
        scope=scope,
        loss=loss,
        search_epochs=search_epochs,
        batch_size=batch_size,
        search_learning_rate=search_learning_rate,
    )
    checks.choice("anneal", anneal, ANNEALS)
    density_after = schedules.get(schedule)
    checks.choice("head", head, HEADS)
    checks.choice("init", init, SCORE_INITS)
    checks.choice("budget", budget, COUNTED)
    if budget == "live":
        checks.choice("scope with budget='live'", scope, ("global",))
    checks.interval("anneal_share", anneal_share, 0.0, 1.0, open_low=True)
    prunable = common.prunable_of(apply, prunable)
    search_loss = losses.SEARCH_LOSSES[loss](task)
    network = common.with_head(apply, HEADS[head])

    def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(task, params, data, density, prunable=prunable, batch_size=batch_size)
        counts = common.oracle_counts(task, params, scope)
        init_key, select_key, train_key = jax.random.split(key, 3)
        per_epoch = data.x.shape[0] // batch_size
        whole = max(
            1, round(anneal_share * search_epochs * (1 if anneal == "epoch" else per_epoch))
        )

        def density_at(step: jax.Array) -> jax.Array:
            if anneal == "none":
                return jnp.asarray(density, jnp.float32)
            done = 1 + (step // per_epoch if anneal == "epoch" else step)
            return density_after(density, jnp.minimum(done, whole), whole)

        def mask_of(
            scores: Params,
            density: jax.Array,
            step: jax.Array,
            near: jax.Array,
            invert: bool = False,
        ) -> tuple[Mask, jax.Array]:
            sizes = jax.tree.map(jnp.abs, jax.lax.stop_gradient(scores))
            sizes = jax.tree.map(jnp.negative, sizes) if invert else sizes
            tie_key = jax.random.fold_in(select_key, step)
            if budget == "live":
                return masks.reselect_live(tie_key, sizes, params, density, near)
            return masks.reselect(
                tie_key, sizes, density, near, scope, counts=counts, prunable=prunable
            )

        def mask_at(scores: Params, near: jax.Array, step: jax.Array) -> tuple[Mask, jax.Array]:
            return mask_of(scores, density_at(step), step, near)

        steps = search_epochs * per_epoch
        learned, near, values, _ = training.minimize(
            train_key,
            begin(init_key, params, init),
            masks.unknown(params, scope, prunable),
            data,
            objective(params, network, search_loss, mask_at, _signed if signed else straight),
            optimizer=optimizer or sgd(search_learning_rate, steps),
            epochs=search_epochs,
            batch_size=batch_size,
            transform=transform,
        )
        density = jnp.asarray(density, jnp.float32)
        mask, _ = mask_of(learned["scores"], density, jnp.int32(steps), near, invert)
        info = {"losses": values, "scale": jnp.exp(learned["log_scale"])}
        own = jax.tree.map(_flip, params, learned["scores"]) if signed else params
        return Found(mask, own, info)

    exact = scope in common.EXACT_SCOPES and budget == "all"
    kind = "signed" if signed else "subnetwork"
    return Finder(search, scope, exact_counts=exact, head=HEADS[head], kind=kind)


def objective(
    params: Params,
    network: Apply,
    search_loss: losses.SearchLoss,
    mask_at: Callable[[Params, jax.Array, jax.Array], tuple[Mask, jax.Array]],
    effective: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> Callable[[Params, jax.Array, Batch, jax.Array], tuple[jax.Array, jax.Array]]:
    """What edge-popup minimises, as `training.minimize` takes it.

    Args:
      params: the mother's, frozen.
      network: `(params, x) -> outputs`.
      search_loss: of the masked network.
      mask_at: `(scores, thresholds, step) -> (mask, thresholds)`.
      effective: `(parameters, kept, scores) -> masked parameters`, array by array.

    Returns:
      `(learned, thresholds, batch, step) -> (loss, thresholds)`; learned is as `begin` returns it.
    """

    def loss(
        learned: Params, near: jax.Array, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        scores = learned["scores"]
        mask, near = mask_at(scores, near, step)
        masked = jax.tree.map(effective, params, mask, scores)
        outputs = network(masked, batch.x)
        return search_loss(outputs, batch.y, learned["log_scale"]), near

    return loss


def begin(key: Key, params: Params, init: str) -> Params:
    """What is learned, as it starts: "scores" like params, "log_scale" of the logits."""
    return {"scores": _initial(key, params, init), "log_scale": jnp.float32(0.0)}


def sgd(learning_rate: chex.Numeric, steps: int, warmup: int = 0) -> optax.GradientTransformation:
    """SGD with momentum 0.9, weight decay 5e-4 in the gradient, cosine to zero over `steps`.

    The learning rate first rises from zero in `warmup` of these steps.
    """
    rates = optax.cosine_decay_schedule(learning_rate, steps)
    if warmup:
        rates = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    return optax.chain(
        optax.add_decayed_weights(5e-4),
        optax.trace(decay=0.9),
        optax.scale_by_learning_rate(rates),
    )


def straight(param: jax.Array, kept: jax.Array, score: jax.Array) -> jax.Array:
    """The masked parameter, with gradient theta sign(s) to its score."""
    moved = _flip(param, score) * (score - jax.lax.stop_gradient(score))
    return jnp.where(kept, param, 0.0) + moved


def _signed(param: jax.Array, kept: jax.Array, score: jax.Array) -> jax.Array:
    """The masked parameter with the score's sign, with gradient theta to the score."""
    moved = param * (score - jax.lax.stop_gradient(score))
    return jnp.where(kept, _flip(param, score), 0.0) + moved


def _flip(param: jax.Array, score: jax.Array) -> jax.Array:
    """The parameter times sign(s), sign(0) = 1."""
    return jnp.where(score >= 0, param, -param)


def _initial(key: Key, params: Params, init: str) -> Params:
    """Initial scores; the fan-in of a layer is that of its largest array."""
    drawn = draws.symmetric(key, params)
    if init == "equal":
        return jax.tree.map(lambda draw: jnp.abs(0.1 * draw), drawn)
    fan_in: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        layer = jax.tree_util.keystr(path[:-1])
        fan_in[layer] = max(fan_in.get(layer, 1), math.prod(np.shape(leaf)[:-1]))
    return jax.tree_util.tree_map_with_path(
        lambda path, draw: fan_in[jax.tree_util.keystr(path[:-1])] ** -0.5 * draw, drawn
    )
