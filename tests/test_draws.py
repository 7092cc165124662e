"""Permutations: those of JAX, whatever the way of sorting, alone, batched and inside a scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import draws


@pytest.mark.parametrize("n", [1, 2, 3, 50, 1625, 1626, 9000, 70_000])
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
    for key, row in zip(keys, found, strict=True):
        for index in range(4):
            wanted = jax.random.permutation(jax.random.fold_in(key, index), 40)
            np.testing.assert_array_equal(row[index], wanted)
