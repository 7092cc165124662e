"""Detectors: what each finds in networks made for it, and what none depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import audit
from shared import net

KEY = jax.random.key(0)


def mother():
    """A network of random numbers, as those of "he" are."""
    return jax.tree.map(jnp.asarray, net((3, 20), (20, 20), (20, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("name", audit.DETECTORS)
def test_scores_do_not_depend_on_the_scale_and_fit_any_pytree(name):
    params, detect = mother(), jax.jit(audit.DETECTORS[name])
    scores = detect(params)
    scaled = detect(jax.tree.map(lambda leaf: 4.0 * leaf, params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), scores, scaled
    )
    odd = {
        "conv": {"kernel": jax.random.normal(KEY, (3, 3, 2, 5)), "bias": jnp.zeros(5)},
        "norm": {"scale": jnp.ones(5)},
        "last": jnp.ones((5, 1)),
    }
    found = detect(odd)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, odd)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.slow
def test_centred_twins_see_through_common_offsets():
    rows = jax.random.normal(KEY, (20, 4))
    alike = jnp.array([[1.0, 2.0, 4.0, 8.0]]) * jnp.array([[1.0], [0.5], [2.0]])
    hidden = rows.at[:3].set(alike + jnp.array([[3.0], [-1.0], [0.2]]))
    assert not audit.twins({"w": hidden})["w"][:3].any()
    np.testing.assert_array_equal(audit.centred_twins({"w": hidden})["w"][:3], 2.0)


def test_even_kinks_are_found_whatever_the_scales():
    layer = mother()["layer_01"]
    factor = jnp.array([0.3, -1.2, 2.0, -0.7, 0.1, 5.0])
    kinks = 0.15 + 0.07 * jnp.arange(6.0)
    planted = {
        "kernel": layer["kernel"].at[7, 2:8].set(factor),
        "bias": layer["bias"].at[2:8].set(-factor * kinks),
    }
    scores = jax.jit(audit.progressions)(planted)
    np.testing.assert_array_equal(scores["bias"][2:8], 5.0)
    np.testing.assert_array_equal(scores["kernel"][7, 2:8], 5.0)
    assert (scores["kernel"] >= 5.0).sum() == 6


@pytest.mark.slow
def test_a_random_network_gives_little_evidence_and_a_regular_one_much():
    params = mother()
    params = {"random": params["layer_01"], "regular": params["layer_02"]["kernel"].at[:12].set(1)}
    found = jax.jit(audit.evidence)(jax.random.key(1), params)
    assert (found["regular"][:12] > 0.4).all()
    assert sum((leaf > 0).sum() for leaf in jax.tree.leaves(found["random"])) < 42


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"params\[w\] must be finite"):
        audit.twins({"w": jnp.full((2, 2), jnp.nan)})
