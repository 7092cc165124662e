"""Networks: Flax modules as pure functions of their parameters, with wiring and batch norm.

A module with layers `layer_00`, ... and batch norms `norm_00`, ... becomes a pure function that
planting and finders take. Training normalises with the statistics of the batch and keeps no running
averages; statistics for inference are computed when they are needed.

Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from plantjax import checks, draws
from plantjax.nets import schemes
from plantjax.nets.wirings import INPUT, Wiring
from plantjax.types import Apply, Key, Params

BLOCK = 1000
"""Most images that are normalised together when statistics are taken for evaluation."""
EPSILON = 1e-5
"""Added to the variances of batch norm."""


@dataclass(frozen=True)
class Network:
    """A network as a function: `network(params, x [N, H, W, C]) -> outputs [N, O]`.

    Batch norm uses the statistics of x, as in training; `inference` returns the network with given
    statistics.

    Attributes:
      module: a Flax module called as `(x, frozen)`, with an attribute `batch_norm` (whether it has
        batch norms) and a method `wiring()`. Frozen batch norms use given statistics.
    """

    module: Any

    def __call__(self, params: Params, x: jax.Array) -> jax.Array:
        """Runs the network."""
        if not self.module.batch_norm:
            return self._run({"params": params}, x)
        return self._with_statistics(params, x)[0]

    @property
    def wiring(self) -> Wiring:
        """How the layers connect."""
        wiring: Wiring = self.module.wiring()
        return wiring

    def prunable(self, path: str) -> bool:
        """Whether a leaf is prunable: kernels and biases of layers are, batch norms are not."""
        return path.startswith("layer_")

    def fitted(self, params: Params) -> "Network":
        """The same network with the channel numbers of params, as after `pj.compact`; for VGG.

        Raises:
          ValueError: if the module cannot be resized.
        """
        if not hasattr(self.module, "fitted"):
            kind = type(self.module).__name__
            raise ValueError(f"module must be resizable, as VGG is, in fitted, got {kind}.")
        return Network(self.module.fitted(params))

    def flow(self, params: Params, x: jax.Array) -> jax.Array:
        """Runs the network with batch norm statistics of mean 0 and variance 1, for SynFlow."""
        return self.inference(_fresh(params))(params, x)

    def inference(self, statistics: Params) -> Apply:
        """The network with given batch norm statistics, as returned by `statistics`."""
        others = {"batch_stats": statistics} if self.module.batch_norm else {}
        return lambda params, x: self._run({"params": params, **others}, x, frozen=True)

    def frozen(self, params: Params, x: jax.Array | None) -> Apply:
        """The network with the batch norm statistics of these inputs [N, H, W, C], for evaluation.

        Raises:
          ValueError: if there are batch norms but no inputs.
        """
        if not self.module.batch_norm:
            return self
        if x is None:
            raise ValueError(
                "train must be given for networks with batch norm: evaluation uses its statistics."
            )
        return self.inference(self.statistics(params, x, min(BLOCK, x.shape[0])))

    def statistics(self, params: Params, x: jax.Array, batch_size: int) -> Params:
        """Means and variances of the inputs of the batch norms, averaged over batches.

        Args:
          params: parameters of a network with batch norms.
          x: images [N, H, W, C]; the last partial batch is dropped.
          batch_size: 1 to N.

        Returns:
          {"norm_00": {"mean": [O], "var": [O]}, ...}.

        Raises:
          ValueError: if batch_size is out of range.
        """
        checks.integer("batch_size", batch_size, 1, x.shape[0])
        count = x.shape[0] // batch_size
        batches = x[: count * batch_size].reshape(count, batch_size, *x.shape[1:])
        seen = jax.lax.map(lambda batch: self._with_statistics(params, batch)[1], batches)
        return jax.tree.map(lambda values: jnp.mean(values, axis=0), seen)

    def init(
        self, key: Key, image: Sequence[int], scheme: str = "he", bias_scale: float = 1.0
    ) -> Params:
        """Draws parameters like `chains.init`, with fan-in kh kw I.

        Args:
          key: consumed.
          image: shape (H, W, C) of the inputs.
          scheme: as in `chains.init`. For the biases of a layer, the product runs over the shortest
            path from the input to it.
          bias_scale: factor of all biases; the paper uses 0.06 for VGG16.

        Returns:
          Params, float32; batch norms have scale 1 and bias 0.

        Raises:
          ValueError: if image is not three positive sizes, or the scheme is unknown.
        """
        checks.choice("scheme", scheme, schemes.SCHEMES)
        if len(image) != 3:
            raise ValueError(f"image must be (H, W, C), got {tuple(image)}.")
        for side in image:
            checks.integer("image", side, 1)
        x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), x)["params"]
        sizes = _sizes(shapes, self.wiring, scheme)
        flat = [shapes[name][leaf].shape for name in sizes for leaf in ("kernel", "bias")]
        drawn = iter(draws.arrays(key, flat, uniform=scheme == "uniform"))
        params, names = {}, list(sizes)
        for name, bias_size in sizes.items():
            first, last = name == names[0], name == names[-1]
            params[name] = {
                "kernel": schemes.kernel(next(drawn), scheme, first, last),
                "bias": schemes.bias(next(drawn), scheme, bias_scale * bias_size, last),
            }
        for name in sorted(set(shapes) - set(sizes)):
            shape = shapes[name]["scale"].shape
            params[name] = {
                "scale": jnp.ones(shape, jnp.float32),
                "bias": jnp.zeros(shape, jnp.float32),
            }
        return params

    def _with_statistics(self, params: Params, x: jax.Array) -> tuple[jax.Array, Params]:
        variables = {"params": params, "batch_stats": _fresh(params)}
        outputs, seen = self._run(variables, x, mutable=["batch_stats"])
        return outputs, seen["batch_stats"]

    def _run(self, variables: Params, x: jax.Array, **options: Any) -> Any:
        return self.module.apply(variables, x, **options)


def fold(params: Params, statistics: Params) -> Params:
    """Folds batch norms into the layers before them.

    The kernel becomes kernel g / sqrt(v + eps), the bias beta + (b - mean) g / sqrt(v + eps), for
    any sign of g. Mask the params first, because zeros stay zero in a kernel but not in a bias.

    Args:
      params: parameters of a network with batch norms.
      statistics: as returned by `Network.statistics`.

    Returns:
      Params of the same network without batch norm, with the outputs of `inference`.

    Raises:
      ValueError: if the statistics of a batch norm are missing.

    >>> import jax.numpy as jnp
    >>> layer = {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}
    >>> params = {"layer_00": layer, "norm_00": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
    >>> folded = fold(params, {"norm_00": {"mean": jnp.ones(2), "var": jnp.ones(2)}})
    >>> list(folded), folded["layer_00"]["bias"].tolist()
    (['layer_00'], [1.0, 1.0])
    """
    folded = {}
    for name in (name for name in params if name.startswith("layer_")):
        layer, norm = params[name], name.replace("layer", "norm")
        if norm in params:
            if norm not in statistics:
                raise ValueError(f"statistics must hold {norm}, got {sorted(statistics)}.")
            seen = statistics[norm]
            gain = params[norm]["scale"] / jnp.sqrt(seen["var"] + EPSILON)
            bias = params[norm]["bias"] + (layer["bias"] - seen["mean"]) * gain
            layer = {"kernel": layer["kernel"] * gain[None, None, None, :], "bias": bias}
        folded[name] = dict(layer)
    return folded


def _fresh(params: Params) -> Params:
    """Statistics with mean 0 and variance 1 for all batch norms."""
    scales = {name: part["scale"] for name, part in params.items() if name.startswith("norm_")}
    return {
        name: {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}
        for name, scale in scales.items()
    }


def _sizes(shapes: Any, wiring: Wiring, scheme: str) -> dict[str, float]:
    """The standard deviation (or bound) of the bias of each layer, in network order."""
    sizes, reached = {}, {INPUT: 1.0}
    for layer in wiring.layers:
        *window, _ = shapes[layer.name]["kernel"].shape
        bias = reached[layer.reads] * schemes.kernel_size(window, scheme)
        sizes[layer.name] = bias
        carried = wiring.carried(layer.writes)
        others = reached.get(layer.writes, 0.0)
        reached[layer.writes] = reached[carried] if carried else max(bias, others)
    return sizes
