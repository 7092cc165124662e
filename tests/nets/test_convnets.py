"""VGG and ResNet: shapes, counts, initial sizes, batch norm, and what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets
from plantjax.nets import convnets, wirings

KEY = jax.random.key(0)


def shapes_of(network, image=(32, 32, 3)):
    return jax.eval_shape(lambda key: network.init(key, image), KEY)


@pytest.mark.parametrize(
    ("network", "layers", "parameters"),
    [
        (convnets.vgg(11), 9, 9_225_610),
        (convnets.vgg(13), 11, 9_410_122),
        (convnets.vgg(16), 14, 14_719_818),
        (convnets.vgg(19), 17, 20_029_514),
        (convnets.vgg(16, n_out=100), 14, 14_765_988),
        (convnets.resnet(20), 20, 268_346 + 688),
        (convnets.resnet(18), 21, 11_164_362 + 4_800),
    ],
)
def test_layers_and_counts(network, layers, parameters):
    """Counted by others; ResNets usually have no biases, which are added here."""
    params = shapes_of(network)
    assert sorted(params) == [nets.layer_name(i) for i in range(layers)]
    assert masks.size(params) == parameters
    outputs = jax.eval_shape(network, params, jnp.zeros((2, 32, 32, 3)))
    assert outputs.shape == (2, network.module.n_out)
    assert list(wirings.channels(params, network.wiring).values())[-1] == network.module.n_out


@pytest.mark.parametrize("image", [(28, 28, 1), (17, 9, 3), (1, 1, 2)])
@pytest.mark.parametrize("make", [convnets.vgg, convnets.resnet])
def test_images_of_any_size(make, image):
    network = make(11 if make is convnets.vgg else 20, 0.1, batch_norm=True)
    params = shapes_of(network, image)
    assert jax.eval_shape(network, params, jnp.zeros((3, *image))).shape == (3, 10)


def test_width_multiplies_channels():
    kernels = [part["kernel"].shape[-1] for part in shapes_of(convnets.vgg(11, 0.25)).values()]
    assert kernels == [16, 32, 64, 64, 128, 128, 128, 128, 10]
    assert shapes_of(convnets.resnet(20, 4))["layer_00"]["kernel"].shape == (3, 3, 3, 64)
    assert shapes_of(convnets.vgg(11, 1e-6))["layer_00"]["kernel"].shape == (3, 3, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["he_zero_bias", "uniform", "orthogonal"])
def test_initial_sizes(scheme):
    """Fan-in is kh kw I; biases have the product over the way from the input."""
    network = convnets.Network(convnets.ResNet(64, stages=((64, 1), (96, 1)), shortcut="project"))
    params = network.init(KEY, (8, 8, 3), scheme, bias_scale=0.06)
    sizes = [
        (c / fan) ** 0.5
        for fan in (27, 576, 576, 576, 864, 64, 96)
        for c in [6 if scheme == "uniform" else 2]
    ]
    ways = [(0,), (0, 1), (0, 1, 2), (0, 3), (0, 3, 4), (0, 5), (0, 5, 6)]  # a shortcut is shorter
    for part, size, way in zip(params.values(), sizes, ways, strict=True):
        for leaf, wanted in (("kernel", size), ("bias", 0.06 * np.prod([sizes[i] for i in way]))):
            values = np.asarray(part[leaf]) / wanted
            if leaf == "bias" and scheme == "he_zero_bias":
                np.testing.assert_array_equal(values, 0.0)
            elif scheme == "uniform":
                assert 0.85 < np.abs(values).max() <= 1.0
            else:
                assert abs(values.std() - 1) < 5 / (2 * values.size) ** 0.5


def test_a_dense_chain_and_a_network_draw_alike():
    """With 1 x 1 kernels and images of one pixel a VGG is a dense chain."""
    network = convnets.Network(convnets.VGG(5, blocks=((3, 4),)))
    params = network.init(KEY, (1, 1, 2))
    assert {name: part["kernel"].shape[:2] for name, part in params.items()} == {
        "layer_00": (3, 3),
        "layer_01": (3, 3),
        "layer_02": (4, 5),
    }
    dense = {
        name: {
            **part,
            "kernel": part["kernel"].reshape(-1, *part["kernel"].shape[-2:])[
                4 if part["kernel"].ndim == 4 else 0
            ],
        }
        for name, part in params.items()
    }
    x = jax.random.normal(KEY, (7, 2))
    outputs = jax.jit(network)(params, x[:, None, None, :])
    chex.assert_trees_all_close(outputs, nets.apply(dense, x), rtol=1e-5, atol=1e-6)


NORMED = convnets.Network(
    convnets.ResNet(3, batch_norm=True, stages=((3, 1), (4, 1)), shortcut="project")
)
X = 2.0 + jax.random.normal(KEY, (12, 4, 4, 2))


@pytest.mark.slow
def test_statistics_of_one_batch_give_the_outputs_of_training():
    params = NORMED.init(KEY, X.shape[1:])
    assert sorted(params) == [
        *(f"layer_{i:02d}" for i in range(7)),
        *(f"norm_{i:02d}" for i in range(6)),
    ]
    run = jax.jit(lambda p: (NORMED(p, X), NORMED.statistics(p, X, 12), NORMED.statistics(p, X, 6)))
    outputs, seen, halves = run(params)
    same = jax.jit(NORMED.inference(seen))(params, X)
    chex.assert_trees_all_close(same, outputs, rtol=1e-4, atol=1e-5)
    first = nets.layer_name(0)
    patches = (
        jax.lax.conv_general_dilated(
            X, params[first]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        + params[first]["bias"][None, None, None, :]
    )
    np.testing.assert_allclose(seen["norm_00"]["mean"], patches.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(seen["norm_00"]["var"], patches.var(axis=(0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(halves["norm_00"]["mean"], patches.mean(axis=(0, 1, 2)), rtol=1e-4)


@pytest.mark.slow
def test_folding_keeps_the_outputs_and_the_zeros_of_kernels():
    plain = convnets.Network(NORMED.module.clone(batch_norm=False))
    params = NORMED.init(KEY, X.shape[1:])
    params = jax.tree.map(
        lambda p: jnp.where(jnp.arange(p.size).reshape(p.shape) % 3 == 0, 0.0, p), params
    )
    for index, name in enumerate(sorted(params)[7:]):
        flip = jnp.where(jnp.arange(params[name]["scale"].size) % 2 == 0, -1.5, 0.5)
        params[name] = {"scale": flip, "bias": jnp.full(flip.shape, 0.1 * index)}
    seen = NORMED.statistics(params, X, 6)
    folded = convnets.fold(params, seen)
    assert wirings.channels(folded, plain.wiring)["output"] == 3
    outputs, wanted = jax.jit(plain)(folded, X), jax.jit(NORMED.inference(seen))(params, X)
    chex.assert_trees_all_close(outputs, wanted, rtol=1e-4, atol=1e-4)
    for name, part in folded.items():
        np.testing.assert_array_equal(part["kernel"] == 0, params[name]["kernel"] == 0)
    with pytest.raises(ValueError, match="statistics must hold norm_00, got"):
        convnets.fold(params, {})


@pytest.mark.slow
def test_half_precision_computes_nearly_the_same():
    params = convnets.vgg(11, 0.05).init(KEY, (8, 8, 3))
    x = jax.random.normal(KEY, (4, 8, 8, 3))
    full, half = (jax.jit(convnets.vgg(11, 0.05, dtype=d))(params, x) for d in convnets.DTYPES)
    assert half.dtype == full.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convnets.vgg(12), "depth must be one of 11, 13, 16, 19, got 12"),
        (lambda: convnets.resnet(50), "depth must be one of 18, 20, got 50"),
        (lambda: convnets.vgg(11, 0.0), "width must lie in"),
        (lambda: convnets.vgg(11, n_out=0), "n_out must be an integer of at least 1, got 0"),
        (
            lambda: convnets.vgg(11, dtype="int8"),
            "dtype must be one of float32, bfloat16, got 'int8'",
        ),
        (lambda: convnets.resnet(20, shortcut="none"), "shortcut must be one of project, pad, got"),
        (
            lambda: convnets.vgg(11).init(KEY, (32, 32)),
            r"image must be \(H, W, C\), got \(32, 32\)",
        ),
        (lambda: convnets.vgg(11).init(KEY, (32, 0, 3)), "image must be an integer of at least 1"),
        (lambda: convnets.vgg(11).init(KEY, (4, 4, 3), "xavier"), "scheme must be one of"),
        (
            lambda: NORMED.statistics({}, X, 13),
            "batch_size must be an integer .* at most 12, got 13",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
