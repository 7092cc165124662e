"""Finders on convolutional and residual networks: exact counts, and batch norms are left alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import contract
from plantjax import finders, losses, masks, tasks
from plantjax.nets import convnets, wirings
from plantjax.types import Batch, Task
from shared import shares

IMAGE = (4, 4, 2)
NETWORKS = {
    "normed": convnets.Network(convnets.VGG(3, batch_norm=True, blocks=((3,), (4,)))),
    "residual": convnets.Network(convnets.ResNet(3, stages=((3, 1), (4, 1)))),
}
OPTIONS = {
    "grasp": {"scope": "channel"},
    "multishot_magnitude": {"rounds": 2, "level_epochs": 1},
    "edge_popup": {"scope": "layer", "anneal": "epoch", "search_epochs": 2},
}


def target(depth):
    raise AssertionError("no finder may ask for the target")


TASK = Task(
    "images",
    32,
    3,
    "accuracy",
    target,
    lambda key, n: None,
    losses.cross_entropy,
    tasks.evaluate_classes,
)


def data():
    x = np.random.default_rng(0).normal(size=(60, *IMAGE)).astype("f4")
    return Batch(jnp.asarray(x), jnp.asarray(np.argmax(x[:, 0, :3, 0], axis=1), jnp.int32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network"),
    [
        *(("grasp", "residual"), ("edge_popup", "residual"), ("multishot_magnitude", "normed")),
    ],
)
def test_finders_run_on_images(name, network):
    apply = NETWORKS[network]
    finder = finders.FINDERS[name](TASK, apply=apply, **OPTIONS[name])

    def search(key, density):
        return finder(key, apply.init(key, IMAGE), data(), density)

    keys = jax.random.split(jax.random.key(0), 2)
    found = jax.jit(jax.vmap(search, (0, None)))(keys, jnp.float32(0.3))
    chex.assert_tree_all_finite((found.params, found.info))
    for seed in range(2):
        mask = jax.tree.map(lambda leaf, s=seed: np.asarray(leaf[s]), found.mask)
        layers = {k: part for k, part in mask.items() if k.startswith("layer")}
        for key in set(mask) - set(layers):
            assert mask[key]["scale"].all()
            assert mask[key]["bias"].all()
        scope = finder.scope
        sizes = np.asarray(masks.group_counts(masks.full(layers), scope))
        k = int(np.floor(np.float32(0.3) * np.float32(sizes.sum()) + np.float32(0.5)))
        counts = np.asarray(masks.group_counts(layers, scope))
        assert counts.sum() == k
        if scope != "channel":
            assert counts.tolist() == shares(k, sizes.tolist())
    if "live_density" in found.info:
        live, kept = (
            np.asarray(found.info[key])[:, -1] for key in ("live_density", "kept_density")
        )
        assert ((live > 0) & (live <= kept)).all()
        one = jax.tree.map(lambda leaf: leaf[0], (found.params, found.mask))
        wanted = masks.density(masks.live(*one, apply.wiring), apply.prunable)
        np.testing.assert_allclose(live[0], wanted, rtol=1e-6)


@pytest.mark.slow
def test_attributes_of_an_apply():
    """Without them every leaf may be pruned, and shapes alone tell the wiring."""
    network = NETWORKS["normed"]
    params = network.init(jax.random.key(0), IMAGE)
    assert wirings.of(network, params) == network.wiring
    assert wirings.of(network.flow, params) is None
    every = finders.FINDERS["magnitude"](TASK, apply=network, prunable=lambda path: True)
    own = finders.FINDERS["magnitude"](TASK, apply=network)
    counts = [
        int(masks.count(jax.jit(f)(jax.random.key(0), params, data(), 0.1).mask))
        for f in (own, every)
    ]
    prunable = masks.size(params, network.prunable)
    assert counts == [
        round(0.1 * prunable) + masks.size(params) - prunable,
        round(0.1 * masks.size(params)),
    ]


CHAINS_ONLY = ("aligned", "phew", "seek")


@pytest.mark.parametrize("name", sorted(contract.representatives() & {*finders.FINDERS}))
def test_finders_take_a_convolutional_network_or_refuse_it(name):
    """Only traced: the mask is like the parameters, or there is one clear message."""
    apply = convnets.Network(convnets.VGG(3, blocks=((3,),)))
    params = apply.init(jax.random.key(0), IMAGE)
    finder = finders.FINDERS[name](TASK, apply=apply)

    def search():
        return jax.eval_shape(finder, jax.random.key(1), params, data(), 0.3)

    if name in CHAINS_ONLY:
        with pytest.raises(ValueError, match="params must be a chain of dense layers"):
            search()
        return
    found = search()
    wanted = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, bool), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.mask, wanted)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.params, params)
