"""Arrays of PyTorch as parameters, and back.

PyTorch need not be installed: a state dict is a mapping from names to tensors, or to arrays.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, masks
from plantjax.interchange import roles
from plantjax.interchange.roles import State
from plantjax.types import Mask, Params


def from_torch(
    state: State,
    like: Params,
    names: Mapping[str, str] | None = None,
    *,
    flattened: Collection[str] | None = None,
) -> Params:
    """Turns a PyTorch state dict into parameters of the same network here.

    Arrays are matched by role: `weight` fills a `kernel`, `scale` or `embedding`, `bias` a `bias`,
    running statistics fill `mean` and `var`. Modules are matched to layers by their paths if these
    agree, and otherwise by order, that of the state dict against the natural order of the layers'
    paths; modules and layers of one kind (the same roles and shapes) are then counted off.

    Weights of linear layers [O, I] become kernels [I, O], those of convolutions [O, I, kh, kw]
    become [kh, kw, I, O]. The inputs of a linear layer behind a flattened image [C, H, W] are
    reordered to [H, W, C]. Weights pruned by `torch.nn.utils.prune` (`weight_orig` and
    `weight_mask`) come in masked, and bfloat16 as float32. Tied weights, which a state dict has
    under several names, may be one leaf.

    Args:
      state: name to tensor or array, as `module.state_dict()` returns it, or such pairs, as
        `module.named_parameters()` does.
      like: pytree of arrays, the parameters to be replaced; with "batch_stats" beside "params",
        running statistics are taken over, and otherwise left out.
      names: the layer's path by the name of the module, where the order does not tell; all modules
        or some of them.
      flattened: the linear modules that read a flattened image; by default the first one behind a
        convolution, if its inputs are a multiple of the convolution's channels.

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
    modules = roles.modules_of(state)
    leaves, structure = jax.tree.flatten(like)
    for place in roles.places(modules, like, names or {}, flattened):
        array = modules[place.module][place.role]
        value = roles.converted(array, place.name, place.channels)
        leaves[place.leaf] = jnp.asarray(value.astype(leaves[place.leaf].dtype))
    return jax.tree.unflatten(structure, leaves)


def to_torch(
    params: Params,
    mask: Mask | None,
    like: State,
    names: Mapping[str, str] | None = None,
    *,
    flattened: Collection[str] | None = None,
    split: bool = False,
) -> dict[str, Any]:
    """Turns parameters into a PyTorch state dict, the inverse of `from_torch`.

    Arrays go where `from_torch` would take them from, in the layout of PyTorch. For a module that
    `torch.nn.utils.prune` has pruned, `weight_orig` are the parameters as they are and
    `weight_mask` is the mask; everywhere else, pruned entries are zero.

    Args:
      params: pytree of (concrete) arrays; with "batch_stats" beside "params", running statistics
        are filled as well.
      mask: a mask with the structure of the params, or None to keep everything.
      like: the state dict of the PyTorch module, `module.state_dict()`, or arrays of its shapes.
      names: as in `from_torch`.
      flattened: as in `from_torch`.
      split: return `weight_orig` and `weight_mask` instead of `weight` (and so for biases) wherever
        an entry is pruned, for modules that will be pruned by `torch.nn.utils.prune.identity`.

    Returns:
      A dict of the names of `like`: tensors where it has tensors, else arrays. What params do not
      have, such as running statistics or the number of batches, is that of `like`.

    Raises:
      ValueError: as `from_torch`, or if the mask does not match.

    >>> import jax, numpy as np, plantjax as pj
    >>> params = pj.nets.init(jax.random.key(0), (2, 4))
    >>> like = {"0.weight": np.zeros((4, 2)), "0.bias": np.zeros(4)}  # of torch.nn.Linear(2, 4)
    >>> state = pj.interchange.to_torch(params, None, like)
    >>> state["0.weight"].shape, bool((state["0.weight"] == params["layer_00"]["kernel"].T).all())
    ((4, 2), True)
    """
    mask = masks.full(params) if mask is None else mask
    checks.mask("mask", mask, "params", params)
    given = dict(like.items() if isinstance(like, Mapping) else like)
    values, kept = ([np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (params, mask))
    filled: dict[str, np.ndarray] = {}
    for place in roles.places(roles.modules_of(given), params, names or {}, flattened):
        name = ".".join(part for part in (place.module, place.role) if part)
        value, keep = (
            roles.restored(leaves[place.leaf], place.name, place.channels)
            for leaves in (values, kept)
        )
        if f"{name}_orig" in given or (split and not keep.all()):
            filled |= {f"{name}_orig": value, f"{name}_mask": keep.astype(value.dtype)}
        else:
            filled[name] = np.where(keep, value, np.zeros_like(value))
    state = {}
    for name, template in given.items():
        for part in (name, f"{name}_orig", f"{name}_mask"):
            if part in filled:
                state[part] = _as(filled[part], template)
        if name not in filled and f"{name}_orig" not in filled:
            state[name] = template
    return state


def _as(array: np.ndarray, template: Any) -> Any:
    """An array as what the template is, a tensor or an array."""
    if array.dtype.isbuiltin != 1:  # bfloat16
        array = array.astype(np.float32)
    if hasattr(template, "new_tensor"):
        return template.new_tensor(array)
    return array.astype(np.asarray(template).dtype)
