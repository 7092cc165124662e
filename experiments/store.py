"""The results folder: settings, one file per finished chunk, and the table rebuilt from them.

A chunk is written to a temporary name, synced and renamed, so a file under its final name is whole;
one that is damaged later is set aside with a warning, and its cells are computed again.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
LABELS = "labels"
VERSIONS = ("plantjax", "jax", "jaxlib", "flax", "optax", "numpy")


@dataclass(frozen=True)
class Chunk:
    """Finished cells: labels (one value per cell and column) and result arrays [C, ...]."""

    labels: dict[str, list[Any]]
    results: dict[str, np.ndarray]

    @property
    def ids(self) -> list[str]:
        """The identity of each cell."""
        return list(self.labels["id"])


def check(folder: Path, settings: Mapping[str, Any], force: bool) -> None:
    """Checks, without leaving a trace, that results with these settings can go to the folder.

    Raises:
      ValueError: if the folder is a file, cannot be written, or holds results with other settings
        (unless `force`), or of another format.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"--out must be a folder, got {folder}, and {existing} is a file.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"--out must be a folder that can be written, got {folder}: {error.strerror}."
        ) from error
    if force or not (folder / "config.json").exists():
        return
    try:
        config = json.loads((folder / "config.json").read_text())
        old, version = config["settings"], config["format"]
    except (ValueError, KeyError, TypeError, OSError):
        raise ValueError(
            f"--out must hold results of plantjax or nothing, got {folder}, whose config.json "
            "cannot be read; name another folder, or --force to start afresh."
        ) from None
    if version != FORMAT:
        raise ValueError(
            f"--out must hold results of format {FORMAT}, got {folder} with format {version}; "
            "name another folder, or --force to start afresh."
        )
    new = json.loads(json.dumps(dict(settings)))
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    if names:
        differ = "; ".join(f"{n}: {old.get(n)} there, {new.get(n)} here" for n in names)
        raise ValueError(
            f"--out must hold results with the same settings, got {folder} with others ({differ}); "
            "name another folder, or --force to start afresh."
        )


def start(folder: Path, settings: Mapping[str, Any], command: Sequence[str], force: bool) -> None:
    """Makes the folder and its config.json, or leaves them as they are; `force` clears it first."""
    if force:
        shutil.rmtree(folder / "chunks", ignore_errors=True)
        for path in (*folder.glob("*.csv"), *folder.glob("*.png"), folder / "config.json"):
            path.unlink(missing_ok=True)
    (folder / "chunks").mkdir(parents=True, exist_ok=True)
    for leftover in [*folder.glob("*.tmp"), *(folder / "chunks").glob("*.tmp")]:
        leftover.unlink()
    if (folder / "config.json").exists():
        return
    config = {"format": FORMAT, "settings": dict(settings), **origin(command)}
    write_json(folder / "config.json", config)


def origin(command: Sequence[str]) -> dict[str, Any]:
    """Where results come from: command, versions, device and commit."""
    import jax

    device = jax.devices()[0]
    return {
        "command": list(command),
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.platform}: {device.device_kind} ({jax.device_count()})",
        "commit": _commit(),
    }


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, in one step."""
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def save(folder: Path, chunk: Chunk) -> None:
    """Writes a finished chunk; its name follows from its cells."""
    name = hashlib.sha256("\n".join(chunk.ids).encode()).hexdigest()[:16]
    path = folder / "chunks" / f"{name}.npz"
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        arrays: dict[str, Any] = {LABELS: np.array(json.dumps(chunk.labels)), **chunk.results}
        np.savez(file, **arrays)
        _finish(file, path)


def load(folder: Path) -> Iterator[Chunk]:
    """All whole chunks; a damaged one is set aside with a warning on stderr."""
    for path in sorted((folder / "chunks").glob("*.npz")):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                results = {name: arrays[name] for name in arrays.files}
            labels = json.loads(str(results.pop(LABELS)))
            yield Chunk(labels, results)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            path.rename(path.with_suffix(".damaged"))
            print(
                f"warning: {path} is damaged ({error}); its cells are computed again.",
                file=sys.stderr,
            )


def write_table(folder: Path, table: Any, name: str = "results.csv") -> Path:
    """Writes a table as CSV."""
    path = folder / name
    _write(path, table.to_csv(index=False).encode())
    return path


def _write(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(content)
        _finish(file, path)


def _finish(file: Any, path: Path) -> None:
    """Syncs a temporary file and gives it its final name, in one step."""
    file.flush()
    os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _commit() -> str | None:
    """The git commit of the source, if it is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
