"""Which array of a PyTorch module belongs to which leaf: by role and order, never shape alone."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from plantjax import checks
from plantjax.masks import groups
from plantjax.types import Params

State: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""A state dict, or the pairs of `module.named_parameters()`."""

ROLES = {
    "weight": ("kernel", "scale", "embedding"),
    "bias": ("bias",),
    "running_mean": ("mean",),
    "running_var": ("var",),
}
"""Names of the leaves that an array of a PyTorch module may fill, by its name there."""
BUFFERS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"


Modules: TypeAlias = dict[str, dict[str, np.ndarray]]
"""The arrays of a state dict by module and role, modules in its order."""


class Place(NamedTuple):
    """An array of a PyTorch module, and the leaf that it fills."""

    module: str
    role: str
    leaf: int  # index in tree order
    name: str  # of the leaf
    channels: int  # of the image that a linear layer reads flattened, or 0


class _Layer(NamedTuple):
    """One layer of the parameters: its path without its collection, and its leaves by name."""

    path: str
    leaves: dict[str, int]  # to the index in tree order


def modules_of(state: State) -> Modules:
    """The arrays by module and role; pruned weights come masked.

    Raises:
      ValueError: if there is no array.
    """
    pairs = state.items() if isinstance(state, Mapping) else state
    modules: Modules = {}
    for name, tensor in pairs:
        module, _, role = name.rpartition(".")
        if role != COUNTER:
            modules.setdefault(module, {})[role] = _array(tensor)
    for arrays in modules.values():
        for role in [role for role in arrays if role.endswith("_orig")]:
            plain = role.removesuffix("_orig")
            mask = arrays.pop(f"{plain}_mask", np.ones(()))
            pruned = arrays.pop(role)
            arrays[plain] = np.where(mask.astype(bool), pruned, np.zeros_like(pruned))
    if not modules:
        raise ValueError("state must hold at least one array, got none.")
    return modules


def places(
    modules: Modules,
    like: Params,
    names: Mapping[str, str],
    flattened: Collection[str] | None = None,
) -> list[Place]:
    """Every array with its leaf, in the order of the modules; tied arrays may share a leaf.

    Args:
      modules: as `modules_of` returns them.
      like: the parameters.
      names: the layer's path by the name of the module, where the order does not tell.
      flattened: the linear modules that read a flattened image, see `from_torch`.

    Raises:
      ValueError: if an array has no leaf or a leaf no array, if it cannot be told which, or if a
        flattened module is none.
    """
    try:
        return _untied(modules, like, names, flattened)
    except ValueError:
        ties = _ties(modules)
        if not ties:
            raise
    alone = {
        name: {role: arrays[role] for role in arrays if (name, role) not in ties}
        for name, arrays in modules.items()
    }
    alone = {name: arrays for name, arrays in alone.items() if arrays}
    named = {name: path for name, path in names.items() if name in alone}
    found = _untied(alone, like, named, flattened)
    known = {(place.module, place.role): place for place in found}
    shared = [known[first]._replace(module=name) for (name, _), first in ties.items()]
    return [*found, *shared]


def _untied(
    modules: Modules, like: Params, names: Mapping[str, str], flattened: Collection[str] | None
) -> list[Place]:
    """The places of arrays, each of which has a leaf of its own."""
    paths, leaves, _ = groups.flatten(like)
    found, channels = [], 0  # of the last convolution, whose image a linear layer may read
    for name, layer in _matched(modules, _layers(paths), leaves, names):
        for role, index in _places(name, modules[name], layer).items():
            array, leaf = modules[name][role], paths[index].rpartition("/")[2]
            shape = np.shape(leaves[index])
            if converted(array, leaf).shape != shape:
                raise ValueError(
                    f"state['{name}.{role}'] must fit {paths[index]} of shape {shape}, got "
                    f"{array.shape}, which is {converted(array, leaf).shape} here."
                )
            linear = leaf == "kernel" and array.ndim == 2
            flat = linear and channels and shape[0] % channels == 0
            flat = flat and (flattened is None or name in flattened)
            found.append(Place(name, role, index, leaf, channels if flat else 0))
            if array.ndim >= 2 and leaf == "kernel" and not (linear and flattened is not None):
                channels = 0 if linear else array.shape[0]
    for name in set(flattened or ()) - {place.module for place in found if place.channels}:
        raise ValueError(
            "flattened must name linear modules behind a convolution, with inputs that are a "
            f"multiple of its channels, got {name!r}."
        )
    return found


def _ties(modules: Modules) -> dict[tuple[str, str], tuple[str, str]]:
    """Arrays (module, role) that are the same as an earlier one, and that one.

    They have the same memory, or are equal matrices that are not constant; other arrays of two
    modules with tied matrices are tied if they are equal.
    """

    def same(one: np.ndarray, other: np.ndarray, near: bool = False) -> bool:
        if one.shape != other.shape:
            return False
        varied = one.ndim >= 2 and one.min() < one.max()
        return np.shares_memory(one, other) or ((varied or near) and np.array_equal(one, other))

    ties: dict[tuple[str, str], tuple[str, str]] = {}
    earlier: list[str] = []
    for name, arrays in modules.items():
        for first in earlier:
            shared = [
                r for r in arrays if r in modules[first] and same(arrays[r], modules[first][r])
            ]
            if shared:
                for role in set(arrays) & set(modules[first]):
                    if same(arrays[role], modules[first][role], near=True):
                        ties.setdefault((name, role), ties.get((first, role), (first, role)))
        earlier.append(name)
    return ties


def converted(array: np.ndarray, leaf: str, channels: int = 0) -> np.ndarray:
    """An array in the layout of a leaf: kernels have inputs before outputs, images are NHWC."""
    if leaf != "kernel" or array.ndim < 2:
        return array
    kernel = np.moveaxis(array, (0, 1), (-1, -2))
    return _regrouped(kernel, channels) if channels else kernel


def restored(array: np.ndarray, leaf: str, channels: int = 0) -> np.ndarray:
    """The inverse of `converted`."""
    if leaf != "kernel" or array.ndim < 2:
        return array
    kernel = _regrouped(array, array.shape[0] // channels) if channels else array
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _regrouped(kernel: np.ndarray, groups: int) -> np.ndarray:
    """Rows [groups, n] of a matrix as [n, groups]."""
    return kernel.reshape(groups, -1, kernel.shape[1]).swapaxes(0, 1).reshape(kernel.shape)


def _array(tensor: Any) -> np.ndarray:
    """A tensor, on any device and of any float type, as an array."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()
        tensor = tensor.numpy()
    return np.asarray(tensor)


def _layers(paths: list[str]) -> list[_Layer]:
    """The layers in natural order; statistics belong to the layer of the same path."""
    found: dict[str, dict[str, int]] = {}
    for index, path in enumerate(paths):
        layer, _, leaf = path.rpartition("/")
        for collection in ("params", "batch_stats"):
            layer = layer.removeprefix(f"{collection}/") if "/" in layer else layer
        found.setdefault(layer, {})[leaf] = index
    return [_Layer(path, found[path]) for path in sorted(found, key=checks.natural)]


def _matched(
    modules: Mapping[str, Mapping[str, np.ndarray]],
    layers: list[_Layer],
    leaves: list[Any],
    names: Mapping[str, str],
) -> list[tuple[str, _Layer]]:
    """Every module with its layer, in the order of the state dict."""
    by_path = {layer.path: layer for layer in layers}
    chosen: dict[str, _Layer] = {}
    for name, path in names.items():
        if name not in modules or path not in by_path:
            raise ValueError(
                f"names must map modules ({', '.join(modules)}) to layers "
                f"({', '.join(by_path)}), got {name!r}: {path!r}."
            )
        chosen[name] = by_path[path]
    for name in modules:
        if name not in chosen and name.replace(".", "/") in by_path:
            chosen[name] = by_path[name.replace(".", "/")]
    taken = {layer.path for layer in chosen.values()}
    if len(taken) < len(chosen):
        raise ValueError(f"names must give every module a layer of its own, got {dict(names)}.")
    free = [layer for layer in layers if layer.path not in taken]
    for name, arrays in modules.items():
        if name not in chosen:
            alike = [layer for layer in free if _alike(arrays, layer, leaves)]
            chosen[name] = _next(name, arrays, alike, taken)
            taken.add(chosen[name].path)
    missing = [layer.path for layer in layers if layer.path not in taken]
    if missing:
        raise ValueError(f"state must fill all of params, got no arrays for {', '.join(missing)}.")
    return [(name, chosen[name]) for name in modules]


def _next(
    name: str, arrays: Mapping[str, np.ndarray], alike: list[_Layer], taken: Collection[str]
) -> _Layer:
    """The next of several layers of one kind, if their order is known: they differ in numbers."""
    if len({re.sub(r"\d+", "#", layer.path) for layer in alike}) > 1:
        paths = ", ".join(layer.path for layer in alike)
        raise ValueError(
            f"names must say which layer state[{name!r}] is, because the names of several of its "
            f"kind give no order: {paths}."
        )
    left = [layer for layer in alike if layer.path not in taken]
    if not left:
        shapes = ", ".join(f"{role} {array.shape}" for role, array in arrays.items())
        raise ValueError(
            f"state[{name!r}] must fit a layer of params that no other module fills, got {shapes}; "
            "say which one in names if there is one."
        )
    return left[0]


def _alike(arrays: Mapping[str, np.ndarray], layer: _Layer, leaves: list[Any]) -> bool:
    """Whether a module has the roles and shapes of this layer."""
    try:
        places = _places("", arrays, layer)
    except ValueError:
        return False
    names = {index: leaf for leaf, index in layer.leaves.items()}
    shapes = {index: np.shape(leaves[index]) for index in names}
    return all(
        converted(arrays[role], names[index]).shape == shapes[index]
        for role, index in places.items()
    )


def _places(name: str, arrays: Mapping[str, np.ndarray], layer: _Layer) -> dict[str, int]:
    """The leaf of every array of a module, by its role."""
    places = {}
    for role in arrays:
        fitting = [leaf for leaf in ROLES.get(role, (role,)) if leaf in layer.leaves]
        if len(fitting) == 1:
            places[role] = layer.leaves[fitting[0]]
        elif role not in BUFFERS:
            raise ValueError(
                f"state['{name}.{role}'] must have one leaf in {layer.path}, got "
                f"{', '.join(layer.leaves)}."
            )
    if len(places) < len(layer.leaves):
        left = [leaf for leaf, index in layer.leaves.items() if index not in places.values()]
        raise ValueError(f"state must fill all of {layer.path}, got no array for {left[0]}.")
    return places
