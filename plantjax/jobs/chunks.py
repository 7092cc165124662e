"""Chunk files: finished cells as one .npz with a checksum, written in one step.

A file is written to a temporary name, synced and renamed, so that what has its final name is whole.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LABELS, CHECKSUM, SETTINGS = "labels", "checksum", "settings"
DAMAGES: tuple[type[Exception], ...] = (
    *(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error),
    MemoryError,  # a header that claims petabytes
    RuntimeError,  # a zip file of another kind
)
"""The errors that `read` raises for a damaged file."""


class StoreError(RuntimeError):
    """The folder can no longer be written; what was written before stays valid."""


@dataclass(frozen=True)
class Chunk:
    """Finished cells: labels (one value per cell and column) and result arrays [C, ...]."""

    labels: dict[str, list[Any]]
    results: dict[str, np.ndarray]

    @property
    def ids(self) -> list[str]:
        """The identity of each cell."""
        return list(self.labels["id"])


def write(path: Path, chunk: Chunk, settings: str) -> None:
    """Writes a chunk and the hash of the settings that it belongs to.

    Raises:
      StoreError: if the disk is full, or the folder gone or read-only.
    """
    arrays: dict[str, Any] = {
        LABELS: np.array(json.dumps(chunk.labels)),
        SETTINGS: np.array(settings),
        **chunk.results,
    }
    arrays[CHECKSUM] = np.array(_checksum(arrays))
    with replacing(path) as file:
        np.savez(file, **arrays)


def read(path: Path, settings: str) -> Chunk:
    """Reads a chunk; never more than the file's own size, and no pickle.

    Raises:
      ValueError: if it is packed, of other settings, or not what was written.
    """
    with zipfile.ZipFile(path) as archive:
        packed = any(entry.file_size > entry.compress_size for entry in archive.infolist())
    if packed:
        raise ValueError("it is compressed")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        results = {name: arrays[name] for name in arrays.files}
    checksum = str(results.pop(CHECKSUM))
    if checksum != _checksum(results):
        raise ValueError("its checksum is wrong")
    if str(results.pop(SETTINGS)) != settings:
        raise ValueError("it belongs to other settings")
    return Chunk(json.loads(str(results.pop(LABELS))), results)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """A temporary file that replaces `path` in one step, or leaves no trace."""
    name = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            name = file.name
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, in one step."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
