"""Tasks with a known sparse solution: how to sample, lose, evaluate, and which target they have.

Circle, ReLU and Helix are the paper's; the others are harder, and made by functions that take their
sizes, so that a further one is a line of the registry.

Source: Fischer and Burkholz, ICLR 2022, section 3.2, https://arxiv.org/abs/2111.11153
"""

from collections.abc import Callable, Sequence
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, losses, nets, targets
from plantjax.types import Batch, Key, Metrics, Params, Task

SAMPLES = 10_000
"""Samples of a data set; the last tenth is held out."""


def split(data: Batch) -> tuple[Batch, Batch]:
    """Splits a data set into training data and the last tenth, held out.

    Args:
      data: N >= 10 samples.

    Returns:
      (train, test).

    Raises:
      ValueError: if there are fewer than 10 samples.

    >>> import jax, plantjax as pj
    >>> train, test = pj.tasks.split(pj.TASKS["relu"].sample(jax.random.key(0), 100))
    >>> train.x.shape, test.x.shape
    ((90, 1), (10, 1))
    """
    n = data.x.shape[0]
    if n < 10:
        raise ValueError(f"data must hold at least 10 samples to be split, got {n}.")
    cut = n - n // 10
    return Batch(data.x[:cut], data.y[:cut]), Batch(data.x[cut:], data.y[cut:])


def sample_relu(key: Key, n: int, noise: chex.Numeric = 0.01) -> Batch:
    """Samples y = max(x, 0) + N(0, noise).

    Args:
      key: consumed.
      n: number of samples N.
      noise: standard deviation of the noise, in [0, 1]; may be traced.

    Returns:
      Batch of x [N, 1], uniform on [-1, 1], and y [N, 1].

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].
    """
    x, noise_key = _inputs(key, n, 1, noise)
    return Batch(x, jax.nn.relu(x) + noise * jax.random.normal(noise_key, x.shape))


def sample_circle(key: Key, n: int, noise: chex.Numeric = 0.01) -> Batch:
    """Samples ring labels of g = x1^2 + x2^2, some of them moved to their second-best class.

    Args:
      key: consumed.
      n: number of samples N.
      noise: probability that a label becomes its second-best class, in [0, 1]; may be traced.

    Returns:
      Batch of x [N, 2], uniform on [-1, 1], and labels y int32 [N] in [0, 4).

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].

    >>> import jax, plantjax as pj
    >>> x, y = pj.TASKS["circle"].sample(jax.random.key(0), 1_000, noise=0.0)
    >>> bool(((y == 0) == ((x**2).sum(axis=1) <= 0.2)).all())
    True
    """
    x, noise_key = _inputs(key, n, 2, noise)
    radius = jnp.sum(jnp.square(x), axis=1)  # [N]
    boundaries = jnp.asarray(targets.CIRCLE_BOUNDARIES, jnp.float32)
    label = jnp.sum(radius[:, None] > boundaries[None, :], axis=1, dtype=jnp.int32)
    slopes = jnp.asarray(targets.CIRCLE_SLOPES, jnp.float32)
    offsets = jnp.asarray(targets.circle_offsets(), jnp.float32)
    scores = radius[:, None] * slopes[None, :] + offsets[None, :]
    others = jnp.where(jax.nn.one_hot(label, 4, dtype=bool), -jnp.inf, scores)
    second = jnp.argmax(others, axis=1).astype(jnp.int32)
    return Batch(x, jnp.where(jax.random.bernoulli(noise_key, noise, (n,)), second, label))


def sample_helix(key: Key, n: int, noise: chex.Numeric = 0.01) -> Batch:
    """Samples the Helix curve plus N(0, noise) per output.

    Args:
      key: consumed.
      n: number of samples N.
      noise: standard deviation of the noise, in [0, 1]; may be traced.

    Returns:
      Batch of x [N, 1], uniform on [-1, 1], and y [N, 3].

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].
    """
    x, noise_key = _inputs(key, n, 1, noise)
    u = jnp.pi * (5.0 + 3.0 * x[:, 0])
    curve = jnp.stack([u * jnp.cos(u), u * jnp.sin(u), u], axis=1) / (8.0 * jnp.pi)
    return Batch(x, curve + noise * jax.random.normal(noise_key, curve.shape))


def sample_parity(
    key: Key, n: int, noise: chex.Numeric = 0.01, *, k: int = 2, d: int = 10
) -> Batch:
    """Samples whether an odd number of the first k of d inputs is negative.

    Args:
      key: consumed.
      n: number of samples N.
      noise: probability that a label is flipped, in [0, 1]; may be traced.
      k: number of inputs that count.
      d: number of inputs.

    Returns:
      Batch of x [N, d], uniform on [-1, 1], and labels y int32 [N], 0 or 1.

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].
    """
    x, noise_key = _inputs(key, n, d, noise)
    label = jnp.sum(x[:, :k] < 0, axis=1, dtype=jnp.int32) % 2
    flips = jax.random.bernoulli(noise_key, noise, (n,))
    return Batch(x, jnp.where(flips, 1 - label, label))


def sample_values(
    key: Key,
    n: int,
    noise: chex.Numeric = 0.01,
    *,
    truth: Callable[[jax.Array], jax.Array],
    n_in: int,
) -> Batch:
    """Samples y = truth(x) + N(0, noise) per output.

    Args:
      key: consumed.
      n: number of samples N.
      noise: standard deviation of the noise, in [0, 1]; may be traced.
      truth: `x [N, I] -> [N, O]`.
      n_in: number of inputs I.

    Returns:
      Batch of x [N, I], uniform on [-1, 1], and y [N, O].

    Raises:
      ValueError: if n is below 1 or noise outside [0, 1].
    """
    x, noise_key = _inputs(key, n, n_in, noise)
    values = truth(x)
    return Batch(x, values + noise * jax.random.normal(noise_key, values.shape))


def evaluate_classes(outputs: jax.Array, y: jax.Array) -> Metrics:
    """Accuracy of the argmax; NaN if an output is not finite.

    Args:
      outputs: float [N, O].
      y: int [N], labels in [0, O).

    Returns:
      {"accuracy": share of right predictions in [0, 1]}.

    Raises:
      ValueError: on wrong shapes or dtypes, or (concrete) labels out of range.

    >>> import jax.numpy as jnp
    >>> float(evaluate_classes(jnp.eye(4), jnp.array([0, 1, 2, 0]))["accuracy"])
    0.75
    """
    checks.outputs_and_labels(outputs, y)
    right = jnp.sum(jnp.argmax(outputs, axis=1) == y, dtype=jnp.int32)
    accuracy = right.astype(jnp.float32) / outputs.shape[0]
    return {"accuracy": jnp.where(jnp.isfinite(outputs).all(), accuracy, jnp.nan)}


def evaluate_values(outputs: jax.Array, y: jax.Array) -> Metrics:
    """Mean squared error, after the least-squares factor per output and without.

    Args:
      outputs: float [N, O].
      y: float [N, O].

    Returns:
      {"mse": after rescaling (see `losses.output_factors`), "mse_raw": as it is}.

    Raises:
      ValueError: on wrong shapes or dtypes.

    >>> import jax.numpy as jnp
    >>> y = jnp.array([[1.0], [3.0]])
    >>> {name: float(value) for name, value in evaluate_values(0.5 * y, y).items()}
    {'mse': 0.0, 'mse_raw': 1.25}
    """
    factors = losses.output_factors(outputs, y)
    return {
        "mse": losses.mean_squared_error(outputs * factors[None, :], y),
        "mse_raw": losses.mean_squared_error(outputs, y),
    }


def _inputs(key: Key, n: int, width: int, noise: chex.Numeric) -> tuple[jax.Array, Key]:
    checks.integer("n", n, 1)
    checks.interval("noise", noise, 0.0, 1.0)
    input_key, noise_key = jax.random.split(key)
    return jax.random.uniform(input_key, (n, width), minval=-1.0, maxval=1.0), noise_key


def parity(name: str = "parity", k: int = 2, d: int = 10) -> Task:
    """The parity of the signs of the first k of d inputs; depths from 2 + ceil(log2 k) on.

    >>> import plantjax as pj
    >>> pj.TASKS["parity3"] = pj.tasks.parity("parity3", k=3, d=20)  # known to sweeps and scripts
    >>> pj.TASKS.pop("parity3").n_in
    20
    """
    return Task(
        name=name,
        n_in=d,
        n_out=2,
        metric="accuracy",
        target=partial(targets.parity, k=k, d=d),
        sample=partial(sample_parity, k=k, d=d),
        loss=losses.cross_entropy,
        evaluate=evaluate_classes,
    )


def product(name: str = "product", knots: int = 10) -> Task:
    """The product of two inputs; its target interpolates two squares at so many knots."""
    target = partial(targets.product, knots=knots)
    return regression(name, 2, 1, target, lambda x: x[:, :1] * x[:, 1:])


def piecewise(name: str = "piecewise", knots: int = 10, seed: int = 0) -> Task:
    """A random piecewise-linear function of one input, see `targets.piecewise`."""

    def truth(x: jax.Array) -> jax.Array:
        values = jnp.asarray(targets.random_function(knots, seed), jnp.float32)
        return jnp.interp(x, jnp.asarray(np.linspace(-1.0, 1.0, knots), jnp.float32), values)

    return regression(name, 1, 1, partial(targets.piecewise, knots=knots, seed=seed), truth)


def teacher(
    name: str = "teacher", widths: Sequence[int] = (5, 10, 2), density: float = 0.4, seed: int = 0
) -> Task:
    """What a random sparse teacher computes, see `targets.teacher`; depths from len(widths) on."""
    target = partial(targets.teacher, widths=tuple(widths), density=density, seed=seed)
    shallow = partial(target, len(widths))
    return regression(name, widths[0], widths[-1], target, lambda x: nets.apply(shallow(), x))


def regression(
    name: str,
    n_in: int,
    n_out: int,
    target: Callable[[int], Params],
    truth: Callable[[jax.Array], jax.Array],
) -> Task:
    """A task of values with noise.

    Args:
      name: its name in the registry.
      n_in: number of inputs I.
      n_out: number of outputs O.
      target: `(depth) -> Params`.
      truth: `x [N, I] -> [N, O]`, what the target computes, or nearly so.

    Returns:
      The Task.
    """
    return Task(
        name=name,
        n_in=n_in,
        n_out=n_out,
        metric="mse",
        target=target,
        sample=partial(sample_values, truth=truth, n_in=n_in),
        loss=losses.mean_squared_error,
        evaluate=evaluate_values,
    )


TASKS = {
    "circle": Task(
        name="circle",
        n_in=2,
        n_out=4,
        metric="accuracy",
        target=targets.circle,
        sample=sample_circle,
        loss=losses.cross_entropy,
        evaluate=evaluate_classes,
    ),
    "relu": Task(
        name="relu",
        n_in=1,
        n_out=1,
        metric="mse",
        target=targets.relu,
        sample=sample_relu,
        loss=losses.mean_squared_error,
        evaluate=evaluate_values,
    ),
    "helix": Task(
        name="helix",
        n_in=1,
        n_out=3,
        metric="mse",
        target=targets.helix,
        sample=sample_helix,
        loss=losses.mean_squared_error,
        evaluate=evaluate_values,
    ),
    "xor": parity("xor", k=2, d=10),
    "product": product(),
    "piecewise": piecewise(),
    "teacher": teacher(),
}
"""The registry of tasks: a new one takes its functions and one entry here."""

PAPER_TASKS = ("circle", "relu", "helix")
"""The tasks of the paper."""
