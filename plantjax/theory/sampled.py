"""Existence by sampling: the share of random mothers that contain a target; see also `bounds`.

Source: Fischer and Burkholz, ICLR 2022, Theorem 2, https://arxiv.org/abs/2111.11153
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, draws
from plantjax.theory import bounds
from plantjax.theory.tolerances import check_unit, rescaled
from plantjax.types import Key, Params

_CHUNK = 2**23  # parameters compared at a time, to bound the memory


_Move = tuple[jax.Array, jax.Array, jax.Array]  # held [T], the row that moves, its new column


class Estimate(NamedTuple):
    """Number of sampled mothers that contain the target, their share, and a confidence interval."""

    found: int
    probability: float
    low: float
    high: float


def monte_carlo_existence(
    key: Key,
    target: Params,
    widths: Sequence[int],
    epsilon: float,
    *,
    mothers: int = 1000,
    init: str = "uniform",
    last_layer: str = "in_place",
    norm: str = "spectral",
    confidence: float = 0.99,
) -> Estimate:
    """Estimates the probability that `bounds.existence_probability` bounds from below.

    A mother contains the target if, in every hidden layer, all live target neurons can be matched
    to distinct mother neurons, within eps_l in all their nonzero parameters, and the output layer
    is within eps_L in place. The matching of a layer only determines which columns the next layer
    reads. All columns are independent and identically distributed, so any matching will do, and
    only the columns of matched neurons are drawn. Computed in float64, because tolerances may be
    far below float32 resolution.

    Args:
      key: consumed.
      target: a chain of L dense layers.
      widths: (I, hidden widths, O) of the mother.
      epsilon: in (0, 1), largest error of an unscaled output on [-1, 1]^I.
      mothers: number of mothers to draw, in chunks of bounded memory.
      init: "uniform" U[-1, 1] or "normal" N(0, 1).
      last_layer: "in_place", or "trained", which always fits.
      norm: as in `tolerances`.
      confidence: level of the interval, in (0, 1).

    Returns:
      An Estimate; its interval is the exact one of Clopper and Pearson.

    Raises:
      ValueError: as `bounds.existence_probability`; also if mothers is below 1, confidence is
        outside (0, 1), or the target cannot be rescaled into [-1, 1].

    >>> import jax
    >>> from plantjax import targets
    >>> estimate = monte_carlo_existence(
    ...     jax.random.key(0), targets.relu(depth=3), (1, 100, 1), 0.1, last_layer="trained"
    ... )
    >>> bool(estimate.low <= 1 - (1 - 0.0243) ** 100 <= estimate.high)
    True
    """
    bounds.check(target, epsilon, init, last_layer, norm)
    bounds.check_widths(target, widths)
    checks.integer("mothers", mothers, 1)
    check_unit("confidence", confidence)
    scaled = rescaled(target, epsilon, norm)
    if scaled.reason:
        raise ValueError(f"target must fit into [-1, 1]: {scaled.reason}.")
    layers = [theta[:, theta.any(axis=0)] for theta in scaled.layers]  # without unread columns
    neurons = [int(width) for width in widths[1:]]
    if last_layer == "trained":
        neurons[-1] = 0
    size = sum(theta.size * n for theta, n in zip(layers, neurons, strict=True))
    with jax.enable_x64(True):
        holds = _holds(
            jax.random.split(key, mothers),
            [jnp.asarray(theta) for theta in layers],
            jnp.asarray(scaled.tolerances),
            tuple(neurons),
            init == "uniform",
            max(1, min(mothers, _CHUNK // max(size, 1))),
        )
    found = int(np.sum(holds))
    return Estimate(found, found / mothers, *clopper_pearson(found, mothers, confidence))


@partial(jax.jit, static_argnames=("neurons", "uniform", "chunk"))
def _holds(
    keys: Key,
    layers: list[jax.Array],
    tolerances: jax.Array,
    neurons: tuple[int, ...],
    uniform: bool,
    chunk: int,
) -> jax.Array:
    """Whether the mother of each key contains the target, bool [mothers].

    Args:
      keys: [mothers], consumed.
      layers: of the target, [T, K] each.
      tolerances: [L].
      neurons: number of mother neurons per layer; 0 outputs if the last layer is trained.
      uniform: draw from U[-1, 1], else from N(0, 1).
      chunk: number of mothers at a time.
    """
    shapes = [(n, theta.shape[1]) for n, theta in zip(neurons, layers, strict=True)]

    def one(key: Key) -> jax.Array:
        drawn = draws.arrays(key, shapes, uniform, dtype=float)  # double where enabled
        holds = jnp.bool_(True)
        for index, (theta, rows) in enumerate(zip(layers, drawn, strict=True)):
            free = theta == 0
            if index + 1 < len(layers):
                error = jnp.abs(rows[None, :, :] - theta[:, None, :])
                near = jnp.all((error <= tolerances[index]) | free[:, None, :], axis=2)
                holds &= perfect_matching(near)
            elif neurons[-1]:
                holds &= jnp.all((jnp.abs(rows - theta) <= tolerances[index]) | free)
        return holds

    return jax.lax.map(one, keys, batch_size=chunk)


def perfect_matching(near: jax.Array) -> jax.Array:
    """Whether every row can have a column of its own among its True entries, bool [].

    Exact, by Kuhn's algorithm (one augmenting path per row). Jits and vmaps; fast for few rows and
    many columns.

    Args:
      near: bool [T, N], T at least 1.

    >>> import jax.numpy as jnp
    >>> bool(perfect_matching(jnp.array([[True, False, False], [True, False, False]])))
    False
    """
    rows, columns = near.shape
    unheld = jnp.full(rows, columns)  # the column of each row; out of range if it has none
    held, _ = jax.lax.scan(
        lambda held, row: (_augment(near, held, row), None), unheld, jnp.arange(rows)
    )
    return jnp.all(held < columns)


def _augment(near: jax.Array, held: jax.Array, start: jax.Array) -> jax.Array:
    """Gives row `start` a column, if necessary by moving other rows; the new columns int [T]."""
    rows, columns = near.shape
    spare = near & ~jnp.zeros(columns, bool).at[held].set(True, mode="drop")[None, :]
    takes = near.at[:, held].get(mode="fill", fill_value=False)  # [T, T], which row may take whose

    def visit(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reached, parent = state
        edges = reached[:, None] & takes
        new = jnp.any(edges, axis=0) & ~reached
        return reached | new, jnp.where(new, jnp.argmax(edges, axis=0), parent)

    def move(state: _Move) -> _Move:
        held, row, column = state
        return held.at[row].set(column), parent[row], held[row]

    first = (jnp.arange(rows) == start, jnp.full(rows, start))
    reached, parent = jax.lax.fori_loop(0, rows - 1, visit, first)
    ends = reached & jnp.any(spare, axis=1)
    end = jnp.argmax(ends)
    column = jnp.where(ends[end], jnp.argmax(spare[end]), columns)
    # Back along the path, each row takes the column that its successor gave up; `start` had none.
    return jax.lax.while_loop(lambda state: state[2] < columns, move, (held, end, column))[0]


def clopper_pearson(found: int, trials: int, confidence: float) -> tuple[float, float]:
    """The exact confidence interval (low, high) of a probability, for `found` of `trials`.

    >>> low, high = clopper_pearson(0, 10, 0.95)
    >>> low, round(high, 3)  # 1 - 0.025^(1 / 10)
    (0.0, 0.308)
    """
    from scipy.special import betaincinv  # type: ignore[import-untyped]  # slow to import

    tail, missed = (1.0 - confidence) / 2.0, trials - found
    low = float(betaincinv(found, missed + 1, tail)) if found else 0.0
    high = float(betaincinv(found + 1, missed, 1.0 - tail)) if missed else 1.0
    return low, high
