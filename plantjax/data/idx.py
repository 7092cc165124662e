"""MNIST and Fashion-MNIST from their idx files, plain or gzipped.

The header of an idx file gives its size. A gzipped file is decompressed to that size plus one byte,
never further.

Source: http://yann.lecun.com/exdb/mnist/ and https://github.com/zalandoresearch/fashion-mnist; the
checksums are of the decompressed files.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from plantjax.data import files
from plantjax.types import Batch

_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_MNIST = (
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)
_FASHION = (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
)
_RECORDS = {"train": 60_000, "t10k": 10_000}
_DEFLATE = 1032  # the highest compression ratio of deflate


def mnist(folder: str | Path | None = None, *, verify: bool = True) -> tuple[Batch, Batch]:
    """Loads MNIST: 60,000 training and 10,000 test images of 28 x 28 x 1, 10 classes.

    Args:
      folder: contains {train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte, each with
        or without ".gz", directly or in a subfolder MNIST/raw.
      verify: require the published checksum of each file's decompressed content. If False, files
        may have any number of images; magic numbers, sizes and label ranges are still checked.

    Returns:
      (train, test), x float32 [N, 28, 28, 1] in [0, 1], y int32 [N].

    Raises:
      ValueError: if a file is missing, truncated, too long, swapped or altered, or has labels out
        of range.
    """
    return _load("mnist", folder, "MNIST/raw", _MNIST, verify)


def fashion_mnist(folder: str | Path | None = None, *, verify: bool = True) -> tuple[Batch, Batch]:
    """Loads Fashion-MNIST; files and sizes are as for `mnist`, the subfolder is FashionMNIST/raw.

    Args:
      folder: as for `mnist`.
      verify: as for `mnist`.

    Returns:
      (train, test), x float32 [N, 28, 28, 1] in [0, 1], y int32 [N].

    Raises:
      ValueError: as for `mnist`.
    """
    return _load("fashion_mnist", folder, "FashionMNIST/raw", _FASHION, verify)


def _load(
    name: str, folder: str | Path | None, subfolder: str, digests: tuple[str, ...], verify: bool
) -> tuple[Batch, Batch]:
    layouts = {subfolder: [(file, f"{file}.gz") for file in _NAMES]}
    _, paths = files.find(name, folder, layouts)
    published = dict(zip(_NAMES, digests, strict=True))
    arrays = [read(path, published if verify else None) for path in paths]
    for path, images, labels in zip(paths[1::2], arrays[::2], arrays[1::2], strict=True):
        if len(labels) != len(images):
            files.refuse(path, f"{len(labels)} labels", f"{len(images)}, one per image")
        files.labels(path, labels, 10)
    train, test = zip(arrays[::2], arrays[1::2], strict=True)
    return files.to_batch(train[0][..., None], train[1]), files.to_batch(
        test[0][..., None], test[1]
    )


def read(path: Path, published: dict[str, str] | None = None) -> np.ndarray:
    """Reads an idx file of images or labels.

    Args:
      path: named like the published file, with ".gz" if it is gzipped.
      published: checksums by file name; None accepts any number of records.

    Returns:
      Images uint8 [N, 28, 28] or labels uint8 [N].

    Raises:
      ValueError: if the magic number, shape, size or checksum is wrong.
    """
    name = path.name.removesuffix(".gz")
    rank = 3 if "idx3" in name else 1
    start = 4 + 4 * rank
    stored = path.stat().st_size
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            header = stream.read(start)
            shape = _shape(path, header, rank, name, published is not None)
            size = math.prod(shape)
            if size > (_DEFLATE * stored if packed else stored):
                files.refuse(path, f"only {stored} bytes on disk", f"{size} as its header says")
            content = stream.read(size + 1)
    except (EOFError, OSError, zlib.error) as error:
        kind = "gzip file" if packed else "file"
        raise ValueError(
            f"{path} has {stored} bytes that are no whole {kind} ({error}), expected one."
        ) from error
    if len(content) != size:
        found = f"more than {size}" if len(content) > size else str(len(content))
        files.refuse(path, f"{found} bytes after its header", f"{size} as its header says")
    if published is not None:
        files.verify(path, header + content, published, name)
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(path: Path, header: bytes, rank: int, name: str, whole: bool) -> tuple[int, ...]:
    """The shape in a header, which is a magic number (type 0x08, bytes, and rank), then lengths."""
    magic = bytes([0, 0, 8, rank])
    if header[:4] != magic:
        files.refuse(path, f"magic number {header[:4].hex() or 'none'}", magic.hex())
    if len(header) != 4 + 4 * rank:
        files.refuse(path, f"a header of {len(header)} bytes", str(4 + 4 * rank))
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
    records = _RECORDS[name.partition("-")[0]] if whole else max(shape[0], 1)
    wanted = (records, 28, 28)[:rank]
    if shape != wanted:
        files.refuse(path, f"shape {shape}", f"{wanted}")
    return shape
