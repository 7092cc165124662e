"""Networks: statistics of the initialisations, the Flax module, rescaling, chain errors."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantjax import nets, tasks
from plantjax.sweeps import worlds
from shared import chain, circle

WIDTHS = (2, 40, 60, 3)
MOTHERS = 300
PARAMS = chain(2, 7, 5, 3)
X = circle(11).x


@functools.cache
def draws(scheme):
    """MOTHERS networks of one scheme, as one tree of numpy arrays [S, ...]."""
    keys = jax.random.split(jax.random.key(1), MOTHERS)
    mothers = jax.jit(jax.vmap(lambda key: nets.init(key, WIDTHS, scheme)))(keys)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mothers)


def assert_moments(values, variance, kurtosis, sixth, eighth):
    """Mean, variance and fourth moment at 5 sigma; the last two in units of the deviation."""
    n, scaled = values.size, values.ravel() / math.sqrt(variance)
    assert abs(scaled.mean()) < 5 / math.sqrt(n)
    assert abs(np.mean(scaled**2) - 1) < 5 * math.sqrt((kurtosis - 1) / n)
    assert abs(np.mean(scaled**4) - kurtosis) < 5 * math.sqrt((eighth - kurtosis**2) / n)
    assert abs(np.mean(scaled**3)) < 5 * math.sqrt(sixth / n)


NORMAL, UNIFORM = (3.0, 15.0, 105.0), (9 / 5, 27 / 7, 9.0)  # standard moments 4, 6, 8


@pytest.mark.parametrize(
    ("scheme", "weight", "bias", "moments"),
    [  # variances: products of 2 / fan_in, or a third of the squared bounds
        ("he", [2 / 2, 2 / 40, 2 / 60], [1, 1 / 20, 1 / 600], NORMAL),
        ("he_zero_bias", [2 / 2, 2 / 40, 2 / 60], [0, 0, 0], NORMAL),
        ("uniform", [6 / 2 / 3, 6 / 40 / 3, 6 / 60 / 3], [1, 3 / 20, 9 / 600], UNIFORM),
    ],
)
def test_moments_of_every_scheme(scheme, weight, bias, moments):
    params = draws(scheme)
    assert sorted(params) == ["layer_00", "layer_01", "layer_02"]
    for index, name in enumerate(sorted(params)):
        assert params[name]["kernel"].shape == (MOTHERS, WIDTHS[index], WIDTHS[index + 1])
        assert_moments(params[name]["kernel"], weight[index], *moments)
        if scheme == "he_zero_bias":
            assert not params[name]["bias"].any()
        else:
            assert_moments(params[name]["bias"], bias[index], *moments)


def test_uniform_fills_its_bounds():
    params, product = draws("uniform"), 1.0
    for name, fan_in in zip(sorted(params), WIDTHS, strict=False):
        bound = math.sqrt(6 / fan_in)
        product *= bound
        for leaf, limit in ((params[name]["kernel"], bound), (params[name]["bias"], product)):
            assert np.abs(leaf).max() <= limit * (1 + 1e-6)
            assert np.abs(leaf).max() > limit * 0.99


def test_parameters_are_uncorrelated():
    leaves = jax.tree.leaves(draws("he"))
    flat = np.concatenate([leaf[..., :2].reshape(MOTHERS, -1) for leaf in leaves], axis=1)
    correlation = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    pairs = flat.shape[1] ** 2 / 2
    assert np.abs(correlation).max() < (5 + math.sqrt(2 * math.log(pairs))) / math.sqrt(MOTHERS)


@pytest.mark.parametrize("scheme", ["he", "looks_linear"])
def test_initialisation_is_float32_and_determined_by_the_key(scheme):
    first, again, other = (nets.init(jax.random.key(s), (2, 7, 5, 3), scheme) for s in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    chex.assert_trees_all_equal_dtypes(first, jax.tree.map(jnp.float32, other))
    assert (first["layer_01"]["kernel"] != other["layer_01"]["kernel"]).all()


def test_apply_against_numpy():
    x = np.asarray(X, np.float64)
    for index, name in enumerate(sorted(PARAMS)):
        x = np.maximum(x, 0) if index else x
        x = x @ np.asarray(PARAMS[name]["kernel"], np.float64) + np.asarray(PARAMS[name]["bias"])
    np.testing.assert_allclose(nets.apply(PARAMS, X), x, rtol=1e-5, atol=1e-6)


def test_module_equals_apply():
    module = nets.MLP((2, 7, 5, 3))
    outputs = module.apply({"params": PARAMS}, X)
    chex.assert_trees_all_close(outputs, nets.apply(PARAMS, X), rtol=1e-6, atol=1e-7)
    fresh = module.init(jax.random.key(0), X)["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(fresh, PARAMS)


def test_layers_come_in_network_order():
    params = nets.init(jax.random.key(0), tuple(range(1, 14)))
    shuffled = {name: params[name] for name in sorted(params, reverse=True)}
    assert nets.widths(shuffled) == tuple(range(1, 14))
    chex.assert_trees_all_equal(nets.layers(shuffled)[11], params["layer_11"])


@pytest.mark.parametrize("factors", [(0.5, 4.0, 0.25), (1.7, 0.3, 11.0), (1e-6, 1e-3, 1e5)])
def test_rescaling_multiplies_the_outputs_by_the_product(factors):
    scaled = nets.rescale(PARAMS, [jnp.float32(factor) for factor in factors])
    before = nets.apply(PARAMS, X) * math.prod(factors)
    exact = all(math.log2(factor).is_integer() for factor in factors)
    tolerance = 0 if exact else 1e-5 * float(jnp.abs(before).max())
    chex.assert_trees_all_close(nets.apply(scaled, X), before, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        scaled["layer_02"]["bias"], PARAMS["layer_02"]["bias"] * math.prod(factors), rtol=1e-6
    )


def test_rescaling_needs_a_factor_per_layer():
    with pytest.raises(ValueError, match="factors must be 3, one per layer, got 2"):
        nets.rescale(PARAMS, [jnp.float32(1), jnp.float32(2)])


LAYER = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
NO_CHAINS = {
    "empty": {},
    "list": [LAYER],
    "array": jnp.ones((2, 2)),
    "no bias": {"layer_00": {"kernel": jnp.ones((2, 3))}},
    "more than a dense layer": {"layer_00": {**LAYER, "scale": jnp.ones(3)}},
    "convolution": {"layer_00": {"kernel": jnp.ones((3, 3, 2, 3)), "bias": jnp.ones(3)}},
    "bias of another width": {"layer_00": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(2)}},
    "layers that do not fit": {"layer_00": LAYER, "layer_01": LAYER},
}


@pytest.mark.parametrize("params", NO_CHAINS.values(), ids=NO_CHAINS)
def test_what_is_no_chain(params):
    assert not nets.is_chain(params)
    for function in (nets.layers, nets.widths, lambda p: nets.apply(p, X)):
        with pytest.raises(ValueError, match="params must be a chain of dense layers"):
            function(params)


def test_what_is_a_chain():
    assert nets.is_chain(PARAMS)
    assert nets.is_chain({"layer_00": LAYER})
    assert nets.widths(PARAMS) == (2, 7, 5, 3)


@pytest.mark.parametrize("x", [jnp.ones((4, 3)), jnp.ones(2), jnp.ones((1, 4, 2))])
def test_inputs_that_do_not_fit(x):
    with pytest.raises(ValueError, match=r"x must be \[N, 2\] to fit the first layer, got"):
        nets.apply(PARAMS, x)


@pytest.mark.parametrize("widths", [(2,), (), (2, 0, 1), (2, -1), (2, 3.0), (2, True)])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match="widths must"):
        nets.init(jax.random.key(0), widths)


def test_unknown_scheme():
    with pytest.raises(
        ValueError, match=r"scheme must be one of he, he_zero_bias, uniform, .*, got 'x'"
    ):
        nets.init(jax.random.key(0), (2, 3), "x")


def random_mask(rng, density, params=PARAMS):
    return jax.tree.map(lambda leaf: jnp.asarray(rng.random(leaf.shape) < density), params)


def masked(params, mask):
    return jax.tree.map(lambda leaf, kept: np.where(kept, leaf, 0), params, mask)


def run_64(params, x):
    """The network in float64 numpy."""
    x = np.asarray(x, np.float64)
    for index, name in enumerate(sorted(params)):
        x = np.maximum(x, 0) if index else x
        x = x @ np.asarray(params[name]["kernel"], np.float64)
        x = x + np.asarray(params[name]["bias"], np.float64)
    return x


def wanted_factors(params, mask):
    """sqrt(2 / kept fan-in) / (root mean square of the kept weights), in float64."""
    factors = []
    for name in sorted(params):
        kept = np.asarray(mask[name]["kernel"])
        weights = np.asarray(params[name]["kernel"], np.float64)[kept]
        fed = (kept.sum(axis=0) > 0).sum()
        factors.append(math.sqrt(2 * fed / np.sum(weights**2)) if weights.any() else 1.0)
    return np.array(factors)


to_he = jax.jit(nets.rescale_to_he)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0.05, 0.2, 0.5, 0.9, 1.0]),
    exponents=st.tuples(*[st.floats(-8.0, 4.0)] * 3),
)
def test_kept_weights_get_he_scale_and_outputs_one_positive_factor(seed, density, exponents):
    rng = np.random.default_rng(seed)
    params = {
        name: jax.tree.map(lambda leaf, size=10.0**exponent: leaf * np.float32(size), PARAMS[name])
        for name, exponent in zip(sorted(PARAMS), exponents, strict=True)
    }
    mask = random_mask(rng, density)
    scaled, factors = to_he(params, mask), wanted_factors(params, mask)
    products = np.cumprod(factors)
    for name, factor, product in zip(sorted(params), factors, products, strict=True):
        before, after = params[name], scaled[name]
        np.testing.assert_allclose(after["kernel"], before["kernel"] * factor, rtol=1e-5)
        np.testing.assert_allclose(after["bias"], before["bias"] * product, rtol=1e-5)
        kept = np.asarray(mask[name]["kernel"])
        if kept.any():
            fan_in = kept.sum() / (kept.sum(axis=0) > 0).sum()
            size = np.sqrt(np.mean(np.square(np.asarray(after["kernel"], np.float64)[kept])))
            np.testing.assert_allclose(size, math.sqrt(2 / fan_in), rtol=1e-5)
    wanted = run_64(masked(params, mask), X) * products[-1]
    found = nets.apply(masked(scaled, mask), X)
    chex.assert_tree_all_finite(found)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_layers_without_kept_weights_keep_their_scale():
    mask = random_mask(np.random.default_rng(0), 0.5)
    mask["layer_01"]["kernel"] = jnp.zeros((7, 5), bool)
    scaled, factors = to_he(PARAMS, mask), wanted_factors(PARAMS, mask)
    assert factors[1] == 1.0
    np.testing.assert_array_equal(scaled["layer_01"]["kernel"], PARAMS["layer_01"]["kernel"])
    bias = PARAMS["layer_01"]["bias"] * factors[0]  # of the layer before
    np.testing.assert_allclose(scaled["layer_01"]["bias"], bias, rtol=1e-5)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), PARAMS)
    chex.assert_trees_all_equal(to_he(PARAMS, nothing), PARAMS)
    dead = PARAMS | {"layer_01": {"kernel": jnp.zeros((7, 5)), "bias": jnp.ones(5)}}
    chex.assert_tree_all_finite(to_he(dead, jax.tree.map(jnp.ones_like, nothing)))


@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_weights_of_any_size_are_rescaled(size):
    params = jax.tree.map(jnp.copy, PARAMS)
    params["layer_01"] = jax.tree.map(lambda leaf: leaf * np.float32(size), PARAMS["layer_01"])
    mask = random_mask(np.random.default_rng(1), 0.6)
    scaled, wanted = to_he(params, mask), to_he(PARAMS, mask)
    chex.assert_tree_all_finite(scaled)
    np.testing.assert_allclose(
        scaled["layer_01"]["kernel"], wanted["layer_01"]["kernel"], rtol=1e-5
    )
    chex.assert_trees_all_close(scaled["layer_02"]["kernel"], wanted["layer_02"]["kernel"])


def test_rescaling_twice_changes_nothing_more():
    mask = random_mask(np.random.default_rng(2), 0.4)
    once = to_he(PARAMS, mask)
    chex.assert_trees_all_close(to_he(once, mask), once, rtol=1e-5)


def test_rescaling_to_he_vmaps_over_networks_and_masks():
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 3 * leaf, leaf]), PARAMS)
    rngs = [np.random.default_rng(seed) for seed in (0, 1, 1)]
    single = [random_mask(rng, 0.5) for rng in rngs]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *single)
    found = jax.jit(jax.vmap(nets.rescale_to_he))(params, together)
    for index, mask in enumerate(single):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], params)
        alone = jax.tree.map(lambda leaf, i=index: leaf[i], found)
        chex.assert_trees_all_close(alone, to_he(one, mask), rtol=1e-5)


@pytest.mark.slow
def test_planted_tickets_grow_to_an_ordinary_size():
    task = tasks.TASKS["circle"]
    make = functools.partial(worlds.make_world, task=task, depth=4, width=40, samples=20)
    world = jax.jit(make)(worlds.cell_key(task, 0))
    params, mask = world.planted.params, world.planted.mask
    scaled = nets.rescale_to_he(params, mask)
    before = run_64(masked(params, mask), world.train.x)
    wanted = run_64(masked(scaled, mask), world.train.x)
    factor = math.prod(wanted_factors(params, mask))
    assert factor > 5
    np.testing.assert_allclose(wanted, before * factor, rtol=1e-4, atol=1e-5 * wanted.max())
    values = [
        task.evaluate(jnp.asarray(outputs, jnp.float32), world.train.y)[task.metric]
        for outputs in (before, wanted)
    ]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-3)


def test_what_cannot_be_rescaled_to_he():
    mask = jax.tree.map(lambda leaf: leaf > 0, PARAMS)
    with pytest.raises(ValueError, match=r"mask\[layer_00/bias\] must be a bool array"):
        nets.rescale_to_he(PARAMS, PARAMS)
    with pytest.raises(ValueError, match="mask must have the tree structure of params"):
        nets.rescale_to_he(PARAMS, {"layer_00": mask["layer_00"]})
    with pytest.raises(ValueError, match="params must be a chain of dense layers"):
        nets.rescale_to_he({"w": jnp.ones(3)}, {"w": jnp.ones(3, bool)})
