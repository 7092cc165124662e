"""Balancing: exact powers of two, in range at any depth; SynFlow against float64 in images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets
from plantjax.masks import schedules
from plantjax.nets import balancing, convnets
from plantjax.scores import SCORES
from plantjax.types import Batch

IMAGE = (4, 4, 2)
NETWORKS = {
    "vgg": convnets.Network(convnets.VGG(3, blocks=((4, 5), (6,)))),
    "normed": convnets.Network(convnets.VGG(3, batch_norm=True, blocks=((4,), (6,)))),
    "pad": convnets.Network(convnets.ResNet(3, stages=((3, 1), (5, 1)))),
}


@functools.cache
def positive(name, size=1.0):
    """Absolute parameters, kernels and biases of `size` times their usual."""
    params = NETWORKS[name].init(jax.random.key(0), IMAGE, bias_scale=3.0)
    return {
        key: jax.tree.map(
            lambda p, k=key: jnp.abs(p) * (size if k.startswith("layer") else 1), part
        )
        for key, part in params.items()
    }


def unjitted_scores(apply, params, image=IMAGE):
    batch = Batch(jnp.zeros((1, *image)), None)
    return SCORES["synflow"](apply, None)(jax.random.key(0), params, masks.full(params), batch)


@functools.cache
def score_of(apply, image=IMAGE):
    return jax.jit(functools.partial(unjitted_scores, apply, image=image))


def scores_of(apply, params, image=IMAGE):
    return jax.device_get(score_of(apply, image)(params))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def test_products_far_out_of_range_differ_by_one_power_of_two():
    """Where floats suffice, parameters times gradients are the plain ones, times one power."""
    params = {"a": jnp.float32(3.0), "b": jnp.array([1.5, 0.25]), "c": jnp.zeros(2)}

    def plain(p):
        return jnp.sqrt(jnp.sum(p["a"] * p["b"] ** 2 / (1.0 + p["b"])) + jnp.max(p["c"]))

    gradient = jax.grad(plain)(params)
    values, found = jax.jit(functools.partial(balancing.value_and_grad, plain))(params)
    pairs = ((values, found), (params, gradient))
    flows = [flat(jax.tree.map(jnp.multiply, *pair)) for pair in pairs]
    ratio = flows[0][:3] / flows[1][:3]
    power = np.round(np.log2(ratio[0]))
    np.testing.assert_allclose(ratio, 2.0**power, rtol=1e-6)  # XLA may fuse sums otherwise


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_synflow_of_a_chain_neither_overflows_nor_vanishes(size):
    """Without biases, scores of scaled kernels are those of the kernels, up to a factor."""
    score = score_of(NETWORKS["vgg"])
    unbiased = [
        {key: {**part, "bias": 0.0 * part["bias"]} for key, part in positive("vgg", s).items()}
        for s in (1.0, size)
    ]
    wanted, found = (flat(score(params)) for params in unbiased)
    np.testing.assert_allclose(found / found.max(), wanted / wanted.max(), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("normed", 1e14), ("pad", 1e7)])
def test_synflow_of_other_networks_does_not_overflow(name, size):
    network, params = NETWORKS[name], positive(name, size)
    assert not np.isfinite(jax.jit(network.flow)(params, jnp.ones((1, *IMAGE)))).all()
    found = flat(scores_of(network, params))
    assert np.isfinite(found).all()
    assert found.max() > 0


@pytest.mark.slow
def test_networks_with_the_shapes_of_a_chain_may_have_shortcuts_or_tanh():
    """Scores are those of the plain formula."""
    params = jax.tree.map(lambda p: 0.3 * jnp.abs(p), nets.init(jax.random.key(0), (4, 4, 4, 4)))

    def shortcut(p, x):
        first = jax.nn.relu(nets.apply({"layer_00": p["layer_00"]}, x))
        second = jax.nn.relu(nets.apply({"layer_00": p["layer_01"]}, first) + first)
        return nets.apply({"layer_00": p["layer_02"]}, second)

    def bent(p, x):
        return jnp.tanh(nets.apply(p, x))

    x = jnp.ones((1, 4))
    for apply in (shortcut, bent):
        found = scores_of(apply, params, (4,))
        gradient = jax.jit(jax.grad(lambda p, apply=apply: jnp.sum(apply(p, x))))(params)
        wanted = flat(jax.tree.map(jnp.multiply, params, gradient))
        np.testing.assert_allclose(
            flat(found) / flat(found).max(), wanted / wanted.max(), rtol=1e-5, atol=1e-7
        )


DEEP = 6


def rectified(params, x):
    return jax.nn.relu(nets.apply(params, x))


@pytest.mark.slow
@pytest.mark.parametrize("scanned", [False, True])
def test_deep_networks_of_any_names_and_form_stay_in_range(scanned):
    """Six layers whose outputs reach 1e60; in a scan they are one stacked layer."""
    rng = np.random.default_rng(0)
    layers = [
        {"w": np.float32(1e9 * rng.normal(size=(20, 20))), "b": np.ones(20, np.float32)}
        for _ in range(DEEP)
    ]
    if scanned:
        params = jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
    else:
        params = {f"block{i}": layer for i, layer in enumerate(layers)}

    def step(x, layer):
        return jax.nn.relu(x @ layer["w"] + layer["b"][None, :]), None

    def apply(p, x):
        if scanned:
            return jax.lax.scan(step, x, p)[0]
        for i in range(DEEP):
            x, _ = step(x, p[f"block{i}"])
        return x

    named = {f"layer_{i:02d}": {"kernel": p["w"], "bias": p["b"]} for i, p in enumerate(layers)}
    wanted = flat(scores_of(rectified, named, (20,)))
    assert np.isfinite(wanted).all()
    found = scores_of(apply, params, (20,))
    if scanned:
        found = {f"{i:02d}": jax.tree.map(lambda p, i=i: p[i], found) for i in range(DEEP)}
    else:
        found = {f"{i:02d}": found[f"block{i}"] for i in range(DEEP)}
    np.testing.assert_array_equal(flat(found), wanted)


def vgg64(params, blocks, x):
    """A VGG of positive parameters in float64."""
    index = 0
    for number, block in enumerate(blocks):
        window = (1, 2, 2, 1)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "SAME") if number else x
        for _ in block:
            layer = params[nets.layer_name(index)]
            dims = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                x, layer["kernel"], (1, 1), "SAME", dimension_numbers=dims
            )
            x, index = x + layer["bias"][None, None, None, :], index + 1
    layer = params[nets.layer_name(index)]
    return jnp.sum(x.mean(axis=(1, 2)) @ layer["kernel"] + layer["bias"][None, :])


def pruned64(params, blocks, image, density, rounds):
    """The mask of SynFlow's rounds in float64, with a plain sort."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.abs(jnp.asarray(np.asarray(p), jnp.float64)), params)
        x, n = jnp.ones((1, *image), jnp.float64), masks.size(params)
        gradient = jax.jit(jax.grad(lambda p: vgg64(p, blocks, x)))
        leaves, structure = jax.tree.flatten(jax.device_get(wide))
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        mask = np.ones(n, bool)
        for index in range(1, rounds + 1):
            parts = zip(np.split(mask, ends), leaves, strict=True)
            kept = structure.unflatten([part.reshape(leaf.shape) * leaf for part, leaf in parts])
            scores = flat(jax.tree.map(jnp.multiply, kept, gradient(kept)))
            share = np.float32(schedules.get("exponential")(density, index, rounds))
            k = int(np.floor(share * np.float32(n) + np.float32(0.5)))
            order = np.argsort(np.where(mask, scores, -1.0))[::-1]
            assert scores[order[k - 1]] > scores[order[k]]  # no tie: the mask is unique
            mask = np.isin(np.arange(n), order[:k])
    return mask


@pytest.mark.slow
def test_masks_of_synflow_equal_those_in_float64():
    image, rounds = (32, 32, 3), 10
    network = convnets.vgg(11, 0.03)
    params = network.init(jax.random.key(0), image)
    score, batch = SCORES["synflow"](network, None), Batch(jnp.zeros((1, *image)), None)

    def prune(mask, index):
        density = schedules.get("exponential")(0.01, index, rounds)
        scores = score(jax.random.key(0), params, mask, batch)
        return masks.select(jax.random.key(1), scores, density, within=mask), None

    run = jax.jit(lambda: jax.lax.scan(prune, masks.full(params), jnp.arange(1, rounds + 1))[0])
    wanted = pruned64(params, network.module.blocks, image, 0.01, rounds)
    np.testing.assert_array_equal(flat(run()).astype(bool), wanted)
