"""CIFAR-10 and CIFAR-100 in both published formats: pickled batches and binary records.

Source: https://www.cs.toronto.edu/~kriz/cifar.html; the checksums are of the unpacked files.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from plantjax.data import files, pickles
from plantjax.types import Batch

_PIXELS = 3 * 32 * 32


class _Format(NamedTuple):
    """One published format: its files, in order, of which the last is the test set."""

    files: dict[str, tuple[str, int]]  # file name to (checksum, number of records)
    labels: dict[str, int]  # label field to number of classes, in order; the last field is used
    pickled: bool


_CIFAR10 = {
    "cifar-10-batches-py": _Format(
        {
            "data_batch_1": ("c99cafc152244af753f735de768cd75f", 10_000),
            "data_batch_2": ("d4bba439e000b95fd0a9bffe97cbabec", 10_000),
            "data_batch_3": ("54ebc095f3ab1f0389bbae665268c751", 10_000),
            "data_batch_4": ("634d18415352ddfa80567beed471001a", 10_000),
            "data_batch_5": ("482c414d41f54cd18b22e5b47cb7c3cb", 10_000),
            "test_batch": ("40351d587109b95175f43aff81a1287e", 10_000),
        },
        {"labels": 10},
        True,
    ),
    "cifar-10-batches-bin": _Format(
        {
            "data_batch_1.bin": ("aadd24acce27caa71bf4b10992e9e7b2d74c2540", 10_000),
            "data_batch_2.bin": ("c0ba65cce70568cd57b4e03e9ac8d2a5367c1795", 10_000),
            "data_batch_3.bin": ("1dd00a74ab1d17a6e7d73e185b69dbf31242f295", 10_000),
            "data_batch_4.bin": ("aab85764eb3584312d3c7f65fd2fd016e36a258e", 10_000),
            "data_batch_5.bin": ("26e2849e66a845b7f1e4614ae70f4889ae604628", 10_000),
            "test_batch.bin": ("67eb016db431130d61cd03c7ad570b013799c88c", 10_000),
        },
        {"labels": 10},
        False,
    ),
}
_CIFAR100 = {
    "cifar-100-python": _Format(
        {
            "train": ("16019d7e3df5f24257cddd939b257f8d", 50_000),
            "test": ("f0ef6b0ae62326f3e7ffdfab6717acfc", 10_000),
        },
        {"coarse_labels": 20, "fine_labels": 100},
        True,
    ),
    "cifar-100-binary": _Format(
        {
            "train.bin": ("e207cd2e05b73b1393c74c7f5e7bea451d63e08e", 50_000),
            "test.bin": ("8fb6623e830365ff53cf14adec797474f5478006", 10_000),
        },
        {"coarse_labels": 20, "fine_labels": 100},
        False,
    ),
}
_BATCH_LABELS = {
    **{f"data_batch_{i}": f"training batch {i} of 5" for i in range(1, 6)},
    "test_batch": "testing batch 1 of 1",
    "train": "training batch 1 of 1",
    "test": "testing batch 1 of 1",
}
"""The field `batch_label` of the published batches, by file name."""


def cifar10(folder: str | Path | None = None, *, verify: bool = True) -> tuple[Batch, Batch]:
    """Loads CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 x 3, 10 classes.

    Args:
      folder: contains data_batch_1 to data_batch_5 and test_batch, with or without ".bin", directly
        or in a subfolder cifar-10-batches-py or cifar-10-batches-bin.
      verify: require the published checksum of each file before it is read. If False, batches may
        have any number of images; sizes, shapes and label ranges are still checked.

    Returns:
      (train, test), x float32 [N, 32, 32, 3] in [0, 1], y int32 [N].

    Raises:
      ValueError: if a file is missing, truncated, swapped or altered, or has labels out of range.
    """
    return _load("cifar10", folder, _CIFAR10, verify)


def cifar100(folder: str | Path | None = None, *, verify: bool = True) -> tuple[Batch, Batch]:
    """Loads CIFAR-100 with its 100 fine labels; otherwise like `cifar10`.

    Args:
      folder: contains train and test, or train.bin and test.bin, directly or in a subfolder
        cifar-100-python or cifar-100-binary.
      verify: as for `cifar10`.

    Returns:
      (train, test), x float32 [N, 32, 32, 3] in [0, 1], y int32 [N].

    Raises:
      ValueError: as for `cifar10`.
    """
    return _load("cifar100", folder, _CIFAR100, verify)


def _load(
    name: str, folder: str | Path | None, formats: dict[str, _Format], verify: bool
) -> tuple[Batch, Batch]:
    layouts = {sub: [(file,) for file in form.files] for sub, form in formats.items()}
    which, paths = files.find(name, folder, layouts)
    parts = [_read(path, formats[which], verify) for path in paths]
    pixels, y = (np.concatenate(part) for part in zip(*parts[:-1], strict=True))
    return files.to_batch(pixels, y), files.to_batch(*parts[-1])


def _read(path: Path, form: _Format, verify: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [N, 32, 32, 3], and labels [N] of one file."""
    content = path.read_bytes()
    if not form.pickled:
        _check_records(path, len(content), form, verify)
    if verify:
        files.verify(path, content, {n: digest for n, (digest, _) in form.files.items()}, path.name)
    pixels, labels = (_unpickle if form.pickled else _split)(path, content, form)
    for (name, classes), values in zip(form.labels.items(), labels, strict=True):
        files.labels(path, values, classes, name)
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels[-1]


def _check_records(path: Path, size: int, form: _Format, verify: bool) -> None:
    record, number = _PIXELS + len(form.labels), form.files[path.name][1]
    if verify and size != number * record:
        files.refuse(
            path,
            f"{size} bytes, {size / record:g} records",
            f"{number * record} bytes, {number} records of {record}; verify=False takes fewer",
        )
    if size == 0 or size % record:
        files.refuse(
            path, f"{size} bytes, {size / record:g} records", f"whole records of {record} bytes"
        )


def _split(path: Path, content: bytes, form: _Format) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pixels and label fields of binary records.

    A record is the label bytes, then 3,072 pixels: the red, green and blue plane, each row by row.
    """
    del path
    fields = len(form.labels)
    records = np.frombuffer(content, np.uint8).reshape(-1, fields + _PIXELS)
    return records[:, fields:], [records[:, field] for field in range(fields)]


def _unpickle(path: Path, content: bytes, form: _Format) -> tuple[np.ndarray, list[np.ndarray]]:
    found = pickles.load(path, content)
    missing = {"data", *form.labels} - set(found)
    if missing:
        files.refuse(
            path, f"the keys {', '.join(sorted(found))}", f"also {', '.join(sorted(missing))}"
        )
    _check_batch_label(path, found.get("batch_label"))
    data = found["data"]
    is_bytes = isinstance(data, np.ndarray) and data.dtype == np.uint8
    if not is_bytes or data.ndim != 2 or data.shape[1] != _PIXELS or not len(data):
        what = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        files.refuse(path, f"data {what}", f"uint8 [N, {_PIXELS}]")
    return data, [_integers(path, key, found[key], len(data)) for key in form.labels]


def _check_batch_label(path: Path, label: Any) -> None:
    """Refuses a batch with the published label of another batch; any other label is accepted."""
    label = label.decode("latin1") if isinstance(label, bytes) else label
    if label in _BATCH_LABELS.values() and label != _BATCH_LABELS[path.name]:
        files.refuse(path, f"the batch label {label!r}", repr(_BATCH_LABELS[path.name]))


def _integers(path: Path, key: str, values: Any, n: int) -> np.ndarray:
    is_list = isinstance(values, list) and all(type(value) is int for value in values)
    is_array = isinstance(values, np.ndarray) and values.ndim == 1
    if not (is_list or is_array) or len(values) != n:
        size = f" of {len(values)}" if isinstance(values, list | np.ndarray) else ""
        files.refuse(path, f"{key}: {type(values).__name__}{size}", f"{n} integers, one per image")
    if is_list:  # clipped before conversion, so that no large label wraps around into the range
        return np.array([min(max(value, -1), 1 << 31) for value in values], np.int64)
    return np.asarray(values)
