"""Theory: how close a ticket must be to its target, and how likely a mother contains one.

Lemma 1 turns an error of the outputs into tolerances of the parameters, Theorem 2 bounds the
probability that a random mother has parameters within them. All in float64 numpy and in logarithms:
widths of 1e9 and errors of 1e-6 neither underflow nor overflow. `existence` estimates by sampling
what is bounded here.

Source: Fischer and Burkholz, ICLR 2022, section 2 and supplement, https://arxiv.org/abs/2111.11153
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from plantjax import checks, masks, nets
from plantjax.types import Params

NORMS = ("spectral", "paper")
"""How far a layer may stretch an error: its spectral norm, or its largest entry plus eps / L."""
INITS = ("uniform", "normal")
"""Mothers after their own rescaling: all parameters U[-1, 1] or N(0, 1)."""
LAST_LAYERS = ("in_place", "trained")
"""What the output layer must do: be within tolerance where it stands, or nothing."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_SMALL = -30.0  # below exp(_SMALL), log(1 + x) = x to float64 rounding
_STEPS = 1000


class Rescaled(NamedTuple):
    """A cleaned target scaled into [-1, 1], and how close its parameters must be met.

    `layers` are float64 [O, 1 + I], biases first; `factors` [L] is c_l in (0, 1]: kernels were
    multiplied by c_l, biases by c_1 ... c_l; `reason` is "" or why there is no such scaling.
    """

    layers: list[np.ndarray]
    factors: np.ndarray
    tolerances: np.ndarray
    reason: str


class Existence(NamedTuple):
    """A probability, its logarithm (finite where exp underflows), and "" or why it is 0."""

    probability: float
    log_probability: float
    reason: str


def tolerances(target: Params, epsilon: float, norm: str = "spectral") -> np.ndarray:
    """How close each parameter must be met for outputs within epsilon, by layer (Lemma 1).

    If every nonzero parameter of layer l changes by at most eps_l, and the zeros stay, no output
    changes by more than epsilon at any x in [-1, 1]^I. Backwards from the last layer,

        eps_l = epsilon / (L sqrt(m_l) (1 + s_l) prod_{k>l} N_k),   N_k = ||W_k|| + eps_k sqrt(m_k)

    with m_l the nonzero parameters of layer l (a layer without any counts as one), ||W|| the
    spectral norm, and s_l the largest ||x||_1 of the layer's inputs, I for the first layer and by
    interval arithmetic for the others. The target is cleaned first (`masks.live`).

    Args:
      target: a chain of L dense layers.
      epsilon: in (0, 1).
      norm: "paper": N_k = max |W_k| + epsilon / L, as the paper has it (its indices put right). It
        guarantees nothing: the error of a wide layer may be many times epsilon.

    Returns:
      float64 [L].

    Raises:
      ValueError: if the target is no chain or not finite, epsilon is outside (0, 1), the norm is
        unknown, or the target is so large that a tolerance underflows.

    >>> from plantjax import targets
    >>> tolerances(targets.relu(depth=3), 0.01, norm="paper").round(5).tolist()
    [0.00249, 0.0025]
    """
    check(target, epsilon, norm=norm)
    found = _tolerances(_cleaned(target), float(epsilon), norm)
    if not _usable(found):
        raise ValueError(f"target must have parameters of moderate size, got tolerances {found}.")
    return found


def rescaled(target: Params, epsilon: float, norm: str = "spectral") -> Rescaled:
    """Scales a target by positive factors until every parameter is at most 1 - eps_l in size.

    Kernels are multiplied by c_l and biases by c_1 ... c_l, so the outputs, and epsilon with them,
    grow by c_1 ... c_L. Only shrinks: c_l = 1 where a layer fits. The tolerances are those of the
    scaled target and depend on all factors, so both are found together, as the fixpoint of
    c_l <- min(1, c_l / (p_l + eps_l)) from c = 1, with p_l the largest parameter of scaled layer l.
    Errors shrink by about eps_l a step, so it takes a handful; where kernels are far below epsilon,
    it may take too many, and `reason` says so.

    Args:
      target: a chain of L dense layers.
      epsilon: in (0, 1), of the unscaled outputs.
      norm: as in `tolerances`.

    Returns:
      A Rescaled.

    Raises:
      ValueError: as `tolerances`, but for the last.
    """
    check(target, epsilon, norm=norm)
    chain = _cleaned(target)
    factors = np.ones(len(chain))
    for _ in range(_STEPS):
        layers, size = [], 1.0
        for theta, factor in zip(chain, factors, strict=True):
            size *= factor
            layers.append(np.concatenate([theta[:, :1] * size, theta[:, 1:] * factor], axis=1))
        found = _tolerances(layers, epsilon * size, norm)
        if not _usable(found):
            return Rescaled(layers, factors, found, "the target's tolerances underflow")
        # A layer without parameters needs no room.
        reach = np.array([np.abs(theta).max() for theta in layers])
        reach = np.where(reach > 0, reach + found, 1.0)
        tight = (factors == 1.0) | (reach > 1.0 - 1e-9)
        if np.all(tight & (reach <= 1.0 + 1e-15)):
            return Rescaled(layers, factors, found, "")
        factors = np.minimum(1.0, factors / reach)
    reason = f"no rescaling of the target to at most 1 - eps_l was found in {_STEPS} steps"
    return Rescaled(layers, factors, found, reason)


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

    A ticket exists if, layer by layer, distinct mother neurons meet all nonzero parameters of the
    rescaled target's neurons within eps_l. A mother neuron does so for target neuron i with
    probability p_i, the product over its k_i nonzero parameters (bias included) of eps_l, or, for
    normal mothers, of Phi(t + eps_l) - Phi(t - eps_l). With n mother and T target neurons,

        rigorous: prod_i (1 - (1 - p_i)^floor(n / T)), each neuron having candidates of its own;
        as printed: 1 - sum_i (1 - p_i)^n, at least 0. It lets target neurons share a mother neuron
        and may exceed the truth, by far where they resemble each other.

    In the output layer every neuron has one candidate: prod_i p_i, for both.

    Args:
      target: a chain of L dense layers.
      widths: (I, hidden widths, O) of the mother, any integers.
      epsilon: in (0, 1), largest error of an unscaled output on [-1, 1]^I.
      init: "uniform" or "normal", see INITS.
      rigorous: False for the bound as printed.
      paper: for normal mothers, the paper's eps_l / 2 per parameter (slightly more than the least,
        0.484 eps_l at t = 1). Without effect for uniform ones.
      last_layer: "in_place", or "trained": it costs nothing.
      norm: as in `tolerances`.

    Returns:
      An Existence.

    Raises:
      ValueError: as `rescaled`; if widths are not the target's in inputs, outputs and number of
        layers, or narrower than the target, or init or last_layer is unknown.

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
    """The smallest common hidden width for which the bound reaches a probability.

    An output layer in place caps the probability whatever the width; "trained" has no such cap.

    Args:
      target: a chain of L dense layers.
      probability: wanted, in (0, 1).
      epsilon: as all that follow, see `existence_probability`.
      init: "uniform" or "normal".
      rigorous: False for the bound as printed.
      paper: the paper's eps_l / 2 for normal mothers.
      last_layer: "in_place" or "trained".
      norm: as in `tolerances`.

    Returns:
      A Python integer of any size, at least the target's own width.

    Raises:
      ValueError: as `existence_probability`; if no width reaches the probability.

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


def check(
    target: Params,
    epsilon: float,
    init: str = INITS[0],
    last_layer: str = LAST_LAYERS[0],
    norm: str = NORMS[0],
) -> None:
    """Raises ValueError unless these are valid arguments of the functions of this file."""
    checks.choice("init", init, INITS)
    checks.choice("last_layer", last_layer, LAST_LAYERS)
    checks.choice("norm", norm, NORMS)
    check_unit("epsilon", epsilon)
    nets.layers(target)
    checks.finite("target", target)


def check_widths(target: Params, widths: Sequence[int]) -> None:
    """Raises ValueError unless mothers of these widths (I, ..., O) have room for the target."""
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


def check_unit(name: str, value: float) -> None:
    """Raises ValueError unless the value lies in (0, 1), both ends excluded."""
    if not 0.0 < value < 1.0:  # NaN is refused with the rest
        raise ValueError(f"{name} must lie in (0, 1), got {value!r}.")


def _cleaned(target: Params) -> list[np.ndarray]:
    """The live parameters of each layer, float64 [O, 1 + I], biases first."""

    def joined(layer: dict[str, Any]) -> np.ndarray:
        return np.concatenate([np.asarray(layer["bias"])[:, None], layer["kernel"].T], axis=1)

    kept = masks.live(target, masks.nonzero(target))
    pairs = zip(nets.layers(target), nets.layers(kept), strict=True)
    return [np.where(joined(live), joined(layer).astype(float), 0.0) for layer, live in pairs]


@np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore")
def _tolerances(layers: list[np.ndarray], epsilon: float, norm: str) -> np.ndarray:
    """Lemma 1 for layers [O, 1 + I]; not `_usable` where it over- or underflows."""
    depth, sizes = len(layers), []
    high = np.ones(layers[0].shape[1] - 1)
    low = -high
    for theta in layers:
        sizes.append(high.sum())  # inputs of later layers are not negative
        rising, falling = np.maximum(theta[:, 1:], 0.0), np.minimum(theta[:, 1:], 0.0)
        low, high = (
            np.maximum(theta[:, 0] + rising @ low + falling @ high, 0.0),
            np.maximum(theta[:, 0] + rising @ high + falling @ low, 0.0),
        )
    found, stretch = np.empty(depth), 1.0
    for index in reversed(range(depth)):
        theta = layers[index]
        spread = max(int(np.count_nonzero(theta)), 1) ** 0.5
        found[index] = np.divide(epsilon, depth * spread * (1.0 + sizes[index]) * stretch)
        if norm == "paper":
            stretch *= np.abs(theta[:, 1:]).max() + epsilon / depth
        else:
            stretch *= np.linalg.norm(theta[:, 1:], 2) + found[index] * spread
    return found


def _usable(found: np.ndarray) -> bool:
    return bool((np.isfinite(found) & (found > 0.0)).all())


def _log_meets(scaled: Rescaled, init: str, paper: bool) -> list[np.ndarray]:
    """By layer, log p_i of its live neurons [T]: one mother neuron meets all of theta_i."""
    result = []
    for theta, tolerance in zip(scaled.layers, scaled.tolerances, strict=True):
        used = theta != 0
        each = np.full_like(theta, math.log(tolerance))
        if init == "normal" and paper:
            each -= math.log(2.0)
        elif init == "normal":
            # The mean density over the interval: a difference of two Phi would lose all digits.
            points = theta[:, :, None] + tolerance * _NODES
            each += np.log(np.exp(-0.5 * points**2) @ _WEIGHTS) - 0.5 * math.log(2.0 * math.pi)
        result.append(np.where(used, each, 0.0).sum(axis=1)[used.any(axis=1)])
    return result


def _bound(
    meets: list[np.ndarray], hidden: list[int], rigorous: bool, last_layer: str
) -> Existence:
    """The product over the layers; `meets` as of `_log_meets`, `hidden` widths of the mother."""
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
    if hazard.size == 1:  # one minus the sum would lose a small p
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
