"""PHEW: walks are paths, alternate, never overshoot; edges come as often as their weights say."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import finders, masks, nets, tasks
from plantjax.finders.phew import _backward, _forward
from plantjax.types import Batch
from shared import at, chain

RELU, CIRCLE = tasks.TASKS["relu"], tasks.TASKS["circle"]
PARAMS = chain(2, 9, 7, 4)
DATA = Batch(jnp.ones((50, 2)), jnp.zeros(50, jnp.int32))
N = masks.size(PARAMS)


@functools.cache
def searched(max_walks=None):
    finder = finders.phew(CIRCLE, max_walks=max_walks)
    return jax.jit(jax.vmap(lambda key, d: finder(key, PARAMS, DATA, d)))


def run(densities, seed=0, max_walks=None):
    """Searches at up to 64 densities, always 64 of them in one program."""
    keys = jax.random.split(jax.random.key(seed), 64)
    padded = np.resize(np.float32(densities), 64)
    found = jax.device_get(searched(max_walks)(keys, padded))
    return jax.tree.map(lambda leaf: leaf[: len(densities)], found)


@pytest.mark.slow
def test_no_more_than_k_are_kept_and_the_next_walk_would_be_too_much():
    densities = np.linspace(0.01, 0.6, 40)
    found = run(densities)
    for index, density in enumerate(densities):
        kept, k = int(masks.count(at(found.mask, index))), np.floor(np.float32(density) * N + 0.5)
        assert k - 3 < kept <= k or kept == 0  # three edges, or fewer, in a walk


@pytest.mark.slow
def test_too_small_a_budget_for_a_walk_keeps_nothing():
    found = run([1 / N, 2 / N, 3 / N])
    assert int(masks.count(at(found.mask, 0))) == int(masks.count(at(found.mask, 1))) == 0
    assert int(masks.count(at(found.mask, 2))) == 3
    assert found.info["walks"].tolist() == [0, 0, 1]


def test_every_kept_parameter_lies_on_a_path():
    """With all biases on, the live part of the mask is all of it: no dead ends."""
    positive = {name: layer | {"bias": jnp.abs(layer["bias"])} for name, layer in PARAMS.items()}
    found = run(np.linspace(0.05, 0.5, 12), seed=1)
    for index in range(12):
        mask = at(found.mask, index)
        jax.tree.map(np.testing.assert_array_equal, masks.live(positive, mask), mask)


@pytest.mark.slow
def test_walks_alternate_between_forward_and_backward():
    """The first is a chain of weights from an input; the second ends at an output, too."""
    found = run([0.5] * 64, seed=2, max_walks=1)
    counts = np.array([masks.group_counts(at(found.mask, i), "local") for i in range(64)])
    np.testing.assert_array_equal(counts, [[0, 1] * 3] * 64)  # bias, kernel per layer
    assert (found.info["walks"] == 1).all()
    for index in range(64):
        layers = [at(found.mask, index)[name]["kernel"] for name in sorted(PARAMS)]
        ends = [tuple(np.argwhere(layer)[0]) for layer in layers]
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))
    both = run([0.5] * 64, seed=2, max_walks=2)
    biases = np.array([masks.group_counts(at(both.mask, i), "local")[::2] for i in range(64)])
    assert (biases.sum(axis=1) <= 1).all()  # the second walk may end at one bias
    assert 0 < biases.sum() < 64


def test_more_walks_keep_what_fewer_kept():
    few, many = (run([0.6] * 8, seed=3, max_walks=m) for m in (2, None))
    for old, new in zip(jax.tree.leaves(few.mask), jax.tree.leaves(many.mask), strict=True):
        assert not (old & ~new).any()


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_edges_are_taken_with_the_probability_of_their_weight(direction):
    """Two layers of three units: transition counts of 20,000 walks within 5 sigma."""
    rng = np.random.default_rng(0)
    sizes = [
        {
            "kernel": jnp.asarray(rng.random((3, 3)), jnp.float32),
            "bias": jnp.asarray(rng.random(3), jnp.float32),
        }
        for _ in range(2)
    ]
    walk = {"forward": _forward, "backward": _backward}[direction]
    n = 20_000
    edges = jax.jit(jax.vmap(lambda key: walk(key, sizes)))(jax.random.split(jax.random.key(4), n))
    (source, middle), (second, end) = jax.device_get(edges)
    if direction == "forward":
        probabilities = sizes[0]["kernel"] / sizes[0]["kernel"].sum(axis=1, keepdims=True)
        steps, starts = (source, middle), source
        np.testing.assert_array_equal(second, middle)
    else:
        weights = np.vstack([sizes[1]["kernel"], sizes[1]["bias"]]).T  # [to, from or bias]
        probabilities = weights / weights.sum(axis=1, keepdims=True)
        steps, starts = (end, np.where(second == -1, 3, second)), end
        np.testing.assert_array_equal(middle[second >= 0], second[second >= 0])
        assert (source[second == -1] == -2).all()  # it has ended
        assert (source[second >= 0] >= -1).all()
    for i in range(3):
        total = (starts == i).sum()
        assert abs(total - n / 3) < 5 * np.sqrt(n * 2 / 9)
        for j, p in enumerate(np.asarray(probabilities)[i]):
            count = (steps[1][steps[0] == i] == j).sum()
            assert abs(count - total * p) < 5 * np.sqrt(total * p * (1 - p))


def test_a_single_path_is_found_whole():
    params = nets.init(jax.random.key(1), (1, 1, 1, 1))
    data = Batch(jnp.ones((50, 1)), jnp.ones((50, 1)))
    found = jax.jit(finders.phew(RELU).search)(jax.random.key(0), params, data, 0.5)
    assert masks.group_counts(found.mask, "local").tolist() == [0, 1] * 3


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="max_walks must be an integer of at least 1, got 0"):
        finders.phew(CIRCLE, max_walks=0)
    with pytest.raises(ValueError, match="params must be a chain of dense layers"):
        finders.phew(RELU)(jax.random.key(0), {"w": jnp.ones((2, 2))}, DATA, 0.5)
    assert not finders.phew(CIRCLE).exact_counts
