"""Training: one scan over epochs and batches, which trains parameters as well as scores."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from plantjax import checks, draws, masks, nets
from plantjax.masks import groups
from plantjax.types import (
    Apply,
    Batch,
    Key,
    Loss,
    Mask,
    Params,
    as_arrays,
    like_dtypes,
    single_precision,
)

Carry = TypeVar("Carry")
State: TypeAlias = tuple[Params, optax.OptState, Any]
Transform: TypeAlias = Callable[[Key, jax.Array], jax.Array]
"""`(key, x [N, ...]) -> x`, a random change of a step's inputs, such as augmentation."""

_TRANSFORMS = np.uint32(0xFFFFFFFF)  # folded into the key of transforms; epochs count from 0


def fit(
    key: Key,
    params: Params,
    mask: Mask,
    data: Batch,
    *,
    apply: Apply,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    steps: int | None = None,
    transform: Transform | None = None,
) -> tuple[Params, jax.Array]:
    """Trains the kept parameters; pruned ones are exactly zero throughout.

    Gradients and updates are both masked, so no optimizer can revive a pruned parameter through its
    state, weight decay or noise. Leaves that are not floats, such as counters and random keys, stay
    as they are. Parameters of half precision are trained in float32, and rounded for every run of
    the network and at the end; the loss is not scaled, so gradients that float16 cannot hold are
    lost. Every epoch draws a new permutation of the data (with the key
    folded with the epoch); the last partial batch is dropped.

    Args:
      key: consumed.
      params: pytree of arrays, the initial parameters.
      mask: a mask with the structure of the params.
      data: N training samples.
      apply: `(params, x) -> outputs`.
      loss: `(outputs, y) -> scalar`.
      optimizer: any optax optimizer, also one that needs the loss or searches along a line
        (`polyak_sgd`, `lbfgs`); its hyper-parameters may be traced.
      epochs: number of passes over the data, 0 or more.
      batch_size: samples per step, 1 to N.
      steps: stop after this many steps, at most those of `epochs`; by default run them all.
      transform: `(key, x) -> x`, such as `data.augment`, applied to the inputs of every step with a
        key of its own; by default none.

    Returns:
      (trained params, mean training loss of each epoch [epochs]); with `steps`, only of the epochs
      that were started.

    Raises:
      ValueError: if trees do not match, (concrete) params are not finite, epochs is negative,
        batch_size is not in [1, N], steps exceeds those of the epochs, or (concrete) labels of a
        dense chain are not in [0, O).

    >>> import jax, jax.numpy as jnp, optax, plantjax as pj
    >>> x = jnp.linspace(-1.0, 1.0, 32)[:, None]
    >>> params, mask = {"w": jnp.zeros((1, 2))}, {"w": jnp.array([[True, False]])}
    >>> trained, losses = pj.training.fit(
    ...     jax.random.key(0),
    ...     params,
    ...     mask,
    ...     pj.types.Batch(x, jnp.concatenate([2.0 * x, x], axis=1)),
    ...     apply=lambda params, x: x @ params["w"],
    ...     loss=pj.losses.mean_squared_error,
    ...     optimizer=optax.sgd(1.0),
    ...     epochs=20,
    ...     batch_size=8,
    ... )
    >>> trained["w"].round(2).tolist(), losses.shape
    ([[2.0, 0.0]], (20,))
    """
    params, mask, data = as_arrays((params, mask, data))
    checks.finite("params", params, prunable=lambda path: False)
    params = masks.apply(params, mask)
    if apply is nets.apply and nets.is_chain(params):
        checks.labels(data.y, nets.widths(params)[-1])
    kept = groups.floats(mask, params)

    def objective(
        params: Params, carry: None, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, None]:
        del step
        return loss(apply(whole(params), batch.x), batch.y), carry

    def whole(floats: Params) -> Params:
        return groups.with_others(floats, params)

    trained = minimize(
        key,
        groups.floats(params, params),
        None,
        data,
        objective,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        steps=steps,
        project=lambda tree: masks.apply(tree, kept),
        transform=transform,
    )
    return whole(trained.params), trained.losses


class Minimized(NamedTuple):
    """The result of `minimize`: parameters, carry, losses [epochs], and the optimizer's state."""

    params: Params
    carry: Any
    losses: jax.Array
    state: optax.OptState


def minimize(
    key: Key,
    params: Params,
    carry: Carry,
    data: Batch,
    objective: Callable[[Params, Carry, Batch, jax.Array], tuple[jax.Array, Carry]],
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    steps: int | None = None,
    project: Callable[[Params], Params] = lambda tree: tree,
    transform: Transform | None = None,
    constrain: Callable[[Params, jax.Array], Params] = lambda tree, step: tree,
) -> Minimized:
    """Minimises an objective over batches; `fit` and all finders that learn masks use this loop.

    Args:
      key: consumed.
      params: pytree of float arrays that the objective takes; half precision as in `fit`.
      carry: state that the objective passes from step to step, or None.
      data: N training samples.
      objective: `(params, carry, batch, step) -> (scalar, carry)`; step counts from 0, int32.
      optimizer: any optax optimizer; its update is also given `value`, `grad` and `value_fn`, the
        objective on the batch of the step, with the carry before it.
      epochs: number of passes over the data, 0 or more.
      batch_size: samples per step, 1 to N.
      steps: as in `fit`.
      project: applied to gradients, to updates, and to what `value_fn` gets.
      transform: as in `fit`.
      constrain: `(params, step) -> params`, applied to the params after every step.

    Returns:
      Minimized(params, carry, mean objective of each epoch [epochs], optimizer state).

    Raises:
      ValueError: if epochs, batch_size or steps is out of range.

    >>> import optax, plantjax as pj
    >>> x = jnp.linspace(0.0, 1.0, 32)[:, None]
    >>> found = minimize(
    ...     jax.random.key(0),
    ...     {"w": jnp.zeros(())},
    ...     jnp.zeros((), jnp.int32),  # the carry counts the steps
    ...     pj.types.Batch(x, 3.0 * x),
    ...     lambda params, carry, batch, step: (
    ...         jnp.mean((params["w"] * batch.x - batch.y) ** 2),
    ...         carry + 1,
    ...     ),
    ...     optimizer=optax.sgd(0.5),
    ...     epochs=20,
    ...     batch_size=8,
    ... )
    >>> round(float(found.params["w"]), 1), int(found.carry), found.losses.shape
    (3.0, 80, (20,))
    """
    data, params = as_arrays((data, params))
    checks.batch(data)
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1, n := data.x.shape[0])
    per_epoch = n // batch_size
    if steps is not None:
        checks.integer("steps", steps, 0, epochs * per_epoch)

    def step(state: State, item: tuple[Batch, jax.Array]) -> tuple[State, jax.Array]:
        params, opt_state, carry = state
        if transform is not None:
            batch, number = item
            x = transform(jax.random.fold_in(transform_key, number), batch.x)
            item = (batch._replace(x=x), number)
        gradient_of = jax.value_and_grad(loss, has_aux=True)
        (value, after), gradient = gradient_of(params, carry, *item)
        updates, opt_state = _updates(
            *(optimizer, project(gradient), opt_state, params, value),
            lambda tried: loss(project(tried), carry, *item)[0],
        )
        params = constrain(optax.apply_updates(params, project(updates)), item[1])
        return (params, opt_state, after), value

    def epoch(
        state: State, index: chex.Numeric, length: int = per_epoch
    ) -> tuple[State, jax.Array]:
        order = draws.permutation(jax.random.fold_in(key, index), n)
        order = order[: length * batch_size].reshape(length, batch_size)
        batches = jax.tree.map(lambda a: a[order], data)
        numbers = index * per_epoch + jnp.arange(length, dtype=jnp.int32)
        state, values = jax.lax.scan(step, state, (batches, numbers))
        return state, jnp.mean(values)

    def loss(params: Params, *rest: Any) -> tuple[jax.Array, Any]:
        return objective(like_dtypes(params, given), *rest)

    transform_key = jax.random.fold_in(key, _TRANSFORMS)
    whole, rest = divmod(epochs * per_epoch if steps is None else steps, per_epoch)
    given, params = params, single_precision(params)
    state: State = (params, optimizer.init(params), carry)
    state, losses = jax.lax.scan(epoch, state, jnp.arange(whole, dtype=jnp.int32))
    if rest:
        state, last = epoch(state, whole, rest)
        losses = jnp.append(losses, last)
    return Minimized(like_dtypes(state[0], given), state[2], losses, state[1])


def _updates(
    optimizer: optax.GradientTransformation,
    gradient: Params,
    state: optax.OptState,
    params: Params,
    value: jax.Array,
    value_fn: Callable[[Params], jax.Array],
) -> tuple[Params, optax.OptState]:
    """An optimizer's update, told the loss and its function as line searches need them."""
    told = {
        "value": single_precision(value),
        "grad": gradient,
        "value_fn": lambda tried: single_precision(value_fn(tried)),
    }
    stepped = optax.with_extra_args_support(optimizer)
    # optax does not run under "strict", nor do its line searches without broadcasting
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return stepped.update(gradient, state, params, **taken(stepped, told))


def taken(
    optimizer: optax.GradientTransformationExtraArgs, told: Mapping[str, Any]
) -> dict[str, Any]:
    """What the update of an optimizer takes of what it could be told.

    Some that optax marks as taking anything take only the arguments that they name, as `sam`.
    """
    parameters = inspect.signature(optimizer.update).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(told)
    return {name: value for name, value in told.items() if name in parameters}
