"""Planting in convolutional and residual networks: exactness, places, what is refused."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets, plant
from plantjax.nets import convnets, wirings
from plantjax.nets.wirings import INPUT, Wiring, layer
from shared import at

SEEDS = 20
IMAGE = (8, 8, 2)


def conv(params, x, stride=1, padding="SAME"):
    dims = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        x, params["kernel"], (stride, stride), padding, dimension_numbers=dims, precision="highest"
    )
    return y + params["bias"][None, None, None, :]


def dense(params, x):
    return jnp.matmul(x, params["kernel"], precision="highest") + params["bias"][None, :]


def pool(x, how):
    """Pools of 2 x 2 with stride 2, of maxima or means."""
    window, start, reducer = (
        (1, 2, 2, 1),
        *((-jnp.inf, jax.lax.max) if how == "max" else (0.0, jax.lax.add)),
    )
    y = jax.lax.reduce_window(x, start, reducer, window, window, "VALID")
    return y if how == "max" else y / 4


def flattened(p, x):
    """Kernels 5, 1, 3; strides 1 and 2; both pools; flatten; two dense layers."""
    x = pool(jax.nn.relu(conv(p["layer_00"], x)), "max")
    x = jax.nn.relu(conv(p["layer_01"], x))
    x = jax.nn.relu(conv(p["layer_02"], x, stride=2))
    x = pool(x, "mean").reshape(x.shape[0], -1) if x.shape[1] > 2 else x.reshape(x.shape[0], -1)
    x = jax.nn.relu(dense(p["layer_03"], x))
    return dense(p["layer_04"], x)


def pooled(p, x):
    """Kernels 3, 5, 1; a valid and a strided one; ReLU behind a pool; global mean."""
    x = jax.nn.relu(conv(p["layer_00"], x, padding="VALID"))
    x = jax.nn.relu(pool(conv(p["layer_01"], x, stride=2), "mean"))
    x = jax.nn.relu(conv(p["layer_02"], x))
    return dense(p["layer_03"], x.mean(axis=(1, 2)))


def flattened_shapes(a, b, c, d):
    return [(5, 5, 2, a), (1, 1, a, b), (3, 3, b, c), (2 * 2 * c, d), (d, 3)]


def pooled_shapes(a, b, c):
    return [(3, 3, 2, a), (5, 5, a, b), (1, 1, b, c), (c, 3)]


CHAINS = {
    "flattened": (flattened, flattened_shapes(3, 4, 3, 5), flattened_shapes(9, 7, 11, 10)),
    "pooled": (pooled, pooled_shapes(4, 3, 4), pooled_shapes(4, 9, 8)),
}


def small(stages, **options):
    return convnets.Network(convnets.ResNet(3, stages=stages, **options))


NETWORKS = {
    "identity": (small(((4, 2),)), small(((9, 2),))),
    "project": (
        small(((3, 1), (5, 1)), shortcut="project"),
        small(((7, 1), (9, 1)), shortcut="project"),
    ),
    "pad": (small(((3, 1), (4, 1))), small(((5, 1), (9, 1)))),
}


def chain(shapes):
    """The tree of a chain, with shapes as leaves."""
    return {nets.layer_name(i): {"kernel": s, "bias": s[-1:]} for i, s in enumerate(shapes)}


def shapes_of(network):
    """The tree of a network's parameters, with shapes as leaves."""
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), IMAGE))
    return jax.tree.map(lambda leaf: leaf.shape, params)


def drawn(seed, tree, densities=(1.0,)):
    """He weights and sizeable biases [D, ...] by numpy, of which shares are kept."""
    rng, kept = np.random.default_rng(seed), np.asarray(densities)

    def one(shape):
        size = (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.3
        values = size * rng.normal(size=(len(kept), *shape))
        mask = rng.random(values.shape) < kept.reshape(-1, *[1] * len(shape))
        return np.where(mask, values, 0.0).astype("f4")

    return jax.tree.map(one, tree, is_leaf=lambda leaf: isinstance(leaf, tuple))


def draw(seed, tree, density=1.0):
    return at(drawn(seed, tree, (density,)), 0)


@cache
def planted(name, rule, shared):
    """Live target masks, planted networks, and outputs of both, over SEEDS seeds and densities."""
    if name in CHAINS:
        apply, *shapes = CHAINS[name]
        run, trees = (apply, apply), [chain(shape) for shape in shapes]
        wiring = wirings.chain(draw(0, trees[0]))
    else:
        run, trees = NETWORKS[name], [shapes_of(network) for network in NETWORKS[name]]
        wiring = run[0].wiring

    def one(key, target, mother, x):
        hidden = plant(key, target, mother, rule, shared, wiring)
        wanted = run[0](target, x) * hidden.scale[None, :]
        live = masks.live(target, masks.nonzero(target), wiring)
        return live, hidden, run[1](masks.apply(hidden.params, hidden.mask), x), wanted

    targets = drawn(1, trees[0], np.linspace(0.08, 0.7, SEEDS))
    mothers = drawn(2, trees[1], np.ones(SEEDS))
    x = np.random.default_rng(3).normal(size=(SEEDS, 6, *IMAGE)).astype("f4")
    keys = jax.random.split(jax.random.key(7), SEEDS)
    return jax.device_get(jax.jit(jax.vmap(one))(keys, targets, mothers, x))


@pytest.mark.parametrize(
    ("name", "rule", "shared"),
    [
        ("identity", "norm", True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("flattened", "norm", True),
                ("pooled", "norm", True),
                ("project", "norm", True),
                ("pad", "paper", False),
            )
        ),
    ],
)
def test_the_planted_mask_computes_the_target(name, rule, shared):
    live, hidden, outputs, wanted = planted(name, rule, shared)
    spread = np.abs(wanted).max(axis=(1, 2)) + 1e-30
    assert (np.abs(outputs - wanted).max(axis=(1, 2)) / spread).max() < 1e-4
    assert (np.ptp(wanted, axis=1).max(axis=1) > 1e-3 * spread).sum() > SEEDS // 2  # alive
    for found, kept in zip(jax.tree.leaves(hidden.mask), jax.tree.leaves(live), strict=True):
        np.testing.assert_array_equal(*(m.reshape(SEEDS, -1).sum(axis=1) for m in (found, kept)))


def test_streams_keep_their_places():
    """All writers of a stream use no more mother channels than the target's stream has."""
    _, hidden, *_ = planted("identity", "norm", True)
    wiring = NETWORKS["identity"][0].wiring
    counts = 0
    for node in ("00", "02", "04"):
        (part,) = wiring.writers(node)
        mask = hidden.mask[part.name]  # [S, ...]
        counts = counts + mask["kernel"].sum(axis=(1, 2, 3)) + mask["bias"]
    assert (counts > 0).sum(axis=1).max() == 4
    inner = hidden.mask["layer_01"]
    assert (inner["kernel"].any(axis=(1, 2, 3)) | inner["bias"]).sum(axis=1).max() == 4


@pytest.mark.slow
def test_a_channel_that_a_later_block_begins_finds_a_free_place():
    """Stream channel 1 is written by the block alone, channel 0 by the stem alone."""
    target = {
        "layer_00": {"kernel": jnp.array([[[[1.0, 0.0]]]]), "bias": jnp.array([0.0, -1.0])},
        "layer_01": {
            "kernel": jnp.array([[[[-2.0, 0.0], [0.0, 0.0]]]]),
            "bias": jnp.array([1.0, 0.0]),
        },
        "layer_02": {"kernel": jnp.array([[[[0.0, 3.0], [0.0, 0.0]]]]), "bias": jnp.zeros(2)},
        "layer_03": {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "bias": jnp.zeros(2)},
    }
    network = small(((2, 1),)).wiring
    mother = draw(0, chain([(1, 1, 1, 6), (1, 1, 6, 5), (1, 1, 5, 6), (6, 2)]))
    hidden = plant(jax.random.key(1), target, mother, wiring=network)
    used = [
        np.argwhere(np.asarray(hidden.mask[name]["kernel"]).squeeze((0, 1)))
        for name in sorted(mother)[:3]
    ]
    stem, block = used[0][0, 1], used[2][0, 1]
    assert stem != block
    assert used[1][0, 0] == stem and used[2][0, 0] == used[1][0, 1]  # noqa: PT018
    assert not np.asarray(hidden.mask["layer_00"]["bias"]).any()  # the bias -1 was dead
    last = np.argwhere(np.asarray(hidden.mask["layer_03"]["kernel"]))
    np.testing.assert_array_equal(sorted(last.tolist()), sorted([[stem, 0], [block, 1]]))


def test_a_carried_channel_takes_no_second_place():
    """In a mother as narrow as the target the block's own channel needs the only place left."""
    target = {
        "layer_00": {"kernel": jnp.array([[[[1.0, 0.0]]]]), "bias": jnp.zeros(2)},
        "layer_01": {"kernel": jnp.array([[[[1.0, 0.0], [0.0, 0.0]]]]), "bias": jnp.zeros(2)},
        "layer_02": {"kernel": jnp.array([[[[2.0, 3.0], [0.0, 0.0]]]]), "bias": jnp.zeros(2)},
        "layer_03": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)},
    }
    network = small(((2, 1),)).wiring
    stems = set()
    for seed in range(8):
        mother = draw(seed, chain([(1, 1, 1, 2), (1, 1, 2, 2), (1, 1, 2, 2), (2, 2)]))
        hidden = plant(jax.random.key(seed), target, mother, wiring=network)
        mask = jax.tree.map(np.asarray, hidden.mask)
        (stem,) = mask["layer_00"]["kernel"].squeeze((0, 1, 2)).nonzero()[0]
        np.testing.assert_array_equal(mask["layer_03"]["kernel"], np.roll(np.eye(2), stem, axis=0))
        stems.add(stem)
    assert stems == {0, 1}


def test_dead_channels_of_images_are_left_out_of_the_flattened_kernel():
    """Channel 1 is fed by nothing: none of its 4 pixels may be planted, channel 0's all are."""
    target = {
        "layer_00": {"kernel": jnp.array([[[[1.0, 0.0]]]]), "bias": jnp.array([0.5, -1.0])},
        "layer_01": {"kernel": jnp.arange(1.0, 9.0)[:, None], "bias": jnp.ones(1)},
    }
    places = set()
    for seed in range(12):
        mother = draw(seed, chain([(1, 1, 1, 3), (12, 1)]))
        hidden = plant(jax.random.key(seed), target, mother, wiring=wirings.chain(target))
        kept, kernel = (
            np.asarray(tree["layer_01"]["kernel"])[:, 0].reshape(4, 3)
            for tree in (hidden.mask, hidden.params)
        )
        place = int(np.argmax(kept[0]))
        np.testing.assert_array_equal(kept, [np.arange(3) == place] * 4)
        np.testing.assert_allclose(kernel[:, place] / kernel[0, place], [1, 3, 5, 7], rtol=1e-5)
        places.add(place)
    assert places == {0, 1, 2}


@pytest.mark.slow
def test_dead_channels_of_a_stream_find_places_where_it_widens():
    """Stem channels 1 and 2 are fed by nothing; the wider node behind them has its own there."""
    target = {
        "layer_00": {"kernel": jnp.array([[1.0, 0.0, 0.0]]), "bias": jnp.array([0.5, -1.0, -1.0])},
        "layer_01": {"kernel": jnp.array([[1.0], [0.0], [0.0]]), "bias": jnp.zeros(1)},
        "layer_02": {"kernel": jnp.array([[0.0, 2.0, -3.0, 4.0]]), "bias": jnp.ones(4)},
        "layer_03": {"kernel": jnp.diag(jnp.arange(1.0, 5.0)), "bias": jnp.zeros(4)},
    }
    nodes = [(INPUT, "stem"), ("stem", "inner"), ("inner", "wide"), ("wide", "out")]
    layers = [layer(name, *pair) for name, pair in zip(sorted(target), nodes, strict=True)]
    wiring = Wiring(tuple(layers), (("wide", "stem"),))

    def apply(params, x):
        stem, inner, wide, out = (params[name] for name in sorted(params))
        x = jax.nn.relu(dense(stem, x))
        more = jnp.pad(x, ((0, 0), (0, out["kernel"].shape[0] - x.shape[1])))
        return dense(out, jax.nn.relu(dense(wide, jax.nn.relu(dense(inner, x))) + more))

    x = jnp.linspace(-1.0, 1.0, 21)[:, None]
    apply = jax.jit(apply)
    for seed in range(4):
        mother = draw(seed, chain([(1, 5), (5, 3), (3, 8), (8, 4)]))
        hidden = plant(jax.random.key(seed), target, mother, wiring=wiring)
        outputs = apply(masks.apply(hidden.params, hidden.mask), x) / hidden.scale[None, :]
        np.testing.assert_allclose(outputs, apply(target, x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_layers_without_biases_and_any_tree():
    """A list of kernels under names of its own, with an identity shortcut, no biases."""
    rng = np.random.default_rng(0)

    def drawn(*shapes):
        return [{"w": jnp.asarray(rng.normal(size=shape).astype("f4"))} for shape in shapes]

    target, mother = drawn((2, 3), (3, 3), (3, 1)), drawn((2, 9), (9, 9), (9, 1))
    nodes = [(INPUT, "a"), ("a", "b"), ("b", "c")]
    layers = [wirings.Layer(f"{i}/w", None, *pair) for i, pair in enumerate(nodes)]
    wiring = Wiring(tuple(layers), (("b", "a"),))

    def apply(params, x):
        first, second, third = (part["w"] for part in params)
        x = jax.nn.relu(x @ first)
        return jax.nn.relu(x @ second + x) @ third

    hidden = plant(jax.random.key(0), target, mother, wiring=wiring)
    chex.assert_trees_all_equal_structs(hidden.params, mother)
    x = jnp.asarray(rng.normal(size=(50, 2)).astype("f4"))
    wanted = apply(target, x) * hidden.scale[None, :]
    found = apply(masks.apply(hidden.params, hidden.mask), x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(jnp.abs(wanted).max()))


def test_a_single_layer():
    target, mother = (draw(seed, chain([(3, 2)])) for seed in (0, 1))
    hidden = plant(jax.random.key(2), target, mother)
    for leaf, wanted in target["layer_00"].items():
        np.testing.assert_allclose(
            hidden.params["layer_00"][leaf], wanted * hidden.scale[0], rtol=1e-5
        )


@pytest.mark.slow
def test_a_folded_network_keeps_its_predictions():
    """Random statistics, scales of both signs and a random mask; in an equal and a wider mother."""
    widths = ((4,), (5, 6))
    normed = convnets.Network(convnets.VGG(5, batch_norm=True, blocks=widths))
    plain = convnets.Network(convnets.VGG(5, blocks=widths))
    wider = convnets.Network(convnets.VGG(5, blocks=((9,), (6, 12))))
    rng, keys = np.random.default_rng(0), iter(jax.random.split(jax.random.key(0), 4))

    def noise(leaf):
        return rng.normal(size=leaf.shape).astype("f4")

    x, params = rng.normal(size=(1000, *IMAGE)).astype("f4"), draw(1, shapes_of(normed), 0.4)
    for name, part in params.items():
        params[name] = jax.tree.map(noise, part) if name.startswith("norm") else part
    statistics = jax.jit(normed.statistics, static_argnums=2)(params, x, 500)
    statistics = jax.tree.map(lambda s: s * jnp.exp(0.3 * noise(s)), statistics)
    centre = jax.jit(normed.inference(statistics))(params, x).mean(axis=0)
    params["layer_03"]["bias"] = params["layer_03"]["bias"] - centre
    wanted = jax.jit(normed.inference(statistics))(params, x)
    assert len(np.unique(jnp.argmax(wanted, axis=1))) > 2
    folded = convnets.fold(params, statistics)
    atol = 1e-5 * float(jnp.abs(wanted).max())
    chex.assert_trees_all_close(jax.jit(plain)(folded, x), wanted, rtol=1e-4, atol=atol)
    for network in (plain, wider):
        hidden = plant(next(keys), folded, network.init(next(keys), IMAGE), apply=network)
        found = jax.jit(network)(masks.apply(hidden.params, hidden.mask), x)
        assert (jnp.argmax(found, axis=1) == jnp.argmax(wanted, axis=1)).mean() >= 0.999


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (flattened_shapes(2, 4, 4, 5), "got width 2 in layer_00, where the target has 3"),
        ([(3, 3, 2, 9), *flattened_shapes(9, 9, 9, 9)[1:]], r"target's kernel size \(5, 5, 1\)"),
        ([*flattened_shapes(9, 9, 9, 9)[:3], (4 * 4 * 9, 9), (9, 3)], r"size \(4,\) .*in layer_03"),
        ([*flattened_shapes(9, 9, 9, 9)[:4], (9, 4)], "2 inputs and 3 outputs, got 2 and 4"),
        (flattened_shapes(9, 9, 9, 9)[:4], "mother must have the target's 5 layers, got 4"),
    ],
)
def test_mothers_that_do_not_fit(shapes, message):
    target, mother = draw(0, chain(CHAINS["flattened"][1])), draw(0, chain(shapes))
    with pytest.raises(ValueError, match=message):
        plant(jax.random.key(0), target, mother, apply=lambda params, x: x)


def test_batch_norms_and_wrong_wirings_are_refused():
    normed = convnets.Network(convnets.VGG(5, batch_norm=True, blocks=((4,),)))
    params = draw(0, shapes_of(normed))
    with pytest.raises(ValueError, match="batch norms must be folded"):
        plant(jax.random.key(0), params, params, wiring=normed.wiring)
    shifted = {"w": jnp.ones((1, 2)), "b": jnp.ones(2)}
    for name in ("scale", "shift"):
        part = wirings.Layer("w", None, INPUT, "output", **{name: "b"})
        with pytest.raises(ValueError, match="batch norms must be folded"):
            plant(jax.random.key(0), shifted, shifted, wiring=Wiring((part,)))
    with pytest.raises(ValueError, match="wiring or apply must be given for convolutions"):
        plant(jax.random.key(0), params, params)
    dense = draw(0, chain(CHAINS["pooled"][1]))
    wiring = Wiring((layer("layer_00", INPUT, "out"),))
    with pytest.raises(ValueError, match="must name every leaf of target once, but not layer_01"):
        plant(jax.random.key(0), dense, dense, wiring=wiring)


@pytest.mark.slow
def test_what_shapes_do_not_show_is_checked_on_the_network():
    """A residual network of the shapes of a chain, with its wiring, without, and a grouped one."""
    resnet, key = small(((4, 1),)), jax.random.key(0)
    target, mother = draw(0, shapes_of(resnet), 0.5), draw(1, shapes_of(resnet))
    hidden = plant(key, target, mother, apply=resnet)
    assert hidden.verify(target, resnet) < 1e-5
    with pytest.raises(ValueError, match="apply must connect the layers as a chain, got outputs"):
        plant(key, target, mother, apply=lambda params, x: resnet(params, x))

    def grouped(params, x):
        part = params["layer_00"]
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, part["kernel"], (1, 1), "SAME", dimension_numbers=dims, feature_group_count=2
        )
        return jnp.mean(x, axis=(1, 2)) + part["bias"][None, :]

    target, mother = (draw(seed, chain([(3, 3, 1, 4)])) for seed in (0, 1))
    x = np.random.default_rng(2).normal(size=(5, 6, 6, 2)).astype("f4")
    with pytest.raises(ValueError, match="x must fit the network"):
        plant(key, target, mother, apply=grouped)
    planted = plant(key, target, mother, apply=grouped, x=x)  # one layer: matched in place
    assert planted.verify(target, grouped, x) < 1e-5
