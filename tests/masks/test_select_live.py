"""Live budgets against brute force over all thresholds."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import draws, masks, nets, tasks
from plantjax.finders import edge_popup
from shared import at

WIDTHS = (2, 6, 5, 3)
PARAMS = nets.init(jax.random.key(0), WIDTHS)
SIZE = masks.size(PARAMS)
DENSITIES = np.float32(np.arange(1, SIZE + 1) / SIZE)
live = jax.jit(masks.live)
select = jax.jit(jax.vmap(masks.select_live, (None, None, None, 0)))  # for all densities


def scores_of(key, levels=None):
    """Random scores, of a few levels if ties are wanted."""
    drawn = draws.normal(key, PARAMS)
    return drawn if levels is None else jax.tree.map(lambda leaf: jnp.round(levels * leaf), drawn)


def by_hand(scores, k):
    """The live mask of the lowest threshold with at most k live parameters, and the next one."""
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(scores)])
    best = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), scores)
    for threshold in sorted(set(values.tolist()), reverse=True):
        mask = jax.tree.map(lambda leaf, least=threshold: np.asarray(leaf) >= least, scores)
        mask = jax.device_get(live(PARAMS, mask))
        if sum(leaf.sum() for leaf in jax.tree.leaves(mask)) > k:
            return best, threshold
        best = mask
    return best, -np.inf


@pytest.mark.slow
def test_the_threshold_is_the_lowest_within_the_budget():
    for seed in range(3):
        scores = scores_of(jax.random.key(seed))
        found = jax.device_get(select(jax.random.key(9), scores, PARAMS, DENSITIES))
        for k in (1, 4, 9, 20, 41, SIZE):
            wanted, _ = by_hand(scores, k)
            chex.assert_trees_all_equal(at(found, k - 1), wanted)


@pytest.mark.slow
def test_all_kept_parameters_are_live_and_within_the_budget_even_with_ties():
    for seed in range(4):
        scores = scores_of(jax.random.key(seed), levels=1)
        found = select(jax.random.key(seed), scores, PARAMS, DENSITIES)
        counts = jax.jit(jax.vmap(masks.count))(found)
        assert (counts <= np.arange(1, SIZE + 1)).all()
        assert len(set(counts.tolist())) > 15  # thresholds alone would give about 6 numbers
        alive = jax.jit(jax.vmap(masks.live, (None, 0)))(PARAMS, found)
        chex.assert_trees_all_equal(found, alive)
        for k in (4, 9, 20, 41):
            above, tie = by_hand(scores, k)
            trees = (jax.device_get(at(found, k - 1)), above, scores)
            for kept, better, score in zip(*map(jax.tree.leaves, trees), strict=True):
                assert kept[better].all()
                assert (score[kept] >= tie).all()


@pytest.mark.slow
def test_a_former_threshold_changes_nothing():
    scores = scores_of(jax.random.key(1))
    mask, near = masks.reselect_live(jax.random.key(0), scores, PARAMS, 0.3, None)
    for guess in (near, near + 1000, near - 1000):
        again, _ = masks.reselect_live(jax.random.key(0), scores, PARAMS, 0.3, guess)
        chex.assert_trees_all_equal(again, mask)


@pytest.mark.slow
def test_edge_popup_with_a_live_budget_keeps_live_parameters_only():
    task = tasks.TASKS["relu"]
    params = nets.init(jax.random.key(0), (1, 8, 8, 1))
    sample = task.sample(jax.random.key(1), 200)
    finder = edge_popup(task, scope="global", budget="live", anneal="step", search_epochs=4)
    assert not finder.exact_counts
    for density in (0.1, 0.5):
        found = jax.jit(finder.search)(jax.random.key(2), params, sample, density)
        kept = int(masks.count(found.mask))
        assert 3 <= kept <= round(density * masks.size(params))
        chex.assert_trees_all_equal(found.mask, masks.live(params, found.mask))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="scope with budget='live' must be one of global, got 'l"):
        edge_popup(tasks.TASKS["relu"], budget="live")
    with pytest.raises(ValueError, match="budget must be one of all, live, got 'dead'"):
        edge_popup(tasks.TASKS["relu"], budget="dead")
    with pytest.raises(ValueError, match="params must be a chain of dense layers"):
        masks.select_live(jax.random.key(0), {"a": jnp.ones(3)}, {"a": jnp.ones(3)}, 0.5)
    with pytest.raises(ValueError, match=r"scores must have the tree structure of params"):
        masks.select_live(jax.random.key(0), {"a": jnp.ones(3)}, PARAMS, 0.5)
