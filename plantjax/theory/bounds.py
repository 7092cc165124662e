"""Bounds: how likely a random mother contains a ticket, and how wide a mother must be.

Lemma 1 turns an error of the outputs into tolerances of the parameters (`tolerances`). Theorem 2
bounds the probability that a random mother has parameters within them. Computed in float64 numpy
and in logarithms, so widths of 1e9 and errors of 1e-6 neither underflow nor overflow. `sampled`
estimates the same probability by sampling.

Source: Fischer and Burkholz, ICLR 2022, section 2 and supplement, https://arxiv.org/abs/2111.11153
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from plantjax import checks, nets
from plantjax.theory.tolerances import (
    Rescaled,
    check_target,
    check_unit,
    rescaled,
)
from plantjax.types import Params

INITS = ("uniform", "normal")
"""Distribution of the mother's parameters after rescaling: U[-1, 1] or N(0, 1)."""
LAST_LAYERS = ("in_place", "trained")
"""Whether the output layer must be within tolerance in place, or is trained and always fits."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_SMALL = -30.0  # for x below exp(_SMALL), log(1 + x) = x up to float64 rounding


class Existence(NamedTuple):
    """A probability, its logarithm (finite if exp underflows), and the reason if it is 0, or ""."""

    probability: float
    log_probability: float
    reason: str


def existence_probability(
    target: Params,
    widths: Sequence[int],
    epsilon: float,
    init: str = "uniform",
    *,
    rigorous: bool = True,
    paper: bool = False,
    last_layer: str = "in_place",
    norm: str = "spectral",
) -> Existence:
    """Lower bound on the probability that a random mother contains the target (Theorem 2).

    A ticket exists if, in every layer, distinct mother neurons match all nonzero parameters of the
    rescaled target's neurons within eps_l. A mother neuron matches target neuron i with probability
    p_i. For uniform mothers this is the product over the k_i nonzero parameters (bias included) of
    eps_l; for normal ones, of Phi(t + eps_l) - Phi(t - eps_l). With n mother and T target neurons,

        rigorous: prod_i (1 - (1 - p_i)^floor(n / T)); each target neuron has its own candidates;
        as printed: 1 - sum_i (1 - p_i)^n, at least 0. Target neurons may share a mother neuron, so
        it may exceed the true probability, by far if they are similar.

    In the output layer every neuron has one candidate, so both factors are prod_i p_i.

    Args:
      target: a chain of L dense layers.
      widths: (I, hidden widths, O) of the mother, integers of any size.
      epsilon: in (0, 1), largest error of an unscaled output on [-1, 1]^I.
      init: "uniform" or "normal", see INITS.
      rigorous: False for the bound as printed.
      paper: for normal mothers, use the paper's eps_l / 2 per parameter, which is slightly more
        than the smallest value, 0.484 eps_l at t = 1. No effect on uniform mothers.
      last_layer: "in_place", or "trained", for a factor of 1.
      norm: as in `tolerances`.

    Returns:
      An Existence.

    Raises:
      ValueError: as `rescaled`; also if widths differ from the target's in inputs, outputs or
        number of layers, or are narrower, or if init or last_layer is unknown.

    >>> from plantjax import targets
    >>> bound = existence_probability(
    ...     targets.relu(depth=3), (1, 1000, 1), 0.1, last_layer="trained"
    ... )
    >>> round(bound.probability, 6)
    1.0
    """
    check(target, epsilon, init, last_layer, norm)
    check_widths(target, widths)
    scaled = rescaled(target, epsilon, norm)
    if scaled.reason:
        return Existence(0.0, -math.inf, scaled.reason)
    meets = _log_meets(scaled, init, paper)
    return _bound(meets, [int(width) for width in widths[1:-1]], rigorous, last_layer)


def width_needed(
    target: Params,
    probability: float,
    epsilon: float,
    init: str = "uniform",
    *,
    rigorous: bool = True,
    paper: bool = False,
    last_layer: str = "in_place",
    norm: str = "spectral",
) -> int:
    """The smallest common hidden width at which the bound reaches a probability.

    An output layer in place limits the probability at any width; "trained" has no such limit.

    Args:
      target: a chain of L dense layers.
      probability: the probability to reach, in (0, 1).
      epsilon: as in `existence_probability`.
      init: as in `existence_probability`.
      rigorous: as in `existence_probability`.
      paper: as in `existence_probability`.
      last_layer: as in `existence_probability`.
      norm: as in `tolerances`.

    Returns:
      A Python integer of any size, at least the target's own width.

    Raises:
      ValueError: as `existence_probability`; also if no width reaches the probability.

    >>> from plantjax import targets
    >>> width_needed(targets.relu(depth=3), 0.99, 0.1, last_layer="trained")
    192
    """
    check(target, epsilon, init, last_layer, norm)
    check_unit("probability", probability)
    scaled = rescaled(target, epsilon, norm)
    if scaled.reason:
        raise ValueError(f"probability {probability} is out of reach: {scaled.reason}.")
    meets = _log_meets(scaled, init, paper)
    wanted = math.log(probability)
    cap = float(meets[-1].sum())
    if last_layer == "in_place" and wanted > cap:
        raise ValueError(
            f"probability must be at most exp({cap:.6g}), that of the output layer in place, got "
            f"{probability}; last_layer='trained' has no such cap."
        )

    def reached(width: int) -> bool:
        bound = _bound(meets, [width] * (len(meets) - 1), rigorous, last_layer)
        return bound.log_probability >= wanted

    low = max((1, *nets.widths(target)[1:-1])) - 1
    high = low + 1
    while not reached(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def check(target: Params, epsilon: float, init: str, last_layer: str, norm: str) -> None:
    """Raises ValueError unless these are valid arguments of the functions in this file."""
    checks.choice("init", init, INITS)
    checks.choice("last_layer", last_layer, LAST_LAYERS)
    check_target(target, epsilon, norm)


def check_widths(target: Params, widths: Sequence[int]) -> None:
    """Raises ValueError unless the target fits into mothers of these widths (I, ..., O)."""
    small = nets.widths(target)
    for width in widths:
        checks.integer("widths", width, 1)
    ends = (widths[0], widths[-1]) if len(widths) == len(small) else None
    if ends != (small[0], small[-1]) or any(
        w < need for w, need in zip(widths, small, strict=True)
    ):
        raise ValueError(
            f"widths must be as many as the target's {small}, begin and end with the same numbers "
            f"and be at least as large between, got {tuple(widths)}."
        )


def _log_meets(scaled: Rescaled, init: str, paper: bool) -> list[np.ndarray]:
    """Per layer, log p_i of its live neurons [T]: one mother neuron matches all of theta_i."""
    result = []
    for theta, tolerance in zip(scaled.layers, scaled.tolerances, strict=True):
        used = theta != 0
        each = np.full_like(theta, math.log(tolerance))
        if init == "normal" and paper:
            each -= math.log(2.0)
        elif init == "normal":
            # The mean density over the interval, because a difference of two Phi loses all digits.
            points = theta[:, :, None] + tolerance * _NODES
            each += np.log(np.exp(-0.5 * points**2) @ _WEIGHTS) - 0.5 * math.log(2.0 * math.pi)
        result.append(np.where(used, each, 0.0).sum(axis=1)[used.any(axis=1)])
    return result


def _bound(
    meets: list[np.ndarray], hidden: list[int], rigorous: bool, last_layer: str
) -> Existence:
    """The product over the layers, with `meets` of `_log_meets` and `hidden` mother widths."""
    total = float(meets[-1].sum()) if last_layer == "in_place" else 0.0
    for index, (log_p, width) in enumerate(zip(meets[:-1], hidden, strict=True)):
        if log_p.size == 0:
            continue
        log_found = _log_rigorous(log_p, width) if rigorous else _log_printed(log_p, width)
        if log_found == -math.inf:
            reason = f"the union bound is at most 0 in {nets.layer_name(index)}, of width {width}"
            return Existence(0.0, -math.inf, reason)
        total += log_found
    probability = math.exp(total)
    reason = "" if probability else "it underflows; log_probability is finite"
    return Existence(probability, total, reason)


def _log_rigorous(log_p: np.ndarray, width: int) -> float:
    return float(_log_one_minus(_log_hazard(log_p, width // log_p.size)).sum())


@np.errstate(over="ignore", under="ignore")
def _log_printed(log_p: np.ndarray, width: int) -> float:
    hazard = _log_hazard(log_p, width)
    if hazard.size == 1:  # avoids the cancellation of one minus the sum
        return float(_log_one_minus(hazard)[0])
    missed = float(np.exp(-np.exp(hazard)).sum())
    return math.log1p(-missed) if missed < 1.0 else -math.inf


@np.errstate(over="ignore", under="ignore", divide="ignore")
def _log_hazard(log_p: np.ndarray, candidates: int) -> np.ndarray:
    """Returns h [T] with (1 - p)^candidates = exp(-exp(h)); candidates of any size."""
    one = np.where(log_p < _SMALL, log_p, np.log(-np.log1p(-np.exp(log_p))))
    return one + math.log(candidates)


@np.errstate(over="ignore", under="ignore", divide="ignore")
def _log_one_minus(hazard: np.ndarray) -> np.ndarray:
    """log(1 - exp(-exp(h)))."""
    return np.where(hazard < _SMALL, hazard, np.log(-np.expm1(-np.exp(hazard))))
