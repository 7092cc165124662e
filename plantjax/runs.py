"""Groups of a sweep as pure functions of a cell: world, search, judge, weak training.

Masks and training are programs of their own, so that training compiles once per shape, whatever the
finder; all groups of one task and shape share everything but the search.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plantjax import checks, metrics, named, nets, programs, tasks, training, worlds
from plantjax.finders import REFERENCES, common
from plantjax.judging import Measure, evaluate, flat, judge_of, measure_of, outputs_of
from plantjax.planting import RULES
from plantjax.types import (
    Apply,
    Batch,
    Cell,
    Finder,
    Found,
    Head,
    Key,
    Levels,
    Metrics,
    Params,
    Task,
)
from plantjax.worlds import World

RESCALES = {"none": lambda params, mask: params, "rms": nets.rescale_to_he}
"""What weak training starts from: found parameters and mask to parameters."""


@dataclass(frozen=True)
class Run:
    """One group of a sweep as pure functions, each batched and compiled by itself.

    `seek` and `train` are the two functions of a Cell that a group consists of. They are made of
    four smaller ones, of which all groups of one task and shape share all but `search`, so that a
    further finder only compiles itself.

    Attributes:
      world: `(cell) -> World`.
      search: `(cell, world) -> Found`.
      judge: `(world, found) -> metrics` of the ticket without training; never looks at its info,
        in which finders differ.
      fit: `(cell, world, found) -> metrics` after weak training; None for 0 epochs.
      levels: the search in pieces, functions of (cell, world, ...); None if it has none.
      scope: the selection scope that the finder uses.
      rounds: the rounds that the finder uses.
      kind: what the finder finds, see `types.KINDS`.
      in_turn: whether a batch is computed cell by cell; a batch may then be one cell.
    """

    world: Callable[[Cell], World]
    search: Callable[[Cell, World], Found]
    judge: Callable[[World, Found], Metrics]
    fit: Callable[[Cell, World, Found], Metrics] | None
    levels: Levels | None
    scope: str
    rounds: int
    kind: str
    in_turn: bool = False

    def seek(self, cell: Cell) -> tuple[Found, Metrics]:
        """Draws the world, seeks a ticket in it, and scores what was found, untrained."""
        world = self.world(cell)
        found = self.search(cell, world)
        return found, self.judge(world, found._replace(info={})) | search_info(found)

    def train(self, cell: Cell, found: Found) -> Metrics:
        """Trains what was found and scores it; an empty dict for 0 epochs."""
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
    **static: Any,
) -> Run:
    """Builds the two programs of a group.

    Args:
      task: a Task, or its name in TASKS.
      depth: layers of neurons, the input included.
      width: neurons per hidden layer.
      finder: a name in FINDERS or REFERENCES, also followed by controls, as in "snip+shuffled"; or
        a Finder.
      name: name of a Finder that is not in the registry; its random numbers depend on it.
      epochs: epochs of weak training; 0 for none.
      batch_size: of weak training, and of searches that train.
      rescale: what weak training starts from: "none", the parameters as found; "rms", the same
        brought to He scale for the kept fan-in (`nets.rescale_to_he`).
      scheme: of the mother, see `nets.init`.
      rule: of the planting, see `planting.plant`.
      samples: size of the data set, the last tenth held out.
      **static: options of the finder (scope, rounds, ...).

    Returns:
      A Run.

    Raises:
      ValueError: if a name is unknown or a size out of range; all is checked before any compute.

    >>> import plantjax as pj
    >>> pj.runs.make_run("relu", depth=3, width=50, finder="synflow100").rounds
    100
    """
    if isinstance(task, str):
        checks.choice("task", task, tasks.TASKS)
        task = tasks.TASKS[task]
    checks.integer("samples", samples, 10)
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1, samples - samples // 10)
    worlds.mother_widths(task, depth, width)
    checks.choice("scheme", scheme, nets.SCHEMES)
    checks.choice("rule", rule, RULES)
    checks.choice("rescale", rescale, RESCALES)
    if isinstance(finder, str):
        name = finder
        if "batch_size" in named.options(name):
            static = {"batch_size": batch_size} | static
        finder = named.make(task, name, **static)
    elif static:
        raise ValueError(f"a Finder takes no further options, got {', '.join(static)}.")
    checks.integer("rounds", finder.rounds, 1, worlds.mother_size(task, depth, width))
    world = _world(task, depth, width, scheme, rule, samples)
    return assemble(
        *(task, finder, name or "finder", world),
        epochs=epochs,
        batch_size=batch_size,
        rescale=rescale,
    )


def assemble(
    task: Task,
    finder: Finder,
    name: str,
    world: Callable[[Cell], World],
    *,
    apply: Apply = nets.apply,
    epochs: int = 10,
    batch_size: int = 32,
    rescale: str = "none",
    transform: training.Transform | None = None,
    decay: bool = False,
    parameters: bool = False,
    in_turn: bool = False,
) -> Run:
    """The programs of a group in worlds of one's own.

    Args:
      task: gives loss and metrics.
      finder: made for this task and apply.
      name: of the finder; its random numbers depend on it, controls apart.
      world: `(cell) -> World`, the same object for the same worlds, so that programs are shared.
      apply: `(params, x) -> outputs`.
      epochs: as in `make_run`.
      batch_size: as in `make_run`.
      rescale: as in `make_run`.
      transform: of the inputs in weak training, see `training.fit`.
      decay: whether the learning rate of weak training falls to zero, by a cosine.
      parameters: whether `fit` also gives "trained/parameters", all of them in one vector [P].
      in_turn: whether the cells of a batch are computed one by one (`programs.in_turn`).

    Returns:
      A Run.
    """
    of_mask, further = metrics.registered()
    measure = measure_of(task, finder.scope, apply, further) if further else None
    how = (epochs, batch_size, rescale, transform, decay, parameters)
    fit = _fit(task, finder.head, apply, *how, measure)
    base = named.base(name)
    levels = _levels(finder, base)
    turn = programs.in_turn if in_turn else lambda function: function
    return Run(
        world=turn(world),
        search=turn(_search(finder, base, base in REFERENCES)),
        judge=turn(
            judge_of(
                task, finder.scope, finder.head, apply, of_mask, further, finder.kind == "signed"
            )
        ),
        fit=turn(fit) if epochs else None,
        levels=levels and levels._replace(begin=turn(levels.begin), advance=turn(levels.advance)),
        scope=finder.scope,
        rounds=finder.rounds,
        kind=finder.kind,
        in_turn=in_turn,
    )


@lru_cache(maxsize=programs.KEPT)
def _world(
    task: Task, depth: int, width: int, scheme: str, rule: str, samples: int
) -> Callable[[Cell], World]:
    def world(cell: Cell) -> World:
        return worlds.make_world(
            cell.key, task, depth, width, cell.noise, scheme=scheme, rule=rule, samples=samples
        )

    return world


@lru_cache(maxsize=programs.KEPT)
def _search(finder: Finder, name: str, told: bool) -> Callable[[Cell, World], Found]:
    def search(cell: Cell, world: World) -> Found:
        truth = (world.planted,) if told else ()
        return finder(*_arguments(cell, world, name), *truth)

    return search


@lru_cache(maxsize=programs.KEPT)
def _levels(finder: Finder, name: str) -> Levels | None:
    levels = finder.levels
    if levels is None:
        return None

    def begin(cell: Cell, world: World) -> Any:
        return levels.begin(*_arguments(cell, world, name))

    def advance(cell: Cell, world: World, state: Any, level: jax.Array) -> tuple[Any, Metrics]:
        return levels.advance(*_arguments(cell, world, name), state, level)

    return Levels(begin, advance, levels.finish)


def _arguments(cell: Cell, world: World, name: str) -> tuple[Key, Params, Batch, jax.Array]:
    """What a finder is called with; its key follows from cell, name and density."""
    density = jnp.asarray(cell.density, jnp.float32)
    key = jax.random.fold_in(worlds.fold(cell.key, "finder"), zlib.crc32(name.encode()))
    key = jax.random.fold_in(key, jax.lax.bitcast_convert_type(density, jnp.uint32))
    return key, world.planted.params, world.train, density


def search_info(found: Found) -> Metrics:
    """What the finder tells about its search, as entries "search/..." of the results."""
    return {f"search/{name}": value for name, value in found.info.items()}


@lru_cache(maxsize=programs.KEPT)
def _fit(
    task: Task,
    head: Head | None,
    apply: Apply,
    epochs: int,
    batch_size: int,
    rescale: str,
    transform: training.Transform | None,
    decay: bool,
    parameters: bool,
    measure: Measure | None,
) -> Callable[[Cell, World, Found], Metrics]:
    network = common.with_head(apply, head)

    def rate(cell: Cell, world: World) -> Any:
        steps = epochs * (world.train.x.shape[0] // batch_size)
        return optax.cosine_decay_schedule(cell.learning_rate, steps)

    def fit(cell: Cell, world: World, found: Found) -> Metrics:
        params, losses = training.fit(
            worlds.fold(cell.key, "training"),
            RESCALES[rescale](found.params, found.mask),
            found.mask,
            world.train,
            apply=network,
            loss=task.loss,
            optimizer=optax.adam(rate(cell, world) if decay else cell.learning_rate),
            epochs=epochs,
            batch_size=batch_size,
            transform=transform,
        )
        outputs = outputs_of(network, params, world.test.x)
        return {
            **{f"trained/{k}": v for k, v in evaluate(task, outputs, world.test).items()},
            "trained/loss": losses[-1],
            "trained/diverged": ~jnp.isfinite(losses).all(),
            **({"trained/parameters": flat(params)} if parameters else {}),
            **(measure(world, found.mask, params, outputs) if measure else {}),
        }

    return fit
