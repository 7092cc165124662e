"""The genetic algorithm: operators by hand, elitism, and an optimum known by enumeration."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import draws, finders, masks, nets, tasks
from plantjax.finders.genetic import Population, fittest_of, mutated, recombined
from shared import flat

CIRCLE, RELU = tasks.TASKS["circle"], tasks.TASKS["relu"]
KEY = jax.random.key(4)
LIKE = {"a": jnp.zeros((10, 12)), "b": jnp.zeros(40)}  # 160 parameters


select = jax.jit(functools.partial(masks.select, density=0.25))


def random_mask(seed):
    return select(jax.random.key(seed), LIKE)


def elected(votes):
    return flat(select(KEY, votes))


@pytest.mark.parametrize("seed", range(5))
def test_a_child_has_all_that_both_parents_have_and_nothing_else(seed):
    mother, father = random_mask(seed), random_mask(seed + 100)
    noise = draws.uniform(jax.random.key(seed), LIKE)
    child = elected(recombined(mother, father, noise))
    mother, father = flat(mother), flat(father)
    assert child.sum() == 40
    assert child[mother & father].all()
    assert not child[~mother & ~father].any()
    assert (child & mother & ~father).any()
    assert (child & father & ~mother).any()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_a_mutant_differs_where_it_is_drawn_anew_only(rate):
    mask = random_mask(0)
    chance, noise = draws.uniform(jax.random.key(1), (LIKE, LIKE))
    mutant = elected(mutated(mask, jnp.float32(rate), chance, noise))
    anew = flat(chance) < rate
    assert mutant.sum() == 40
    np.testing.assert_array_equal(mutant[~anew], flat(mask)[~anew])
    assert (mutant != flat(mask)).any() == (rate > 0)
    # Of those drawn anew the highest noise is kept, as many as before.
    wanted = np.argsort(-np.where(anew, flat(noise), -1.0))[: flat(mask)[anew].sum()]
    np.testing.assert_array_equal(np.flatnonzero(mutant & anew), np.sort(wanted))


def test_fitness_is_score_first_then_fewer_live_then_age():
    score = jnp.array([0.5, 0.9, 0.5, 0.9, 0.9, 0.1])
    live = jnp.array([7, 9, 3, 2, 2, 1])
    members = {"a": jnp.arange(6)[:, None] == jnp.arange(6)[None, :]}
    best = fittest_of(Population(members, score, live), 5)
    order = [3, 4, 1, 2, 0]
    np.testing.assert_array_equal(jnp.argmax(best.masks["a"], axis=1), order)
    np.testing.assert_array_equal(best.score, score[jnp.array(order)])
    np.testing.assert_array_equal(best.live, live[jnp.array(order)])


@functools.cache
def searched():
    """Searches at several densities, and the samples that all of them are scored on."""
    finder = finders.genetic(CIRCLE, generations=30, population=20, fitness_samples=1000)
    params, data = nets.init(jax.random.key(2), (2, 12, 4)), CIRCLE.sample(KEY, 150)
    search = jax.jit(jax.vmap(lambda density: finder(KEY, params, data, density)))
    return jax.device_get(search(jnp.float32([1 / 88, 0.1, 0.5, 1.0]))), params, data


@pytest.mark.slow
def test_the_best_never_gets_worse_and_counts_are_exact():
    found, _, _ = searched()
    best = found.info["best"]  # [D, G]
    assert (np.diff(best, axis=1) >= 0).all()
    assert (best[1:3, -1] > best[1:3, 0]).any()
    counts = [leaf.reshape(4, -1).sum(axis=1) for leaf in jax.tree.leaves(found.mask)]
    np.testing.assert_array_equal(np.sum(counts, axis=0), [1, 9, 44, 88])


@pytest.mark.slow
def test_what_is_told_is_what_the_mask_scores():
    found, params, data = searched()
    for index in range(4):
        mask = jax.tree.map(lambda leaf, i=index: jnp.asarray(leaf[i]), found.mask)
        outputs = nets.apply(masks.apply(params, mask), data.x)
        accuracy = CIRCLE.evaluate(outputs, data.y)["accuracy"]
        np.testing.assert_allclose(found.info["best"][index, -1], accuracy, atol=0.01)
        assert found.info["live_kept"][index] == masks.count(masks.live(params, mask))


@functools.cache
def small_search():
    """A search in a network of 7 parameters."""
    return jax.jit(finders.genetic(RELU, generations=30, population=10).search)


@pytest.mark.slow
def test_the_optimum_of_a_small_network_is_found():
    """All 35 masks of 4 of 7 parameters are scored; the search must find the best."""
    params = nets.init(jax.random.key(9), (1, 2, 1))
    data = RELU.sample(KEY, 50)
    leaves, structure = jax.tree.flatten(params)
    scores = []
    for chosen in itertools.combinations(range(7), 4):
        bits = np.isin(np.arange(7), chosen)
        parts = np.split(bits, np.cumsum([leaf.size for leaf in leaves])[:-1])
        mask = [jnp.asarray(p.reshape(leaf.shape)) for p, leaf in zip(parts, leaves, strict=True)]
        outputs = nets.apply(masks.apply(params, jax.tree.unflatten(structure, mask)), data.x)
        scores.append(-float(RELU.evaluate(outputs, data.y)["mse"]))
    found = small_search()(KEY, params, data, 4 / 7)
    np.testing.assert_allclose(found.info["best"][-1], max(scores), rtol=1e-5)


@pytest.mark.slow
def test_networks_that_are_no_chain_are_judged_by_their_counts():
    params = {"gain": jnp.linspace(-1.0, 1.0, 9)}
    finder = finders.genetic(
        RELU,
        apply=lambda params, x: x * jnp.sum(params["gain"]),
        generations=4,
        population=6,
        migration=0.0,
    )
    found = jax.jit(finder.search)(KEY, params, RELU.sample(KEY, 50), 0.3)
    assert found.mask["gain"].sum() == 3
    assert set(found.info) == {"best"}
    chex.assert_trees_all_equal(found.params, params)


@pytest.mark.slow
def test_outputs_that_are_not_finite_lose():
    params = jax.tree.map(lambda leaf: leaf.at[..., 0].set(3e38), nets.init(KEY, (1, 2, 1)))
    found = small_search()(KEY, params, RELU.sample(KEY, 50), 1.0)
    assert found.info["best"][-1] == jnp.finfo(jnp.float32).min


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"population": 1}, r"population must be an integer of at least 2, got 1"),
        ({"mutation": 1.5}, r"mutation must lie in \[0, 1\], got 1.5"),
        ({"parents": 0.0}, r"parents must lie in \(0, 1\], got 0.0"),
        (
            {"mutation": 0.0, "migration": 0.0, "recombination": 0.004},
            r"must make at least one new mask of 100, got 0.004, 0.0 and 0.0",
        ),
    ],
)
def test_bad_options_are_refused(static, message):
    with pytest.raises(ValueError, match=message):
        finders.genetic(CIRCLE, **static)
