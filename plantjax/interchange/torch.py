"""Arrays of PyTorch as parameters: matched by role and order, never by shape alone.

PyTorch need not be installed: a state dict is a mapping from names to tensors, or to arrays.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks
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
_BUFFERS = ("running_mean", "running_var")
_COUNTER = "num_batches_tracked"


class _Layer(NamedTuple):
    """One layer of the parameters: its path without its collection, and its leaves by name."""

    path: str
    leaves: dict[str, int]  # to the index in tree order


def from_torch(state: State, like: Params, names: Mapping[str, str] | None = None) -> Params:
    """Turns a PyTorch state dict into parameters of the same network here.

    Arrays are matched by role: `weight` fills a `kernel`, `scale` or `embedding`, `bias` a `bias`,
    running statistics fill `mean` and `var`. Modules are matched to layers by their paths if these
    agree, and otherwise by order, that of the state dict against the natural order of the layers'
    paths; modules and layers of one kind (the same roles and shapes) are then counted off.

    Weights of linear layers [O, I] become kernels [I, O], those of convolutions [O, I, kh, kw]
    become [kh, kw, I, O]. The inputs of a linear layer behind a flattened image [C, H, W] are
    reordered to [H, W, C]. Weights pruned by `torch.nn.utils.prune` (`weight_orig` and
    `weight_mask`) come in masked, and bfloat16 as float32.

    Args:
      state: name to tensor or array, as `module.state_dict()` returns it, or such pairs, as
        `module.named_parameters()` does.
      like: pytree of arrays, the parameters to be replaced; with "batch_stats" beside "params",
        running statistics are taken over, and otherwise left out.
      names: the layer's path by the name of the module, where the order does not tell; all modules
        or some of them.

    Returns:
      Parameters with the structure, shapes and dtypes of `like`.

    Raises:
      ValueError: if an array has no leaf or a leaf no array, if shapes differ, or if the leaf for
        an array cannot be told.

    >>> import jax, numpy as np, plantjax as pj
    >>> state = {"0.weight": np.ones((4, 2)), "0.bias": np.zeros(4)}  # of torch.nn.Linear(2, 4)
    >>> like = pj.nets.init(jax.random.key(0), (2, 4))
    >>> pj.interchange.from_torch(state, like)["layer_00"]["kernel"].shape
    (2, 4)
    """
    modules = _modules(state)
    paths, leaves, structure = _flatten(like)
    layers = _layers(paths)
    pairs = _matched(modules, layers, leaves, names or {})
    filled = dict(enumerate(leaves))
    channels = 0  # of the last convolution, whose image the next linear layer may read flattened
    for name, layer in pairs:
        for role, index in _places(name, modules[name], layer).items():
            array = modules[name][role]
            leaf, shape = paths[index].rpartition("/")[2], np.shape(leaves[index])
            value = _converted(array, leaf, shape, channels)
            if value.shape != np.shape(leaves[index]):
                raise ValueError(
                    f"state['{name}.{role}'] must fit {paths[index]} of shape "
                    f"{np.shape(leaves[index])}, got {array.shape}, which is {value.shape} here."
                )
            filled[index] = jnp.asarray(value.astype(leaves[index].dtype))
            if array.ndim >= 2 and leaf == "kernel":
                channels = array.shape[0] if array.ndim > 2 else 0
    return jax.tree.unflatten(structure, list(filled.values()))


def _modules(state: State) -> dict[str, dict[str, np.ndarray]]:
    """The arrays by module and role, modules in the order of the state dict."""
    pairs = state.items() if isinstance(state, Mapping) else state
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in pairs:
        module, _, role = name.rpartition(".")
        if role != _COUNTER:
            modules.setdefault(module, {})[role] = _array(tensor)
    for arrays in modules.values():
        for role in [role for role in arrays if role.endswith("_orig")]:
            plain = role.removesuffix("_orig")
            mask = arrays.pop(f"{plain}_mask", np.ones(()))
            arrays[plain] = arrays.pop(role) * mask.astype(bool)
    if not modules:
        raise ValueError("state must hold at least one array, got none.")
    return modules


def _array(tensor: Any) -> np.ndarray:
    """A tensor, on any device and of any float type, as an array."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()
        tensor = tensor.numpy()
    return np.asarray(tensor)


def _flatten(like: Params) -> tuple[list[str], list[Any], Any]:
    pairs, structure = jax.tree_util.tree_flatten_with_path(like)
    return [checks.path_name(path) for path, _ in pairs], [leaf for _, leaf in pairs], structure


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
        _converted(arrays[role], names[index], shapes[index], 0).shape == shapes[index]
        for role, index in places.items()
    )


def _places(name: str, arrays: Mapping[str, np.ndarray], layer: _Layer) -> dict[str, int]:
    """The leaf of every array of a module, by its role."""
    places = {}
    for role in arrays:
        fitting = [leaf for leaf in ROLES.get(role, (role,)) if leaf in layer.leaves]
        if len(fitting) == 1:
            places[role] = layer.leaves[fitting[0]]
        elif role not in _BUFFERS:
            raise ValueError(
                f"state['{name}.{role}'] must have one leaf in {layer.path}, got "
                f"{', '.join(layer.leaves)}."
            )
    if len(places) < len(layer.leaves):
        left = [leaf for leaf, index in layer.leaves.items() if index not in places.values()]
        raise ValueError(f"state must fill all of {layer.path}, got no array for {left[0]}.")
    return places


def _converted(array: np.ndarray, leaf: str, shape: tuple[int, ...], channels: int) -> np.ndarray:
    """An array in the layout of a leaf: kernels have inputs before outputs, images are NHWC."""
    if leaf != "kernel" or array.ndim < 2:
        return array
    rotated = _rotated(array)
    if array.ndim == 2 and channels and rotated.shape == shape and shape[0] % channels == 0:
        return rotated.reshape(channels, -1, shape[1]).swapaxes(0, 1).reshape(shape)
    return rotated


def _rotated(array: np.ndarray) -> np.ndarray:
    """[O, I, ...] as [..., I, O]."""
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim >= 2 else array
