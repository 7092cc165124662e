"""A pruned network as a smaller dense one: the same function, and no unit too many."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import compact, masks, nets, plant, targets
from plantjax.nets import wirings
from shared import net

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(50, 2)), jnp.float32)
IMAGES = jnp.asarray(RNG.normal(size=(3, 12, 10, 2)), jnp.float32)


def same(outputs, wanted):
    np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_a_random_mask_of_a_chain(density):
    params = net((2, 20), (20, 17), (17, 12), (12, 3))
    mask = jax.tree.map(lambda leaf: RNG.random(leaf.shape) <= density, params)
    small = compact(params, mask)
    same(nets.apply(small, X), nets.apply(masks.apply(params, mask), X))
    assert masks.size(small) <= masks.size(params)
    assert density < 1.0 or masks.size(small) == masks.size(params)
    again = compact(small, masks.full(small))
    assert nets.widths(again) == nets.widths(small)


@pytest.mark.slow
def test_a_planted_ticket_becomes_its_target():
    target = targets.circle(depth=5)
    planted = plant(jax.random.key(1), target, nets.init(jax.random.key(0), (2, 90, 90, 90, 4)))
    small = jax.tree.map(np.asarray, compact(planted.params, planted.mask))
    masked = masks.apply(planted.params, planted.mask)
    same(nets.apply(small, X), nets.apply(masked, X))
    assert nets.widths(small) == nets.widths(target)
    saved = masks.savings(masked, small, X)
    assert saved["parameters"] == masks.size(masked) / masks.size(target)
    assert saved["operations"] > 40


def test_constants_are_folded_by_hand():
    """Unit 0 varies, 1 is the constant 3, 2 is not read, 3 is below zero."""
    params = {
        "a": {
            "kernel": jnp.array([[1.0, 9.0, 1.0, 9.0]]),
            "bias": jnp.array([0.5, 3.0, 2.0, -1.0]),
        },
        "b": {"kernel": jnp.array([[2.0], [5.0], [7.0], [4.0]]), "bias": jnp.array([1.0])},
    }
    mask = masks.full(params)
    mask["a"]["kernel"] = jnp.array([[True, False, True, False]])
    mask["b"]["kernel"] = jnp.array([[True], [True], [False], [True]])
    small = compact(params, mask)
    assert jax.tree.map(lambda leaf: leaf.tolist(), small) == {
        "a": {"kernel": [[1.0]], "bias": [0.5]},
        "b": {"kernel": [[2.0]], "bias": [16.0]},
    }


def test_a_constant_network_keeps_a_unit():
    params = nets.init(jax.random.key(0), (2, 5, 4, 3))
    mask = jax.tree.map(lambda leaf: jnp.full(leaf.shape, leaf.ndim == 1), params)
    small = compact(params, mask)
    assert nets.widths(small) == (2, 1, 1, 3)
    same(nets.apply(small, X), nets.apply(masks.apply(params, mask), X))


class Images(nn.Module):
    """Convolutions that pad, a 1 x 1 one, pools, and dense layers after flattening."""

    widths: tuple[int, ...]
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        first, second, third, last = self.widths
        x = nn.relu(nn.Conv(first, (3, 3), use_bias=self.bias)(x))
        x = nn.relu(nn.Conv(second, (3, 3), (2, 1), "SAME", use_bias=self.bias)(x))
        x = nn.max_pool(nn.relu(nn.Conv(third, (1, 1), use_bias=self.bias)(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(last, use_bias=self.bias)(x.reshape(x.shape[0], -1)))
        return nn.Dense(3)(x)


@pytest.mark.parametrize(("share", "bias"), [(0.5, False), (0.9, True)])
def test_channels_of_convolutions(share, bias):
    """Whole channels lose their weights, so that they are constant at places that are padded."""
    module = Images((8, 7, 6, 9), bias)
    shapes = jax.eval_shape(module.init, jax.random.key(0), IMAGES)["params"]
    params = jax.tree.map(lambda leaf: 0.1 + 0.3 * RNG.normal(size=leaf.shape), shapes)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    mask = jax.tree.map(
        lambda leaf: np.broadcast_to(
            leaf.ndim == 1 or RNG.random(leaf.shape[-1]) >= share, leaf.shape
        ),
        params,
    )
    mask["Dense_1"] = masks.full(params["Dense_1"])
    small = compact(params, mask)
    widths = [wirings.leaves(small)[f"{name}/kernel"].shape[-1] for name in list(params)[:4]]
    outputs = jax.jit(Images(tuple(widths), bias).apply)({"params": small}, IMAGES)
    same(outputs, jax.jit(module.apply)({"params": masks.apply(params, mask)}, IMAGES))
    if share == 0.9:
        assert masks.size(small) < 0.5 * masks.size(params)


@pytest.mark.slow
def test_a_vgg_whose_channels_are_pruned():
    network = nets.vgg(11, width=1 / 16)
    params = network.init(jax.random.key(0), (16, 16, 3))
    x = jnp.asarray(RNG.normal(size=(2, 16, 16, 3)), jnp.float32)
    mask = masks.full(params)
    for name in list(params)[:-1]:
        kept = RNG.random(params[name]["bias"].size) < 0.5
        mask[name] = jax.tree.map(lambda leaf, k=kept: jnp.broadcast_to(k, leaf.shape), mask[name])
    small = compact(params, mask)
    fitted = network.fitted(small)
    same(fitted(small, x), network(masks.apply(params, mask), x))
    saved = masks.savings(params, small, x, apply=network, small_apply=fitted)
    assert min(saved.values()) > 2.5


def ones_of(network):
    """Parameters for images of 8 x 8."""
    shapes = jax.eval_shape(lambda key: network.init(key, (8, 8, 3)), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)


def test_what_is_refused():
    params = nets.init(jax.random.key(0), (2, 3, 2))
    mask = masks.full(params)
    with pytest.raises(ValueError, match="must be concrete in compact"):
        jax.jit(compact)(params, mask)
    residual = nets.resnet(20, width=0.1, batch_norm=True)
    drawn = ones_of(residual)
    with pytest.raises(ValueError, match="must be a chain in compact"):
        compact(drawn, masks.full(drawn), residual.wiring)
    normed = nets.vgg(11, width=1 / 64, batch_norm=True)
    drawn = ones_of(normed)
    with pytest.raises(ValueError, match="batch norms must be folded"):
        compact(drawn, masks.full(drawn), normed.wiring)
    with pytest.raises(ValueError, match="module must be resizable"):
        residual.fitted(drawn)
