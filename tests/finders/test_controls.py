"""Sanity controls: what each takes away, exactly, and that they compose like any finder."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets, sweeps, tasks
from plantjax.finders import FINDERS, controls, names
from plantjax.finders.controls import CONTROLS
from plantjax.masks import counts
from plantjax.sweeps import runs
from plantjax.types import Finder, Found
from shared import flat, jit

CIRCLE = tasks.TASKS["circle"]
KEY, WIDTHS = jax.random.key(5), (2, 20, 20, 4)
MOTHER = nets.init(jax.random.key(1), WIDTHS)
DATA = CIRCLE.sample(jax.random.key(2), 300)
DENSITY = 0.3


@functools.cache
def compiled(make):
    return jit(lambda key, density: make(CIRCLE)(key, MOTHER, DATA, density))


def find(make, key=KEY, density=DENSITY):
    return jax.device_get(compiled(make)(key, jnp.float32(density)))


def positive(task):
    """A finder that keeps what is above zero, and trains everything to one."""

    def search(key, params, data, density, *planted):
        mask = jax.tree.map(lambda leaf: leaf > 0, params)
        return Found(mask, jax.tree.map(jnp.ones_like, params), {"told": jnp.float32(7.0)})

    return Finder(search, exact_counts=False)


def cut(task, *, scope="global"):
    """The same, and says that it selects; it keeps its scope for the test to see."""
    return Finder(positive(task).search, scope=scope)


MAGNITUDE = FINDERS["magnitude"]
REINITIALISED, ORACLE = controls.reinitialised(MAGNITUDE), controls.oracle(positive)


@pytest.mark.parametrize("make", [MAGNITUDE, positive])
def test_shuffled_masks_keep_the_counts_of_every_array_and_nothing_else(make):
    shuffled = controls.shuffled(make)
    found, other = find(make), find(shuffled)
    counts = [masks.group_counts(mask, "local") for mask in (found.mask, other.mask)]
    np.testing.assert_array_equal(*counts)
    kept, chance = int(masks.count(found.mask)), 0.0
    for leaf in jax.tree.leaves(found.mask):
        chance += int(leaf.sum()) ** 2 / leaf.size
    overlap = int(masks.overlap(found.mask, other.mask))
    assert abs(overlap - chance) < 5 * np.sqrt(kept)  # each kept entry stays by chance alone
    chex.assert_trees_all_equal(find(shuffled), other)
    moved = find(shuffled, jax.random.key(6))
    assert (flat(moved.mask) != flat(other.mask)).any()


def test_shuffled_places_are_uniform():
    """Over many keys every place of an array is kept equally often."""
    finder = controls.shuffled(positive)(CIRCLE)
    keys = jax.random.split(KEY, 4000)

    def biases(key):
        return finder(key, MOTHER, DATA, DENSITY).mask["layer_00"]["bias"]

    found = jit(jax.vmap(biases))(keys)
    share = float(jnp.mean(MOTHER["layer_00"]["bias"] > 0))
    deviation = np.sqrt(share * (1 - share) / 4000)
    assert np.abs(np.mean(found, axis=0) - share).max() < 5 * deviation


def test_changed_masks_start_weak_training_from_the_mother():
    for name in ("shuffled", "reinitialised", "oracle"):
        found = find(CONTROLS[name](positive))
        chex.assert_trees_all_equal(found.params, MOTHER)
        assert found.info == {"told": 7.0}
    chex.assert_trees_all_equal(find(positive).params, jax.tree.map(jnp.ones_like, MOTHER))


def test_reinitialised_mothers_have_the_same_entries_elsewhere():
    def watching(task):
        def search(key, params, data, density, *planted):
            return Found(masks.full(params), params, {"seen": params})

        return Finder(search)

    seen = find(controls.reinitialised(watching)).info["seen"]
    chex.assert_trees_all_equal_shapes_and_dtypes(seen, jax.device_get(MOTHER))
    for before, after in zip(jax.tree.leaves(MOTHER), jax.tree.leaves(seen), strict=True):
        np.testing.assert_array_equal(np.sort(np.ravel(before)), np.sort(np.ravel(after)))
        assert (before != after).mean() > 0.7


def test_masks_of_reinitialised_mothers_know_nothing_of_the_values():
    """Magnitude keeps the largest; of another mother's the sizes are like those of all."""
    size = np.abs(flat(MOTHER))
    own, other = (flat(find(make).mask) for make in (MAGNITUDE, REINITIALISED))
    assert own.sum() == other.sum()
    for name in MOTHER:
        kept = np.asarray(find(REINITIALISED).mask[name]["kernel"])
        values = np.abs(np.asarray(MOTHER[name]["kernel"]))
        deviation = values.std() / np.sqrt(max(1, kept.sum()))
        assert abs(values[kept].mean() - values.mean()) < 5 * deviation
    assert size[own].min() >= size[~own].max()


def test_inverted_scores_keep_the_lowest():
    size = np.abs(flat(MOTHER))
    found = flat(find(controls.inverted(MAGNITUDE)).mask)
    assert found.sum() == int(masks.number_kept(DENSITY, size.size))
    assert size[found].max() <= size[~found].min()


def test_inverted_masks_are_the_complement_at_half_density():
    n = masks.size(MOTHER)
    makes = FINDERS["lamp"], controls.inverted(FINDERS["lamp"])
    upper, lower = (flat(find(make, density=(n // 2) / n).mask) for make in makes)
    assert (upper & lower).sum() <= 1


@pytest.mark.parametrize(
    "name",
    [
        "edge_popup",
        pytest.param("hard_concrete", marks=pytest.mark.slow),
        pytest.param("bernoulli_gates", marks=pytest.mark.slow),
        pytest.param("concrete_ticket", marks=pytest.mark.slow),
    ],  # the logits of continuous sparsification tie at their start value
)
def test_inverted_learners_keep_the_lowest_that_they_learned(name):
    n = masks.size(MOTHER)
    make = functools.partial(FINDERS[name], scope="global", search_epochs=2)
    pair = [find(one, density=(n // 2) / n) for one in (make, controls.inverted(make))]
    upper, lower = (flat(found.mask) for found in pair)
    assert upper.sum() == lower.sum()
    assert (upper & lower).sum() <= 1
    np.testing.assert_array_equal(*(found.info["losses"] for found in pair))  # the same search


def test_inverted_twice_is_the_finder_itself():
    twice = controls.inverted(controls.inverted(MAGNITUDE))
    chex.assert_trees_all_equal(find(twice).mask, find(MAGNITUDE).mask)


def test_oracle_is_the_scope_of_finders_that_select():
    by_scope = functools.partial(MAGNITUDE, scope="oracle")
    chex.assert_trees_all_equal(find(controls.oracle(MAGNITUDE)), find(by_scope))
    assert controls.oracle(cut)(CIRCLE).scope == "oracle"


@pytest.mark.parametrize("density", [0.02, 0.3, 0.9])
def test_oracle_counts_keep_as_much_as_they_can_of_other_masks(density):
    make = ORACLE
    found, other = find(positive), find(make, density=density)
    k = int(masks.number_kept(density, masks.size(MOTHER)))
    sizes = np.asarray(masks.group_counts(masks.full(MOTHER)))
    target = masks.group_counts(masks.nonzero(CIRCLE.target(4)))
    counts = np.asarray(counts.apportion(target, sizes.tolist(), jnp.int32(k)))
    np.testing.assert_array_equal(masks.group_counts(other.mask), counts)
    before = np.asarray(masks.group_counts(found.mask))
    both = jax.tree.map(jnp.logical_and, found.mask, other.mask)
    np.testing.assert_array_equal(masks.group_counts(both), np.minimum(before, counts))
    finder = make(CIRCLE)
    assert (finder.scope, finder.exact_counts) == ("oracle", True)


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_jit_and_vmap_over_key_and_density_in_one_trace(control):
    traces, finder = [], CONTROLS[control](MAGNITUDE)(CIRCLE)

    def search(key, density):
        traces.append(key)
        return finder(key, MOTHER, DATA, density).mask

    keys, densities = jax.random.split(KEY, 3), jnp.float32([0.05, 0.3, 1.0])
    found = jax.device_get(jit(jax.vmap(search))(keys, densities))
    assert len(traces) == 1
    n = masks.size(MOTHER)
    wanted = [int(masks.number_kept(density, n)) for density in densities]
    assert [int(masks.count(jax.tree.map(lambda a, i=i: a[i], found))) for i in range(3)] == wanted
    single = jit(search)(keys[1], densities[1])
    chex.assert_trees_all_equal(jax.device_get(single), jax.tree.map(lambda a: a[1], found))


def test_controls_compose():
    one = controls.oracle(controls.inverted(MAGNITUDE))
    found, one = find(controls.shuffled(one)), find(one)
    counts = [masks.group_counts(f.mask, "local") for f in (found, one)]
    np.testing.assert_array_equal(*counts)
    assert (flat(found.mask) != flat(one.mask)).any()
    twice = controls.shuffled(controls.reinitialised(positive))
    assert (flat(find(twice).mask) != flat(find(controls.shuffled(positive)).mask)).any()


@pytest.mark.slow
def test_names_of_sweeps_carry_controls_and_keep_the_key():
    make = functools.partial(runs.make_run, "circle", 4, 20, epochs=0, samples=200)
    cell = jax.tree.map(lambda a: a[0], sweeps.make_cells(CIRCLE, [3], [DENSITY]))
    plain, shuffled = make("random"), make("random+shuffled")
    world = jit(plain.world)(cell)
    one, other = (jit(run.search)(cell, world).mask for run in (plain, shuffled))
    by_hand = controls.shuffled(FINDERS["random"])(CIRCLE)
    wanted = jit(by_hand.search)(*runs._arguments(cell, world, "random")).mask
    chex.assert_trees_all_equal(other, wanted)
    counts = [masks.group_counts(mask, "local") for mask in (one, other)]
    np.testing.assert_array_equal(*counts)
    assert make("snip+oracle").scope == "oracle"
    assert make("multishot_snip+shuffled").levels is None
    assert make("snip+inverted+shuffled", rounds=3).rounds == 3


def test_references_have_controls_too():
    run = runs.make_run("circle", 4, 20, "planted+shuffled", epochs=0, samples=200)
    cell = jax.tree.map(lambda a: a[0], sweeps.make_cells(CIRCLE, [0], [DENSITY]))
    world = jit(run.world)(cell)
    found = jit(run.search)(cell, world).mask
    counts = [masks.group_counts(mask, "local") for mask in (found, world.planted.mask)]
    np.testing.assert_array_equal(*counts)
    assert (flat(found) != flat(world.planted.mask)).any()


def test_options_are_those_of_the_finder():
    assert names.options("snip+shuffled") == names.options("snip")
    assert names.options("snip+inverted") == names.options("snip")
    assert names.options("snip+oracle") == names.options("snip") - {"scope"}
    assert "score" not in names.options("snip+inverted")
    edge_popup = names.options("edge_popup")
    assert names.options("edge_popup+inverted") == edge_popup - {"invert"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("snip+guess", "control must be one of shuffled, .*oracle, got 'guess'"),
        ("snip+", "control must be one of .* got ''"),
        ("guess+shuffled", "finder must be one of .* got 'guess'"),
        ("gem_miner+inverted", "inverted goes with finders that have a score"),
    ],
)
def test_bad_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        runs.make_run("relu", 3, 8, name)
