"""Controls: what each one changes about a finder's mask, and that they compose."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import contract
from plantjax import masks, nets, sweeps, tasks
from plantjax.finders import FINDERS, REFERENCES, controls, names
from plantjax.finders.controls import CONTROLS
from plantjax.masks import counts
from plantjax.scores import SCORES
from plantjax.sweeps import evaluation, runs
from plantjax.types import Finder, Found, Planted
from shared import at, chain, circle, flat

CIRCLE = tasks.TASKS["circle"]
KEY = jax.random.key(5)
MOTHER = chain(2, 24, 4)
DATA = circle(100)
DENSITY = 0.3


@functools.cache
def compiled(make):
    return jax.jit(lambda key, density: make(CIRCLE)(key, MOTHER, DATA, density))


def find(make, key=KEY, density=DENSITY):
    return jax.device_get(compiled(make)(key, jnp.float32(density)))


def positive(task, *, kept=0.0):
    """A finder that keeps the parameters above a number and trains all of them to one."""

    def search(key, params, data, density, *planted):
        mask = jax.tree.map(lambda leaf: leaf > kept, params)
        return Found(mask, jax.tree.map(jnp.ones_like, params), {"told": jnp.float32(7.0)})

    return Finder(search, exact_counts=False)


def scored(task, *, score="magnitude"):
    """A finder that keeps everything and reports the scores."""

    def search(key, params, data, density):
        full = masks.full(params)
        score_fn = (SCORES[score] if isinstance(score, str) else score)(nets.apply, task.loss)
        return Found(full, params, {"scores": score_fn(key, params, full, data)})

    return Finder(search, exact_counts=False)


def scoped(task, *, scope="global"):
    """A finder that selects in a scope."""
    return Finder(positive(task).search, scope=scope)


def watching(task):
    """A finder that reports the mother it is given."""

    def search(key, params, data, density):
        return Found(masks.full(params), params, {"seen": params})

    return Finder(search)


MAGNITUDE = FINDERS["magnitude"]
SHUFFLED, REINITIALISED, ORACLE = (
    CONTROLS[name](positive) for name in ("shuffled", "reinitialised", "oracle")
)


@pytest.mark.slow
def test_shuffled_masks_keep_only_the_counts_of_the_arrays():
    found, other = find(positive), find(SHUFFLED)
    pair = [masks.group_counts(mask, "local") for mask in (found.mask, other.mask)]
    np.testing.assert_array_equal(*pair)
    kept, chance = int(masks.count(found.mask)), 0.0
    for leaf in jax.tree.leaves(found.mask):
        chance += int(leaf.sum()) ** 2 / leaf.size
    overlap = int(masks.overlap(found.mask, other.mask))
    assert abs(overlap - chance) < 5 * np.sqrt(kept)  # each kept entry stays by chance alone
    chex.assert_trees_all_equal(find(SHUFFLED), other)
    moved = find(SHUFFLED, jax.random.key(6))
    assert (flat(moved.mask) != flat(other.mask)).any()


def test_shuffled_places_are_uniform():
    """Over many keys every place of an array is kept equally often."""
    finder, keys = SHUFFLED(CIRCLE), jax.random.split(KEY, 4000)
    biases = jax.vmap(lambda key: finder(key, MOTHER, DATA, DENSITY).mask["layer_00"]["bias"])
    found = jax.jit(biases)(keys)
    share = float(jnp.mean(MOTHER["layer_00"]["bias"] > 0))
    deviation = np.sqrt(share * (1 - share) / 4000)
    assert np.abs(np.mean(found, axis=0) - share).max() < 5 * deviation


@pytest.mark.slow
def test_weak_training_starts_from_the_mother():
    for control in (SHUFFLED, REINITIALISED, ORACLE):
        found = find(control)
        chex.assert_trees_all_equal(found.params, MOTHER)
        assert found.info == {"told": 7.0}
    chex.assert_trees_all_equal(find(positive).params, jax.tree.map(jnp.ones_like, MOTHER))


def test_reinitialised_mothers_have_the_same_entries_in_other_places():
    seen = find(controls.reinitialised(watching)).info["seen"]
    chex.assert_trees_all_equal_shapes_and_dtypes(seen, jax.device_get(MOTHER))
    for before, after in zip(jax.tree.leaves(MOTHER), jax.tree.leaves(seen), strict=True):
        np.testing.assert_array_equal(np.sort(np.ravel(before)), np.sort(np.ravel(after)))
        assert (before != after).mean() > 0.7


def test_inverted_negates_the_score():
    scores, negated, again = (
        flat(find(make).info["scores"])
        for make in (
            scored,
            controls.inverted(scored),
            controls.inverted(controls.inverted(scored)),
        )
    )
    np.testing.assert_array_equal(negated, -scores)
    np.testing.assert_array_equal(again, scores)


def test_inverted_finders_keep_the_lowest_scores():
    size = np.abs(flat(MOTHER))
    found = flat(find(controls.inverted(MAGNITUDE)).mask)
    assert found.sum() == int(masks.number_kept(DENSITY, size.size))
    assert size[found].max() <= size[~found].min()


@pytest.mark.slow
def test_inverted_learners_keep_the_lowest_scores_that_they_learned():
    n = masks.size(MOTHER)
    make = functools.partial(FINDERS["edge_popup"], scope="global", search_epochs=2)
    pair = [find(one, density=(n // 2) / n) for one in (make, controls.inverted(make))]
    upper, lower = (flat(found.mask) for found in pair)
    assert upper.sum() == lower.sum()
    assert (upper & lower).sum() <= 1
    np.testing.assert_array_equal(*(found.info["losses"] for found in pair))  # the same search


def test_oracle_is_the_scope_of_finders_that_select():
    assert controls.oracle(scoped)(CIRCLE).scope == "oracle"
    assert controls.oracle(controls.inverted(MAGNITUDE))(CIRCLE).scope == "oracle"


@pytest.mark.slow
@pytest.mark.parametrize("density", [0.02, 0.3, 0.9])
def test_oracle_keeps_as_much_as_the_counts_allow_of_other_masks(density):
    found, other = find(positive), find(ORACLE, density=density)
    k = int(masks.number_kept(density, masks.size(MOTHER)))
    sizes = np.asarray(masks.group_counts(masks.full(MOTHER)))
    target = masks.group_counts(masks.nonzero(CIRCLE.target(3)))
    wanted = np.asarray(counts.apportion(target, sizes.tolist(), jnp.int32(k)))
    np.testing.assert_array_equal(masks.group_counts(other.mask), wanted)
    before = np.asarray(masks.group_counts(found.mask))
    both = jax.tree.map(jnp.logical_and, found.mask, other.mask)
    np.testing.assert_array_equal(masks.group_counts(both), np.minimum(before, wanted))
    finder = ORACLE(CIRCLE)
    assert (finder.scope, finder.exact_counts) == ("oracle", True)


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
def test_controls_keep_the_contract_of_finders(control):
    case = contract.make_case("relu", "finder", f"magnitude+{control}", "quick")
    for check in contract.CHECKS:
        check(case)


@pytest.mark.slow
def test_best_keeps_the_search_with_the_least_error_on_the_training_data():
    finder = CONTROLS["best"](FINDERS["random"])(CIRCLE, tries=9)
    found = jax.jit(finder.search)(KEY, MOTHER, DATA, DENSITY)

    @jax.jit
    @jax.vmap
    def tried(index):
        key = jax.random.fold_in(controls._own(KEY, "best"), index)
        mask = FINDERS["random"](CIRCLE)(key, MOTHER, DATA, DENSITY).mask
        return evaluation.evaluate(CIRCLE, MOTHER, mask, DATA)["accuracy"], mask

    values, kept = tried(jnp.arange(9))
    assert len(set(values.tolist())) > 2
    chex.assert_trees_all_equal(found.mask, at(kept, int(jnp.argmax(values))))
    assert masks.count(found.mask) == masks.number_kept(DENSITY, masks.size(MOTHER))
    assert "tries" in names.options("multishot_snip+best")
    with pytest.raises(ValueError, match="tries must be an integer of at least 1, got 0"):
        names.make(CIRCLE, "random+best", tries=0)


def test_controls_compose():
    twice = controls.shuffled(controls.reinitialised(positive))
    pair = [masks.group_counts(find(make).mask, "local") for make in (twice, positive)]
    np.testing.assert_array_equal(*pair)
    assert (flat(find(twice).mask) != flat(find(SHUFFLED).mask)).any()


def test_references_have_controls_too():
    mask = masks.nonzero(jax.tree.map(lambda leaf: jnp.maximum(leaf, 0.0), MOTHER))
    search = jax.jit(controls.shuffled(REFERENCES["planted"])(CIRCLE).search)
    found = search(KEY, MOTHER, DATA, DENSITY, Planted(MOTHER, mask, jnp.ones(4))).mask
    np.testing.assert_array_equal(*(masks.group_counts(m, "local") for m in (found, mask)))
    assert (flat(found) != flat(mask)).any()


@pytest.mark.slow
def test_names_in_sweeps_carry_controls_and_keep_the_key():
    make = functools.partial(runs.make_run, "circle", 4, 20, epochs=0, samples=200)
    cell = at(sweeps.make_cells(CIRCLE, [3], [DENSITY]), 0)
    plain, shuffled = make("random"), make("random+shuffled")
    world = jax.jit(plain.world)(cell)
    one, other = (jax.jit(run.search)(cell, world).mask for run in (plain, shuffled))
    by_hand = controls.shuffled(FINDERS["random"])(CIRCLE)
    wanted = jax.jit(by_hand.search)(*plain.search.arguments(cell, world)).mask
    chex.assert_trees_all_equal(other, wanted)
    np.testing.assert_array_equal(*(masks.group_counts(mask, "local") for mask in (one, other)))
    assert make("snip+oracle").finder.scope == "oracle"
    assert make("multishot_snip+shuffled").finder.levels is None
    assert make("snip+inverted+shuffled", rounds=3).finder.rounds == 3


def test_options_are_those_of_the_finder():
    assert names.options("snip+shuffled") == names.options("snip")
    assert names.options("snip+inverted") == names.options("snip")
    assert names.options("snip+oracle") == names.options("snip") - {"scope"}
    assert "score" not in names.options("snip+inverted")
    edge_popup = names.options("edge_popup")
    assert names.options("edge_popup+inverted") == edge_popup - {"invert"}


def test_finders_without_a_score_cannot_be_inverted():
    with pytest.raises(ValueError, match="inverted goes with finders that have a score"):
        names.make(CIRCLE, "gem_miner+inverted")
