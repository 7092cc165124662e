"""Chains: dense ReLU networks, their initialisation, and the naming that orders their layers.

A chain is a tree of layers in natural order of their names, layer_2 before layer_10; each layer is
a mapping of `kernel` [I, O] and `bias` [O]: a dict, a FrozenDict or the state of a Flax NNX module,
at any depth. Rescaling needs a chain, and planting and live paths take
one by default; everything else in plantjax takes any pytree of arrays.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp

from plantjax import checks, draws
from plantjax.nets import schemes, wirings
from plantjax.types import Key, Mask, Params


class MLP(nn.Module):
    """A dense ReLU network as a Flax module; `widths` (I, ..., O) include the input.

    `MLP(widths).apply({"params": params}, x)` equals `apply(params, x)`.

    >>> import plantjax as pj
    >>> params, x = pj.targets.circle(depth=3), jnp.zeros((5, 2))
    >>> pj.nets.MLP(pj.nets.widths(params)).apply({"params": params}, x).shape
    (5, 4)
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, I] to outputs [N, O]."""
        for index, width in enumerate(self.widths[1:]):
            x = nn.relu(x) if index else x
            x = nn.Dense(width, precision="highest", name=layer_name(index))(x)
        return x


def layer_name(index: int) -> str:
    """The name of the layer at `index`, zero-padded so that sorted order is network order.

    >>> layer_name(3)
    'layer_03'
    """
    return f"layer_{index:02d}"


def ordered(params: Params) -> list[str]:
    """The layers' names in natural order, which is the order of the network.

    >>> ordered({"Dense_10": None, "Dense_2": None})
    ['Dense_2', 'Dense_10']
    """
    return sorted(params, key=checks.natural)


def layers(params: Params) -> list[dict[str, jax.Array]]:
    """The layers of a chain in network order.

    Args:
      params: a tree of layers, each with `kernel` [I, O] and `bias` [O].

    Returns:
      One dict of arrays per layer.

    Raises:
      ValueError: if params is not a chain of dense layers.

    >>> import plantjax as pj
    >>> [layer["bias"].shape for layer in pj.nets.layers(pj.targets.circle(depth=3))]
    [(20,), (4,)]
    """
    if not is_chain(params):
        raise ValueError(
            "params must be a chain of dense layers, {'layer_00': {'kernel': [I, O], 'bias': [O]}, "
            f"...}}, got {checks.shapes(params)}."
        )
    found = _by_layer(params)
    return [found[name] for name in ordered(found)]


def with_layers(params: Params, layers: Sequence[Mapping[str, jax.Array]]) -> Params:
    """A chain like params with the arrays of other layers, in network order.

    >>> import plantjax as pj
    >>> params = pj.targets.circle(depth=3)
    >>> list(with_layers(params, pj.nets.layers(params)))
    ['layer_00', 'layer_01']
    """
    found = {
        f"{name}/{leaf}": layer[leaf]
        for name, layer in zip(ordered(_by_layer(params)), layers, strict=True)
        for leaf in layer
    }
    return wirings.replace(params, found)


def is_chain(params: Params) -> bool:
    """True if params is a chain of dense layers with matching widths.

    >>> import plantjax as pj
    >>> is_chain(pj.targets.circle(depth=3)), is_chain([1.0])
    (True, False)
    """
    found = _by_layer(params)
    if not found or "" in found:
        return False
    width = None
    for name in ordered(found):
        layer = found[name]
        if set(layer) != {"kernel", "bias"}:
            return False
        kernel, bias = jnp.shape(layer["kernel"]), jnp.shape(layer["bias"])
        if len(kernel) != 2 or bias != kernel[1:] or width not in (None, kernel[0]):
            return False
        width = kernel[1]
    return True


def _by_layer(params: Params) -> dict[str, dict[str, jax.Array]]:
    """The arrays by the path of their layer and their name; those in no mapping under ""."""
    found: dict[str, dict[str, jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        layer, _, name = checks.path_name(path).rpartition("/")
        listed = any(isinstance(key, jax.tree_util.SequenceKey) for key in path)
        found.setdefault("" if listed or checks.depth(path) < 2 else layer, {})[name] = leaf
    return found


def widths(params: Params) -> tuple[int, ...]:
    """The widths (I, ..., O) of a chain; raises ValueError if params is not one.

    >>> import plantjax as pj
    >>> pj.nets.widths(pj.targets.circle(depth=5))
    (2, 4, 2, 20, 4)
    """
    chain = layers(params)
    return (chain[0]["kernel"].shape[0], *(layer["kernel"].shape[1] for layer in chain))


def apply(params: Params, x: jax.Array) -> jax.Array:
    """Runs a chain of dense layers with ReLU between them.

    Matrix products use full float32 on every device (no TF32 or bfloat16), so that planted tickets
    are exact.

    Args:
      params: a chain of L layers.
      x: float [N, I].

    Returns:
      Outputs [N, O].

    Raises:
      ValueError: if params is not a chain or x does not fit its first layer.

    >>> import jax, plantjax
    >>> params = plantjax.nets.init(jax.random.key(0), (2, 100, 4))
    >>> plantjax.nets.apply(params, jax.numpy.zeros((5, 2))).shape
    (5, 4)
    """
    chain = layers(params)
    n_in = chain[0]["kernel"].shape[0]
    if jnp.ndim(x) != 2 or x.shape[1] != n_in:
        raise ValueError(f"x must be [N, {n_in}] to fit the first layer, got {jnp.shape(x)}.")
    for index, layer in enumerate(chain):
        x = jax.nn.relu(x) if index else x
        x = jnp.matmul(x, layer["kernel"], precision="highest") + layer["bias"][None, :]
    return x


def init(key: Key, widths: Sequence[int], scheme: str = "he") -> Params:
    """Draws a mother network.

    Args:
      key: consumed.
      widths: (I, ..., O), at least two, each at least 1.
      scheme: "he": weights N(0, 2 / fan_in) and biases N(0, prod of 2 / fan_in over the layers so
        far), the paper's non-zero biases. "he_zero_bias": the same with zero biases. "uniform":
        weights U[-s, s] with s = sqrt(6 / fan_in), biases U[-prod s, prod s] (Theorem 2).
        "orthogonal" and "looks_linear": orthogonal kernels, and opposite units, of the sizes of
        "he"; see `schemes.kernel`.

    Returns:
      Params of len(widths) - 1 layers, float32.

    Raises:
      ValueError: if a width is below 1, there are fewer than two, or the scheme is unknown.

    Source: paper, section 3.1, https://arxiv.org/abs/2111.11153

    >>> import jax, plantjax as pj
    >>> mother = pj.nets.init(jax.random.key(0), (2, 100, 100, 4))
    >>> list(mother), mother["layer_01"]["kernel"].shape
    (['layer_00', 'layer_01', 'layer_02'], (100, 100))
    """
    checks.choice("scheme", scheme, schemes.SCHEMES)
    if len(widths) < 2:
        raise ValueError(f"widths must name input and output at least, got {tuple(widths)}.")
    for width in widths:
        checks.integer("widths", width, 1)
    shapes = [shape for n_in, n_out in pairwise(widths) for shape in ((n_in, n_out), (n_out,))]
    drawn = iter(draws.arrays(key, shapes, uniform=scheme == "uniform"))
    params, bias_size = {}, 1.0
    for index, n_in in enumerate(widths[:-1]):
        bias_size *= schemes.kernel_size((n_in,), scheme)
        last = index == len(widths) - 2
        params[layer_name(index)] = {
            "kernel": schemes.kernel(next(drawn), scheme, index == 0, last),
            "bias": schemes.bias(next(drawn), scheme, bias_size, last),
        }
    return params


def rescale(params: Params, factors: Sequence[jax.Array]) -> Params:
    """Multiplies the kernel of layer l by c_l and its bias by c_1 ... c_l.

    ReLU is positively homogeneous, so all outputs are multiplied by c_1 ... c_L.

    Args:
      params: a chain of L layers.
      factors: L positive scalars c_l.

    Returns:
      Params of the same structure.

    Raises:
      ValueError: if params is not a chain or the number of factors is not L.

    >>> import plantjax as pj
    >>> params, x = pj.targets.relu(depth=3), jnp.ones((1, 1))
    >>> pj.nets.apply(pj.nets.rescale(params, [2.0, 4.0]), x).item()
    8.0
    """
    chain = layers(params)
    if len(factors) != len(chain):
        raise ValueError(f"factors must be {len(chain)}, one per layer, got {len(factors)}.")
    scaled, product = [], jnp.float32(1.0)
    for layer, factor in zip(chain, factors, strict=True):
        product = product * factor
        bias = layer["bias"]
        bias = jnp.where(bias == 0, bias, bias * product)  # the product may be infinite
        scaled.append({"kernel": layer["kernel"] * factor, "bias": bias})
    return with_layers(params, scaled)


def rescale_to_he(params: Params, mask: Mask) -> Params:
    """Brings the kept weights of every layer to He scale for their kept fan-in (`rescale`).

    A sparse ticket's outputs are tiny, and training at ordinary learning rates destroys it. Layer l
    is multiplied by sqrt(2 / f_l) / r_l, where r_l is the root mean square of its kept weights and
    f_l their mean number per unit, over the units that have any. Layers without kept weights stay
    as they are. The masked network's outputs change by one positive factor.

    Args:
      params: a chain of L layers.
      mask: a mask with the structure of the params.

    Returns:
      Params of the same structure; pruned entries are scaled like the others.

    Raises:
      ValueError: if params is not a chain or the mask does not match.

    >>> tiny = {"layer_00": {"kernel": jnp.full((50, 4), 1e-4), "bias": jnp.zeros(4)}}
    >>> mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), tiny)
    >>> round(float(rescale_to_he(tiny, mask)["layer_00"]["kernel"][0, 0]), 3)  # sqrt(2 / 50)
    0.2
    """
    checks.mask("mask", mask, "params", params)
    factors = []
    for layer, kept in zip(layers(params), layers(mask), strict=True):
        weights = jnp.where(kept["kernel"], layer["kernel"], 0.0)
        peak = jnp.max(jnp.abs(weights))  # squares of tiny weights would underflow
        unit = weights / checks.divisor(peak)
        units = jnp.sum(jnp.any(kept["kernel"], axis=0), dtype=jnp.int32).astype(jnp.float32)
        total = jnp.sum(jnp.square(unit))  # f_l r_l^2 = (sum of squares) / (units with weights)
        factors.append(
            jnp.where(total > 0, jnp.sqrt(2.0 * units / checks.divisor(total)), 1.0)
            / checks.divisor(peak)
        )
    return rescale(params, factors)
