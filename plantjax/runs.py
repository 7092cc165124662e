"""Groups of a sweep as pure functions of a cell: world, search, judge, weak training.

Masks and training are programs of their own, so that training compiles once per shape, whatever the
finder; all groups of one task and shape share everything but the search.
"""

import inspect
import zlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plantjax import checks, masks, nets, programs, recovery, tasks, training, worlds
from plantjax.controls import CONTROLS
from plantjax.finders import FINDERS, REFERENCES, common
from plantjax.planting import RULES
from plantjax.types import (
    Batch,
    Cell,
    Finder,
    Found,
    Head,
    Key,
    Levels,
    Mask,
    Metrics,
    Params,
    Task,
)
from plantjax.worlds import World

CONTROLLED = "+"
"""Between the name of a finder and those of its controls."""

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
    """

    world: Callable[[Cell], World]
    search: Callable[[Cell, World], Found]
    judge: Callable[[World, Found], Metrics]
    fit: Callable[[Cell, World, Found], Metrics] | None
    levels: Levels | None
    scope: str
    rounds: int

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
        name, known = finder, options(finder)
        checks.options(f"finder {name!r}", static, known)
        for option, value in static.items():
            if not isinstance(value, Hashable):
                raise ValueError(f"{option} must be hashable, got {value!r}.")
        if "batch_size" in known:
            static = {"batch_size": batch_size} | static
        finder = _finder(task, finder, tuple(sorted(static.items())))
    elif static:
        raise ValueError(f"a Finder takes no further options, got {', '.join(static)}.")
    base = (name or "finder").partition(CONTROLLED)[0]
    checks.integer("rounds", finder.rounds, 1, worlds.mother_size(task, depth, width))
    return Run(
        world=_world(task, depth, width, scheme, rule, samples),
        search=_search(finder, base, base in REFERENCES),
        judge=_judge(task, finder.scope, finder.head),
        fit=_fit(task, finder.head, epochs, batch_size, rescale) if epochs else None,
        levels=_levels(finder, base),
        scope=finder.scope,
        rounds=finder.rounds,
    )


def options(finder: str) -> frozenset[str]:
    """The options that a finder of the registries takes, `task` and those set by its name aside.

    Raises:
      ValueError: if there is no finder of this name.
    """
    base, *controls = finder.split(CONTROLLED)
    known = inspect.signature(_maker(finder)).parameters
    fixed = {"score", "allocation", "grow"} & set(getattr(_maker(base), "keywords", {}))
    fixed |= {"scope"} if "oracle" in controls else set()
    fixed |= {"invert"} if "inverted" in controls else set()
    return frozenset(known) - {"task"} - fixed


@lru_cache(maxsize=programs.KEPT)
def _finder(task: Task, name: str, static: tuple[tuple[str, Any], ...]) -> Finder:
    return _maker(name)(task, **dict(static))


def _maker(name: str) -> Callable[..., Finder]:
    base, *controls = name.split(CONTROLLED)
    checks.choice("finder", base, [*FINDERS, *REFERENCES])
    make = FINDERS[base] if base in FINDERS else REFERENCES[base]
    for control in controls:
        checks.choice("control", control, CONTROLS)
        make = CONTROLS[control](make)
    return make


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
def _judge(task: Task, scope: str, head: Head | None) -> Callable[[World, Found], Metrics]:
    network = common.with_head(nets.apply, head)

    def judge(world: World, found: Found) -> Metrics:
        planted = world.planted
        strong = masks.apply(planted.params, found.mask)
        pruned = _evaluate(task, network(strong, world.test.x), world.test)
        ticket = masks.apply(planted.params, planted.mask)
        ticket = _evaluate(task, nets.apply(ticket, world.test.x), world.test)
        target = _evaluate(task, nets.apply(world.target, world.test.x), world.test)
        compared = recovery.compare(planted.params, found.mask, planted, scope=scope)
        return {
            **{f"pruned/{k}": v for k, v in pruned.items()},
            "ticket/value": ticket["value"],
            "target/value": target["value"],
            **{f"recovery/{k}": v for k, v in compared.items()},
            "kept": masks.count(found.mask),
            "kept_density": masks.density(found.mask),
            "mask": flat_mask(found.mask),
        }

    return judge


@lru_cache(maxsize=programs.KEPT)
def _fit(
    task: Task, head: Head | None, epochs: int, batch_size: int, rescale: str
) -> Callable[[Cell, World, Found], Metrics]:
    network = common.with_head(nets.apply, head)

    def fit(cell: Cell, world: World, found: Found) -> Metrics:
        params, losses = training.fit(
            worlds.fold(cell.key, "training"),
            RESCALES[rescale](found.params, found.mask),
            found.mask,
            world.train,
            apply=network,
            loss=task.loss,
            optimizer=optax.adam(cell.learning_rate),
            epochs=epochs,
            batch_size=batch_size,
        )
        trained = _evaluate(task, network(params, world.test.x), world.test)
        return {
            **{f"trained/{k}": v for k, v in trained.items()},
            "trained/loss": losses[-1],
            "trained/diverged": ~jnp.isfinite(losses).all(),
        }

    return fit


def _evaluate(task: Task, outputs: jax.Array, test: Batch) -> Metrics:
    metrics = task.evaluate(outputs, test.y)
    value = metrics[task.metric]
    return {
        "value": value,
        "value_raw": metrics.get(f"{task.metric}_raw", value),
        "constant": recovery.is_constant(outputs),
    }


def flat_mask(mask: Mask) -> jax.Array:
    """A mask as one bool vector [P], leaves in tree order."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(mask)])
