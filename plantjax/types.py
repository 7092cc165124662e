"""The data types shared by all modules; imports nothing from plantjax.

Axis letters in shape comments: S seeds, D densities, C cells, N samples, I inputs, O outputs,
L layers, P parameters. Shapes are in brackets, as in `x [N, I]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np

Key: TypeAlias = jax.Array
"""A typed random key, `jax.random.key(seed)`; the function that takes it consumes it."""

Params: TypeAlias = Any
"""A pytree of float arrays; in plantjax's networks `{"layer_00": {"kernel", "bias"}, ...}`."""

Mask: TypeAlias = Any
"""A pytree of bool arrays with the structure and shapes of the parameters; True means kept."""

Apply: TypeAlias = Callable[[Params, jax.Array], jax.Array]
"""`(params, x [N, I]) -> outputs [N, O]`; images are x [N, H, W, C].

Finders use three optional attributes: `wiring`, how the layers connect if they are not a chain (see
`wirings`); `prunable`, a predicate on the paths of the leaves; `flow`, the function that SynFlow
should run instead, for networks with batch norm.
"""

Prunable: TypeAlias = Callable[[str], bool]
"""Whether the leaf at a path such as "layer_00/kernel" may be pruned."""

Loss: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]
"""`(outputs [N, O], y) -> scalar`."""

Metrics: TypeAlias = dict[str, jax.Array]
"""A flat dict of scalars."""


Schedule: TypeAlias = Callable[[chex.Numeric, chex.Numeric, int], jax.Array]
"""`(final density, step, steps) -> density after the step`; it ends at the final density."""


Head: TypeAlias = Callable[[jax.Array], jax.Array]
"""A function applied after the last layer of a network, `outputs [N, O] -> outputs [N, O]`."""


def as_arrays(tree: Any) -> Any:
    """The tree with JAX arrays in place of numpy's; other leaves stay."""

    def convert(leaf: Any) -> Any:
        return jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf

    return jax.tree.map(convert, tree)


def single_precision(tree: Any) -> Any:
    """The tree with float32 in place of float16, bfloat16 and smaller floats."""

    def convert(leaf: Any) -> Any:
        dtype = getattr(leaf, "dtype", None)
        small = dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
        return leaf.astype(jnp.float32) if small else leaf

    return jax.tree.map(convert, tree)


def like_dtypes(tree: Any, like: Any) -> Any:
    """The tree with the dtypes of another one of the same structure."""

    def convert(leaf: Any, other: Any) -> Any:
        same = getattr(leaf, "dtype", None) == getattr(other, "dtype", None)
        return leaf if same else leaf.astype(other.dtype)

    return jax.tree.map(convert, tree, like)


class Batch(NamedTuple):
    """Samples: x [N, I] float32 and y, int32 [N] (labels) or float32 [N, O] (regression)."""

    x: jax.Array
    y: jax.Array


class Planted(NamedTuple):
    """A mother with a target planted in it: parameters, planted mask, and output scale [O]."""

    params: Params
    mask: Mask
    scale: jax.Array


class Found(NamedTuple):
    """A finder's result: mask, the parameters that weak training starts from, a flat info dict."""

    mask: Mask
    params: Params
    info: Metrics


class Cell(NamedTuple):
    """One point of a sweep: the key of (seed, task) and the swept scalars, all traced."""

    key: Key
    density: chex.Numeric
    noise: chex.Numeric
    learning_rate: chex.Numeric


class ScoreFn(Protocol):
    """Scores every parameter of the masked network; the highest are kept."""

    def __call__(self, key: Key, params: Params, mask: Mask, batch: Batch, /) -> Params:
        """Returns scores with the structure of `params`."""


MakeScore: TypeAlias = Callable[[Apply, Loss], ScoreFn]
"""`(apply, loss) -> ScoreFn`, an entry of SCORES."""


class Levels(NamedTuple):
    """A long search split into levels, one program each, so that it can be saved in between.

    Attributes:
      begin: `(key, params, data, density) -> state`, any pytree of arrays.
      advance: `(key, params, data, density, state, level) -> (state, metrics of the level)`; levels
        count from 1 and may be traced.
      finish: `(state, metrics [L]) -> Found`.
    """

    begin: Callable[..., Any]
    advance: Callable[..., tuple[Any, Metrics]]
    finish: Callable[[Any, Metrics], Found]


KINDS = ("subnetwork", "signed", "trained")
"""What finders return: a subnetwork of the mother as it is; one with the signs of some kept
parameters flipped; or one that is a ticket only with the parameters trained during the search."""


@dataclass(frozen=True)
class Finder:
    """A search for a ticket, `finder(key, params, data, density) -> Found`, and its properties.

    Attributes:
      search: the search function. References take `planted` as a fifth argument.
      scope: the selection scope that is actually used, see `plantjax.masks.select`.
      rounds: rounds (or levels) of scoring and selection.
      exact_counts: False if the finder may keep more or fewer parameters than k.
      head: applied to the outputs of the finder's networks, `outputs -> outputs`; only finders that
        reproduce the paper's code have one.
      levels: the same search split into `rounds` levels, for finders whose levels take long.
      kind: one of KINDS; only subnetworks can be strong tickets. Before training, "signed" results
        are evaluated with their own parameters, all others with the mother's.
    """

    search: Callable[..., Found]
    scope: str = "global"
    rounds: int = 1
    exact_counts: bool = True
    head: Head | None = None
    levels: Levels | None = None
    kind: str = KINDS[0]

    def __call__(
        self,
        key: Key,
        params: Params,
        data: Batch,
        density: chex.Numeric,
        *planted: Planted,
    ) -> Found:
        """Searches; the key is consumed, `density` in (0, 1] may be traced.

        Arrays may be numpy's. Searches compute in float32: half precision is converted here, and
        the found parameters are converted back.
        """
        params, data, planted = as_arrays((params, data, planted))
        found = self.search(key, *single_precision((params, data)), density, *planted)
        return found._replace(params=like_dtypes(found.params, params))


MakeFinder: TypeAlias = Callable[..., Finder]
"""`(task, **options) -> Finder`, an entry of FINDERS."""


@dataclass(frozen=True)
class Task:
    """A problem with a known sparse solution.

    Attributes:
      name: registry name; it is folded into all random keys of the task.
      n_in: number of inputs I.
      n_out: number of outputs O.
      metric: "accuracy" or "mse", the main entry in the result of `evaluate`.
      target: `(depth) -> Params`, the exact sparse network.
      sample: `(key, n, noise=0.01) -> Batch`, n fresh samples; noise may be traced.
      loss: `(outputs [N, O], y) -> scalar`, the training loss.
      evaluate: `(outputs [N, O], y) -> {"accuracy": ..}` or `{"mse": .., "mse_raw": ..}`.
    """

    name: str
    n_in: int
    n_out: int
    metric: str
    target: Callable[[int], Params]
    sample: Callable[..., Batch]
    loss: Loss
    evaluate: Callable[[jax.Array, jax.Array], Metrics]
