"""Orthogonal and looks-linear mothers: what their kernels promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets, plant, targets
from plantjax.nets import schemes

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)), jnp.float32)


@pytest.mark.parametrize("shape", [(8, 5), (4, 9), (3, 3, 2, 7)])
def test_orthogonal_kernels_are_scaled_like_he(shape):
    drawn = jax.random.normal(KEY, shape)
    kernel = np.asarray(schemes.kernel(drawn, "orthogonal", False, False)).reshape(-1, shape[-1])
    fan_in, n_out = kernel.shape
    gram = kernel @ kernel.T if fan_in < n_out else kernel.T @ kernel
    wanted = 2 / fan_in * max(fan_in, n_out)
    np.testing.assert_allclose(gram, wanted * np.eye(gram.shape[0]), atol=1e-5)
    np.testing.assert_allclose(np.mean(kernel**2), 2 / fan_in, rtol=1e-5)


@pytest.mark.slow
def test_looks_linear_chains_are_affine_at_first():
    params = nets.init(KEY, (3, 8, 12, 8, 2), "looks_linear")
    outputs = [np.asarray(nets.apply(params, x)) for x in (X, jnp.zeros((1, 3)), 2.0 * X)]
    np.testing.assert_allclose(outputs[2] - outputs[1], 2 * (outputs[0] - outputs[1]), atol=1e-4)
    assert np.abs(outputs[1]).max() > 1e-3  # biases are not zero
    for layer in list(params.values())[:-1]:
        np.testing.assert_array_equal(layer["bias"][1::2], -layer["bias"][::2])
        np.testing.assert_array_equal(layer["kernel"][:, 1::2], -layer["kernel"][:, ::2])


def test_looks_linear_layers_of_equal_width_keep_lengths():
    params = nets.init(KEY, (3, 10, 10, 10, 10), "looks_linear")
    no_bias = jax.tree.map(lambda p: p if p.ndim > 1 else jnp.zeros_like(p), params)
    hidden = [nets.apply(dict(list(no_bias.items())[:n]), X) for n in (1, 2, 3)]
    lengths = [np.linalg.norm(h, axis=1) for h in hidden]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-4)
    np.testing.assert_allclose(lengths[2], lengths[0], rtol=1e-4)


@pytest.mark.slow
def test_tickets_are_planted_in_them():
    target = targets.circle(3)
    mother = nets.init(KEY, (2, 25, 4), "looks_linear")  # an odd width
    planted = plant(KEY, target, mother)
    x = jax.random.normal(KEY, (50, 2))
    found = nets.apply(masks.apply(planted.params, planted.mask), x)
    wanted = nets.apply(target, x) * planted.scale[None, :]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
