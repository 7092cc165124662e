"""The registry of scores, `SCORES[name](apply, loss)` -> `(key, params, mask, batch) -> scores`.

A score gives one number per parameter of the masked network f(m theta); the highest are kept. A
score does not depend on names or shapes: params is any pytree of float arrays, and apply any
function of it. The batch holds 10 samples per class, 40 for regressions (`finders.common`).
"""

from plantjax import checks
from plantjax.scores.basic import grasp, magnitude, random, snip
from plantjax.scores.fisher import fisher
from plantjax.scores.hutchinson import hutchinson
from plantjax.scores.lamp import lamp
from plantjax.scores.movement import movement
from plantjax.scores.ntk_sap import ntk_sap
from plantjax.scores.prospr import prospr
from plantjax.scores.px import px
from plantjax.scores.synflow import synflow
from plantjax.types import MakeScore


def get(score: str | MakeScore) -> MakeScore:
    """Looks up a score by name; a function, as `partial(prospr, steps=0)`, is returned unchanged.

    Raises:
      ValueError: if the name is unknown.

    >>> import plantjax as pj
    >>> get("snip") is pj.SCORES["snip"]
    True
    """
    if callable(score):
        return score
    checks.choice("score", score, SCORES)
    return SCORES[score]


SCORES: dict[str, MakeScore] = checks.Names(
    {
        "random": random,
        "magnitude": magnitude,
        "snip": snip,
        "grasp": grasp,
        "synflow": synflow,
        "lamp": lamp,
        "ntk_sap": ntk_sap,
        "prospr": prospr,
        "fisher": fisher,
        "hutchinson": hutchinson,
        "px": px,
        "movement": movement,
    }
)
"""The registry of scores; a new score needs one function and one entry here."""

PAPER_SCORES = ("random", "magnitude", "snip", "grasp", "synflow")
"""The scores that the paper compares."""
