"""Image data sets from a local folder or an installed package; nothing is ever downloaded.

`DATASETS[name](folder) -> (train, test)` returns two Batches with x float32 [N, H, W, C] in [0, 1]
and labels y int32 [N]. Every file is checked before any of its images is used.
"""

from collections.abc import Callable
from pathlib import Path

from plantjax import checks
from plantjax.data.augment import augment, crop, flip, moments, normalise
from plantjax.data.cifar import cifar10, cifar100
from plantjax.data.idx import fashion_mnist, mnist
from plantjax.data.installed import digits, mnist5k
from plantjax.types import Batch

__all__ = [
    "DATASETS",
    "augment",
    "cifar10",
    "cifar100",
    "crop",
    "digits",
    "fashion_mnist",
    "flip",
    "mnist",
    "mnist5k",
    "moments",
    "normalise",
]

Loader = Callable[[str | Path | None], tuple[Batch, Batch]]
"""`(folder, or None for data sets that come with a package) -> (train, test)`."""

DATASETS: dict[str, Loader] = checks.Names(
    {
        "cifar10": cifar10,
        "cifar100": cifar100,
        "mnist": mnist,
        "fashion_mnist": fashion_mnist,
        "mnist5k": mnist5k,
        "digits": digits,
    }
)
"""The registry of data sets: a new one takes one function and one entry here."""
