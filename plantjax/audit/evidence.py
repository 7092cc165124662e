"""Evidence of all detectors together, against the same mother with its entries in random order.

Permuting the entries of an array keeps their values and destroys how they belong together. So for
every score we know how often it is reached by chance, whatever the initialisation, and need neither
data nor thresholds. What depends on single values alone, such as magnitude or duplicates, is the
same after a permutation and gives no evidence.
"""

import jax
import jax.numpy as jnp

from plantjax import checks, draws
from plantjax.audit.detectors import UNIT_SCORES
from plantjax.audit.layers import by_layer
from plantjax.audit.progressions import longest
from plantjax.types import Key, Params

DEVIATIONS = 2.0
"""Standard deviations that are subtracted from a logarithm of two counts."""


def evidence(key: Key, params: Params) -> Params:
    """The sum over detectors of how much more often a score is reached than by chance.

    Let O rows (columns, or entries, whatever a detector looks at) of an array score at least as
    high as this one, and N after its entries are permuted. The evidence is
    log((O + 1) / (N + 1)) minus two of its standard deviations, if that is positive. An entry has
    its own evidence and the larger one of its row and column.

    Args:
      key: consumed.
      params: any pytree of float arrays.

    Returns:
      A tree like params, float32, at least 0.

    Raises:
      ValueError: if a parameter is not a finite float.

    >>> import jax, plantjax as pj
    >>> kernel = jax.random.normal(jax.random.key(0), (40, 8)).at[:12].set(0.5)
    >>> found = jax.jit(pj.audit.evidence)(jax.random.key(1), {"kernel": kernel})["kernel"]
    >>> bool((found[:12] > 1.0).all())
    True
    """
    checks.finite("params", params)
    keys = iter(jax.random.split(key, 1 + len(jax.tree.leaves(params))))

    def layer(kernel: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        if not kernel.size:
            return kernel, None if bias is None else jnp.zeros_like(bias)
        known = jnp.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias
        pair = (kernel, known)
        both = jax.tree.map(lambda *two: jnp.stack(two), pair, draws.permuted(next(keys), pair))
        of_kernel, of_bias = _of_layer(*both)
        return of_kernel, None if bias is None else of_bias

    return by_layer(params, layer)


def _of_layer(kernels: jax.Array, biases: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Evidence [R, O] and [O] in the first of two layers, against the second, permuted one."""
    rows = _surplus(jnp.stack([jax.vmap(score)(kernels) for score in UNIT_SCORES]))
    turned = jnp.swapaxes(kernels, 1, 2)
    columns = _surplus(jnp.stack([jax.vmap(score)(turned) for score in UNIT_SCORES]))
    weights, of_bias = jax.vmap(longest)(kernels, biases)
    own = _surplus(weights.reshape(1, 2, -1))[0].reshape(weights.shape[1:])
    of_units = jnp.sum(jnp.maximum(rows[:, :, None], columns[:, None, :]), axis=0)
    return own + of_units, _surplus(of_bias[None])[0] + jnp.sum(columns, axis=0)


def _surplus(scores: jax.Array) -> jax.Array:
    """log((O + 1) / (N + 1)) minus its standard deviations, at least 0.

    Args:
      scores: [D, 2, M], of D detectors in the network and in the permuted one.

    Returns:
      [D, M], for each score in the network.
    """
    real = scores[:, 0]
    order = jnp.sort(scores, axis=2)
    find = jax.vmap(jax.vmap(jnp.searchsorted, (0, None)))
    counts = (scores.shape[2] + 1 - find(order, real)).astype(jnp.float32)  # [D, 2, M]
    observed, expected = counts[:, 0], counts[:, 1]
    spread = jnp.sqrt(1.0 / observed + 1.0 / expected)
    return jnp.maximum(jnp.log(observed / expected) - DEVIATIONS * spread, 0.0)
