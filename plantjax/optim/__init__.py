"""Optimizers that prune, and keep a network sparse: wrappers around any optax optimizer."""

from plantjax.optim.pruning import METHODS, prune
from plantjax.optim.rewiring import GROWTHS, rewire
from plantjax.optim.sparse import SparseState, density, keep_pruned, mask

__all__ = [
    "GROWTHS",
    "METHODS",
    "SparseState",
    "density",
    "keep_pruned",
    "mask",
    "prune",
    "rewire",
]
