"""Draws: the distributions of trees of noise; permutations are bit for bit those of JAX."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import draws
from shared import flat

LIKE = {"a": jnp.zeros((100, 1000)), "b": jnp.zeros(100_000)}


@pytest.mark.parametrize(
    ("draw", "cumulative"),
    [
        (draws.normal, lambda x: 0.5 * (1 + math.erf(x / 2**0.5))),
        (draws.uniform, lambda x: min(max(x, 0.0), 1.0)),
        (draws.symmetric, lambda x: min(max((x + 1) / 2, 0.0), 1.0)),
        (draws.logistic, lambda x: 1 / (1 + math.exp(-x))),
    ],
)
def test_noise_has_its_distribution(draw, cumulative):
    tree = draw(jax.random.key(5), LIKE)
    chex.assert_trees_all_equal_shapes_and_dtypes(tree, LIKE)
    chex.assert_tree_all_finite(tree)
    values = flat(tree)
    for x in (-2.0, -1.0, -0.5, 0.0, 0.3, 0.8, 1.0, 1.5):
        share = cumulative(x)
        deviation = math.sqrt(share * (1 - share) / values.size)
        assert abs(np.mean(values < x) - share) <= 5 * deviation


@pytest.mark.slow
def test_permuted_trees_have_the_same_entries_in_random_places():
    tree = {"a": jnp.arange(600.0).reshape(20, 30), "b": jnp.arange(50)}
    moved = draws.permuted(jax.random.key(0), tree)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, tree)
    for name, leaf in tree.items():
        np.testing.assert_array_equal(np.sort(np.ravel(moved[name])), np.ravel(leaf))
        assert np.mean(moved[name] == leaf) < 0.1


@pytest.mark.parametrize("n", [1, 1625, 1626, 70_000])
def test_permutations_are_those_of_jax(n):
    for seed in range(3):
        found = draws.permutation(jax.random.key(seed), n)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, jax.random.permutation(jax.random.key(seed), n))


def test_equal_numbers_keep_their_order():
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 5, 1000).astype(np.uint32) * np.uint32(0x33333333)  # 0 to the largest
    wanted = np.argsort(numbers, kind="stable")
    for order in (draws._packed, draws._paired):
        found = jax.jit(order)(jnp.asarray(numbers))
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, wanted)


def test_permutations_of_a_batch_inside_a_scan():
    keys = jax.random.split(jax.random.key(1), 3)

    def epochs(key):
        return jax.lax.scan(
            lambda _, index: (None, draws.permutation(jax.random.fold_in(key, index), 40)),
            None,
            jnp.arange(4),
        )[1]

    found = jax.jit(jax.vmap(epochs))(keys)
    wanted = jax.random.permutation(jax.random.fold_in(keys[1], 2), 40)
    np.testing.assert_array_equal(found[1, 2], wanted)
    assert len(np.unique(found.reshape(12, 40), axis=0)) == 12
