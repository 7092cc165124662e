"""The contract of finders: what every finder and reference promises on every task.

`cases` reads the registries, `make_case` runs one, and each function of CHECKS asserts one promise.
"""

import functools
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest

from plantjax import finders, masks, nets, tasks
from plantjax.finders import names
from plantjax.scores import SCORES
from plantjax.sweeps import worlds
from plantjax.types import Finder, Found
from shared import at, flat

DEPTH, MIN_WIDTH, SAMPLES = 3, 34, 100  # a hundred parameters and more, for searches of 100 rounds
BRIEF = {
    **{"epochs": 1, "search_epochs": 1, "level_epochs": 1, "rounds": 2},
    **{"sweeps": 2, "restarts": 2, "units": 6, "sweep_samples": 64},
    **{"rungs": 1, "cycles": 1, "cycle_sweeps": 1},
    **{"wide_units": 6, "breadth": 6, "in_edges": 3, "redesigned": 4, "teachers": 0, "pool": 8},
    **{"generations": 2, "population": 6},
    **{"every": 2, "align_epochs": 1, "phases": 2},
}
"""Options that keep a search short; each finder takes those that it knows, see `brief`."""
REGISTRIES = {"finder": finders.FINDERS, "reference": finders.REFERENCES}
HOW = ("quick", "thorough")
"""Quick cases search under vmap, thorough ones jitted as well, and those of EAGER eagerly."""
CLASSES, VALUES = "circle", "relu"
"""Each function meets both: a quick case on the one with classes, a thorough one on values."""
NOT_ALONE = ("genetic", "forensic", "aligned", "seek")
"""Too long to compile twice, so that thorough cases do not search outside of vmap."""
EAGER = ("random", "random_uniform", "edge_popup", "phew", "planted", "oracle_random")
ELSEWHERE = ("snip", "oracle_random")
"""Run on all other tasks too, which differ in their sizes and losses only."""
DEAR = (
    *("seek", "genetic", "set", "edge_popup_levels", "hard_concrete"),
    *("continuous_sparsification", "iterand", "aligned", "forensic", "sign_in"),
    *("multishot_random", "gem_miner", "concrete_ticket", "bernoulli_gates"),
)
"""Too long to compile for the quick tests; the files of most have quick tests of their own."""
TWICE = {f"multishot_{score}" for score in SCORES} - {"multishot_random", "multishot_synflow"}
"""Levels and these scores have cases, but not together."""


def function_of(make):
    """The function behind a registry entry, without its partials and presets."""
    while isinstance(make, functools.partial) or hasattr(make, "__wrapped__"):
        make = make.func if isinstance(make, functools.partial) else make.__wrapped__
    return make


def representatives():
    """The first name of every function in the registries; the others change its options."""
    first = {}
    for kind, registry in REGISTRIES.items():
        for name, make in registry.items():
            first.setdefault((kind, function_of(make)), name)
    return set(first.values())


def cases():
    """Every finder and reference of the registries, on the tasks where it can differ.

    Each function has a quick case on Circle and a thorough one on ReLU; names that only change its
    options have a quick one on ReLU, and some names have one on every other task.
    """
    first, found = representatives(), []
    for task in tasks.TASKS:
        for kind, registry in REGISTRIES.items():
            for name in registry:
                if name in TWICE:
                    continue
                if task == VALUES:
                    found.append((task, kind, name, "thorough" if name in first else "quick"))
                elif name in (first if task == CLASSES else ELSEWHERE):
                    found.append((task, kind, name, "quick"))
    return [
        pytest.param(
            case,
            id="-".join((case[0], *case[2:])),
            marks=[] if case[0] == CLASSES and case[2] not in DEAR else [pytest.mark.slow],
        )
        for case in found
    ]


class Case(NamedTuple):
    """A finder's results on one world, at several densities."""

    task: str
    finder: Finder
    world: worlds.World
    densities: np.ndarray  # [D], from one parameter to all
    params: Any  # a copy of the mother, made before all searches
    vmapped: Found  # leaves [D, ...]
    reverse: Found  # the same for the densities in reverse
    traces: list[int]  # of the vmapped and the jitted search
    jitted: list[Found]  # [D], in thorough cases
    eager: list[Found]  # in thorough cases of EAGER, at densities[1] only


@functools.cache
def world_of(task):
    task = tasks.TASKS[task]
    width = max(MIN_WIDTH, *nets.widths(task.target(DEPTH))[1:-1])
    make = functools.partial(
        worlds.make_world, task=task, depth=DEPTH, width=width, samples=SAMPLES
    )
    return jax.jit(make)(worlds.cell_key(task, 0))


def brief(name):
    """The options of a short search by the finder of a name, perhaps with controls."""
    known = names.options(name)
    return {option: BRIEF[option] for option in BRIEF if option in known}


def make_case(task, kind, name, how):
    """Runs a finder of the registries; the name may have controls, as in "snip+shuffled"."""
    world, finder = world_of(task), names.make(tasks.TASKS[task], name, **brief(name))
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
    vmapped_search = jax.jit(jax.vmap(search, (0, *[None] * len(arguments))))
    vmapped = jax.device_get(vmapped_search(densities, *arguments))
    reverse = jax.device_get(vmapped_search(densities[::-1], *arguments))
    traced, jitted, eager = [len(traces)], [], []
    if how == "thorough" and name not in NOT_ALONE:
        jitted_search = jax.jit(search)
        jitted = [jax.device_get(jitted_search(density, *arguments)) for density in densities]
        traced.append(len(traces) - 1)
        if name in EAGER:
            eager = [jax.device_get(search(densities[1], *arguments))]
    return Case(task, finder, world, densities, before, vmapped, reverse, traced, jitted, eager)


def masks_are_trees_of_bools_like_the_parameters(case):
    for found in (at(case.vmapped, 0), *case.jitted, *case.eager):
        wanted = jax.tree.map(lambda p: p.astype(bool), case.params)
        chex.assert_trees_all_equal_shapes_and_dtypes(found.mask, wanted)


def weak_training_can_start_from_the_found_parameters(case):
    chex.assert_tree_all_finite((case.vmapped.params, case.vmapped.info))
    assert all(isinstance(name, str) for name in case.vmapped.info)
    task, test = tasks.TASKS[case.task], case.world.test
    for index in range(len(case.densities)):
        found = at(case.vmapped, index)
        chex.assert_trees_all_equal_shapes_and_dtypes(found.params, case.params)
        outputs = nets.apply(masks.apply(found.params, found.mask), test.x)
        chex.assert_tree_all_finite(task.evaluate(outputs, test.y))


def the_mother_is_left_as_it_was(case):
    chex.assert_trees_all_equal(jax.device_get(case.world.planted.params), case.params)


def eager_jitted_and_vmapped_masks_agree(case):
    def alike(mask, other):
        """Masks of one size, which differ at most where scores lie close to the threshold."""
        assert flat(mask).sum() == flat(other).sum()
        assert (flat(mask) ^ flat(other)).sum() <= 2 + 0.01 * flat(mask).sum()

    for index, found in enumerate(case.jitted):
        alike(found.mask, at(case.vmapped, index).mask)
    for found in case.eager:
        alike(found.mask, at(case.vmapped, 1).mask)


def the_same_key_finds_the_same_at_every_place_of_a_batch(case):
    backwards = jax.tree.map(lambda leaf: leaf[::-1], case.reverse)
    chex.assert_trees_all_equal(backwards, case.vmapped)


def counts_are_exact_at_every_density(case):
    if not case.finder.exact_counts:
        return
    scope = "global" if case.finder.scope == "oracle" else case.finder.scope
    sizes = np.asarray(masks.group_counts(masks.full(case.params), scope))  # [G]
    asked = case.densities[:, None] * sizes[None, :].astype(np.float32) + np.float32(0.5)
    wanted = np.clip(np.floor(asked), 1, sizes[None, :])
    for index in range(len(case.densities)):
        for found in (at(case.vmapped, index), *case.jitted[index : index + 1]):
            np.testing.assert_array_equal(masks.group_counts(found.mask, scope), wanted[index])


def all_densities_take_one_trace(case):
    assert len(set(case.densities.tolist())) == 4
    assert set(case.traces) == {1}


def the_finder_has_a_scope_and_rounds(case):
    assert case.finder.scope in masks.SCOPES
    assert case.finder.rounds >= 1
    assert isinstance(case.finder.exact_counts, bool)


CHECKS = [
    masks_are_trees_of_bools_like_the_parameters,
    weak_training_can_start_from_the_found_parameters,
    the_mother_is_left_as_it_was,
    eager_jitted_and_vmapped_masks_agree,
    the_same_key_finds_the_same_at_every_place_of_a_batch,
    counts_are_exact_at_every_density,
    all_densities_take_one_trace,
    the_finder_has_a_scope_and_rounds,
]
"""What every case has to pass."""
