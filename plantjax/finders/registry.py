"""The registry of finders: algorithms by name, and one finder per score for those that take one.

`FINDERS[name](task, **options)` closes over everything structural; key, params, data and density
are traced. A finder never sees the planted ticket; the references take it as a fifth argument.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import lru_cache, partial, wraps
from typing import Any

from plantjax.finders.ac_dc import ac_dc
from plantjax.finders.aligned import aligned
from plantjax.finders.bernoulli_gates import bernoulli_gates
from plantjax.finders.concrete_ticket import concrete_ticket
from plantjax.finders.continuous_sparsification import continuous_sparsification
from plantjax.finders.edge_popup import edge_popup
from plantjax.finders.edge_popup_levels import edge_popup_levels
from plantjax.finders.gem_miner import gem_miner
from plantjax.finders.genetic import genetic
from plantjax.finders.ham import ham
from plantjax.finders.hard_concrete import hard_concrete
from plantjax.finders.iterand import iterand
from plantjax.finders.layer_budgets import layer_budgets
from plantjax.finders.multishot import multishot
from plantjax.finders.phew import phew
from plantjax.finders.references import dense, oracle_random, planted
from plantjax.finders.seek.seek import seek
from plantjax.finders.sign_in import sign_in
from plantjax.finders.singleshot import singleshot
from plantjax.finders.sparse_training import sparse_training
from plantjax.scores import SCORES
from plantjax.types import Finder, MakeFinder, MakeScore, Task

SCORE = "*"
"""In the name of an entry: the name of a score."""


class Registry(MutableMapping[str, MakeFinder]):
    """Finders by name, to be used like a dict.

    An entry whose name has a SCORE in it, as "multishot_*", stands for one finder of each score:
    its function with that score. An entry of the full name goes before it.
    """

    def __init__(self, scores: Mapping[str, MakeScore], entries: Mapping[str, MakeFinder]) -> None:
        """Looks scores up when asked, so that it has those that are registered later."""
        self._scores, self._entries = scores, dict(entries)

    def _all(self) -> dict[str, MakeFinder]:
        """All finders in the order of the entries, and within one in that of the scores."""
        found: dict[str, MakeFinder] = {}
        for name, make in self._entries.items():
            if SCORE not in name:
                found[name] = make
                continue
            for score, make_score in self._scores.items():
                found.setdefault(name.replace(SCORE, score), _of_score(make, score, make_score))
        return found

    def __getitem__(self, name: str) -> MakeFinder:
        return self._all()[name]

    def __setitem__(self, name: str, make: MakeFinder) -> None:
        self._entries[name] = make

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __or__(self, other: Mapping[str, MakeFinder]) -> dict[str, MakeFinder]:
        return self._all() | dict(other)

    def __repr__(self) -> str:
        return f"Registry({', '.join(self)})"


@lru_cache(maxsize=512)
def _of_score(make: MakeFinder, score: str, make_score: MakeScore) -> MakeFinder:
    """Cached, so that equal calls return the same `partial`."""
    del make_score  # part of the cache's key: a new score of an old name is another finder
    return partial(make, score=score)


def preset(make: MakeFinder, **defaults: Any) -> MakeFinder:
    """The maker with other defaults, which stay options; what a `partial` sets is fixed.

    >>> from plantjax.finders import names
    >>> "search_epochs" in names.options("edge_popup_global")  # a preset
    True
    >>> "anneal" in names.options("edge_popup_global")  # set by a partial
    False
    """

    @wraps(make)
    def made(task: Task, **options: Any) -> Finder:
        return make(task, **{**defaults, **options})

    made.__signature__ = inspect.signature(partial(make, **defaults))  # type: ignore[attr-defined]
    return made


FINDERS = Registry(
    SCORES,
    {
        SCORE: singleshot,
        "synflow100": preset(partial(singleshot, score="synflow"), rounds=100),
        "snip100": preset(partial(singleshot, score="snip"), rounds=100),
        "ntk_sap": preset(partial(singleshot, score="ntk_sap"), rounds=100),
        "prospr": preset(partial(singleshot, score="prospr"), batches=4),
        "random_uniform": partial(layer_budgets, allocation="uniform"),
        "random_erk": partial(layer_budgets, allocation="erk"),
        "random_igq": partial(layer_budgets, allocation="igq"),
        "smart_ratio": partial(layer_budgets, allocation="smart_ratio"),
        "phew": phew,
        f"multishot_{SCORE}": multishot,
        "edge_popup": edge_popup,
        "edge_popup_annealed": partial(edge_popup, anneal="epoch"),
        "edge_popup_global": preset(
            partial(edge_popup, scope="global", anneal="step", anneal_share=0.8, init="equal"),
            search_epochs=30,
        ),
        "edge_popup_levels": edge_popup_levels,
        "edge_popup_levels_global": partial(edge_popup_levels, scope="global", init="equal"),
        "signed_supermask": partial(
            edge_popup, signed=True, scope="global", anneal="step", anneal_share=0.8, init="equal"
        ),
        "iterand": iterand,
        "set": partial(sparse_training, grow="random"),
        "rigl": partial(sparse_training, grow="gradient"),
        "ac_dc": ac_dc,
        "sign_in": sign_in,
        "ham": ham,
        "aligned": aligned,
        "gem_miner": gem_miner,
        "continuous_sparsification": continuous_sparsification,
        "hard_concrete": hard_concrete,
        "bernoulli_gates": bernoulli_gates,
        "concrete_ticket": concrete_ticket,
        "genetic": genetic,
        "seek": seek,
    },
)
"""The registry of finders: a new one takes one function and one entry here, a new score none."""
BUILT_IN = tuple(FINDERS)
"""The names of all finders before users register their own."""

REFERENCES: dict[str, Callable[..., Finder]] = {
    "dense": dense,
    "planted": planted,
    "oracle_random": oracle_random,
}
"""The references: finders that are told the planted ticket."""
