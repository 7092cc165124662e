"""Networks: statistics of the initialisations, the Flax module, rescaling, chain errors."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import nets

WIDTHS = (2, 40, 60, 3)
MOTHERS = 300
PARAMS = nets.init(jax.random.key(0), (2, 7, 5, 3))
X = jnp.linspace(-1.0, 1.0, 22).reshape(11, 2)


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


@pytest.mark.parametrize("scheme", nets.SCHEMES)
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
        ValueError, match="scheme must be one of he, he_zero_bias, uniform, got 'x'"
    ):
        nets.init(jax.random.key(0), (2, 3), "x")
