"""The registry of finders: algorithms by name, and one finder per score for those that take one.

`FINDERS[name](task, **options)` closes over everything structural; key, params, data and density
are traced. A finder never sees the planted ticket; the references take it as a fifth argument.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import lru_cache

from plantjax import checks
from plantjax.finders.ac_dc import ac_dc
from plantjax.finders.aligned import aligned
from plantjax.finders.bernoulli_gates import bernoulli_gates
from plantjax.finders.concrete_ticket import concrete_ticket
from plantjax.finders.continuous_sparsification import continuous_sparsification
from plantjax.finders.edge_popup import edge_popup
from plantjax.finders.edge_popup_levels import edge_popup_levels
from plantjax.finders.entries import fixed, preset
from plantjax.finders.forensic import forensic
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
from plantjax.types import Finder, MakeFinder, MakeScore

SCORE = "*"
"""In the name of an entry: the name of a score."""


class Registry(MutableMapping[str, MakeFinder]):
    """Finders by name, to be used like a dict.

    An entry whose name has a SCORE in it, as "multishot_*", stands for one finder of each score:
    its function with that score. An entry of the full name goes before it. A name that is deleted
    is gone until it is set again, also if a score has it.
    """

    def __init__(self, scores: Mapping[str, MakeScore], entries: Mapping[str, MakeFinder]) -> None:
        """Looks scores up when asked, so that it has those that are registered later."""
        self._scores, self._entries = scores, dict(entries)
        self._deleted: set[str] = set()

    def _all(self) -> dict[str, MakeFinder]:
        """All finders in the order of the entries, and within one in that of the scores."""
        found: dict[str, MakeFinder] = {}
        for name, make in self._entries.items():
            if SCORE not in name:
                found[name] = make
                continue
            for score, make_score in self._scores.items():
                whole = name.replace(SCORE, score)
                if whole not in self._deleted:
                    found.setdefault(whole, _of_score(make, score, make_score))
        return found

    def __getitem__(self, name: str) -> MakeFinder:
        found = self._all()
        if name not in found:
            raise checks.missing(name, found)
        return found[name]

    def __setitem__(self, name: str, make: MakeFinder) -> None:
        self._entries[name] = make
        self._deleted.discard(name)

    def __delitem__(self, name: str) -> None:
        if name not in self and name not in self._entries:
            raise KeyError(name)
        self._entries.pop(name, None)
        self._deleted.add(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __or__(self, other: Mapping[str, MakeFinder]) -> dict[str, MakeFinder]:
        return self._all() | dict(other)

    def __ror__(self, other: Mapping[str, MakeFinder]) -> dict[str, MakeFinder]:
        return dict(other) | self._all()

    def __ior__(self, other: Mapping[str, MakeFinder]) -> "Registry":
        self.update(other)
        return self

    def copy(self) -> dict[str, MakeFinder]:
        """The finders of now as a dict."""
        return self._all()

    def __repr__(self) -> str:
        return f"Registry({', '.join(self)})"


@lru_cache(maxsize=512)
def _of_score(make: MakeFinder, score: str, make_score: MakeScore) -> MakeFinder:
    """Cached, so that equal calls return the same object."""
    del make_score  # part of the cache's key: a new score of an old name is another finder
    return fixed(make, score=score)


FINDERS = Registry(
    SCORES,
    {
        SCORE: singleshot,
        "synflow100": fixed(singleshot, score="synflow", rounds=100),
        "snip100": fixed(singleshot, score="snip", rounds=100),
        "ntk_sap": fixed(preset(singleshot, rounds=100), score="ntk_sap"),
        "prospr": fixed(preset(singleshot, batches=4), score="prospr"),
        "random_uniform": fixed(layer_budgets, allocation="uniform"),
        "random_erk": fixed(layer_budgets, allocation="erk"),
        "random_igq": fixed(layer_budgets, allocation="igq"),
        "smart_ratio": fixed(layer_budgets, allocation="smart_ratio"),
        "phew": phew,
        f"multishot_{SCORE}": multishot,
        "edge_popup": edge_popup,
        "edge_popup_annealed": fixed(edge_popup, anneal="epoch"),
        "edge_popup_global": fixed(
            preset(edge_popup, search_epochs=30),
            scope="global",
            anneal="step",
            anneal_share=0.8,
            init="equal",
        ),
        "edge_popup_levels": edge_popup_levels,
        "edge_popup_levels_global": fixed(edge_popup_levels, scope="global", init="equal"),
        "signed_supermask": fixed(
            edge_popup,
            signed=True,
            scope="global",
            anneal="step",
            anneal_share=0.8,
            init="equal",
        ),
        "iterand": iterand,
        "set": fixed(sparse_training, grow="random"),
        "rigl": fixed(sparse_training, grow="gradient"),
        "ac_dc": ac_dc,
        "sign_in": sign_in,
        "ham": ham,
        "aligned": aligned,
        "gem_miner": gem_miner,
        "continuous_sparsification": continuous_sparsification,
        "hard_concrete": hard_concrete,
        "bernoulli_gates": bernoulli_gates,
        "concrete_ticket": concrete_ticket,
        "forensic": forensic,
        "genetic": genetic,
        "seek": seek,
    },
)
"""The registry of finders: a new one takes one function and one entry here, a new score none."""
BUILT_IN = tuple(FINDERS)
"""The names of all finders before users register their own."""

REFERENCES: dict[str, Callable[..., Finder]] = checks.Names(
    {
        "dense": dense,
        "planted": planted,
        "oracle_random": oracle_random,
    }
)
"""The references: finders that are told the planted ticket."""
