"""The contract of every finder and reference on every task, read from the registries."""

import functools
import inspect
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest

from plantjax import finders, masks, nets, tasks
from plantjax.scores import SCORES
from plantjax.sweeps import worlds
from plantjax.types import Finder, Found
from shared import UNOPTIMISED, flat, jit

DEPTH, MIN_WIDTH = 4, 12
BRIEF = {
    **{"epochs": 1, "search_epochs": 1, "level_epochs": 1},  # for finders that train
    **{"sweeps": 2, "restarts": 2, "units": 6, "sweep_samples": 64},
    **{"generations": 2, "population": 6},
}
REGISTRIES = {"finder": finders.FINDERS, "reference": finders.REFERENCES}
COMPILERS = {"quick": UNOPTIMISED, "thorough": None}  # only "thorough" runs eagerly as well


EVERYWHERE = {"random", "snip", "grasp", "edge_popup_annealed", *finders.REFERENCES}
ALIKE = {
    *(f"multishot_{score}" for score in SCORES if score != "synflow"),
    *("snip100", "random_igq", "smart_ratio", "edge_popup_global", "edge_popup_levels_global"),
}
HARDER = ("edge_popup_annealed", "gem_miner", "seek", "oracle_random")


def takes_part(task: str, name: str, how: str) -> bool:
    """Whether there is such a case: tasks beyond the paper's are sought by a few finders.

    They differ from those in their sizes alone.
    """
    return task in tasks.PAPER_TASKS or (name in HARDER and how == "quick")


def likeness(task: str, name: str) -> bool:
    """Whether a case runs the code of another one: the slow tests have all.

    What a task changes is its loss: some finders that take it stand for all on other tasks than
    circle. Those of ALIKE differ from others in their score, scope or allocation alone.
    """
    if name in ALIKE:
        return True
    if task not in tasks.PAPER_TASKS:
        return (task, name) != ("xor", "edge_popup_annealed")
    return task != "circle" and name not in EVERYWHERE


def cases():
    """What the registries hold now."""
    return [
        pytest.param(
            (task, kind, name, how),
            id=f"{task}-{name}-{how}",
            marks=[pytest.mark.slow] if how == "thorough" or likeness(task, name) else [],
        )
        for how in COMPILERS
        for task in tasks.TASKS
        for kind, registry in REGISTRIES.items()
        for name in registry
        if takes_part(task, name, how)
    ]


class Case(NamedTuple):
    """A finder's results on one world, at several densities."""

    task: str
    finder: Finder
    world: worlds.World
    densities: np.ndarray  # [D], from one parameter to all
    params: Any  # a copy of the mother, made before all searches
    vmapped: Found  # leaves [D, ...]
    reverse: Found  # the same of the densities in reverse
    traces: list[int]  # of all vmapped and all jitted searches
    jitted: list[Found]  # [D], of "thorough" cases only
    eager: list[Found]  # of "thorough" cases, at densities[1] only


@functools.cache
def world_of(task):
    task = tasks.TASKS[task]
    width = max(MIN_WIDTH, *nets.widths(task.target(DEPTH))[1:-1])
    make = functools.partial(worlds.make_world, task=task, depth=DEPTH, width=width, samples=200)
    return jit(make)(worlds.cell_key(task, 0))


def brief(make, task):
    """The finder, with few epochs or sweeps if it has any."""
    known = inspect.signature(make).parameters
    return make(task, **{name: value for name, value in BRIEF.items() if name in known})


@pytest.fixture(scope="module", params=cases())
def case(request):
    return make_case(*request.param)


def make_case(task, kind, name, how):
    world, finder = world_of(task), brief(REGISTRIES[kind][name], tasks.TASKS[task])
    truth = (world.planted,) if kind == "reference" else ()
    params = world.planted.params
    before = jax.tree.map(np.array, params)
    n = masks.size(params)
    densities = np.float32([1 / n, 0.1, 0.5, 1.0])
    traces = []

    def search(density, *arguments):
        traces.append(density)
        return finder(*arguments[:3], density, *arguments[3:])

    arguments = (jax.random.key(4), params, world.train, *truth)
    compiled = functools.partial(jax.jit, compiler_options=COMPILERS[how])
    vmapped_search = compiled(jax.vmap(search, (0, *[None] * len(arguments))))
    vmapped = jax.device_get(vmapped_search(densities, *arguments))
    reverse = jax.device_get(vmapped_search(densities[::-1], *arguments))
    traced, jitted, eager = [len(traces)], [], []
    if how == "thorough":
        jitted_search = compiled(search)
        jitted = [jax.device_get(jitted_search(density, *arguments)) for density in densities]
        traced.append(len(traces) - 1)
        eager = [jax.device_get(search(densities[1], *arguments))]
    return Case(task, finder, world, densities, before, vmapped, reverse, traced, jitted, eager)


def at(found, index):
    return jax.tree.map(lambda leaf: leaf[index], found)


def assert_alike(mask, other):
    """Masks of one size that differ at most where scores lie close to the threshold."""
    assert flat(mask).sum() == flat(other).sum()
    assert (flat(mask) ^ flat(other)).sum() <= 2 + 0.01 * flat(mask).sum()


def test_masks_are_trees_of_bools_like_the_parameters(case):
    for found in (at(case.vmapped, 0), *case.jitted, *case.eager):
        wanted = jax.tree.map(lambda p: p.astype(bool), case.params)
        chex.assert_trees_all_equal_shapes_and_dtypes(found.mask, wanted)


def test_weak_training_can_start_from_what_was_found(case):
    chex.assert_tree_all_finite((case.vmapped.params, case.vmapped.info))
    assert all(isinstance(name, str) for name in case.vmapped.info)
    task, test = tasks.TASKS[case.task], case.world.test
    for index in range(len(case.densities)):
        found = at(case.vmapped, index)
        chex.assert_trees_all_equal_shapes_and_dtypes(found.params, case.params)
        outputs = nets.apply(masks.apply(found.params, found.mask), test.x)
        chex.assert_tree_all_finite(task.evaluate(outputs, test.y))


def test_the_mother_is_left_as_it_was(case):
    chex.assert_trees_all_equal(jax.device_get(case.world.planted.params), case.params)


def test_eager_jitted_and_vmapped_masks_agree(case):
    for index, found in enumerate(case.jitted):
        assert_alike(found.mask, at(case.vmapped, index).mask)
    for found in case.eager:
        assert_alike(found.mask, at(case.vmapped, 1).mask)


def test_the_same_key_finds_the_same_at_every_place_of_a_batch(case):
    backwards = jax.tree.map(lambda leaf: leaf[::-1], case.reverse)
    chex.assert_trees_all_equal(backwards, case.vmapped)


def test_counts_are_exact_at_every_density(case):
    if not case.finder.exact_counts:
        pytest.skip("the finder says that it keeps no exact counts")
    scope = "global" if case.finder.scope == "oracle" else case.finder.scope
    sizes = np.asarray(masks.group_counts(masks.full(case.params), scope))  # [G]
    asked = case.densities[:, None] * sizes[None, :].astype(np.float32) + np.float32(0.5)
    wanted = np.clip(np.floor(asked), 1, sizes[None, :])
    for index in range(len(case.densities)):
        for found in (at(case.vmapped, index), *case.jitted[index : index + 1]):
            np.testing.assert_array_equal(masks.group_counts(found.mask, scope), wanted[index])


def test_all_densities_take_one_trace(case):
    assert len(set(case.densities.tolist())) == 4
    assert set(case.traces) == {1}


def test_finders_tell_scope_and_rounds(case):
    assert case.finder.scope in masks.SCOPES
    assert case.finder.rounds >= 1
    assert isinstance(case.finder.exact_counts, bool)
