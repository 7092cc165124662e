"""Runs: one finder on one task and shape, as pure functions of a cell.

A run has four parts: draw the world, search, evaluate, train. Each is a frozen dataclass, compared
by value, and compiles to a program of its own. So all runs of one task and shape share everything
except the search, and training compiles once per shape.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from plantjax import checks, metrics, nets, tasks, training
from plantjax.finders import REFERENCES, names
from plantjax.finders.common import with_head
from plantjax.planting import RULES
from plantjax.sweeps import evaluation
from plantjax.sweeps.evaluation import EvaluateFound, FurtherMetrics
from plantjax.sweeps.worlds import DrawWorld, World, key_for, mother_size, warn_if_crowded
from plantjax.types import Apply, Batch, Cell, Finder, Found, Head, Key, Metrics, Params, Task

RESCALES = {"none": lambda params, mask: params, "rms": nets.rescale_to_he}
"""Initial parameters of weak training, by name: `(found parameters, mask) -> parameters`."""


@dataclass(frozen=True)
class Search:
    """`(cell, world) -> Found`: calls the finder with a key derived from the cell and the name."""

    finder: Finder
    name: str

    def __call__(self, cell: Cell, world: World) -> Found:
        """Searches for a ticket."""
        truth = (world.planted,) if self.name in REFERENCES else ()
        return self.finder(*self.arguments(cell, world), *truth)

    def arguments(self, cell: Cell, world: World) -> tuple[Key, Params, Batch, jax.Array]:
        """The finder's arguments: key, parameters, data and density."""
        density = jnp.asarray(cell.density, jnp.float32)
        key = jax.random.fold_in(key_for(cell.key, "finder"), zlib.crc32(self.name.encode()))
        key = jax.random.fold_in(key, jax.lax.bitcast_convert_type(density, jnp.uint32))
        return key, world.planted.params, world.train, density


@dataclass(frozen=True)
class BeginLevels:
    """`(cell, world) -> state` before the first level of a search in levels."""

    search: Search

    def __call__(self, cell: Cell, world: World) -> Any:
        """The initial state."""
        assert self.search.finder.levels is not None
        return self.search.finder.levels.begin(*self.search.arguments(cell, world))


@dataclass(frozen=True)
class AdvanceLevel:
    """`(cell, world, state, level) -> (state, metrics)`: one level of a search in levels."""

    search: Search

    def __call__(
        self, cell: Cell, world: World, state: Any, level: jax.Array
    ) -> tuple[Any, Metrics]:
        """Runs one level."""
        assert self.search.finder.levels is not None
        arguments = self.search.arguments(cell, world)
        return self.search.finder.levels.advance(*arguments, state, level)


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of weak training.

    Attributes:
      epochs: passes over the data; 0 for no weak training.
      batch_size: samples per step.
      rescale: initial parameters, a name in RESCALES: "none", those that were found; "rms", the
        same brought to He scale for the kept fan-in (`nets.rescale_to_he`).
      transform: applied to the inputs of every step, see `training.fit`.
      decay: whether the learning rate decays to zero (cosine).
      parameters: whether the results include "trained/parameters", one vector [P].
    """

    epochs: int = 10
    batch_size: int = 32
    rescale: str = "none"
    transform: training.Transform | None = None
    decay: bool = False
    parameters: bool = False


@dataclass(frozen=True)
class Train:
    """`(cell, world, found) -> metrics` after weak training."""

    task: Task
    apply: Apply
    head: Head | None
    plan: TrainingPlan
    further: FurtherMetrics | None

    def __call__(self, cell: Cell, world: World, found: Found) -> Metrics:
        """Trains the kept parameters and evaluates."""
        plan, network, rate = self.plan, with_head(self.apply, self.head), cell.learning_rate
        if plan.decay:
            steps = plan.epochs * (world.train.x.shape[0] // plan.batch_size)
            rate = optax.cosine_decay_schedule(cell.learning_rate, steps)
        params, losses = training.fit(
            key_for(cell.key, "training"),
            RESCALES[plan.rescale](found.params, found.mask),
            found.mask,
            world.train,
            apply=network,
            loss=self.task.loss,
            optimizer=optax.adam(rate),
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            transform=plan.transform,
        )
        outputs = evaluation.frozen_outputs(self.apply, params, world, self.head)
        values = evaluation.values_of(self.task, outputs, world.test)
        values |= evaluation.fresh_values(self.task, self.apply, params, world, self.head)
        result = {f"trained/{k}": v for k, v in values.items()}
        result["trained/loss"] = losses[-1]
        result["trained/diverged"] = ~jnp.isfinite(losses).all()
        if plan.parameters:
            result["trained/parameters"] = ravel_pytree(params)[0]
        if self.further is not None:
            judged = self.further.judged(world, found.mask, params, outputs)
            result |= self.further.values("trained", judged)
        return result


@dataclass(frozen=True)
class Run:
    """One group of a sweep: `seek` and `train`, two pure functions of a Cell.

    Attributes:
      world: `(cell) -> World`.
      search: `(cell, world) -> Found`.
      evaluate: `(world, found) -> metrics` of the untrained ticket. It ignores `found.info`, whose
        entries differ between finders.
      fit: `(cell, world, found) -> metrics` after weak training; None for 0 epochs.
      in_turn: whether the cells of a batch are computed one by one; then a batch may be one cell.
        Useful for convolutions, because vmap over kernels makes them grouped, which is slower.
      name: the finder's name with its controls, for tables.
    """

    world: Callable[[Cell], World]
    search: Search
    evaluate: EvaluateFound
    fit: Train | None
    in_turn: bool = False
    name: str = "finder"

    @property
    def finder(self) -> Finder:
        """The finder, with the scope, rounds and kind that are actually used."""
        return self.search.finder

    def seek(self, cell: Cell) -> tuple[Found, Metrics]:
        """Draws the world, seeks a ticket in it, and evaluates that without training."""
        world = self.world(cell)
        found = self.search(cell, world)
        return found, self.evaluate(world, found._replace(info={})) | search_info(found)

    def train(self, cell: Cell, found: Found) -> Metrics:
        """Trains the found ticket and evaluates it; an empty dict for 0 epochs."""
        return self.fit(cell, self.world(cell), found) if self.fit is not None else {}


def make_run(
    task: Task | str,
    depth: int,
    width: int,
    finder: str | Finder,
    *,
    name: str | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    rescale: str = "none",
    scheme: str = "he",
    rule: str = "norm",
    samples: int = tasks.SAMPLES,
    decoys: int = 0,
    fresh: int = 0,
    **static: Any,
) -> Run:
    """Builds a run in planted worlds with dense mothers.

    Args:
      task: a Task, or its name in TASKS.
      depth: layers of neurons, the input included.
      width: neurons per hidden layer.
      finder: a name in FINDERS or REFERENCES, optionally with controls, as in "snip+shuffled"; or a
        Finder.
      name: name of a Finder that is not in the registry; its random numbers depend on it.
      epochs: epochs of weak training; 0 for none.
      batch_size: batch size of weak training, and of searches that train.
      rescale: initial parameters of weak training, see `TrainingPlan`.
      scheme: initialisation of the mother, see `nets.init`.
      rule: rule of planting, see `planting.plant`.
      samples: size of the data set, of which the last tenth is held out.
      decoys: copies of the ticket that do not solve the task, see `planting.add_decoys`.
      fresh: number of fresh samples to judge on as well, at least 1,000; 0 for none.
      **static: options of the finder (scope, rounds, ...).

    Returns:
      A Run.

    Raises:
      ValueError: if a name is unknown or a size out of range; this is checked before any compute.
        It warns if the ticket is more than half of the mother.

    >>> import plantjax as pj
    >>> pj.sweeps.make_run("relu", depth=3, width=50, finder="synflow100").finder.rounds
    100
    """
    if isinstance(task, str):
        checks.choice("task", task, tasks.TASKS)
        task = tasks.TASKS[task]
    checks.integer("samples", samples, 10)
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1, samples - samples // 10)
    warn_if_crowded(task, depth, width)
    checks.choice("scheme", scheme, nets.SCHEMES)
    checks.choice("rule", rule, RULES)
    checks.integer("decoys", decoys, 0)
    checks.integer("fresh", fresh, 20 * evaluation.BLOCKS if fresh else 0)
    checks.choice("rescale", rescale, RESCALES)
    if isinstance(finder, str):
        name = finder
        if "batch_size" in names.options(name):
            static = {"batch_size": batch_size} | static
        finder = names.make(task, name, **static)
    elif static:
        raise ValueError(f"a Finder takes no further options, got {', '.join(static)}.")
    checks.integer("rounds", finder.rounds, 1, mother_size(task, depth, width))
    world = DrawWorld(task, depth, width, scheme, rule, samples, decoys, fresh)
    return assemble(
        task, finder, name or "finder", world, TrainingPlan(epochs, batch_size, rescale)
    )


def assemble(
    task: Task,
    finder: Finder,
    name: str,
    world: Callable[[Any], World],
    plan: TrainingPlan,
    *,
    apply: Apply = nets.apply,
    in_turn: bool = False,
) -> Run:
    """Builds a run in custom worlds.

    Args:
      task: the task, which gives loss and metrics.
      finder: a finder made for this task and apply.
      name: name of the finder. Its random numbers depend on it, except for the controls in it.
      world: `(cell) -> World`, hashable; equal worlds must compare equal to share programs.
      plan: settings of weak training.
      apply: `(params, x) -> outputs`.
      in_turn: see `Run`.

    Returns:
      A Run.
    """
    built_in, registered = metrics.registered()
    further = FurtherMetrics(task, finder.scope, apply, registered)
    trained = further if registered else None  # else training need not depend on the scope
    return Run(
        world=world,
        search=Search(finder, names.base(name)),
        evaluate=EvaluateFound(built_in, further, finder.head, finder.kind == "signed"),
        fit=Train(task, apply, finder.head, plan, trained) if plan.epochs else None,
        in_turn=in_turn,
        name=name,
    )


def search_info(found: Found) -> Metrics:
    """The finder's diagnostics, as entries "search/NAME" of the results."""
    return {f"search/{name}": value for name, value in found.info.items()}
