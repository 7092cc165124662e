"""SET and RigL: the finders keep the budgets of the allocation and end where training ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import finders, masks, nets, tasks
from plantjax.masks import allocations
from plantjax.types import Batch

CIRCLE = tasks.TASKS["circle"]
KEY = jax.random.key(5)


@functools.cache
def found(name):
    params = nets.init(jax.random.key(0), (2, 20, 4))
    data = CIRCLE.sample(jax.random.key(1), 640)
    finder = finders.FINDERS[name](CIRCLE, search_epochs=3, every=5)
    densities = jnp.asarray([0.05, 0.3, 1.0], jnp.float32)
    search = jax.jit(jax.vmap(lambda d: finder(KEY, params, data, d)))
    return params, densities, jax.device_get(search(densities))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["set", "rigl"])
def test_finders_keep_the_budgets_of_erk_and_end_where_training_ends(name):
    params, densities, result = found(name)
    assert finders.FINDERS[name](CIRCLE).exact_counts
    assert finders.FINDERS[name](CIRCLE).scope == "oracle"
    for index, density in enumerate(densities):
        mask, trained = (
            jax.tree.map(lambda leaf, i=index: leaf[i], t) for t in (result.mask, result.params)
        )
        counts = allocations.erk(params, density)
        np.testing.assert_array_equal(masks.group_counts(mask), counts)
        for kept, weights in zip(jax.tree.leaves(mask), jax.tree.leaves(trained), strict=True):
            assert (weights[~kept] == 0).all()
    left = result.info["kept_of_start"]
    assert (left[:2] < 1).all()
    assert left[2] == 1
    assert (result.info["losses"][1:, -1] < result.info["losses"][1:, 0]).all()


@pytest.mark.slow
def test_set_and_rigl_start_alike_and_grow_apart():
    (_, _, by_chance), (_, _, by_gradient) = found("set"), found("rigl")
    first, second = (jax.tree.leaves(f.mask)[1][1] for f in (by_chance, by_gradient))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grow": "all"}, "grow must be one of random, gradient, got 'all'"),
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
        ({"fraction": -0.1}, r"fraction must lie in \[0, 1\]"),
        ({"allocation": "even"}, "allocation must be one of uniform, erk"),
        ({"search_epochs": 0}, "search_epochs must be an integer of at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        finders.sparse_training(CIRCLE, **{"grow": "random"} | options)


def test_a_batch_larger_than_the_data_is_refused():
    params = nets.init(jax.random.key(0), (2, 3, 4))
    data = Batch(jnp.ones((20, 2)), jnp.zeros(20, jnp.int32))
    with pytest.raises(ValueError, match=r"batch_size must be an integer .* and at most 20"):
        finders.sparse_training(CIRCLE, grow="random")(KEY, params, data, 0.5)
