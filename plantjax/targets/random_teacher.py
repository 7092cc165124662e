"""Random sparse teachers whose parameters are distributed as the mother's, so that none stands out.

In mothers of scheme "he" weights have the standard deviation s_l and biases s_1 ... s_l. If all
activations of a layer are scaled by a factor, weights and biases of the next ones follow, so a
teacher with s_l = 1 everywhere has the law of mothers of every width. Planting by the rule "norm"
then replaces the parameters of a neuron by a random direction of the same norm, which is what they
were before.
"""

from functools import partial

import jax
import jax.numpy as jnp

from plantjax import checks
from plantjax.targets.harder import TEACHER_SPREAD
from plantjax.types import Key, Params

_PROBES = 256  # random inputs on which activity is measured
_TRIES = 16  # draws of a unit
_ACTIVE = 0.1  # the least share of inputs on which a unit is active, and on which it is not


@partial(jax.jit, static_argnames=("depth", "n_in", "width", "n_out", "edges"))
def random_teacher(
    key: Key, depth: int, n_in: int = 5, width: int = 8, n_out: int = 2, edges: int = 4
) -> Params:
    """A random sparse network with weights and biases N(0, 1), of widths (n_in, width, ..., n_out).

    Every neuron has `edges` incoming weights and a bias, and every neuron but the outputs at least
    one outgoing weight. A hidden neuron is drawn again (up to 16 times) until it is active on 10 to
    90% of random inputs. The outputs are scaled to a standard deviation of a third.

    Args:
      key: consumed.
      depth: layers of neurons, the input included, at least 3.
      n_in: number of inputs.
      width: neurons of every hidden layer.
      n_out: number of outputs.
      edges: incoming weights of a neuron, or all where there are fewer. Two layers that follow each
        other need enough of them: edges * (neurons that read) >= (neurons that are read).

    Returns:
      Params of depth - 1 layers.

    Raises:
      ValueError: if a number is too small.

    >>> import jax, plantjax as pj
    >>> draw = lambda key: pj.targets.random_teacher(key, depth=5)
    >>> pj.nets.widths(jax.eval_shape(draw, jax.random.key(0)))
    (5, 8, 8, 8, 2)
    """
    for name, value, least in (("depth", depth, 3), ("n_in", n_in, 1), ("width", width, 1)):
        checks.integer(name, value, least)
    checks.integer("n_out", n_out, 1)
    checks.integer("edges", edges, -(-max(n_in, width) // min(width, n_out)))
    probe_key, key = jax.random.split(key)
    values = jax.random.uniform(
        probe_key, (_PROBES, n_in), minval=-1.0, maxval=1.0, dtype=jnp.float32
    )
    sizes = (n_in, *[width] * (depth - 2), n_out)
    layers = {}
    for index in range(depth - 1):
        edge_key, draw_key = jax.random.split(jax.random.fold_in(key, index))
        kept = _edges(edge_key, sizes[index], sizes[index + 1], edges)
        last = index == depth - 2
        spread = (1.0 + 2.0 / (min(edges, sizes[index]) - 1)) ** (index / 2) if edges > 1 else 1.0
        kernel, bias = _drawn(draw_key, kept, values, spread, 1 if last else _TRIES)
        values = _sums(values, kernel, bias)
        if last:
            scale = TEACHER_SPREAD / checks.divisor(jnp.std(values, axis=0))
            kernel, bias = kernel * scale[None, :], bias * scale
        values = jax.nn.relu(values)
        layers[f"layer_{index:02d}"] = {"kernel": kernel, "bias": bias}
    return layers


def _edges(key: Key, n_in: int, n_out: int, edges: int) -> jax.Array:
    """Random edges, bool [n_in, n_out]: `edges` in every column, at least one in every row.

    Rows in random order are dealt to the columns in turn, which covers all of them; the remaining
    places of a column go to random other rows.
    """
    order_key, rest_key = jax.random.split(key)
    dealt = jnp.arange(n_in, dtype=jnp.int32) % n_out
    first = jax.nn.one_hot(jax.random.permutation(order_key, dealt), n_out)
    chance = first + jax.random.uniform(rest_key, (n_in, n_out), maxval=0.5, dtype=jnp.float32)
    rank = jnp.argsort(jnp.argsort(-chance, axis=0), axis=0)
    return rank < min(edges, n_in)


def _drawn(
    key: Key, kept: jax.Array, values: jax.Array, spread: float, tries: int
) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias N(0, 1) of a layer, for each unit the first draw with a kink in use."""
    weight_key, bias_key = jax.random.split(key)
    kernels = jnp.where(
        kept[None], jax.random.normal(weight_key, (tries, *kept.shape), dtype=jnp.float32), 0.0
    )
    biases = spread * jax.random.normal(bias_key, (tries, kept.shape[1]), dtype=jnp.float32)
    active = jnp.mean(jax.vmap(_sums, (None, 0, 0))(values, kernels, biases) > 0, axis=1)
    fits = (active >= _ACTIVE) & (active <= 1.0 - _ACTIVE)  # [tries, O]
    chosen, unit = jnp.argmax(fits, axis=0), jnp.arange(kept.shape[1], dtype=jnp.int32)
    return kernels[chosen, :, unit].T, biases[chosen, unit]


def _sums(values: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.matmul(values, kernel, precision="highest") + bias[None, :]
