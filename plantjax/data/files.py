"""Finding the files of a data set on disk, and checking that they are the published ones.

All errors are ValueErrors that name the file, what was found, and what was expected.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import jax.numpy as jnp
import numpy as np

from plantjax.types import Batch


def refuse(path: Path, found: str, expected: str) -> NoReturn:
    """Raises a ValueError that says what the file has and what was expected."""
    raise ValueError(f"{path} has {found}, expected {expected}.")


def find(
    name: str, folder: str | Path | None, layouts: Mapping[str, Sequence[Sequence[str]]]
) -> tuple[str, list[Path]]:
    """Looks for the files of a data set.

    Args:
      name: name of the data set, for error messages.
      folder: where to look, also in the subfolder that the published archive unpacks to.
      layouts: for each published format its subfolder and its files; a file is a sequence of
        alternative names.

    Returns:
      (the first complete layout; its files in order).

    Raises:
      ValueError: if folder is not a folder, or no layout is complete.
    """
    expected = " or ".join(
        f"{', '.join('|'.join(names) for names in files)} (there or in {subfolder}/)"
        for subfolder, files in layouts.items()
    )
    if folder is None or not Path(folder).is_dir():
        raise ValueError(f"{name} needs a folder that holds {expected}; got folder={folder!r}.")
    missing = []
    for subfolder, files in layouts.items():
        for place in (Path(folder), Path(folder) / subfolder):
            found = [[place / n for n in names if (place / n).is_file()] for names in files]
            if all(found):
                return subfolder, [paths[0] for paths in found]
            if any(found):
                missing += [
                    place / names[0] for names, paths in zip(files, found, strict=True) if not paths
                ]
    lacking = f"; missing: {', '.join(map(str, missing))}" if missing else ""
    raise ValueError(f"{name} expects in {folder}: {expected}{lacking}.")


def verify(path: Path, content: bytes, digests: Mapping[str, str], name: str) -> None:
    """Raises ValueError unless the content has the published checksum.

    Args:
      path: for error messages.
      content: decompressed content of the file.
      digests: checksums of all files of the data set by name, MD5 (32 digits) or SHA-1 (40).
      name: name of the file in `digests`.
    """
    wanted = digests[name]
    kind = "md5" if len(wanted) == 32 else "sha1"
    found = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    if found != wanted:
        others = [other for other, digest in digests.items() if digest == found]
        which = f" (that is the published {others[0]})" if others else ""
        refuse(
            path,
            f"{len(content)} bytes with {kind} {found}{which}",
            f"{kind} {wanted}, the published {name}; verify=False takes files packed anew",
        )


def labels(path: Path, values: np.ndarray, classes: int, what: str = "labels") -> None:
    """Raises ValueError unless all labels lie in [0, classes)."""
    if values.size and (values.min() < 0 or values.max() >= classes):
        refuse(path, f"{what} from {values.min()} to {values.max()}", f"{what} in [0, {classes})")


def to_batch(pixels: np.ndarray, y: np.ndarray, highest: int = 255) -> Batch:
    """Integers [N, H, W, C] in [0, highest] and labels [N] as a Batch, x = pixels / highest."""
    shades = (np.arange(highest + 1) / highest).astype(np.float32)
    return Batch(jnp.asarray(shades[pixels]), jnp.asarray(y.astype(np.int32)))
