"""Spaces of options: where the values that are tried for a finder are drawn from."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from plantjax import checks

DIGITS = 3
"""Significant digits of numbers that are drawn, so that tables show them as they are."""


@dataclass(frozen=True)
class Choice:
    """One of some values, all equally likely."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at this share of the way through the space, in [0, 1)."""
        return self.values[int(share * len(self.values))]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        *first, last = map(str, self.values)
        return f"{', '.join(first)} or {last}" if first else last


@dataclass(frozen=True)
class LogUniform:
    """A number in [low, high] whose logarithm is uniform."""

    low: float
    high: float

    def at(self, share: float) -> float:
        """The number at this share of the way through the space, in [0, 1)."""
        value = self.low * (self.high / self.low) ** share
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


Space: TypeAlias = Choice | LogUniform
"""Where one option is drawn from: `space.at(u)` for u uniform in [0, 1)."""
Spaces: TypeAlias = dict[str, Space]
"""The spaces of options, by name."""


def choice(*values: Any) -> Choice:
    """The space of these values, all equally likely.

    Raises:
      ValueError: if there are none.

    >>> [choice("global", "layer").at(share) for share in (0.0, 0.49, 0.5, 0.99)]
    ['global', 'global', 'layer', 'layer']
    >>> print(choice(1, 4, 16))
    1, 4 or 16
    """
    if not values:
        raise ValueError("values must be at least one, got none.")
    return Choice(values)


def log_uniform(low: float, high: float) -> LogUniform:
    """The space of the numbers in [low, high], uniform in their logarithm.

    Numbers that are drawn have three significant digits.

    Raises:
      ValueError: unless 0 < low <= high, and both are finite.

    >>> [log_uniform(1e-4, 1e-2).at(share) for share in (0.0, 0.5, 0.6)]
    [0.0001, 0.001, 0.00158]
    """
    checks.positive("low", low)
    checks.interval("high", high, low, math.inf)
    checks.positive("high", high)
    return LogUniform(low, high)
