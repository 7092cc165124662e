"""Scores against stored arrays, finite differences, explicit Hessians and conservation laws."""

import functools
import itertools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

from plantjax import losses, masks, nets
from plantjax.scores import SCORES
from plantjax.types import Batch

GOLDEN = Path(__file__).parents[1] / "golden" / "scores_circle.npz"
STORED = {"magnitude": "mag", "snip": "snip", "grasp": "grasp", "synflow": "synflow"}
LOSSES = {"circle": losses.cross_entropy, "relu": losses.mean_squared_error}


def flat(tree):
    """All leaves as one float64 or bool numpy vector."""
    vector = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    return vector if vector.dtype == bool else vector.astype(np.float64)


def proportional(found, wanted):
    """The factor that takes `found` to `wanted`, and the largest error after it, relative."""
    factor = (found @ wanted) / (found @ found)
    return factor, np.abs(factor * found - wanted).max() / np.abs(wanted).max()


def mother(widths, seed=0, scale=1.0):
    """A network with He weights and sizeable biases, drawn by numpy: nothing to compile."""
    rng = np.random.default_rng(seed)
    return {
        nets.layer_name(index): {
            "kernel": jnp.asarray(
                scale * rng.normal(0.0, (2.0 / n_in) ** 0.5, (n_in, n_out)).astype(np.float32)
            ),
            "bias": jnp.asarray(scale * rng.normal(0.0, 0.3, n_out).astype(np.float32)),
        }
        for index, (n_in, n_out) in enumerate(itertools.pairwise(widths))
    }


def bernoulli_mask(params, density, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.random(p.shape) < density), params)


@functools.cache
def tiny(task, kept="full"):
    """A tiny mother, a full or partial mask, and a batch with labels or values of the task."""
    params, rng = mother((2, 4, 3, 3), seed=5), np.random.default_rng(6)
    x = jnp.asarray(rng.uniform(-1.0, 1.0, (12, 2)).astype(np.float32))
    values = rng.normal(size=(12, 3)).astype(np.float32)
    y = jnp.asarray(np.arange(12, dtype=np.int32) % 3 if task == "circle" else values)
    mask = bernoulli_mask(params, 1.0 if kept == "full" else 0.8, seed=2)
    for layer in jax.device_get(mask).values():  # no unit at the kink of its ReLU for all inputs
        assert layer["kernel"].any(axis=0).all()
    return params, mask, Batch(x, y)


@functools.cache
def compiled(name, task):
    return jax.jit(SCORES[name](nets.apply, LOSSES[task]))


@jax.jit
def select(scores, density):
    return masks.select(jax.random.key(1), scores, density)


def forward64(params, x):
    """The activations of all layers, input and outputs included, in float64 numpy."""
    activations = [np.asarray(x, np.float64)]
    for index, layer in enumerate(params.values()):
        x = np.maximum(activations[-1], 0.0) if index else activations[-1]
        activations.append(x @ layer["kernel"] + layer["bias"])
    return activations


def as64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(tree))


def loss64(task, outputs, y):
    if task == "relu":
        return np.mean((outputs - np.asarray(y, np.float64)) ** 2)
    logits = outputs - outputs.max(axis=1, keepdims=True)
    picked = logits[np.arange(len(y)), np.asarray(y)]
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - picked)


def synflow64(params):
    """SynFlow scores of a chain in float64, by its own backward pass."""
    positive = jax.tree.map(np.abs, as64(params))
    width = next(iter(positive.values()))["kernel"].shape[0]
    activations = forward64(positive, np.ones((1, width)))
    back, scores = np.ones(activations[-1].shape[1]), {}
    for index, (name, layer) in reversed(list(enumerate(positive.items()))):
        kernel = activations[index][0][:, None] * layer["kernel"] * back[None, :]
        scores[name] = {"kernel": kernel, "bias": layer["bias"] * back}
        back = layer["kernel"] @ back
    return scores


def synflow_of(params, mask=None):
    """Scores of SynFlow, on the host; it only looks at the shape of the batch."""
    x = jnp.zeros((1, params["layer_00"]["kernel"].shape[0]))
    mask = jax.tree.map(lambda p: np.ones(p.shape, bool), params) if mask is None else mask
    return jax.device_get(compiled("synflow", "relu")(jax.random.key(0), params, mask, Batch(x, x)))


@pytest.fixture(scope="module")
def stored():
    return dict(np.load(GOLDEN))


def stored_tree(stored, prefix):
    return {
        nets.layer_name(i): {
            "kernel": jnp.asarray(stored[f"{prefix}w{i}"]),
            "bias": jnp.asarray(stored[f"{prefix}b{i}"]),
        }
        for i in range(4)
    }


@pytest.fixture(scope="module")
def golden(stored):
    """Parameters and batch of the stored planted Circle network."""
    y = jnp.asarray(stored["Y"][:, 0].astype(np.int32))
    return stored_tree(stored, ""), Batch(jnp.asarray(stored["X"]), y)


@pytest.fixture(scope="module")
def golden_scores(golden):
    params, batch = golden
    key = jax.random.key(0)
    return {
        name: compiled(name, "circle")(key, params, masks.full(params), batch) for name in STORED
    }


def test_network_outputs_equal_the_stored_ones(stored, golden):
    params, batch = golden
    outputs = nets.apply(params, batch.x)
    np.testing.assert_allclose(outputs, stored["out"], atol=1e-6 * np.abs(stored["out"]).max())


@pytest.mark.parametrize("name", STORED)
def test_scores_equal_the_stored_ones_up_to_a_factor(name, stored, golden_scores):
    wanted = flat(stored_tree(stored, f"{STORED[name]}_score_"))
    factor, error = proportional(flat(golden_scores[name]), wanted)
    assert factor > 0
    assert error < 1e-5


@pytest.mark.parametrize("density", ["0.1", "0.01"])
@pytest.mark.parametrize("name", STORED)
def test_masks_equal_the_stored_ones(name, density, stored, golden_scores):
    wanted = stored_tree(stored, f"{STORED[name]}_mask{density}_")
    kept, n = flat(wanted).sum(), flat(wanted).size
    ranked = np.sort(flat(stored_tree(stored, f"{STORED[name]}_score_")))[::-1]
    assert ranked[kept - 1] > ranked[kept]  # no tie at the threshold: the mask is unique
    chex.assert_trees_all_equal(select(golden_scores[name], jnp.float32(kept / n)), wanted)


@pytest.mark.parametrize("kept", ["full", "partial"])
def test_magnitude_is_the_absolute_value_whatever_the_mask(kept):
    params, mask, batch = tiny("circle", kept)
    scores = compiled("magnitude", "circle")(jax.random.key(0), params, mask, batch)
    np.testing.assert_array_equal(flat(scores), np.abs(flat(params)))


@pytest.mark.parametrize("kept", ["full", "partial"])
@pytest.mark.parametrize("task", LOSSES)
def test_snip_is_the_finite_difference_of_the_loss_by_the_mask(task, kept):
    params, mask, batch = tiny(task, kept)
    leaves, structure = jax.tree.flatten(as64(params))
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def loss_of(m):
        parts = zip(np.split(m, ends), leaves, strict=True)
        masked = [part.reshape(leaf.shape) * leaf for part, leaf in parts]
        return loss64(task, forward64(structure.unflatten(masked), batch.x)[-1], batch.y)

    m = flat(mask).astype(np.float64)
    wanted = [abs(loss_of(m + e) - loss_of(m - e)) / 2e-6 for e in 1e-6 * np.eye(m.size)]
    scores = flat(compiled("snip", task)(jax.random.key(0), params, mask, batch))
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-6 * max(wanted))


def test_a_loss_of_known_labels_jits():
    outputs, labels = jnp.zeros((3, 4)), jnp.zeros(3, jnp.int32)
    loss = jax.jit(lambda outputs: losses.cross_entropy(outputs, labels))
    np.testing.assert_allclose(loss(outputs), np.log(4.0), rtol=1e-6)


@pytest.mark.parametrize("task", LOSSES)
def test_grasp_is_the_product_with_the_explicit_hessian(task):
    params, mask, batch = tiny(task, "partial")
    theta, unravel = ravel_pytree(params)

    def tempered(masked, batch):
        return LOSSES[task](nets.apply(unravel(masked), batch.x) / 200.0, batch.y)

    theta, m = np.asarray(theta), flat(mask).astype(np.float32)
    hessian = np.asarray(jax.jit(jax.hessian(tempered))(theta * m, batch))
    gradient = np.asarray(jax.jit(jax.grad(tempered))(theta * m, batch))
    # only kept parameters count: H and g are restricted to their rows and columns
    wanted = theta * m * (hessian @ (m * gradient))
    scores = flat(compiled("grasp", task)(jax.random.key(0), params, mask, batch))
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("density", [1.0, 0.4])
def test_synflow_is_conserved_at_every_hidden_unit(density):
    """By weights and bias as much enters a hidden unit as leaves it."""
    params = mother((3, 17, 11, 8, 2))
    scores = synflow_of(params, bernoulli_mask(params, density))
    for layer, following in itertools.pairwise(scores.values()):
        entering = layer["kernel"].sum(axis=0) + layer["bias"]
        leaving = following["kernel"].sum(axis=1)
        assert leaving.max() > 0
        np.testing.assert_allclose(entering, leaving, rtol=1e-5, atol=1e-6 * leaving.max())


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_synflow_is_conserved_over_layers(density):
    """What enters a layer by weights, and by the biases from it on, is what leaves the network."""
    params = mother((3, 17, 11, 8, 2))
    scores = synflow_of(params, bernoulli_mask(params, density)).values()
    kernels = np.array([layer["kernel"].sum() for layer in scores])
    biases = np.array([layer["bias"].sum() for layer in scores])
    totals = kernels + np.cumsum(biases[::-1])[::-1]
    assert totals[0] > 0
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


@pytest.mark.parametrize("bias_size", [1.0, 0.0])
@pytest.mark.parametrize("size", [1e-30, 1e-15, 1.0, 1e15, 1e30])
def test_synflow_neither_overflows_nor_vanishes(size, bias_size):
    params = mother((2, 20, 20, 20, 20, 3), scale=size)
    params = {
        name: {"kernel": layer["kernel"], "bias": layer["bias"] * bias_size}
        for name, layer in params.items()
    }
    found, wanted = flat(synflow_of(params)), flat(synflow64(params))
    assert np.isfinite(found).all()
    factor, error = proportional(found, wanted / wanted.max())
    assert factor > 0
    assert error < 1e-5


@pytest.mark.slow
def test_synflow_ranks_a_network_of_depth_20_and_width_1000():
    params = mother((2, *[1000] * 18, 4))
    scores = synflow_of(params)
    found, wanted = flat(scores), flat(synflow64(params))
    assert np.isfinite(found).all()
    assert found.max() > 0
    found, wanted = found / found.max(), wanted / wanted.max()
    assert (np.abs(found - wanted) <= 1e-4 * wanted + 1e-12).all()
    k = found.size // 100
    threshold = np.partition(wanted, -k)[-k]
    kept = flat(select(scores, jnp.float32(k / found.size)))
    assert kept[wanted > threshold * 1.0005].all()
    assert not kept[wanted < threshold * 0.9995].any()


def test_random_scores_are_standard_normal_and_follow_the_key():
    params = mother((2, 100, 100, 4))
    score = jax.jit(lambda key: SCORES["random"](nets.apply, None)(key, params, None, None))
    first, again, other = (score(jax.random.key(seed)) for seed in (1, 1, 2))
    chex.assert_trees_all_equal(first, again)
    chex.assert_trees_all_equal_shapes_and_dtypes(first, params)
    assert abs(np.corrcoef(flat(first), flat(other))[0, 1]) < 5 / np.sqrt(flat(first).size)
    assert scipy.stats.kstest(flat(first), "norm").pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["px", "movement"])
def test_scores_take_any_pytree_with_its_own_apply(name):
    """The same network under other names, in other containers, has the same scores."""
    params, mask, batch = tiny("circle", "partial")

    def rename(tree):
        return {"blocks": [(layer["bias"], {"w": layer["kernel"]}) for layer in tree.values()]}

    def own_apply(tree, x):
        layers = [{"bias": bias, "kernel": rest["w"]} for bias, rest in tree["blocks"]]
        return nets.apply({nets.layer_name(i): layer for i, layer in enumerate(layers)}, x)

    score = jax.jit(SCORES[name](own_apply, losses.cross_entropy))
    found = score(jax.random.key(0), rename(params), rename(mask), batch)
    wanted = rename(compiled(name, "circle")(jax.random.key(0), params, mask, batch))
    chex.assert_trees_all_equal_structs(found, wanted)
    factor, error = proportional(flat(found), flat(wanted))
    assert factor > 0
    assert error < 1e-5


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_scores_of_a_network_that_is_no_chain(name):
    """A gated network with a scalar and an array of rank 3, against the method's formulas."""
    rng = np.random.default_rng(0)
    x, y, mix, out = (
        jnp.asarray(rng.normal(size=shape).astype(np.float32))
        for shape in ((6, 2), (6, 2), (2, 2, 3), (3, 2))
    )
    params = {"gain": jnp.float32(0.7), "mix": mix, "out": [out]}
    theta, unravel = ravel_pytree(params)

    def own_apply(p, x):
        hidden = jnp.tanh(jnp.einsum("ni,ijh->nh", x, p["mix"], precision="highest"))
        return p["gain"] * jnp.matmul(hidden, p["out"][0], precision="highest")

    def loss_of(theta, temperature):
        return losses.mean_squared_error(own_apply(unravel(theta), x) / temperature, y)

    def flow(theta):
        return jnp.sum(own_apply(unravel(theta), jnp.ones((1, 2))))

    def formula(theta):
        if name == "synflow":
            return jnp.abs(theta * jax.grad(flow)(jnp.abs(theta)))
        if name == "snip":
            return jnp.abs(theta * jax.grad(loss_of)(theta, 1.0))
        return theta * (jax.hessian(loss_of)(theta, 200.0) @ jax.grad(loss_of)(theta, 200.0))

    score = jax.jit(SCORES[name](own_apply, losses.mean_squared_error))
    found = score(jax.random.key(0), params, masks.full(params), Batch(x, y))
    chex.assert_trees_all_equal_shapes_and_dtypes(found, params)
    wanted = np.asarray(jax.jit(formula)(theta))
    size = np.abs(wanted).max()
    power = 2.0 ** np.round(np.log2(size / np.abs(flat(found)).max()))  # synflow's is free
    assert power == 1.0 or name == "synflow"
    np.testing.assert_allclose(power * flat(found), wanted, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in (*STORED, "lamp") else [pytest.mark.slow])
        for name in SCORES
    ],
)
def test_nan_in_a_pruned_entry_changes_no_kept_score(name):
    params, mask, batch = tiny("circle", "partial")
    poisoned = jax.tree.map(lambda p, m: np.where(m, p, np.float32(np.nan)), params, mask)
    score = compiled(name, "circle")
    clean, dirty = (score(jax.random.key(0), p, mask, batch) for p in (params, poisoned))
    np.testing.assert_array_equal(flat(dirty)[flat(mask)], flat(clean)[flat(mask)])
