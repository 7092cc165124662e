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

Four attributes are optional: `wiring`, how the layers connect if they are not a chain (see
`wirings`); `prunable`, a predicate on the paths of the leaves; and for networks with batch norm
`flow`, the function that SynFlow should run instead, and `frozen(params, x) -> Apply`, the network
with the statistics of x, which evaluation uses with training inputs.
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

    def verify(self, target: Params, apply: Apply, x: jax.Array | None = None) -> jax.Array:
        """How far the ticket is from the target, as a fraction of the size of the outputs.

        Args:
          target: the target, in shapes that `apply` takes.
          apply: the network, `(params, x) -> outputs [N, O]`.
          x: inputs [N, ...]; by default random ones, images of 16 x 16 pixels.

        Returns:
          max |apply(m theta, x) - scale apply(target, x)| / max |scale apply(target, x)|, a float32
          scalar; rounding gives up to about 1e-5. Works under jit and vmap.

        Raises:
          ValueError: if no random inputs fit the network.
        """
        masked = jax.tree.map(lambda p, m: jnp.where(m, p, 0), self.params, self.mask)
        x = _inputs(target) if x is None else x
        try:
            found, wanted = apply(masked, x), self.scale[None, :] * apply(target, x)
        except (TypeError, ValueError) as error:
            raise ValueError(f"x must fit the network, got {jnp.shape(x)}: {error}") from error
        size = jnp.max(jnp.abs(wanted))
        return jnp.max(jnp.abs(found - wanted)) / jnp.where(size > 0, size, 1.0)


def _inputs(params: Params) -> jax.Array:
    """Random inputs for a network whose first leaf of two or more axes is its first kernel."""
    first = next(jnp.shape(leaf) for leaf in jax.tree.leaves(params) if jnp.ndim(leaf) > 1)
    image = (16,) * (len(first) - 2)
    return jax.random.normal(jax.random.key(0), (64, *image, first[-2]), jnp.float32)


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
        """Returns scores with the structure of `params`.

        Finders give it 10 random training samples per class, and 40 for a regression (40 as well
        for the circle, which has four classes), or all if there are fewer. Every round and level
        that draws a batch draws as many; the option `batches` of `singleshot` multiplies them.
        """


MakeScore: TypeAlias = Callable[[Apply, Loss], ScoreFn]
"""`(apply, loss) -> ScoreFn`, an entry of SCORES; `ScoreFn` says which batch a score is given."""


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

        Raises:
          ValueError: if `Found.info` says that scores were infinite or NaN, so that the mask is a
            matter of chance. Under jit nobody can raise: look at "not_finite" there.
        """
        params, data, planted = as_arrays((params, data, planted))
        found = self.search(key, *single_precision((params, data)), density, *planted)
        share = found.info.get("not_finite", 0.0)
        if not isinstance(share, jax.core.Tracer) and np.max(share) > 0.0:
            raise ValueError(
                f"scores must be finite, got {np.max(share):.1%} that are infinite or NaN; scale "
                "the parameters, or choose another score."
            )
        return found._replace(params=like_dtypes(found.params, params))


MakeFinder: TypeAlias = Callable[..., Finder]
"""`(task, **options) -> Finder`, an entry of FINDERS."""


class Drawn(NamedTuple):
    """A target drawn for one mother, and `(key, n, noise=0.01) -> Batch`, the samples it solves."""

    target: Params
    sample: Callable[..., Batch]


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
      draw: `(key, depth) -> Drawn`, for tasks whose target is drawn anew for each mother; works
        under jit and vmap. Shapes, and the number of nonzero parameters in every array, are those
        of `target(depth)` for all keys.
    """

    name: str
    n_in: int
    n_out: int
    metric: str
    target: Callable[[int], Params]
    sample: Callable[..., Batch]
    loss: Loss
    evaluate: Callable[[jax.Array, jax.Array], Metrics]
    draw: Callable[[Key, int], Drawn] | None = None
