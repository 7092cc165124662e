"""Convolutions by patches against XLA's own: values, gradients, batches of kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax.nets import convnets
from plantjax.nets.patches import by_patches

SHAPES = [
    ((6, 5), (2, 4), (1, 3)),
    ((2, 1), (3, 5), (1, 1)),  # most taps see padding alone
    ((4, 6), (1, 1), (2, 2)),
]


def direct(x, kernel, strides):
    form = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=form, precision="highest"
    )


def draw(image, window, *batch):
    rng = np.random.default_rng(sum(image) + 7 * sum(window))
    x = rng.normal(size=(3, *image, 2)).astype("f4")
    return jnp.asarray(x), jnp.asarray(rng.normal(size=(*batch, *window, 2, 4)).astype("f4"))


@pytest.mark.parametrize(("image", "window", "strides"), SHAPES)
def test_values_and_gradients_are_those_of_convolutions(image, window, strides):
    x, kernel = draw(image, window)
    found, pull = jax.vjp(
        lambda *a: by_patches(*a, strides, "SAME", precision="highest"), x, kernel
    )
    wanted, other = jax.vjp(lambda *a: direct(*a, strides), x, kernel)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    weights = jnp.cos(jnp.arange(found.size, dtype=jnp.float32)).reshape(found.shape)
    for one, two in zip(pull(weights), other(weights), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_a_batch_of_kernels():
    x, kernels = draw((5, 5), (3, 3), 2)
    found = jax.vmap(lambda kernel: by_patches(x, kernel, (1, 1), "SAME"))(kernels)
    for one, kernel in zip(found, kernels, strict=True):
        np.testing.assert_allclose(one, direct(x, kernel, (1, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"padding": "VALID"}, {"feature_group_count": 2}, {"rhs_dilation": (2, 2)}],
)
def test_anything_else_is_refused(options):
    x, kernel = draw((5, 5), (3, 3))
    with pytest.raises(ValueError, match="padding must be 'SAME', without groups or dilation"):
        by_patches(x, kernel, (1, 1), **{"padding": "SAME"} | options)


@pytest.mark.slow
def test_networks_run_either_way():
    """With strides, and projections."""
    networks = [convnets.resnet(18, 0.0625, convolution=how) for how in convnets.CONVOLUTIONS]
    params = networks[0].init(jax.random.key(0), (9, 9, 2))
    x = jax.random.normal(jax.random.key(1), (2, 9, 9, 2))
    outputs = [network(params, x) for network in networks]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5 * float(jnp.abs(outputs[0]).max()))


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="convolution must be one of direct, patches, got 'fft'"):
        convnets.vgg(11, convolution="fft")
