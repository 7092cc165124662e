"""A plugin of `vgg.py`: images of noise in the shape of CIFAR-10, for machines without its files.

Each class has a pattern of its own, which the noise hides in part. So training has something to
learn, and takes as long as on CIFAR-10; what accuracy it reaches means nothing.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from images.sources import SOURCES
from plantjax import DATASETS
from plantjax.data import files
from plantjax.types import Batch

NAME, TRAIN, TEST, CLASSES = "noise32", 10_240, 2_048, 10


def noise32(folder: str | Path | None = None) -> tuple[Batch, Batch]:
    """Draws 12,288 images [32, 32, 3] of 10 classes, always the same ones; there is no folder."""
    del folder
    random = np.random.default_rng(0)
    patterns = random.integers(0, 128, (CLASSES, 32, 32, 3))
    y = random.integers(0, CLASSES, TRAIN + TEST)
    pixels = patterns[y] + random.integers(0, 128, (len(y), 32, 32, 3))
    return files.to_batch(pixels[:TRAIN], y[:TRAIN]), files.to_batch(pixels[TRAIN:], y[TRAIN:])


DATASETS[NAME] = noise32
SOURCES[NAME] = replace(SOURCES["cifar10"], name=NAME)
