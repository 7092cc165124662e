"""Interchange of masks and parameters: files, PyTorch state dicts, and optax training loops.

Files hold one array per leaf, named by its path ("layer_00/kernel"). Reading never unpickles, and
never decompresses more than the size of the expected tree.
"""

import os
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plantjax import checks
from plantjax.types import Mask, Params

Arrays = dict[str, np.ndarray]
_HEADER = 4096
"""The most bytes that the header of an array in an .npz file may have."""


def save(path: str | os.PathLike[str], tree: Any) -> None:
    """Writes a mask or parameters to a file in the format of its suffix.

    Args:
      path: ends in .npz or .safetensors (needs the package safetensors, extra `interchange`).
      tree: pytree of arrays with numpy's own dtypes (not bfloat16).

    Raises:
      ValueError: if the suffix is unknown, its package is missing, or a dtype is not numpy's.
    """
    write, _ = _format(path)
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    arrays = {checks.path_name(where): np.asarray(leaf) for where, leaf in pairs}
    for name, array in arrays.items():
        if array.dtype.isbuiltin != 1:
            raise ValueError(f"tree[{name}] must have a dtype of numpy, got {array.dtype}.")
    write(Path(path), arrays)


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


def from_torch(state: Mapping[str, Any], like: Params) -> Params:
    """Converts a PyTorch state dict to parameters of the same network in plantjax.

    Weights of linear layers [O, I] become kernels [I, O], those of convolutions [O, I, kh, kw]
    become kernels [kh, kw, I, O]. Arrays are matched to leaves by shape. Arrays of equal shape are
    assigned to the sorted paths in the order of the state dict, which fits numbered layers.

    Args:
      state: names to CPU tensors or arrays, as returned by `module.state_dict()`.
      like: pytree of arrays, the parameters to be replaced.

    Returns:
      Parameters with the structure, shapes and dtypes of `like`.

    Raises:
      ValueError: if no leaf is left for an array, or no array for a leaf.

    >>> import jax, numpy as np, plantjax as pj
    >>> state = {"0.weight": np.ones((4, 2)), "0.bias": np.zeros(4)}  # of torch.nn.Linear(2, 4)
    >>> like = pj.nets.init(jax.random.key(0), (2, 4))
    >>> pj.interchange.from_torch(state, like)["layer_00"]["kernel"].shape
    (2, 4)
    """
    waiting: dict[tuple[int, ...], deque[int]] = defaultdict(deque)
    pairs, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = [leaf for _, leaf in pairs]
    for index, leaf in enumerate(leaves):
        waiting[np.shape(leaf)].append(index)
    for name, tensor in state.items():
        array = np.asarray(tensor)
        if array.ndim >= 2:
            array = np.moveaxis(array, (0, 1), (-1, -2))
        if not waiting[array.shape]:
            raise ValueError(
                f"state[{name!r}] must fit a leaf of params that no other array fills, got shape "
                f"{np.shape(tensor)}, which is {array.shape} here."
            )
        index = waiting[array.shape].popleft()
        leaves[index] = jnp.asarray(array.astype(leaves[index].dtype))
    left = sorted(i for queue in waiting.values() for i in queue)
    if left:
        missing = ", ".join(f"{checks.path_name(pairs[i][0])} {leaves[i].shape}" for i in left)
        raise ValueError(f"state must fill all of params, got no array for {missing}.")
    return jax.tree.unflatten(structure, leaves)


def keep_pruned(mask: Mask) -> optax.GradientTransformation:
    """Keeps pruned parameters at exactly zero with any optimizer, momentum and weight decay.

    Put it last in a chain: `optax.chain(optax.adamw(1e-3), keep_pruned(mask))`.

    Args:
      mask: pytree of bool arrays with the structure of the parameters.

    Returns:
      A transformation that replaces the updates of pruned parameters by those that set them to
      zero. Its `update` needs the parameters and raises ValueError if they do not match the mask.

    >>> import jax.numpy as jnp, optax, plantjax as pj
    >>> params, mask = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([True, False])}
    >>> optimizer = optax.chain(optax.sgd(0.5), pj.interchange.keep_pruned(mask))
    >>> updates, _ = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.5, 0.0]
    """

    def init(params: Params) -> optax.EmptyState:
        checks.mask("mask", mask, "params", params)
        return optax.EmptyState()

    def update(
        updates: Params, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[Params, optax.EmptyState]:
        if params is None:
            raise ValueError("params must be given to the update of keep_pruned, got None.")
        checks.mask("mask", mask, "params", params)
        updates = jax.tree.map(lambda m, u, p: jnp.where(m, u, -p), mask, updates, params)
        return updates, state

    return optax.GradientTransformation(init, update)


def _write_npz(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # mypy takes them for options


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
