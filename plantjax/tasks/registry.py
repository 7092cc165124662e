"""Tasks with a known sparse solution: samples, loss, evaluation, and the target that solves them.

Circle, ReLU and Helix are from the paper. The others are harder and built by functions that take
their sizes, so that a variant is one line in the registry.

Source: Fischer and Burkholz, ICLR 2022, section 3.2, https://arxiv.org/abs/2111.11153
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from plantjax import checks, losses, nets, targets
from plantjax.tasks import samples
from plantjax.types import Batch, Drawn, Key, Metrics, Params, Task

PRNG = "threefry2x32"
"""The generator of the fixed members of random families."""
SAMPLES = 10_000
"""Number of samples in a data set; the last tenth is held out."""


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
      {"accuracy": fraction of correct predictions}.

    Raises:
      ValueError: on wrong shapes or dtypes, or (concrete) labels out of range.

    >>> import jax.numpy as jnp
    >>> float(evaluate_classes(jnp.eye(4), jnp.array([0, 1, 2, 0]))["accuracy"])
    0.75
    """
    checks.outputs_and_labels(outputs, y)
    right = jnp.sum(jnp.argmax(outputs, axis=1).astype(y.dtype) == y, dtype=jnp.int32)
    accuracy = right.astype(jnp.float32) / outputs.shape[0]
    return {"accuracy": jnp.where(jnp.isfinite(outputs).all(), accuracy, jnp.nan)}


def evaluate_values(outputs: jax.Array, y: jax.Array) -> Metrics:
    """Mean squared error with and without the least-squares factor per output.

    Args:
      outputs: float [N, O].
      y: float [N, O].

    Returns:
      {"mse": after rescaling (see `losses.output_factors`), "mse_raw": without rescaling}.

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
    """The parity of the signs of the first k of d inputs; depth at least 2 + ceil(log2 k).

    >>> import plantjax as pj
    >>> pj.TASKS["parity3"] = pj.tasks.parity("parity3", k=3, d=20)  # for sweeps and scripts
    >>> pj.TASKS.pop("parity3").n_in
    20
    """
    target, sample = (partial(part, k=k, d=d) for part in (targets.parity, samples.parity))
    return _classification(name, d, 2, target, sample)


def product(name: str = "product", knots: int = 10) -> Task:
    """The product of two inputs; the target interpolates two squares with this many knots.

    >>> [nets.widths(product(knots=n).target(5)) for n in (10, 20)]
    [(2, 4, 2, 18, 1), (2, 4, 2, 38, 1)]
    """
    target = partial(targets.product, knots=knots)
    return regression(name, 2, 1, target, lambda x: x[:, :1] * x[:, 1:])


def piecewise(name: str = "piecewise", knots: int = 10, seed: int = 0) -> Task:
    """A random piecewise-linear function of one input, see `targets.piecewise`.

    >>> [nets.widths(piecewise(knots=n).target(4)) for n in (10, 20)]
    [(1, 1, 9, 1), (1, 1, 19, 1)]
    """

    def truth(x: jax.Array) -> jax.Array:
        values = jnp.asarray(targets.random_function(knots, seed), jnp.float32)
        return jnp.interp(x, jnp.asarray(np.linspace(-1.0, 1.0, knots), jnp.float32), values)

    return regression(name, 1, 1, partial(targets.piecewise, knots=knots, seed=seed), truth)


def teacher(
    name: str = "teacher", widths: Sequence[int] = (5, 10, 2), density: float = 0.4, seed: int = 0
) -> Task:
    """The outputs of a random sparse teacher, see `targets.teacher`; depth at least len(widths).

    >>> task = teacher(widths=(3, 8, 1), density=0.5)
    >>> task.n_in, task.n_out, int((task.target(depth=3)["layer_00"]["kernel"] != 0).sum())
    (3, 1, 12)
    """
    target = partial(targets.teacher, widths=tuple(widths), density=density, seed=seed)
    shallow = partial(target, len(widths))
    return regression(name, widths[0], widths[-1], target, lambda x: nets.apply(shallow(), x))


def random_teacher(
    name: str = "random_teacher", n_in: int = 5, width: int = 8, n_out: int = 2, edges: int = 4
) -> Task:
    """The outputs of a random sparse teacher that is drawn anew for each mother; any depth.

    `target` is the teacher of one fixed key, and `sample` gives its values at depth 3; a world has
    values of its own teacher. See `targets.random_teacher`.

    >>> task = random_teacher(width=6)
    >>> nets.widths(jax.eval_shape(lambda key: task.draw(key, 5).target, jax.random.key(0)))
    (5, 6, 6, 6, 2)
    """
    make = partial(targets.random_teacher, n_in=n_in, width=width, n_out=n_out, edges=edges)
    target = _Member(make)

    def sample_of(teacher: Params) -> Callable[..., Batch]:
        return partial(samples.values, truth=lambda x: nets.apply(teacher, x), n_in=n_in)

    def draw(key: Key, depth: int) -> Drawn:
        teacher = make(key, depth)
        return Drawn(teacher, sample_of(teacher))

    def sample(key: Key, n: int, noise: chex.Numeric = 0.01) -> Batch:
        return sample_of(target(3))(key, n, noise)

    return replace(_regression(name, n_in, n_out, target, sample), draw=draw)


def hidden(name: str) -> Task:
    """A task of the registry with a random target for each mother, so that less gives it away.

    Data, loss and metric are those of the task. `target` is the member of one fixed key.

    Args:
      name: one of HIDDEN.

    Returns:
      The Task, named "NAME_hidden".

    Raises:
      ValueError: if there are no random targets for this task.

    >>> import plantjax as pj
    >>> pj.TASKS["helix_hidden"] = pj.tasks.hidden("helix")  # for sweeps and scripts
    >>> pj.TASKS.pop("helix_hidden").name
    'helix_hidden'
    """
    checks.choice("name", name, HIDDEN)
    task, make = TASKS[name], HIDDEN[name]
    draw = _DrawTarget(make, task.sample)
    return replace(task, name=f"{name}_hidden", target=_Member(make), draw=draw)


@dataclass(frozen=True)
class _Member:
    """`(depth) -> Params`, one fixed member of a family of random targets; compared by value."""

    make: Callable[[Key, int], Params]

    @property
    def __wrapped__(self) -> Callable[[Key, int], Params]:
        """The family, whose docstring tells of the target."""
        return self.make

    def __call__(self, depth: int) -> Params:
        with jax.ensure_compile_time_eval():
            return jax.jit(self.make, static_argnums=1)(jax.random.key(0, impl=PRNG), depth)


@dataclass(frozen=True)
class _DrawTarget:
    """`(key, depth) -> Drawn` of a task whose samples do not depend on its target."""

    make: Callable[[Key, int], Params]
    sample: Callable[..., Batch]

    def __call__(self, key: Key, depth: int) -> Drawn:
        return Drawn(self.make(key, depth), self.sample)


def regression(
    name: str,
    n_in: int,
    n_out: int,
    target: Callable[[int], Params],
    truth: Callable[[jax.Array], jax.Array],
) -> Task:
    """A regression task on noisy values of a function.

    Args:
      name: name of the task in the registry.
      n_in: number of inputs I.
      n_out: number of outputs O.
      target: `(depth) -> Params`.
      truth: `x [N, I] -> [N, O]`, the function that the target computes or approximates.

    Returns:
      The Task.

    >>> task = regression("double", 1, 1, targets.relu, lambda x: 2.0 * jax.nn.relu(x))
    >>> task.metric, task.sample(jax.random.key(0), 10, 0.0).y.shape
    ('mse', (10, 1))
    """
    return _regression(name, n_in, n_out, target, partial(samples.values, truth=truth, n_in=n_in))


def _regression(
    name: str, n_in: int, n_out: int, target: Callable[[int], Params], sample: Callable[..., Batch]
) -> Task:
    loss, evaluate = losses.mean_squared_error, evaluate_values
    return Task(name, n_in, n_out, "mse", target, sample, loss, evaluate)


def _classification(
    name: str, n_in: int, n_out: int, target: Callable[[int], Params], sample: Callable[..., Batch]
) -> Task:
    loss, evaluate = losses.cross_entropy, evaluate_classes
    return Task(name, n_in, n_out, "accuracy", target, sample, loss, evaluate)


TASKS = checks.Names(
    {
        "circle": _classification("circle", 2, 4, targets.circle, samples.circle),
        "relu": _regression("relu", 1, 1, targets.relu, samples.relu),
        "helix": _regression("helix", 1, 3, targets.helix, samples.helix),
        "xor": parity("xor", k=2, d=10),
        "product": product(),
        "piecewise": piecewise(),
        "teacher": teacher(),
    }
)
"""The registry of tasks: a new one takes its functions and one entry here."""

HIDDEN: dict[str, Callable[[Key, int], Params]] = {
    "circle": targets.random_circle,
    "relu": targets.random_relu,
    "helix": targets.random_helix,
    "xor": targets.random_xor,
    "product": targets.random_product,
}
"""Tasks that have random targets, see `hidden`."""

TASKS |= {task.name: task for task in (hidden("circle"), random_teacher())}

PAPER_TASKS = ("circle", "relu", "helix")
"""The tasks from the paper."""
