"""Layers are in natural order: `Dense_2` before `Dense_10`, in networks, live paths and plants."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets
from shared import chain, circle


class Deep(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(12):
            x = nn.relu(nn.Dense(8)(x))
        return nn.Dense(4)(x)


X = circle(5).x
LAYERS = chain(2, *[8] * 12, 4)
PARAMS = {f"Dense_{i}": LAYERS[nets.layer_name(i)] for i in range(13)}


def test_a_flax_module_of_13_layers_is_a_chain():
    outputs = Deep().apply({"params": PARAMS}, X)
    np.testing.assert_allclose(nets.apply(PARAMS, X), outputs, rtol=1e-4, atol=1e-6)


def test_layers_beyond_the_padding_come_last():
    params = {
        nets.layer_name(i): {"kernel": jnp.ones((1, 1)), "bias": jnp.full(1, float(i == 20))}
        for i in range(102)
    }
    params["layer_100"]["kernel"] = jnp.full((1, 1), 3.0)  # after the bias of layer_20
    assert float(nets.apply(params, jnp.ones((1, 1)))[0, 0]) == 6.0


def test_live_paths_keep_the_function():
    rng = np.random.default_rng(0)
    mask = jax.tree.map(lambda leaf: rng.random(leaf.shape) < 0.5, PARAMS)
    live = masks.live(PARAMS, mask)
    assert 0 < int(masks.count(live)) < int(masks.count(mask))
    outputs = [nets.apply(masks.apply(PARAMS, kept), X) for kept in (mask, live)]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.slow
def test_counts_of_layers_follow_the_network():
    scores = {f"Dense_{index}": {"kernel": jnp.arange(20.0)} for index in range(12)}
    counts = jnp.arange(12)
    select = jax.jit(functools.partial(masks.select, scope="oracle"))
    mask = select(jax.random.key(5), scores, 66 / 240, counts=counts)
    assert [int(masks.count(mask[f"Dense_{index}"])) for index in range(12)] == list(range(12))
    np.testing.assert_array_equal(masks.group_counts(mask), counts)
