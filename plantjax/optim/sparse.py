"""What all sparse optimizers share: an optimizer between a mask of what enters and what leaves.

The inner optimizer is shown the sparse network alone. Its gradients and parameters are masked, so
that norms for clipping, moments, averages and weight decay know nothing of pruned entries, not even
of NaN in them. What it returns is masked too: a pruned parameter p gets the update -p.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from plantjax import checks
from plantjax.optim.packing import Packed, describe
from plantjax.optim.views import Leaves, cleaned, entering, leaving, told_of
from plantjax.training import taken
from plantjax.types import Mask, Params, Prunable

Change: TypeAlias = Callable[[jax.Array, Leaves, Leaves, Leaves], Leaves]
"""`(updates done before, params, gradient, masks) -> masks`."""


class SparseState(NamedTuple):
    """The state of a sparse optimizer.

    Attributes:
      step: number of updates done, int32.
      mask: the mask as bits; `plantjax.optim.mask(state)` unpacks it.
      inner: the state of the inner optimizer.
    """

    step: jax.Array
    mask: Packed
    inner: optax.OptState


@dataclass(frozen=True)
class Sparse:
    """An optimizer with a mask, which may change from update to update.

    Where an entry is pruned, the inner state that belongs to it (moments, averages: every float
    array that has the path of a leaf and its shape, perhaps after other axes) becomes zero.

    Attributes:
      optimizer: the inner optimizer.
      start: `(params, packed) -> masks` of the prunable leaves before the first update.
      prunable: predicate on leaf paths; None allows every leaf of floats.
      due: `(updates done before) -> bool`, whether the mask changes now; None if it never does.
      change: the new masks.
      rests: whether an update that changes the mask takes no step of the inner optimizer.
    """

    optimizer: optax.GradientTransformation
    start: Callable[[Params, Packed], Leaves]
    prunable: Prunable | None = None
    due: Callable[[jax.Array], jax.Array] | None = None
    change: Change | None = None
    rests: bool = False

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        """The optax optimizer."""
        return optax.GradientTransformationExtraArgs(self.init, self.update)

    def init(self, params: Params) -> SparseState:
        """Masks the parameters that the inner optimizer starts from."""
        plain = pure(params)
        packed = describe(plain, self.prunable)
        packed = packed.replace(self.start(plain, packed))
        leaves, structure = jax.tree.flatten(params)
        inner = self.optimizer.init(entering(structure, leaves, leaves, packed))
        return SparseState(jnp.zeros((), jnp.int32), packed, inner)

    def update(
        self, gradient: Params, state: SparseState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SparseState]:
        """Changes the mask if that is due, and takes a step of the inner optimizer."""
        if params is None:
            raise ValueError("params must be given to the update of a sparse optimizer, got None.")
        leaves = jax.tree.leaves(params)
        structure: Any = jax.tree.structure(params)
        slopes = structure.flatten_up_to(gradient)
        _check_shapes(state.mask, leaves)
        packed, inner = state.mask, state.inner
        due = jnp.zeros((), bool) if self.due is None else self.due(state.step)
        if self.change is not None:
            packed, inner = self._changed(due, state, params, slopes)
        shown = [entering(structure, tree, leaves, packed) for tree in (slopes, leaves)]

        def step() -> tuple[Params, optax.OptState]:
            stepped = optax.with_extra_args_support(self.optimizer)
            told = told_of(extra, structure, leaves, packed)
            # optax does not run under "strict", nor do its line searches without broadcasting
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                return stepped.update(shown[0], inner, shown[1], **taken(stepped, told))

        def rest() -> tuple[Params, optax.OptState]:
            return jax.tree.map(jnp.zeros_like, jax.eval_shape(step)[0]), inner

        updates, inner = jax.lax.cond(due, rest, step) if self.rests else step()
        updates = leaving(structure, updates, leaves, packed)
        return updates, SparseState(state.step + 1, packed, inner)

    def _changed(
        self, due: jax.Array, state: SparseState, params: Params, slopes: Sequence[Any]
    ) -> tuple[Packed, optax.OptState]:
        """The mask and the inner state after a change, if one is due."""
        assert self.change is not None
        change, packed = self.change, state.mask
        free, slope = packed.pick(jax.tree.leaves(params)), packed.pick(slopes)

        def moved() -> tuple[Packed, optax.OptState]:
            masks = change(state.step, free, slope, packed.unpack())
            return packed.replace(masks), cleaned(state.inner, params, packed, masks)

        return jax.lax.cond(due, moved, lambda: (packed, state.inner))


def mask(state: optax.OptState) -> Mask:
    """The mask in the state of a sparse optimizer, also inside chains and other wrappers.

    Args:
      state: the state of an optax optimizer that has one of `prune`, `rewire` and `keep_pruned` in
        it, or a batch of such states. If one is inside another, the outer one counts.

    Returns:
      A tree of bools with the structure of the parameters.

    Raises:
      ValueError: if the state has no sparse optimizer in it, or several side by side.

    >>> import jax.numpy as jnp, optax, plantjax as pj
    >>> params = {"w": jnp.array([3.0, -1.0, 2.0, 0.5])}
    >>> optimizer = optax.chain(pj.optim.prune(optax.sgd(0.1), density=0.5, end=1))
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> pj.optim.mask(state)["w"].tolist()
    [True, False, True, False]
    """
    return _found(state).mask.tree()


def density(state: optax.OptState) -> jax.Array:
    """The share of the prunable entries that the mask in a state keeps, float32; see `mask`.

    >>> import jax.numpy as jnp, optax, plantjax as pj
    >>> params, kept = {"w": jnp.ones(4)}, {"w": jnp.array([True, True, True, False])}
    >>> float(density(pj.optim.keep_pruned(optax.sgd(0.1), kept).init(params)))
    0.75
    """
    return _found(state).mask.density()


def keep_pruned(
    optimizer: optax.GradientTransformation, mask: Mask, *, prunable: Prunable | None = None
) -> optax.GradientTransformationExtraArgs:
    """Trains the kept parameters only; pruned ones stay, or become, exactly zero.

    The optimizer sees the sparse network: gradients and parameters are masked before they enter, so
    that norms for clipping, moments, averages and weight decay know nothing of pruned entries, not
    even of NaN in them. Updates are masked when they leave.

    Args:
      optimizer: any optax optimizer, also a chain with clipping or averaging.
      mask: pytree of bool arrays with the structure of the parameters.
      prunable: predicate on leaf paths; other leaves, and those that are not floats, are kept
        whatever the mask says. By default every leaf of floats is prunable.

    Returns:
      An optax optimizer with a SparseState; its `update` needs the parameters.

    Raises:
      ValueError: when it is used, if the parameters do not fit the mask or are not given.

    >>> import jax.numpy as jnp, optax, plantjax as pj
    >>> params, mask = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([True, False])}
    >>> clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))
    >>> optimizer = pj.optim.keep_pruned(clipped, mask)
    >>> gradient = {"w": jnp.array([0.5, 100.0])}
    >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.75, 0.0]
    """
    return Sparse(optimizer, lambda *seen: given(mask, *seen), prunable).transformation()


def given(mask: Mask, params: Params, packed: Packed) -> Leaves:
    """The masks of the prunable leaves, for a mask that the caller has.

    Raises:
      ValueError: if it does not fit the parameters.
    """
    plain = pure(mask)
    checks.mask("mask", plain, "params", params)
    return packed.pick(jax.tree.leaves(plain))


def pure(tree: Any) -> Any:
    """The tree with arrays in place of the variables of Flax NNX, if it has any."""
    from flax import nnx  # only here, since importing it takes a while

    return nnx.as_pure(tree)


def _found(state: optax.OptState) -> SparseState:
    def sparse(node: Any) -> bool:
        return isinstance(node, SparseState)

    found = [node for node in jax.tree.leaves(pure(state), is_leaf=sparse) if sparse(node)]
    if len(found) != 1:
        raise ValueError(
            "state must be that of an optimizer with one of prune, rewire and keep_pruned in it, "
            f"got {len(found)} of them."
        )
    return found[0]


def _check_shapes(packed: Packed, leaves: Sequence[Any]) -> None:
    shapes = tuple(jnp.shape(leaf) for leaf in leaves)
    if shapes != packed.shapes:
        raise ValueError(
            f"params must have the shapes that they had at init, {packed.shapes}, got {shapes}."
        )
