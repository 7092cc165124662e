"""Scores against stored arrays, finite differences, explicit Hessians and conservation laws."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

from plantjax import losses, masks, nets, tasks
from plantjax.scores import SCORES
from plantjax.types import Batch

GOLDEN = Path(__file__).parent / "golden" / "scores_circle.npz"
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


def random_mask(key, params, density=0.7):
    return masks.select(key, SCORES["random"](None, None)(key, params, None, None), density)


def tiny(task):
    """A tiny mother, a full and a partial mask, and a batch with labels or values of the task."""
    keys = jax.random.split(jax.random.key(5), 4)
    params = nets.init(keys[0], (2, 4, 3, 3))
    x = jax.random.uniform(keys[1], (12, 2), minval=-1.0)
    y = jnp.arange(12) % 3 if task == "circle" else jax.random.normal(keys[2], (12, 3))
    kept = {"full": masks.full(params), "partial": random_mask(keys[3], params)}
    return params, kept, Batch(x, y)


def forward64(params, x):
    """The network in float64 numpy: outputs and the activations of every layer."""
    activations = [np.asarray(x, np.float64)]
    for index, layer in enumerate(nets.layers(params)):
        x = np.maximum(activations[-1], 0.0) if index else activations[-1]
        activations.append(x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"]))
    return activations[-1], activations


def loss64(task, outputs, y):
    if task == "relu":
        return np.mean((outputs - np.asarray(y, np.float64)) ** 2)
    logits = outputs - outputs.max(axis=1, keepdims=True)
    picked = logits[np.arange(len(y)), np.asarray(y)]
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - picked)


def synflow64(params):
    """SynFlow scores of a chain in float64, kernels and biases flattened in tree order."""
    positive = jax.tree.map(lambda p: np.abs(np.asarray(p, np.float64)), params)
    _, activations = forward64(positive, np.ones((1, nets.widths(params)[0])))
    names, back, scores = sorted(positive), np.ones(activations[-1].shape[1]), {}
    for index, name in reversed(list(enumerate(names))):
        kernel, bias = positive[name]["kernel"], positive[name]["bias"]
        incoming = activations[index][0][:, None]
        scores[name] = {"kernel": incoming * kernel * back[None, :], "bias": bias * back}
        back = kernel @ back
    return scores


@pytest.fixture(scope="module")
def stored():
    return np.load(GOLDEN)


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
    key, loss = jax.random.key(0), tasks.TASKS["circle"].loss
    return {
        name: jax.jit(SCORES[name](nets.apply, loss))(key, params, masks.full(params), batch)
        for name in STORED
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
    kept, n = int(masks.count(wanted)), masks.size(wanted)
    ranked = np.sort(flat(stored_tree(stored, f"{STORED[name]}_score_")))[::-1]
    assert ranked[kept - 1] > ranked[kept]  # no tie at the threshold: the mask is unique
    found = masks.select(jax.random.key(1), golden_scores[name], kept / n)
    chex.assert_trees_all_equal(found, wanted)


@pytest.mark.parametrize("kept", ["full", "partial"])
def test_magnitude_is_the_absolute_value_of_what_is_kept(kept):
    params, kept_masks, batch = tiny("circle")
    scores = SCORES["magnitude"](nets.apply, None)(
        jax.random.key(0), params, kept_masks[kept], batch
    )
    wanted = np.where(flat(kept_masks[kept]), np.abs(flat(params)), 0.0)
    np.testing.assert_array_equal(flat(scores), wanted)


@pytest.mark.parametrize("kept", ["full", "partial"])
@pytest.mark.parametrize("task", LOSSES)
def test_snip_is_the_finite_difference_of_the_loss_by_the_mask(task, kept):
    params, kept_masks, batch = tiny(task)
    theta, unravel = ravel_pytree(params)
    theta, mask = np.asarray(theta, np.float64), flat(kept_masks[kept]).astype(np.float64)

    def loss_of_mask(m):
        layers = jax.tree.map(np.asarray, unravel(jnp.zeros(theta.size)))  # only for the shapes
        ends = np.cumsum([leaf.size for leaf in jax.tree.leaves(layers)])[:-1]
        parts = zip(jax.tree.leaves(layers), np.split(m * theta, ends), strict=True)
        leaves = [part.reshape(leaf.shape) for leaf, part in parts]
        masked = jax.tree.unflatten(jax.tree.structure(layers), leaves)
        return loss64(task, forward64(masked, batch.x)[0], batch.y)

    step = 1e-6 * np.eye(theta.size)
    wanted = [abs(loss_of_mask(mask + e) - loss_of_mask(mask - e)) / 2e-6 for e in step]
    scores = SCORES["snip"](nets.apply, LOSSES[task])(
        jax.random.key(0), params, kept_masks[kept], batch
    )
    np.testing.assert_allclose(flat(scores), wanted, rtol=1e-4, atol=1e-6 * max(wanted))


@pytest.mark.parametrize("kept", ["full", "partial"])
@pytest.mark.parametrize("task", LOSSES)
def test_grasp_is_the_product_with_the_explicit_hessian(task, kept):
    params, kept_masks, batch = tiny(task)
    theta, unravel = ravel_pytree(params)
    mask = jnp.asarray(flat(kept_masks[kept]), jnp.float32)

    def tempered(masked):
        return LOSSES[task](nets.apply(unravel(masked), batch.x) / 200.0, batch.y)

    hessian, gradient = jax.hessian(tempered)(theta * mask), jax.grad(tempered)(theta * mask)
    # only kept parameters count: H and g are restricted to their rows and columns
    wanted = np.asarray(theta * mask * (hessian @ (mask * gradient)), np.float64)
    scores = SCORES["grasp"](nets.apply, LOSSES[task])(
        jax.random.key(0), params, kept_masks[kept], batch
    )
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(flat(scores), wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("kept", ["full", "partial"])
def test_synflow_is_conserved_at_every_hidden_unit(kept):
    params = nets.init(jax.random.key(0), (3, 17, 11, 8, 2))
    mask = masks.full(params) if kept == "full" else random_mask(jax.random.key(1), params, 0.4)
    batch = Batch(jnp.zeros((2, 3)), jnp.zeros((2, 2)))
    layers = nets.layers(
        SCORES["synflow"](nets.apply, None)(jax.random.key(2), params, mask, batch)
    )
    for layer, following in zip(layers[:-1], layers[1:], strict=True):
        entering = np.sum(layer["kernel"], axis=0) + layer["bias"]
        leaving = np.sum(following["kernel"], axis=1)
        assert leaving.max() > 0
        np.testing.assert_allclose(entering, leaving, rtol=1e-5, atol=1e-6 * leaving.max())


def test_synflow_is_conserved_over_layers():
    """What enters a layer by weights, and by all biases before it, is what leaves the network."""
    params = nets.init(jax.random.key(0), (2, 30, 20, 10, 4))
    batch = Batch(jnp.zeros((2, 2)), jnp.zeros(2, jnp.int32))
    scores = SCORES["synflow"](nets.apply, None)(
        jax.random.key(2), params, masks.full(params), batch
    )
    kernels = np.array([np.sum(layer["kernel"]) for layer in nets.layers(scores)])
    biases = np.array([np.sum(layer["bias"]) for layer in nets.layers(scores)])
    later = np.append(np.cumsum(biases[::-1])[::-1], 0.0)  # biases of layer l and after
    totals = kernels + later[:-1]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


@pytest.mark.parametrize("biases", ["scaled", "zero"])
@pytest.mark.parametrize("size", [1e-30, 1e-15, 1.0, 1e15, 1e30])
def test_synflow_neither_overflows_nor_vanishes(size, biases):
    params = nets.init(jax.random.key(3), (2, 20, 20, 20, 20, 3))
    bias_size = size if biases == "scaled" else 0.0
    params = {
        name: {"kernel": layer["kernel"] * size, "bias": layer["bias"] * bias_size}
        for name, layer in params.items()
    }
    batch = Batch(jnp.zeros((2, 2)), jnp.zeros(2, jnp.int32))
    scores = SCORES["synflow"](nets.apply, None)(
        jax.random.key(0), params, masks.full(params), batch
    )
    found, wanted = flat(scores), flat(synflow64(params))
    assert np.isfinite(found).all()
    factor, error = proportional(found, wanted / wanted.max())
    assert factor > 0
    assert error < 1e-5


def test_synflow_ranks_a_network_of_depth_20_and_width_1000():
    params = nets.init(jax.random.key(0), (2, *[1000] * 18, 4))
    batch = Batch(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))
    score = jax.jit(SCORES["synflow"](nets.apply, None))
    scores = score(jax.random.key(0), params, masks.full(params), batch)
    found, wanted = flat(scores), flat(synflow64(params))
    assert np.isfinite(found).all()
    assert found.max() > 0
    np.testing.assert_allclose(found / found.max(), wanted / wanted.max(), rtol=1e-4, atol=1e-12)
    k = found.size // 100
    threshold = np.partition(wanted, -k)[-k]
    kept = flat(masks.select(jax.random.key(1), scores, k / found.size))
    assert kept[wanted > threshold * 1.0005].all()
    assert not kept[wanted < threshold * 0.9995].any()


def test_random_scores_are_standard_normal_and_follow_the_key():
    params = nets.init(jax.random.key(0), (2, 100, 100, 4))
    score = SCORES["random"](nets.apply, None)
    first, again, other = (score(jax.random.key(seed), params, None, None) for seed in (1, 1, 2))
    chex.assert_trees_all_equal(first, again)
    chex.assert_trees_all_equal_shapes(first, params)
    assert abs(np.corrcoef(flat(first), flat(other))[0, 1]) < 5 / np.sqrt(flat(first).size)
    assert scipy.stats.kstest(flat(first), "norm").pvalue > 1e-4
    for leaf in jax.tree.leaves(first):
        chex.assert_type(leaf, jnp.float32)


@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("name", SCORES)
def test_eager_jitted_and_vmapped_scores_agree(name, task):
    keys = jax.random.split(jax.random.key(7), 3)
    params = jax.vmap(lambda key: nets.init(key, (2, 24, 24, 3)))(keys)
    _, _, batch = tiny(task)
    mask = random_mask(jax.random.key(8), jax.tree.map(lambda p: p[0], params))
    score = SCORES[name](nets.apply, LOSSES[task])
    vmapped = jax.vmap(lambda key, p: score(key, p, mask, batch))(keys, params)
    jitted_score = jax.jit(score)
    for index, key in enumerate(keys):
        one, together = jax.tree.map(lambda p, i=index: p[i], (params, vmapped))
        eager, jitted = (
            flat(score(key, one, mask, batch)),
            flat(jitted_score(key, one, mask, batch)),
        )
        chex.assert_trees_all_equal_shapes_and_dtypes(together, one)
        atol = 1e-6 * np.abs(eager).max()
        np.testing.assert_allclose(jitted, eager, rtol=1e-5, atol=atol)
        np.testing.assert_allclose(flat(together), eager, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", SCORES)
def test_scores_take_any_pytree_with_its_own_apply(name):
    """The same network under other names, in other containers, has the same scores."""
    params, kept_masks, batch = tiny("circle")

    def rename(tree):
        return {"blocks": [(layer["bias"], {"w": layer["kernel"]}) for layer in nets.layers(tree)]}

    def own_apply(tree, x):
        layers = [{"bias": bias, "kernel": rest["w"]} for bias, rest in tree["blocks"]]
        return nets.apply({nets.layer_name(i): layer for i, layer in enumerate(layers)}, x)

    key, loss, mask = jax.random.key(0), losses.cross_entropy, kept_masks["partial"]
    wanted = SCORES[name](nets.apply, loss)(key, params, mask, batch)
    found = SCORES[name](own_apply, loss)(key, rename(params), rename(mask), batch)
    chex.assert_trees_all_equal_structs(found, rename(params))
    factor, error = proportional(flat(found), flat(rename(wanted)))
    assert factor > 0
    assert error < 1e-5


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_a_network_that_is_no_chain(name):
    """A gated network with a scalar and a three-dimensional array, against its own formulas."""
    keys = jax.random.split(jax.random.key(1), 4)
    params = {
        "gain": jnp.float32(0.7),
        "mix": jax.random.normal(keys[0], (2, 2, 3)),
        "out": [jax.random.normal(keys[1], (3, 2))],
    }
    batch = Batch(jax.random.normal(keys[2], (6, 2)), jax.random.normal(keys[3], (6, 2)))

    def own_apply(p, x):
        hidden = jnp.tanh(jnp.einsum("ni,ijh->nh", x, p["mix"], precision="highest"))
        return p["gain"] * jnp.matmul(hidden, p["out"][0], precision="highest")

    def loss_of(theta, divisor=1.0):
        return losses.mean_squared_error(own_apply(unravel(theta), batch.x) / divisor, batch.y)

    theta, unravel = ravel_pytree(params)
    hessian = jax.hessian(lambda t: loss_of(t, 200.0))(theta)
    flow = jax.grad(lambda t: jnp.sum(own_apply(unravel(t), jnp.ones((1, 2)))))(jnp.abs(theta))
    wanted = {
        "magnitude": jnp.abs(theta),
        "snip": jnp.abs(theta * jax.grad(loss_of)(theta)),
        "grasp": theta * (hessian @ jax.grad(lambda t: loss_of(t, 200.0))(theta)),
        "synflow": jnp.abs(theta * flow),
    }
    score = SCORES[name](own_apply, losses.mean_squared_error)
    scores = score(jax.random.key(0), params, masks.full(params), batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(scores, params)
    chex.assert_tree_all_finite(scores)
    if name in wanted:
        np.testing.assert_allclose(flat(scores), wanted[name], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_nan_in_a_pruned_entry_changes_no_kept_score(name):
    params, kept_masks, batch = tiny("circle")
    mask = kept_masks["partial"]
    poisoned = jax.tree.map(lambda p, m: jnp.where(m, p, jnp.nan), params, mask)
    score = SCORES[name](nets.apply, losses.cross_entropy)
    clean, dirty = (score(jax.random.key(0), p, mask, batch) for p in (params, poisoned))
    np.testing.assert_array_equal(flat(dirty)[flat(mask)], flat(clean)[flat(mask)])
    chosen = masks.select(jax.random.key(1), dirty, 0.3, within=mask)
    chex.assert_trees_all_equal(chosen, masks.select(jax.random.key(1), clean, 0.3, within=mask))
