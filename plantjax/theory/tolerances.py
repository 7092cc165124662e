"""Tolerances: how close a ticket's parameters must be to its target's (Lemma 1).

`rescaled` also scales the target into [-1, 1]. Computed in float64 numpy, at trace time.

Source: Fischer and Burkholz, ICLR 2022, section 2 and supplement, https://arxiv.org/abs/2111.11153
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from plantjax import checks, masks, nets
from plantjax.types import Mask, Params

NORMS = ("spectral", "paper")
"""Bound on how a layer stretches an error: spectral norm, or largest entry plus eps / L."""

_STEPS = 1000


class Rescaled(NamedTuple):
    """A cleaned target scaled into [-1, 1], and the tolerances of its parameters.

    Attributes:
      layers: float64 [O, 1 + I] each, biases first.
      factors: c_l in (0, 1], float64 [L]; kernels are multiplied by c_l, biases by c_1 ... c_l.
      tolerances: float64 [L].
      reason: "", or why there is no such scaling.
    """

    layers: list[np.ndarray]
    factors: np.ndarray
    tolerances: np.ndarray
    reason: str


def tolerances(target: Params, epsilon: float, norm: str = "spectral") -> np.ndarray:
    """Tolerance of the parameters of each layer for outputs within epsilon (Lemma 1).

    If every nonzero parameter of layer l changes by at most eps_l, and zeros stay zero, no output
    changes by more than epsilon at any x in [-1, 1]^I. Backwards from the last layer,

        eps_l = epsilon / (L sqrt(m_l) (1 + s_l) prod_{k>l} N_k),   N_k = ||W_k|| + eps_k sqrt(m_k)

    where m_l is the number of nonzero parameters of layer l (at least 1), ||W|| the spectral norm,
    and s_l a bound on ||x||_1 for the inputs of the layer: I for the first layer, by interval
    arithmetic for the others. Dead parameters of the target are removed first (`masks.live`).

    Args:
      target: a chain of L dense layers.
      epsilon: in (0, 1).
      norm: "spectral", or "paper": N_k = max |W_k| + epsilon / L, as in the paper with its indices
        corrected. "paper" guarantees nothing; the error of a wide layer may be many times epsilon.

    Returns:
      float64 [L].

    Raises:
      ValueError: if the target is not a chain or not finite, epsilon is outside (0, 1), the norm is
        unknown, or the target is so large that a tolerance underflows.

    >>> from plantjax import targets
    >>> tolerances(targets.relu(depth=3), 0.01, norm="paper").round(5).tolist()
    [0.00249, 0.0025]
    """
    check_target(target, epsilon, norm)
    found = _tolerances(_cleaned(target), float(epsilon), norm)
    if not _usable(found):
        raise ValueError(f"target must have parameters of moderate size, got tolerances {found}.")
    return found


def rescaled(target: Params, epsilon: float, norm: str = "spectral") -> Rescaled:
    """Scales a target by positive factors until every parameter is at most 1 - eps_l in size.

    Kernels are multiplied by c_l and biases by c_1 ... c_l, so outputs and epsilon are multiplied
    by c_1 ... c_L. Layers that fit keep c_l = 1; the others shrink. The tolerances are those of the
    scaled target and depend on all factors, so we compute both as the fixed point of
    c_l <- min(1, c_l / (p_l + eps_l)) from c = 1, where p_l is the largest parameter of the scaled
    layer l. The error shrinks by a factor of about eps_l per step, so a few steps suffice. If
    kernels are far below epsilon, it may take too many, and `reason` says so.

    Args:
      target: a chain of L dense layers.
      epsilon: in (0, 1), error of the unscaled outputs.
      norm: as in `tolerances`.

    Returns:
      A Rescaled.

    Raises:
      ValueError: as `tolerances`, except that a tolerance may underflow.

    >>> from plantjax import targets
    >>> scaled = rescaled(targets.relu(depth=3), 0.1)
    >>> bool(max(abs(theta).max() for theta in scaled.layers) <= 1.0), scaled.reason
    (True, '')
    """
    check_target(target, epsilon, norm)
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
        # A layer without parameters always fits.
        reach = np.array([np.abs(theta).max() for theta in layers])
        reach = np.where(reach > 0, reach + found, 1.0)
        tight = (factors == 1.0) | (reach > 1.0 - 1e-9)
        if np.all(tight & (reach <= 1.0 + 1e-15)):
            return Rescaled(layers, factors, found, "")
        factors = np.minimum(1.0, factors / reach)
    reason = f"no rescaling of the target to at most 1 - eps_l was found in {_STEPS} steps"
    return Rescaled(layers, factors, found, reason)


def check_target(target: Params, epsilon: float, norm: str) -> None:
    """Raises ValueError unless target is a finite chain, epsilon in (0, 1), and the norm known."""
    checks.choice("norm", norm, NORMS)
    check_unit("epsilon", epsilon)
    nets.layers(target)
    checks.finite("target", target)


def check_unit(name: str, value: float) -> None:
    """Raises ValueError unless the value lies in (0, 1), both ends excluded.

    >>> check_unit("epsilon", 2.0)
    Traceback (most recent call last):
    ValueError: epsilon must lie in (0, 1), got 2.0.
    """
    if not 0.0 < value < 1.0:  # NaN is refused with the rest
        raise ValueError(f"{name} must lie in (0, 1), got {value!r}.")


def _cleaned(target: Params) -> list[np.ndarray]:
    """The live parameters of each layer, float64 [O, 1 + I], biases first."""

    def joined(layer: dict[str, Any]) -> np.ndarray:
        return np.concatenate([np.asarray(layer["bias"])[:, None], layer["kernel"].T], axis=1)

    pairs = zip(nets.layers(target), nets.layers(_live(target)), strict=True)
    return [np.where(joined(live), joined(layer).astype(float), 0.0) for layer, live in pairs]


@jax.jit
def _live(target: Params) -> Mask:
    """Jitted, because its many small operations would compile one by one."""
    return masks.live(target, masks.nonzero(target))


@np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore")
def _tolerances(layers: list[np.ndarray], epsilon: float, norm: str) -> np.ndarray:
    """Lemma 1 for layers [O, 1 + I]; not `_usable` if it over- or underflows."""
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
