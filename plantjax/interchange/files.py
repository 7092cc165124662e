"""Files of masks and parameters.

Files hold one array per leaf, named by its path ("layer_00/kernel"). Reading never unpickles, and
never decompresses more than the size of the expected tree.
"""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks

Arrays = dict[str, np.ndarray]
_HEADER = 4096
"""The most bytes that the header of an array in an .npz file may have."""

_METADATA = "__metadata__"
"""Not an array in the header of a .safetensors file, but notes about them."""


def save(path: str | os.PathLike[str], tree: Any) -> None:
    """Writes a mask or parameters to a file in the format of its suffix.

    Args:
      path: ends in .npz or .safetensors (needs the package safetensors, extra `interchange`).
      tree: pytree of arrays with numpy's own dtypes (not bfloat16).

    Raises:
      ValueError: if the suffix is unknown, its package is missing, a dtype is not numpy's, two
        leaves have one path, or the format gives a leaf's path another meaning; the old file,
        if any, is left as it was.
    """
    write, _ = _format(path)
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    arrays: Arrays = {}
    for where, leaf in pairs:
        name, array = checks.path_name(where), np.asarray(leaf)
        if name in arrays:
            raise ValueError(f"tree must have leaves of different paths, got two at {name}.")
        if array.dtype.isbuiltin != 1:
            raise ValueError(f"tree[{name}] must have a dtype of numpy, got {array.dtype}.")
        arrays[name] = array
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(aside, arrays)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], like: Any) -> Any:
    """Reads a file written by `save`, or any file with arrays named by the paths of leaves.

    Args:
      path: ends in .npz or .safetensors.
      like: pytree of arrays or `jax.ShapeDtypeStruct` with the expected structure, shapes and
        dtypes; for a mask `jax.eval_shape(plantjax.masks.full, params)`.

    Returns:
      Arrays in the structure of `like`.

    Raises:
      ValueError: if the suffix is unknown, the file is damaged, or its names, shapes or dtypes
        differ from those of `like`; an .npz is not decompressed beyond the sizes in `like`.
      OSError: if the file cannot be opened.

    >>> import pathlib, plantjax as pj, tempfile
    >>> mask = {"layer_00": {"kernel": jnp.array([[True, False]])}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pj.interchange.save(pathlib.Path(folder, "mask.npz"), mask)
    ...     found = pj.interchange.load(pathlib.Path(folder, "mask.npz"), like=mask)
    >>> found["layer_00"]["kernel"].tolist()
    [[True, False]]
    """
    _, read = _format(path)
    pairs, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {checks.path_name(where): (np.shape(leaf), leaf.dtype) for where, leaf in pairs}
    found = read(Path(path), {name: _describe(*form) for name, form in wanted.items()})
    return jax.tree.unflatten(structure, [jnp.asarray(found[name]) for name in wanted])


def _write_npz(path: Path, arrays: Arrays) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _read_npz(path: Path, wanted: Mapping[str, str]) -> Arrays:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            _compare_names(path, sizes, wanted)
            return {name: _read_array(archive, path, name, form) for name, form in wanted.items()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} must be a whole .npz file, got a damaged one: {error}.") from None


def _read_array(archive: zipfile.ZipFile, path: Path, name: str, form: str) -> np.ndarray:
    """Reads an array after comparing its header with the expected shape and dtype."""
    with archive.open(f"{name}.npy") as file:
        start = file.read(len(np.lib.format.MAGIC_PREFIX) + 2)
        try:
            version = start[-2:]
            if not start.startswith(np.lib.format.MAGIC_PREFIX) or version not in _HEADERS:
                raise ValueError("no .npy header")
            shape, fortran, dtype = _HEADERS[version](file, max_header_size=_HEADER)
        except ValueError as error:
            raise ValueError(f"{path} must hold arrays, got {name}: {error}.") from None
        _compare_form(path, name, _describe(shape, dtype), form)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{path} must hold {size} bytes for {name}, got another number.")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


_HEADERS: Mapping[bytes, Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    b"\x01\x00": np.lib.format.read_array_header_1_0,
    b"\x02\x00": np.lib.format.read_array_header_2_0,
}


def _write_safetensors(path: Path, arrays: Arrays) -> None:
    if _METADATA in arrays:
        raise ValueError(
            f"tree must have no leaf {_METADATA} in a .safetensors file, which has notes under "
            "this name; .npz takes any name."
        )
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    _safetensors().numpy.save_file(contiguous, path)


def _read_safetensors(path: Path, wanted: Mapping[str, str]) -> Arrays:
    package = _safetensors()
    try:
        with package.safe_open(path, framework="numpy") as file:
            _compare_names(path, list(file.keys()), wanted)
            found = {}
            for name, form in wanted.items():
                found[name] = file.get_tensor(name)
                _compare_form(path, name, _describe(found[name].shape, found[name].dtype), form)
            return found
    except package.SafetensorError as error:
        raise ValueError(f"{path} must be a whole .safetensors file, got: {error}.") from None


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ValueError(
            "path must end in .npz where the package safetensors is not installed; "
            "pip install 'plantjax[interchange]' brings it."
        ) from None
    return safetensors


def _describe(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{np.dtype(dtype).name} {tuple(shape)}"


def _compare_names(path: Path, found: Any, wanted: Any) -> None:
    if set(found) != set(wanted):
        only = ", ".join(sorted(set(found) - set(wanted))) or "none"
        missing = ", ".join(sorted(set(wanted) - set(found))) or "none"
        raise ValueError(
            f"{path} must name exactly the leaves of `like`, got others: {only}; missing: {missing}"
        )


def _compare_form(path: Path, name: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ValueError(f"{path} must hold {wanted} for {name}, got {found}.")


FORMATS: dict[str, tuple[Callable[[Path, Arrays], None], Callable[..., Arrays]]] = {
    ".npz": (_write_npz, _read_npz),
    ".safetensors": (_write_safetensors, _read_safetensors),
}
"""The registry of file formats, from suffix to (write, read)."""


def _format(path: str | os.PathLike[str]) -> Any:
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise ValueError(f"path must end in {' or '.join(FORMATS)}, got {os.fspath(path)!r}.")
    return FORMATS[suffix]
