"""Layer budgets: hand-computed cases, exact sums, caps, and the finders that use them."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import finders, masks, tasks
from plantjax.masks import allocations, groups
from plantjax.masks.allocations import ALLOCATIONS
from plantjax.types import Batch
from shared import chain

CIRCLE = tasks.TASKS["circle"]
DENSITIES = np.float32([1e-4, 0.003, 0.02, 0.1, 1 / 3, 0.5, 0.9, 0.999, 1.0])


NETS = {
    "circle": chain(2, 100, 100, 100, 4),
    "one layer": chain(7, 3),
    "narrow": chain(1, 1, 1, 1),
    "mixed": {
        "conv": {"kernel": np.ones((3, 3, 4, 8)), "bias": np.ones(8)},
        "dense": [{"kernel": np.ones((8, 5))}],
        "gain": np.float32(1.0),
    },
}


def sizes_of(params):
    return [sum(math.prod(s) for s in layer) for layer in groups.layer_shapes(params)]


def capped(raw, sizes, k, low=0.0, high=1e12):
    """The c for which sum min(size, c raw size) = k, by bisection in float64; its layer counts."""
    for _ in range(300):
        middle = (low + high) / 2
        total = sum(min(n, middle * r * n) for r, n in zip(raw, sizes, strict=True))
        low, high = (middle, high) if total < k else (low, middle)
    return np.array([min(n, low * r * n) for r, n in zip(raw, sizes, strict=True)])


@pytest.mark.parametrize("net", ["narrow", "mixed"])
@pytest.mark.parametrize("name", ALLOCATIONS)
def test_counts_sum_to_k_and_respect_the_layers(name, net):
    params = NETS[net]
    sizes = np.array(sizes_of(params))
    found = np.asarray(jax.jit(jax.vmap(lambda d: ALLOCATIONS[name](params, d)))(DENSITIES))
    wanted = [int(masks.number_kept(d, int(sizes.sum()))) for d in DENSITIES]
    np.testing.assert_array_equal(found.sum(axis=1), wanted)
    assert (found >= 0).all()
    assert (found <= sizes).all()
    np.testing.assert_array_equal(found[-1], sizes)


@pytest.mark.parametrize("net", ["circle", "mixed"])
def test_uniform_gives_every_layer_its_share(net):
    params, sizes = NETS[net], np.array(sizes_of(NETS[net]))
    counts = np.asarray(jax.jit(lambda density: allocations.uniform(params, density))(0.3))
    assert (np.abs(counts - 0.3 * sizes) < 1.0 + 0.5 / len(sizes)).all()


@pytest.mark.slow
def test_erk_by_hand():
    """Kernels 2 x 4 and 4 x 4: sums over products 6/8 and 8/16, sizes 12 and 20."""
    params = chain(2, 4, 4)
    # below the cap 12 * 3/4 : 20 * 1/2 = 9 : 10
    assert allocations.erk(params, 19 / 32).tolist() == [9, 10]
    # at k = 30, 9 c > 12: the first layer is whole, the other takes the rest
    assert allocations.erk(params, 30 / 32).tolist() == [12, 18]


@pytest.mark.parametrize("net", ["circle", "mixed"])
def test_erk_solves_again_for_what_is_below_one(net):
    params = NETS[net]
    sizes = sizes_of(params)
    kernels = [max(layer, key=math.prod) or (1,) for layer in groups.layer_shapes(params)]
    raw = [sum(kernel) / math.prod(kernel) for kernel in kernels]
    erk = jax.jit(functools.partial(allocations.erk, params))
    for density in DENSITIES:
        k = int(masks.number_kept(density, sum(sizes)))
        found = np.asarray(erk(density))
        assert np.abs(found - capped(raw, sizes, k)).max() < 1


def test_igq_by_hand():
    """Sizes 3 and 12, F = 1/3: densities 1/2 and 1/5, together 3/2 + 12/5 = 3.9 of 15."""
    params = {"a": {"w": np.ones(3)}, "b": {"w": np.ones(12)}}
    assert allocations.igq(params, 3.9 / 15).tolist() == [2, 2]  # 1.54, 2.46: most of the rest to a
    larger = {"a": {"w": np.ones(300)}, "b": {"w": np.ones(1200)}}
    assert allocations.igq(larger, 390 / 1500).tolist() == [150, 240]


@pytest.mark.parametrize("net", NETS)
def test_igq_has_one_force_for_all_layers(net):
    sizes = np.array(sizes_of(NETS[net]), np.float64)
    igq = jax.jit(functools.partial(allocations.igq, NETS[net]))
    for density in DENSITIES[:-1]:
        counts = np.asarray(igq(density))
        low, high = 0.0, 1e12
        k = counts.sum()
        for _ in range(300):
            force = (low + high) / 2
            low, high = (force, high) if (sizes / (force * sizes + 1)).sum() > k else (low, force)
        assert np.abs(counts - sizes / (low * sizes + 1)).max() < 1 + 1e-4 * k


@pytest.mark.slow
def test_smart_ratio_by_hand():
    """Three layers of sizes 30, 110 and 40: 12 of the last; the others as 12 * 30 : 6 * 110."""
    params = {
        "a": {"w": np.ones(30)},
        "b": {"w": np.ones(110)},
        "c": {"w": np.ones(40)},
    }
    for k in (20, 46, 63):
        rest = Fraction(k - 12)
        exact = [rest * 360 / 1020, rest * 660 / 1020, 12]
        found = allocations.smart_ratio(params, k / 180)
        assert all(abs(int(n) - e) < 1 for n, e in zip(found, exact, strict=True))
        assert int(found[2]) == 12
    # 12 c > 1: the first layer is full; at last all but 0.3 of the last layer
    assert allocations.smart_ratio(params, 132 / 180).tolist() == [30, 90, 12]
    assert allocations.smart_ratio(params, 152 / 180).tolist() == [30, 110, 12]
    assert allocations.smart_ratio(params, 160 / 180).tolist() == [30, 110, 20]
    # a budget below 0.3 of the last layer is spent there
    assert allocations.smart_ratio(params, 7 / 180).tolist() == [0, 0, 7]
    # as for VGG: 12 * 30 : 6 / 4 * 110
    found = allocations.smart_ratio(params, 47 / 180, by_square=True)
    assert found.tolist() == [24, 11, 12]
    assert allocations.smart_ratio(params, 63 / 180, last=0.5).tolist()[2] == 20


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_bad_densities_are_refused(name):
    with pytest.raises(ValueError, match=r"density must lie in \(0, 1\]"):
        ALLOCATIONS[name](NETS["circle"], 1.5)


def test_a_bad_share_of_the_last_layer_is_refused():
    with pytest.raises(ValueError, match=r"last must lie in \[0, 1\]"):
        allocations.smart_ratio(NETS["circle"], 0.5, last=2.0)


@pytest.mark.slow
def test_masks_with_layer_budgets_have_the_highest_scores_of_every_layer():
    params = NETS["circle"]
    data = Batch(jnp.ones((50, 2)), jnp.zeros(50, jnp.int32))
    finder = finders.layer_budgets(CIRCLE, allocation="erk", score="magnitude")
    found = jax.jit(jax.vmap(lambda d: finder(jax.random.key(1), params, data, d)))(DENSITIES)
    erk = jax.jit(functools.partial(allocations.erk, params))
    for index, density in enumerate(DENSITIES):
        mask = jax.tree.map(lambda leaf, i=index: np.asarray(leaf)[i], found.mask)
        counts = masks.group_counts(mask)
        np.testing.assert_array_equal(counts, erk(density))
        sizes, kept = (groups.ravel_layers(tree)[0] for tree in (params, mask))
        for values, marks in zip(sizes, kept, strict=True):
            values, marks = np.abs(values), np.asarray(marks)
            if marks.any() and not marks.all():
                assert values[marks].min() >= values[~marks].max()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"allocation must be one of uniform, erk, .*, got"):
        finders.layer_budgets(CIRCLE, allocation="even")
    with pytest.raises(ValueError, match=r"score must be one of random, .*, got 'snap'"):
        finders.layer_budgets(CIRCLE, allocation="erk", score="snap")


def test_layers_are_the_arrays_of_one_parent_in_the_order_of_selection():
    params = NETS["mixed"]
    assert groups.layer_shapes(params) == [[()], [(8,), (3, 3, 4, 8)], [(8, 5)]]
    vectors, unravel = groups.ravel_layers(params)
    assert [vector.size for vector in vectors] == [1, 296, 40]
    doubled = unravel([2 * vector for vector in vectors])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 2 * b), doubled, params)
    counts = masks.group_counts(jax.tree.map(lambda p: np.ones(np.shape(p), bool), params))
    assert counts.tolist() == [1, 296, 40]
