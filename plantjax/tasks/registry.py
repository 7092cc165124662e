"""Tasks with a known sparse solution: samples, loss, evaluation, and the target that solves them.

Circle, ReLU and Helix are the paper's; the others are harder, and made by functions that take their
sizes, so that a further one is a line of the registry.

Source: Fischer and Burkholz, ICLR 2022, section 3.2, https://arxiv.org/abs/2111.11153
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, losses, nets, targets
from plantjax.tasks import samples
from plantjax.types import Batch, Metrics, Params, Task

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
    >>> {name: round(float(value), 6) for name, value in evaluate_values(0.5 * y, y).items()}
    {'mse': 0.0, 'mse_raw': 1.25}
    """
    factors = losses.output_factors(outputs, y)
    return {
        "mse": losses.mean_squared_error(outputs * factors[None, :], y),
        "mse_raw": losses.mean_squared_error(outputs, y),
    }


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
        sample=partial(samples.parity, k=k, d=d),
        loss=losses.cross_entropy,
        evaluate=evaluate_classes,
    )


def product(name: str = "product", knots: int = 10) -> Task:
    """The product of two inputs; its target interpolates two squares at so many knots.

    >>> import plantjax as pj
    >>> [pj.masks.count(pj.masks.nonzero(product(knots=n).target(5))).item() for n in (10, 20)]
    [64, 124]
    """
    target = partial(targets.product, knots=knots)
    return regression(name, 2, 1, target, lambda x: x[:, :1] * x[:, 1:])


def piecewise(name: str = "piecewise", knots: int = 10, seed: int = 0) -> Task:
    """A random piecewise-linear function of one input, see `targets.piecewise`.

    >>> import plantjax as pj
    >>> [pj.masks.count(pj.masks.nonzero(piecewise(knots=n).target(4))).item() for n in (10, 20)]
    [29, 59]
    """

    def truth(x: jax.Array) -> jax.Array:
        values = jnp.asarray(targets.random_function(knots, seed), jnp.float32)
        return jnp.interp(x, jnp.asarray(np.linspace(-1.0, 1.0, knots), jnp.float32), values)

    return regression(name, 1, 1, partial(targets.piecewise, knots=knots, seed=seed), truth)


def teacher(
    name: str = "teacher", widths: Sequence[int] = (5, 10, 2), density: float = 0.4, seed: int = 0
) -> Task:
    """What a random sparse teacher computes, see `targets.teacher`; depths from len(widths) on.

    >>> task = teacher(widths=(3, 8, 1), density=0.5)
    >>> task.n_in, task.n_out, int((task.target(depth=3)["layer_00"]["kernel"] != 0).sum())
    (3, 1, 12)
    """
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

    >>> task = regression("double", 1, 1, targets.relu, lambda x: 2.0 * jax.nn.relu(x))
    >>> task.metric, task.sample(jax.random.key(0), 10, 0.0).y.shape
    ('mse', (10, 1))
    """
    return Task(
        name=name,
        n_in=n_in,
        n_out=n_out,
        metric="mse",
        target=target,
        sample=partial(samples.values, truth=truth, n_in=n_in),
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
        sample=samples.circle,
        loss=losses.cross_entropy,
        evaluate=evaluate_classes,
    ),
    "relu": Task(
        name="relu",
        n_in=1,
        n_out=1,
        metric="mse",
        target=targets.relu,
        sample=samples.relu,
        loss=losses.mean_squared_error,
        evaluate=evaluate_values,
    ),
    "helix": Task(
        name="helix",
        n_in=1,
        n_out=3,
        metric="mse",
        target=targets.helix,
        sample=samples.helix,
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
