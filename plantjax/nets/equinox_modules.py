"""Modules of Equinox as functions of a tree of their parameters, see `modules`.

Equinox has weights [O, I, ...] and images [C, H, W]; here they have the layout of all other
networks, so that fan-ins, channels and planting mean the same.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.nets.modules import Call, Module, by_path, check_not_empty, kept
from plantjax.types import Params


def from_equinox(module: Any, call: Call | None = None) -> tuple[Module, Params]:
    """A module of Equinox as `(apply, params)`; needs the extra "equinox".

    The weights [O, I, ...] of linear layers and convolutions become kernels [..., I, O], and their
    biases vectors [O]; inputs of a linear layer behind a flattened image [C, H, W] are reordered to
    [H, W, C]. Other arrays keep their names and shapes. `apply.restore(params)` leads back.

    Args:
      module: any Equinox module, called on a single sample.
      call: `(module, x [N, ...]) -> outputs`; by default `jax.vmap(module)(x)`. Modules that take
        images [C, H, W], keys or a state say here how they run.

    Returns:
      (apply, params), where params are its float arrays as nested dicts.

    Raises:
      ImportError: if Equinox is not installed.
      ValueError: if the module has no parameters; when it is run, if params do not fit.
    """
    try:
        import equinox
    except ImportError as error:
        raise ImportError(
            "from_equinox needs the package equinox, which comes with the extra equinox: "
            "pip install 'plantjax[equinox]'."
        ) from error
    layers = (equinox.nn.Linear, equinox.nn.Conv, equinox.nn.ConvTranspose)
    given: Params = {}
    places, norms, channels = {}, set(), 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(module):
        if not checks.is_float(leaf) or isinstance(leaf, float):
            continue
        owner, keys = _owner(module, path), [_key(key) for key in path]
        layout = _Layout(jnp.shape(leaf))
        if isinstance(owner, layers):
            linear, weight = isinstance(owner, equinox.nn.Linear), keys[-1] == "weight"
            layout = _Layout(leaf.shape, "kernel" if weight else "bias", channels if linear else 0)
            if weight:
                keys[-1], channels = "kernel", 0 if linear else leaf.shape[0]
        elif "Norm" in type(owner).__name__:
            norms.add("/".join(map(str, keys[:-1])))
        place = given
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = layout.here(jnp.asarray(leaf))
        places["/".join(map(str, keys))] = (path, layout)
    check_not_empty(given)

    def restore(params: Params) -> Any:
        found = by_path(params, given)
        there = {path: layout.back(found[name]) for name, (path, layout) in places.items()}
        return jax.tree_util.tree_map_with_path(lambda path, leaf: there.get(path, leaf), module)

    return Module(restore, call or _over_samples, kept(given, norms)), given


@dataclass(frozen=True)
class _Layout:
    """How an array of Equinox is laid out here.

    Attributes:
      shape: its shape there: [O, I, ...] for a "kernel", [O] or [O, 1, ...] for a "bias".
      role: "kernel" or "bias" of a layer, or "" for arrays that stay as they are.
      channels: of the convolution before a linear layer, or 0.
    """

    shape: tuple[int, ...]
    role: str = ""
    channels: int = 0

    def here(self, array: jax.Array) -> jax.Array:
        """An array of Equinox in the layout of this package."""
        if self.role == "bias":
            return jnp.reshape(array, (-1,))
        if self.role != "kernel":
            return array
        kernel = jnp.moveaxis(array, (0, 1), (-1, -2))
        return self._regrouped(kernel, self.channels) if self._flattened else kernel

    def back(self, array: jax.Array) -> jax.Array:
        """The inverse of `here`."""
        if self.role == "bias":
            return jnp.reshape(array, self.shape)
        if self.role != "kernel":
            return array
        if self._flattened:
            array = self._regrouped(array, self.shape[1] // self.channels)
        return jnp.moveaxis(array, (-1, -2), (0, 1))

    @property
    def _flattened(self) -> bool:
        return bool(self.channels) and self.shape[1] % self.channels == 0

    @staticmethod
    def _regrouped(kernel: jax.Array, groups: int) -> jax.Array:
        """Rows [groups, n] of a matrix as [n, groups]."""
        parts = jnp.reshape(kernel, (groups, -1, kernel.shape[-1]))
        return jnp.reshape(jnp.swapaxes(parts, 0, 1), kernel.shape)


def _owner(module: Any, path: Any) -> Any:
    """The object that a leaf belongs to."""
    for key in path[:-1]:
        named = isinstance(key, jax.tree_util.GetAttrKey)
        module = getattr(module, key.name) if named else module[_key(key)]
    return module


def _key(key: Any) -> Any:
    for name in ("name", "idx", "key"):
        if hasattr(key, name):
            return getattr(key, name)
    raise ValueError(f"module must consist of modules, sequences and dicts, got the key {key}.")


def _over_samples(module: Any, x: jax.Array) -> jax.Array:
    return jax.vmap(module)(x)
