"""Modules of Flax NNX and Flax Linen as functions of a tree of their parameters.

`from_nnx`, `from_linen` and `from_equinox` (in `equinox_modules`) return `(apply, params)`. Params
are nested dicts of the trainable arrays, as finders, masks, planting and training take them. All
other state (running statistics, random keys, counters) stays inside `apply`, which is pure: every
call starts from the state that the module had, and what the call changes in it is forgotten. So a
Dropout that is not switched off drops the same units in every call.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import unfreeze

from plantjax import checks
from plantjax.nets import wirings
from plantjax.types import Params

Call = Callable[[Any, jax.Array], jax.Array]
"""`(module, x [N, ...]) -> outputs [N, O]`, for Linen `(variables, x) -> outputs`."""

_SCALES = ("scale", "scales")


@dataclass(frozen=True, eq=False)
class Module:
    """A module as a function: `apply(params, x [N, ...]) -> outputs [N, O]`.

    Attributes:
      restore: `(params) -> module` with these parameters and the state that it came with; for
        Linen the variables.
      call: `(module, x) -> outputs`.
      unpruned: paths of the leaves that are not prunable: norms, and what is no float.
      at_rest: `(module) -> module` with batch norms of mean 0 and variance 1, for SynFlow.
    """

    restore: Callable[[Params], Any]
    call: Call
    unpruned: frozenset[str]
    at_rest: Callable[[Any], Any] = lambda module: module

    def __call__(self, params: Params, x: jax.Array) -> jax.Array:
        """Runs the module."""
        return self.call(self.restore(params), x)

    def prunable(self, path: str) -> bool:
        """Whether a leaf is prunable: those of norms are not."""
        return path not in self.unpruned

    def flow(self, params: Params, x: jax.Array) -> jax.Array:
        """Runs the module with batch norms at rest."""
        return self.call(self.at_rest(self.restore(params)), x)


def from_nnx(module: nnx.Module, call: Call | None = None) -> tuple[Module, Params]:
    """A module of Flax NNX as `(apply, params)`.

    It runs in the mode that it is in: after `module.eval()`, batch norms use their running
    statistics and Dropout does nothing; otherwise batch norms use those of the batch.
    `nnx.update(module, params)` or `apply.restore(params)` lead back.

    Args:
      module: any NNX module.
      call: `(module, x) -> outputs`; by default `module(x)`.

    Returns:
      (apply, params), where params are its `nnx.Param`s.

    Raises:
      ValueError: if the module has no parameters; when it is run, if params do not fit.

    >>> import plantjax as pj
    >>> apply, params = from_nnx(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    >>> params["kernel"].shape, apply(params, jnp.ones((5, 2))).shape
    ((2, 3), (5, 3))
    """
    graph, given, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
    params = jax.tree.map(jnp.asarray, nnx.to_pure_dict(given))
    check_not_empty(params)
    norms = {
        "/".join(map(str, path))
        for path, part in nnx.iter_modules(module)
        if "Norm" in type(part).__name__
    }

    def restore(params: Params) -> nnx.Module:
        values = by_path(params, given)
        copied = jax.tree.map(lambda leaf: leaf, rest)  # new variables, which a call may change
        return nnx.merge(graph, wirings.replace(given, values), copied)

    return Module(restore, call or _called, kept(params, norms), _at_rest), params


def from_linen(
    module: nn.Module, variables: Any, call: Call | None = None
) -> tuple[Module, Params]:
    """A module of Flax Linen as `(apply, params)`.

    Args:
      module: any Linen module.
      variables: as `module.init` returns them, with the collection "params"; all others stay in
        `apply`.
      call: `(variables, x) -> outputs`; by default `module.apply(variables, x)`. Modules with batch
        norm or Dropout say here how they run. SynFlow is best scored with running averages, because
        batch statistics hide the size of weights.

    Returns:
      (apply, params), where params are the variables "params", as nested dicts.

    Raises:
      ValueError: if variables have no "params"; when it is run, if params do not fit.

    >>> module = nn.Dense(3)
    >>> apply, params = from_linen(module, module.init(jax.random.key(0), jnp.ones((5, 2))))
    >>> params["kernel"].shape, apply(params, jnp.ones((5, 2))).shape
    ((2, 3), (5, 3))
    """
    variables = unfreeze(nn.meta.unbox(variables))
    if "params" not in variables:
        raise ValueError(f"variables must have the collection params, got {', '.join(variables)}.")
    params = variables["params"]
    check_not_empty(params)
    rest = {name: part for name, part in variables.items() if name != "params"}
    norms = {path.rpartition("/")[0] for path in wirings.leaves(rest.get("batch_stats", {}))}

    def restore(params: Params) -> Any:
        values = by_path(params, variables["params"])
        return rest | {"params": wirings.replace(variables["params"], values)}

    def run(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.asarray(module.apply(variables, x))

    return Module(restore, call or run, kept(params, norms)), params


def kept(params: Params, norms: Collection[str]) -> frozenset[str]:
    """The paths of leaves that are not prunable.

    These are all of the layers in `norms`, scales, arrays of layers without a matrix, as biases of
    norms, and what is no float.

    Args:
      params: any tree.
      norms: paths of layers that are norms, as far as known.

    >>> params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    >>> sorted(kept(params | {"norm": {"bias": jnp.ones(2)}}, norms=()))
    ['norm/bias']
    """
    leaves = wirings.leaves(params)
    split = {path: path.rpartition("/") for path in leaves}
    with_matrix = {
        split[path][0]
        for path, leaf in leaves.items()
        if jnp.ndim(leaf) >= 2 and split[path][2] not in ("bias", *_SCALES)
    }
    return frozenset(
        path
        for path, (layer, _, name) in split.items()
        if layer in norms
        or layer not in with_matrix
        or name in _SCALES
        or not checks.is_float(leaves[path])
    )


def by_path(params: Params, given: Params) -> dict[str, jax.Array]:
    """The leaves of params by path; raises ValueError unless they are those of `given`."""
    found = wirings.leaves(params)
    checks.same_structure("params", found, "the module", wirings.leaves(given))
    return found


def check_not_empty(params: Params) -> None:
    """Raises ValueError if a module has no parameters."""
    if not jax.tree.leaves(params):
        raise ValueError("module must have at least one parameter, got none.")


def _called(module: Any, x: jax.Array) -> jax.Array:
    return module(x)


def _at_rest(module: nnx.Module) -> nnx.Module:
    module.eval()
    for _, part in nnx.iter_modules(module):
        if isinstance(part, nnx.BatchNorm):
            part.mean[...] = jnp.zeros_like(part.mean[...])
            part.var[...] = jnp.ones_like(part.var[...])
    return module
