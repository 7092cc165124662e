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
from plantjax.finders.entries import fixed, preset, tunable
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
from plantjax.finders.spaces import Spaces, choice, log_uniform
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


SCOPE: Spaces = {"scope": choice("global", "layer", "local")}
SCHEDULE: Spaces = {"schedule": choice("exponential", "linear", "cubic")}
BATCHES: Spaces = {"batches": choice(1, 4, 16)}
ROUNDS: Spaces = {"rounds": choice(1, 10, 100), **SCOPE, **BATCHES}
RATE: Spaces = {"search_learning_rate": log_uniform(3e-4, 1e-2)}
LEVELS: Spaces = {"rounds": choice(5, 10), "level_epochs": choice(2, 5), **SCOPE, **RATE}
SPARSE: Spaces = {"allocation": choice("erk", "uniform", "igq"), **RATE}
REWIRED: Spaces = {"every": choice(30, 100, 300), "fraction": choice(0.1, 0.3, 0.5), **SPARSE}
LOSS: Spaces = {"loss": choice("scale-free", "robust")}
POPUP: Spaces = {"search_learning_rate": log_uniform(0.01, 1.0), **LOSS}
POPUP_EPOCHS: Spaces = {"search_epochs": choice(10, 20), **POPUP}
POPUP_START: Spaces = {"init": choice("fan_in", "equal"), **SCOPE}
POPUP_LEVELS: Spaces = {"rounds": choice(3, 5), "level_epochs": choice(5, 10), **POPUP}
GATES: Spaces = {"search_learning_rate": log_uniform(5e-3, 0.5), **SCOPE, **LOSS}
DUAL: Spaces = {"dual_rate": log_uniform(2e-4, 2e-2), "damping": log_uniform(0.1, 10.0), **GATES}
"""Spaces that finders share. All hold the defaults; no search takes more than 50 epochs in all."""

STEPWISE = {"scope": "global", "anneal": "step", "anneal_share": 0.8, "init": "equal"}
"""Options of edge-popup over all parameters together, at a density that falls step by step."""

FINDERS = Registry(
    SCORES,
    {
        SCORE: tunable(singleshot, **ROUNDS),
        "synflow100": tunable(fixed(singleshot, score="synflow", rounds=100), **SCOPE, **SCHEDULE),
        "snip100": tunable(
            fixed(singleshot, score="snip", rounds=100), **SCOPE, **SCHEDULE, **BATCHES
        ),
        "ntk_sap": tunable(fixed(preset(singleshot, rounds=100), score="ntk_sap"), **ROUNDS),
        "prospr": tunable(fixed(preset(singleshot, batches=4), score="prospr"), **ROUNDS),
        "random_uniform": fixed(layer_budgets, allocation="uniform"),
        "random_erk": fixed(layer_budgets, allocation="erk"),
        "random_igq": fixed(layer_budgets, allocation="igq"),
        "smart_ratio": fixed(layer_budgets, allocation="smart_ratio"),
        "phew": phew,
        f"multishot_{SCORE}": tunable(multishot, rewind=choice("init", "learning_rate"), **LEVELS),
        "edge_popup": tunable(edge_popup, **POPUP_START, **POPUP_EPOCHS),
        "edge_popup_annealed": tunable(
            fixed(edge_popup, anneal="epoch"), **POPUP_START, **POPUP_EPOCHS
        ),
        "edge_popup_global": tunable(
            fixed(preset(edge_popup, search_epochs=30), **STEPWISE), **SCHEDULE, **POPUP
        ),
        "edge_popup_levels": tunable(edge_popup_levels, **POPUP_START, **POPUP_LEVELS),
        "edge_popup_levels_global": tunable(
            fixed(edge_popup_levels, scope="global", init="equal"), **POPUP_LEVELS
        ),
        "signed_supermask": tunable(
            fixed(edge_popup, signed=True, **STEPWISE), **SCHEDULE, **POPUP_EPOCHS
        ),
        "iterand": tunable(iterand, rate=log_uniform(0.01, 0.5), **POPUP_START, **POPUP_EPOCHS),
        "set": tunable(fixed(sparse_training, grow="random"), **REWIRED),
        "rigl": tunable(fixed(sparse_training, grow="gradient"), **REWIRED),
        "ac_dc": tunable(ac_dc, phases=choice(4, 6, 12), **SCOPE, **RATE),
        "sign_in": tunable(sign_in, beta=log_uniform(0.1, 10.0), **SPARSE),
        "ham": tunable(
            ham, alpha=log_uniform(20.0, 2000.0), beta=log_uniform(1e-4, 1e-2), **SPARSE
        ),
        "aligned": tunable(
            aligned, rounds=choice(1, 4), align_epochs=choice(0, 5, 10), **SCOPE, **RATE
        ),
        "gem_miner": tunable(
            gem_miner,
            search_learning_rate=log_uniform(1e-3, 0.1),
            penalty=log_uniform(1e-9, 1e-3),
            period=choice(2, 5),
            **LOSS,
        ),
        "continuous_sparsification": tunable(
            continuous_sparsification, final_temperature=log_uniform(20.0, 2000.0), **DUAL
        ),
        "hard_concrete": tunable(hard_concrete, **DUAL),
        "bernoulli_gates": tunable(bernoulli_gates, sigma=log_uniform(0.1, 1.0), **DUAL),
        "concrete_ticket": tunable(concrete_ticket, **GATES),
        "forensic": tunable(forensic, **SCOPE),
        "genetic": tunable(genetic, mutation=choice(0.05, 0.1, 0.2)),
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
