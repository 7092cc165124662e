"""Out to PyTorch and back: the arrays, and, where torch is installed, the same outputs."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plantjax import masks, nets
from plantjax.interchange import from_torch, to_torch

RNG = np.random.default_rng(0)


class Flattening(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3))(x))
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3), (2, 2), "VALID")(x)), (2, 2), (2, 2))
        return nn.Dense(3)(nn.relu(nn.Dense(7)(x.reshape(x.shape[0], -1))))


class Tied(nn.Module):
    """Predicts words by their embedding."""

    @nn.compact
    def __call__(self, x):
        embed = nn.Embed(11, 6)
        return embed.attend(nn.Dense(6)(embed(x).mean(1)))


NETWORK = nets.vgg(11, width=1 / 32, batch_norm=True)
FLAT, WORDS = RNG.normal(size=(4, 12, 10, 2)).astype("f4"), RNG.integers(0, 11, (4, 3))
PHOTOS = RNG.normal(size=(3, 32, 32, 3)).astype("f4")


def random_like(tree):
    """Every leaf random and positive, so that it can be a variance too."""
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.uniform(0.1, 1, leaf.shape), "f4"), tree)


def vgg_params():
    params = NETWORK.init(jax.random.key(0), PHOTOS.shape[1:])
    statistics = NETWORK.statistics(params, PHOTOS, 3)
    norms = {name: random_like(part) for name, part in params.items() if name.startswith("norm")}
    return {"params": params | norms, "batch_stats": random_like(statistics)}


def mlp():
    params = nets.init(jax.random.key(0), (3, 6, 6, 2))
    return params, lambda params, x: nets.apply(params, x), FLAT[:, 0, 0, [0, 1, 0]]


def cnn():
    params = Flattening().init(jax.random.key(0), FLAT)["params"]
    return params, lambda params, x: Flattening().apply({"params": params}, x), FLAT


def vgg():
    return (
        vgg_params(),
        lambda tree, x: NETWORK.inference(tree["batch_stats"])(tree["params"], x),
        PHOTOS,
    )


def tied():
    params = Tied().init(jax.random.key(0), WORDS)["params"]
    return params, lambda params, x: Tied().apply({"params": params}, x), WORDS


def in_nnx():
    class Chain(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(1)
            self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(12)])

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = nnx.relu(layer(x))
            return self.layers[-1](x)

    apply, params = nets.from_nnx(Chain())
    return params, apply, FLAT[:, 0, 0, [0, 1, 0]]


def shapes(*modules):
    """A state dict of zeros, from (name, shapes by role)."""
    return {f"{name}.{role}": np.zeros(shape) for name, roles in modules for role, shape in roles}


def dense(n_in, n_out):
    return (("weight", (n_out, n_in)), ("bias", (n_out,)))


def conv(n_in, n_out):
    return (("weight", (n_out, n_in, 3, 3)), ("bias", (n_out,)))


def norm(width):
    names = ("weight", "bias", "running_mean", "running_var")
    return (*((name, (width,)) for name in names), ("num_batches_tracked", ()))


def vgg_like():
    channels, modules = 3, []
    for index, width in enumerate(w for block in NETWORK.module.blocks for w in block):
        modules += [(f"{3 * index}", conv(channels, width)), (f"{3 * index + 1}", norm(width))]
        channels = width
    return shapes(*modules, ("head", dense(channels, 10)))


TABLE = RNG.normal(size=(11, 6))
CASES = {
    "mlp": (mlp, lambda: shapes(("0", dense(3, 6)), ("2", dense(6, 6)), ("4", dense(6, 2)))),
    "cnn": (
        cnn,
        lambda: shapes(
            ("0", conv(2, 5)), ("2", conv(5, 4)), ("6", dense(16, 7)), ("8", dense(7, 3))
        ),
    ),
    "vgg": (vgg, vgg_like),
    "tied": (
        tied,
        lambda: {"embed.weight": TABLE, **shapes(("mix", dense(6, 6))), "head.weight": TABLE},
    ),
    "nnx": (in_nnx, lambda: shapes(*((f"layers.{i}", dense(3, 3)) for i in range(12)))),
}


@pytest.fixture(params=CASES)
def case(request):
    make, like = CASES[request.param]
    return request.param, *make(), like()


def random_mask(params):
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.random(leaf.shape) < 0.6), params)


def test_there_and_back(case):
    _, params, _, _, like = case
    mask = random_mask(params)
    for split in (False, True):
        state = to_torch(params, mask, like, split=split)
        assert any(name.endswith("_mask") for name in state) == split
        found = from_torch(state, params)
        for leaf, wanted in zip(
            *map(jax.tree.leaves, (found, masks.apply(params, mask))), strict=True
        ):
            np.testing.assert_array_equal(leaf, wanted)


def test_the_parts_of_a_pruned_module():
    params, kept = {"a": {"kernel": jnp.arange(6.0).reshape(3, 2)}}, np.eye(3, 2, dtype=bool)
    mask = {"a": {"kernel": jnp.asarray(kept)}}
    wanted = {"0.weight_orig": params["a"]["kernel"].T, "0.weight_mask": kept.T}
    like = {name: np.zeros((2, 3), np.float16) for name in wanted}
    found = to_torch(params, mask, like)
    again = to_torch(params, mask, {"0.weight": np.zeros((2, 3), np.float16)}, split=True)
    for state in (found, again):
        assert set(state) == set(wanted)
        for name, array in state.items():
            assert array.dtype == np.float16
            np.testing.assert_array_equal(array, wanted[name])


def test_what_is_refused():
    params = nets.init(jax.random.key(0), (3, 2))
    with pytest.raises(ValueError, match="no other module fills"):
        to_torch(params, None, shapes(("0", dense(3, 4))))
    with pytest.raises(ValueError, match="mask must have the tree structure"):
        to_torch(params, {"layer_00": jnp.ones(2, bool)}, shapes(("0", dense(3, 2))))


def module_of(name):
    """The same network in PyTorch, with other values."""
    from torch import nn as torch_nn

    def convolution(n_in, n_out, **options):
        return torch_nn.Conv2d(n_in, n_out, 3, **options)

    if name == "cnn":
        return torch_nn.Sequential(
            convolution(2, 5, padding=1),
            torch_nn.ReLU(),
            convolution(5, 4, stride=2),
            torch_nn.ReLU(),
            torch_nn.MaxPool2d(2),
            torch_nn.Flatten(),
            torch_nn.Linear(16, 7),
            torch_nn.ReLU(),
            torch_nn.Linear(7, 3),
        )
    if name == "vgg":
        layers, channels = [], 3
        for number, block in enumerate(NETWORK.module.blocks):
            layers += [torch_nn.MaxPool2d(2)] if number else []
            for width in block:
                layers += [convolution(channels, width, padding=1), torch_nn.BatchNorm2d(width)]
                layers.append(torch_nn.ReLU())
                channels = width
        pool = [torch_nn.AdaptiveAvgPool2d(1), torch_nn.Flatten(), torch_nn.Linear(channels, 10)]
        return torch_nn.Sequential(*layers, *pool).eval()
    if name == "tied":

        class Words(torch_nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.mix = torch_nn.Embedding(11, 6), torch_nn.Linear(6, 6)
                self.head = torch_nn.Linear(6, 11, bias=False)
                self.head.weight = self.embed.weight

            def forward(self, x):
                return self.head(self.mix(self.embed(x).mean(1)))

        return Words()
    widths = (3, 6, 6, 2) if name == "mlp" else (3,) * 13
    layers = []
    for pair in itertools.pairwise(widths):
        layers += [torch_nn.Linear(*pair), torch_nn.ReLU()]
    return torch_nn.Sequential(*layers[:-1])


def test_torch_computes_the_same(case):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    name, params, apply, x, _ = case
    module = module_of(name)
    given = torch.from_numpy(np.moveaxis(x, -1, 1).copy() if x.ndim == 4 else x.copy())
    mask = masks.select(
        jax.random.key(1), jax.tree.map(jnp.abs, params), 0.7, prunable=lambda p: "kernel" in p
    )
    wanted = apply(masks.apply(params, mask), x)
    module.load_state_dict(to_torch(params, mask, module.state_dict()))
    np.testing.assert_allclose(module(given).detach(), wanted, rtol=1e-5, atol=1e-5)
    back = from_torch(module.state_dict(), params)
    np.testing.assert_allclose(apply(back, x), wanted, rtol=1e-6, atol=1e-6)
    for part in module.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d) and name != "tied":
            prune.identity(part, "weight")
    module.load_state_dict(to_torch(params, mask, module.state_dict()))
    np.testing.assert_allclose(module(given).detach(), wanted, rtol=1e-5, atol=1e-5)
