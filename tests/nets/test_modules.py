"""Modules of Flax NNX, Linen and Equinox are networks like all others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import contract
from plantjax import checks, interchange, masks, nets, plant, targets, tasks, training
from plantjax.finders import FINDERS
from plantjax.nets import wirings
from plantjax.types import Batch
from shared import chain

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(6, 8, 8, 1)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 4, 6), jnp.int32)
DIGITS = Batch(IMAGES, LABELS)


class State(nnx.Module):
    """With batch norm, Dropout, a counter, and layers in a list."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(12)])
        self.head = nnx.Linear(4, 10, use_bias=False, rngs=rngs)
        self.calls = nnx.Variable(jnp.int32(0))

    def __call__(self, x):
        self.calls[...] += 1
        x = self.dropout(nnx.relu(self.norm(self.conv(x)))).mean((1, 2))
        for layer in self.layers:
            x = nnx.relu(layer(x)) + x
        return self.head(x)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.relu(nn.BatchNorm(not train, use_scale=False)(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(10)(nn.LayerNorm()(x.mean((1, 2))))


def in_training(variables, x):
    return Linen().apply(variables, x, mutable=["batch_stats"])[0]


def equinox_module():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 4)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 4, 3, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Conv2d(4, 3, 3, padding=1, key=keys[1]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Dropout(inference=True),
            eqx.nn.Linear(48, 16, key=keys[2]),
            eqx.nn.LayerNorm(16),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Linear(16, 10, key=keys[3]),
        ]
    )


def as_channels_first(module, x):
    return jax.vmap(module)(jnp.moveaxis(x, -1, 1))


def from_state():
    module = State()
    return (*nets.from_nnx(module), lambda: State()(IMAGES))


def from_variables():
    variables = Linen().init(jax.random.key(0), IMAGES)
    made = nets.from_linen(Linen(), variables, in_training)
    return (*made, lambda: in_training(variables, IMAGES))


def from_equinox():
    module = equinox_module()
    made = nets.from_equinox(module, as_channels_first)
    return (*made, lambda: as_channels_first(module, IMAGES))


KINDS = {"nnx": from_state, "linen": from_variables, "equinox": from_equinox}
KEPT = {
    "nnx": {"norm/bias", "norm/scale"},
    "linen": {"BatchNorm_0/bias", "LayerNorm_0/bias", "LayerNorm_0/scale"},
    "equinox": {"layers/8/weight", "layers/8/bias"},
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param, *KINDS[request.param]()


@pytest.mark.slow
def test_it_is_the_same_function(kind):
    name, apply, params, run = kind
    wanted = run()
    doubled = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), params)
    batched = jax.jit(jax.vmap(apply, (0, None)))
    for _ in range(2):  # a call changes nothing
        outputs = batched(doubled, IMAGES)[0]
        np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-5)
    assert {path for path in wirings.leaves(params) if not apply.prunable(path)} == KEPT[name]


@pytest.mark.slow
def test_it_prunes_trains_and_is_saved(tmp_path):
    apply, params, _ = from_variables()
    finder = FINDERS["snip"](tasks.TASKS["circle"], apply=apply)
    found = jax.jit(finder)(jax.random.key(1), params, DIGITS, 0.6)
    kept, size = masks.count(found.mask, apply.prunable), masks.size(params, apply.prunable)
    assert int(kept) == int(masks.number_kept(0.6, size))
    trained, losses = training.fit(
        jax.random.key(2),
        params,
        found.mask,
        DIGITS,
        apply=apply,
        loss=tasks.TASKS["circle"].loss,
        optimizer=optax.adam(1e-2),
        epochs=20,
        batch_size=6,
    )
    assert losses[-1] < losses[0]
    assert all(
        not leaf[~m].any()
        for leaf, m in zip(*map(jax.tree.leaves, (trained, found.mask)), strict=True)
    )
    interchange.save(tmp_path / "params.npz", trained)
    again = interchange.load(tmp_path / "params.npz", like=params)
    np.testing.assert_array_equal(apply(again, IMAGES), apply(trained, IMAGES))


@pytest.mark.slow
def test_a_whole_state_is_pruned_and_trained():
    """With random keys, a counter and running statistics, which are not prunable."""
    module = State()
    graph, state = nnx.split(module)

    def apply(state, x):
        return nnx.merge(graph, jax.tree.map(lambda leaf: leaf, state))(x)

    apply.prunable = lambda path: path.endswith("kernel")
    finder = FINDERS["snip"](tasks.TASKS["circle"], apply=apply)
    mask = jax.jit(finder)(jax.random.key(1), state, DIGITS, 0.6).mask
    _, params = nets.from_nnx(module)
    n = sum(leaf.size for path, leaf in wirings.leaves(params).items() if apply.prunable(path))
    assert masks.size(state, apply.prunable) == n
    assert int(masks.count(mask, apply.prunable)) == int(masks.number_kept(0.6, n))
    trained, losses = training.fit(
        jax.random.key(2),
        state,
        mask,
        DIGITS,
        apply=apply,
        loss=tasks.TASKS["circle"].loss,
        optimizer=optax.adam(1e-2),
        epochs=10,
        batch_size=6,
    )
    assert losses[-1] < losses[0]
    nnx.update(module, trained)
    assert float(jnp.mean(module.head.kernel[...] == 0)) > 0
    assert int(module.calls[...]) == 0


def test_synflow_sees_through_batch_norm():
    apply, params, _ = from_state()
    module = apply.at_rest(apply.restore(params))
    x = jnp.ones((1, 8, 8, 1))
    np.testing.assert_allclose(apply.flow(params, x), module(x), rtol=1e-6)
    scaled = params | {"conv": jax.tree.map(lambda leaf: 3 * leaf, params["conv"])}
    assert float(jnp.abs(apply.flow(scaled, x) - apply.flow(params, x)).max()) > 0.01


class Chain(nnx.Module):
    def __init__(self, params):
        linears = []
        for layer in nets.layers(params):
            linear = nnx.Linear(*layer["kernel"].shape, precision="highest", rngs=nnx.Rngs(0))
            linear.kernel[...], linear.bias[...] = layer["kernel"], layer["bias"]
            linears.append(linear)
        self.layers, self.rngs = nnx.List(linears), nnx.Rngs(3)

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


PLAIN = chain(2, 8, 8, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["synflow", "phew"])
def test_finders_find_in_a_module_what_they_find_in_a_tree(name):
    task = tasks.TASKS["circle"]
    data = task.sample(jax.random.key(1), 64)
    options = contract.brief(name)

    def found(apply, params):
        finder = jax.jit(FINDERS[name](task, apply=apply, **options))
        return wirings.leaves(finder(jax.random.key(2), params, data, 0.4).mask)

    mask, wanted = found(*nets.from_nnx(Chain(PLAIN))), found(nets.apply, PLAIN)
    for path, leaf in wanted.items():
        other = mask[path.replace("layer_0", "layers/")]
        np.testing.assert_array_equal(other, leaf)


@pytest.mark.slow
def test_a_ticket_is_planted_in_each_library():
    eqx = pytest.importorskip("equinox")
    target, x = targets.circle(depth=3), RNG.normal(size=(5, 2)).astype(np.float32)
    mlp = eqx.nn.MLP(2, 4, 50, 1, key=jax.random.key(0))
    wide = nets.init(jax.random.key(0), (2, 50, 4))
    for apply, params in (nets.from_equinox(mlp), nets.from_nnx(Chain(wide))):
        planted = plant(jax.random.key(1), target, params)
        outputs = apply(masks.apply(planted.params, planted.mask), x) / planted.scale[None, :]
        np.testing.assert_allclose(outputs, nets.apply(target, x), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_convolutional_equinox_module_is_a_chain():
    """Its flattened images are [C, H, W]; here rows of kernels are in the order [H, W, C]."""
    eqx = pytest.importorskip("equinox")

    def module(key, widths):
        keys = jax.random.split(key, 3)
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(1, widths[0], 3, padding=1, key=keys[0]),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.MaxPool2d(4, 4),
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(4 * widths[0], widths[1], key=keys[1]),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.Linear(widths[1], 2, key=keys[2]),
            ]
        )

    run, target = nets.from_equinox(module(jax.random.key(0), (2, 3)), as_channels_first)
    apply, mother = nets.from_equinox(module(jax.random.key(1), (9, 20)), as_channels_first)
    planted = plant(jax.random.key(2), target, mother, apply=apply, x=IMAGES)
    outputs = apply(masks.apply(planted.params, planted.mask), IMAGES) / planted.scale[None, :]
    np.testing.assert_allclose(outputs, run(target, IMAGES), rtol=1e-3, atol=1e-4)
    restored = apply.restore(mother)
    for leaf, other in zip(
        *(jax.tree.leaves(m) for m in (restored, module(jax.random.key(1), (9, 20)))), strict=True
    ):
        if checks.is_float(leaf):
            np.testing.assert_array_equal(leaf, other)


def test_what_is_refused():
    apply, params, _ = from_state()
    with pytest.raises(ValueError, match="params must have the tree structure of the module"):
        apply({"conv": params["conv"]}, IMAGES)
    with pytest.raises(ValueError, match="variables must have the collection params"):
        nets.from_linen(Linen(), {"batch_stats": {}})
    with pytest.raises(ValueError, match="module must have at least one parameter"):
        nets.from_nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
