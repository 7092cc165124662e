"""The registry of finders: a mapping that has finders of every score, whenever the score came."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import lru_cache, partial
from typing import TypeAlias

from plantjax.scores import MakeScore
from plantjax.types import Finder

MakeFinder: TypeAlias = Callable[..., Finder]
"""`(task, **static) -> Finder`."""

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
    """The same object for the same score: what is made of it is kept by it."""
    del make_score  # another one under the same name makes another finder
    return partial(make, score=score)
