"""The leak audit: how far a planted ticket can be told from its mother without any data."""

from plantjax.audit.detectors import (
    DETECTORS,
    centred_twins,
    duplicates,
    large,
    norms,
    signs,
    small,
    twins,
)
from plantjax.audit.evidence import evidence
from plantjax.audit.measures import auc, audit, leaks, recall
from plantjax.audit.progressions import progressions

__all__ = [
    "DETECTORS",
    "auc",
    "audit",
    "centred_twins",
    "duplicates",
    "evidence",
    "large",
    "leaks",
    "norms",
    "progressions",
    "recall",
    "signs",
    "small",
    "twins",
]
