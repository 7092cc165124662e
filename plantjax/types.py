"""The data types that every module shares; imports nothing of plantjax.

Axis letters, used in all shape comments: S seeds, D densities, C cells, N samples, I inputs,
O outputs, L layers, P parameters. Shapes stand in brackets, as in `x [N, I]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import chex
import jax

Key: TypeAlias = jax.Array
"""A typed random key, `jax.random.key(seed)`; consumed by the function that takes it."""

Params: TypeAlias = Any
"""A pytree of float arrays. Networks of plantjax: `{"layer_00": {"kernel", "bias"}, ...}`."""

Mask: TypeAlias = Any
"""A pytree of bool arrays with the structure and shapes of the parameters; True is kept."""

Apply: TypeAlias = Callable[[Params, jax.Array], jax.Array]
"""`(params, x [N, I]) -> outputs [N, O]`; images are x [N, H, W, C].

It may have attributes, which finders respect: `wiring`, how its layers hang together (see
`wirings`) where they are no chain; `prunable`, which leaves may be pruned; `flow`, the same network
as SynFlow should run it, where batch norm makes a difference.
"""

Prunable: TypeAlias = Callable[[str], bool]
"""Whether the leaf at a path, "layer_00/kernel", may be pruned."""

Loss: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]
"""`(outputs [N, O], y) -> scalar`."""

Metrics: TypeAlias = dict[str, jax.Array]
"""A flat dict of scalars."""


Schedule: TypeAlias = Callable[[chex.Numeric, chex.Numeric, int], jax.Array]
"""`(final density, step, steps) -> density after the step`; ends at the final density."""


Head: TypeAlias = Callable[[jax.Array], jax.Array]
"""What a network has after its last layer, `outputs [N, O] -> outputs [N, O]`."""


class Batch(NamedTuple):
    """Samples: x [N, I] float32 and y, int32 [N] (labels) or float32 [N, O] (regression)."""

    x: jax.Array
    y: jax.Array


class Planted(NamedTuple):
    """A mother with a target hidden in it: parameters, planted mask, and output scale [O]."""

    params: Params
    mask: Mask
    scale: jax.Array


class Found(NamedTuple):
    """What a finder found: mask, the parameters weak training starts from, a flat info dict."""

    mask: Mask
    params: Params
    info: Metrics


class Cell(NamedTuple):
    """One run of a sweep: the key of (seed, task) and the swept scalars, all traced."""

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
    """A long search in pieces, one program a level, so that it can be saved between them.

    Attributes:
      begin: `(key, params, data, density) -> state`, any pytree of arrays.
      advance: `(key, params, data, density, state, level) -> (state, metrics of the level)`; levels
        count from 1, and may be traced.
      finish: `(state, metrics [L]) -> Found`.
    """

    begin: Callable[..., Any]
    advance: Callable[..., tuple[Any, Metrics]]
    finish: Callable[[Any, Metrics], Found]


KINDS = ("subnetwork", "signed", "trained")
"""What finders find: a subnetwork of the mother as it stands; one in which signs of kept parameters
are flipped; one that is a ticket only with the parameters trained in the search."""


@dataclass(frozen=True)
class Finder:
    """A search for a ticket: `finder(key, params, data, density) -> Found`, and what it is.

    Attributes:
      search: the function itself. References take `planted` as a fifth argument.
      scope: the selection scope really used, see `plantjax.masks.select`.
      rounds: rounds (or levels) of scoring and selection.
      exact_counts: False if the finder may keep another number of parameters than k.
      head: what the finder's networks have after their last layer, `outputs -> outputs`; only
        finders that reproduce the paper's code have one.
      levels: the same search in `rounds` pieces, for finders whose levels take long.
      kind: of KINDS; only subnetworks are strong tickets. Without training, what is "signed" is
        judged with its own parameters, all else with the mother's.
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
        """Searches; the key is consumed, `density` in (0, 1] may be traced."""
        return self.search(key, params, data, density, *planted)


MakeFinder: TypeAlias = Callable[..., Finder]
"""`(task, **options) -> Finder`, an entry of FINDERS."""


@dataclass(frozen=True)
class Task:
    """A problem with a known sparse solution.

    Attributes:
      name: registry name; also part of every key of the task.
      n_in: number of inputs I.
      n_out: number of outputs O.
      metric: "accuracy" or "mse", the main entry of `evaluate`'s result.
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
