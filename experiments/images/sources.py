"""Image data sets for the experiments: scaled to [-1, 1], each with a suitable VGG.

For small data sets the images are shrunk and the networks narrow, so that two CPU cores suffice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plantjax import DATASETS, checks, losses, tasks
from plantjax.data import augment, crop
from plantjax.nets import convnets
from plantjax.types import Batch, Params, Task

BIAS_SCALE = 0.06
"""Factor of the mothers' biases, which the paper uses for VGG16."""


@dataclass(frozen=True)
class Source:
    """A data set, how its images are prepared, and the network for it.

    Attributes:
      name: name in `plantjax.DATASETS`.
      image: shape (H, W, C) of the prepared images.
      classes: number of labels.
      depth: depth of the VGG.
      width: factor of its channels, of which the first layer has 64.
      border: number of pixels cut off on each side.
      shrink: after that, squares of this many pixels a side are averaged to one.
      batch_size: batch size of all training.
      learning_rate: learning rate of Adam; in weak training it decays to zero (cosine).
      transform: applied to the images in every step of training.
    """

    name: str
    image: tuple[int, int, int]
    classes: int = 10
    depth: int = 11
    width: float = 0.25
    border: int = 0
    shrink: int = 1
    batch_size: int = 64
    learning_rate: float = 2e-3
    transform: Callable[[jax.Array, jax.Array], jax.Array] | None = None

    def load(self, folder: Path | None, samples: int | None = None) -> tuple[Batch, Batch]:
        """Loads (train, test), with at most `samples` samples each.

        Raises:
          ValueError: if data is missing or wrong, as the loaders of `plantjax.data` say.
        """
        train, test = _load(self, folder)
        return Batch(*(a[:samples] for a in train)), Batch(*(a[:samples] for a in test))


LARGE: dict[str, Any] = {"batch_size": 128, "learning_rate": 1e-3}
SOURCES = {
    source.name: source
    for source in (
        Source("mnist5k", (12, 12, 1), border=2, shrink=2),
        Source("digits", (8, 8, 1)),
        Source("mnist", (28, 28, 1), transform=crop, **LARGE),
        Source("fashion_mnist", (28, 28, 1), transform=augment, **LARGE),
        Source("cifar10", (32, 32, 3), 10, 16, 1.0, transform=augment, **LARGE),
        Source("cifar100", (32, 32, 3), 100, 16, 1.0, transform=augment, **LARGE),
    )
}
"""The registry of sources, one for each of `plantjax.DATASETS`; CIFAR is as in the paper."""


def network_of(source: Source, depth: int, width: float) -> convnets.Network:
    """The VGG for a source, without batch norm as in the paper.

    Raises:
      ValueError: if there is no VGG of this depth, or width is not positive.
    """
    if depth not in convnets.VGGS:
        known = ", ".join(map(str, convnets.VGGS))
        raise ValueError(f"--depth must be one of {known}, the VGGs there are, got {depth}.")
    checks.positive("--width", width)
    how = "patches" if jax.default_backend() == "cpu" else "direct"
    return convnets.vgg(depth, width, n_out=source.classes, convolution=how)


def task_of(source: Source) -> Task:
    """The data set as a task without target and sampler: tickets are trained, samples are read."""
    return Task(
        name=source.name,
        n_in=int(np.prod(source.image)),
        n_out=source.classes,
        metric="accuracy",
        target=_no_target,
        sample=_no_samples,
        loss=losses.cross_entropy,
        evaluate=tasks.evaluate_classes,
    )


def _no_target(depth: int) -> Params:
    raise ValueError(f"tasks of images have no built-in target, also none of depth {depth}.")


def _no_samples(key: jax.Array, n: int, noise: float = 0.0) -> Batch:
    raise ValueError("tasks of images are read from files, they cannot be sampled.")


@lru_cache
def _load(source: Source, folder: Path | None) -> tuple[Batch, Batch]:
    train, test = DATASETS[source.name](folder)
    return _prepared(train, source), _prepared(test, source)


def _prepared(data: Batch, source: Source) -> Batch:
    x: Any = np.asarray(data.x)
    inner = slice(source.border, x.shape[1] - source.border)
    height, width, channels = source.image
    shape = (len(x), height, source.shrink, width, source.shrink, channels)
    x = x[:, inner, inner].reshape(shape).mean(axis=(2, 4))
    y: Any = np.asarray(data.y)
    return Batch(2.0 * x - 1.0, y)
