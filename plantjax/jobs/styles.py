"""One colour and marker for each finder, the same in all figures of all scripts."""

import zlib
from typing import Any, NamedTuple

from plantjax.finders import CONTROLS
from plantjax.finders.names import CONTROLLED, base
from plantjax.finders.registry import BUILT_IN

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "*")
GREY = "#888888"
LINES: tuple[Any, ...] = ("--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
"""Line styles of the controls, in their order."""
OTHER_LINE = (0, (3, 1, 1, 1))
"""The line style of several controls, or of one that a user has registered."""


class Style(NamedTuple):
    """How a finder is drawn."""

    color: str
    marker: str
    line: Any


def style(finder: str) -> Style:
    """The style of a finder, which depends on its name alone.

    Finders of plantjax have a colour and marker that no other has. Those of users share what is
    left, by a hash of the name. A finder with controls is drawn as without them, in another line.

    >>> style("snip")[:2] == style("snip+shuffled")[:2] != style("grasp")[:2]
    True
    """
    name = base(finder)
    if name == "oracle_random":
        return Style(GREY, MARKERS[0], ":")
    slots = len(COLORS) * len(MARKERS)
    if name in BUILT_IN:
        slot = BUILT_IN.index(name)
    else:
        slot = len(BUILT_IN) + zlib.crc32(name.encode()) % (slots - len(BUILT_IN))
    color = COLORS[slot % len(COLORS)]
    marker = MARKERS[(slot // len(COLORS) + slot) % len(MARKERS)]
    return Style(color, marker, _line(finder.split(CONTROLLED)[1:]))


def _line(controls: list[str]) -> Any:
    if not controls:
        return "-"
    place = [*CONTROLS].index(controls[0]) if controls[0] in CONTROLS else len(LINES)
    return LINES[place] if len(controls) == 1 and place < len(LINES) else OTHER_LINE
