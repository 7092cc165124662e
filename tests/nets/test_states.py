"""States of Flax NNX, FrozenDicts and other mappings are as good as dicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict

from plantjax import checks, masks, nets, plant, recovery, targets
from plantjax.nets import wirings
from shared import chain

PLAIN = chain(1, *[4] * 10, 1)  # eleven layers: natural order matters
X = jnp.linspace(-1.0, 1.0, 7)[:, None]


class Chain(nnx.Module):
    def __init__(self, params):
        linears = []
        for layer in params.values():
            linear = nnx.Linear(*layer["kernel"].shape, rngs=nnx.Rngs(0))
            linear.kernel[...], linear.bias[...] = layer["kernel"], layer["bias"]
            linears.append(linear)
        self.layers = nnx.List(linears)


STATE = nnx.state(Chain(PLAIN))
NUMBERED = {i: nets.layers(PLAIN)[i] for i in range(11)}  # the same without variables
SAME = {"state": STATE, "frozen": FrozenDict(PLAIN), "numbers": NUMBERED}


def listed(tree):
    """The arrays in network order."""
    found = wirings.leaves(tree)
    return [np.asarray(found[path]) for path in sorted(found, key=checks.natural)]


def test_paths_end_in_the_name_of_the_variable():
    assert [path for path in wirings.leaves(STATE) if "/1" in path] == [
        *("layers/1/bias", "layers/1/kernel", "layers/10/bias", "layers/10/kernel")
    ]


@pytest.mark.parametrize("params", SAME.values(), ids=SAME)
def test_a_chain_in_another_container_is_the_same_chain(params):
    np.testing.assert_array_equal(nets.apply(params, X), nets.apply(PLAIN, X))
    doubled = nets.rescale(params, [2.0] * 11)
    assert jax.tree.structure(doubled) == jax.tree.structure(params)
    np.testing.assert_array_equal(nets.apply(doubled, X), 2.0**11 * nets.apply(params, X))


@jax.jit
def selected(tree):
    scores = jax.tree.map(jnp.abs, tree)
    kernels = {"prunable": lambda path: path.endswith("kernel")}
    mask = masks.select(jax.random.key(1), scores, 0.6, **kernels)
    return masks.live(tree, mask)


@pytest.mark.parametrize("params", SAME.values(), ids=SAME)
def test_masks_are_those_of_a_dict(params):
    assert jax.tree.structure(selected(params)) == jax.tree.structure(params)
    for leaf, wanted in zip(listed(selected(params)), listed(selected(PLAIN)), strict=True):
        np.testing.assert_array_equal(leaf, wanted)


@pytest.mark.slow
def test_planting_and_recovery_in_another_container():
    target = targets.relu(depth=12)
    planted = plant(jax.random.key(2), target, STATE)
    wanted = plant(jax.random.key(2), target, PLAIN)
    for leaf, other in zip(listed(planted.params), listed(wanted.params), strict=True):
        np.testing.assert_array_equal(leaf, other)
    found = recovery.compare(planted.params, planted.mask, planted)
    assert float(found["recall"]) == float(found["connected"]) == 1.0


def test_a_network_that_is_no_chain_is_refused_in_few_words():
    class Normed(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(20)])
            self.norm = nnx.LayerNorm(4, rngs=rngs)

    state = nnx.state(Normed(nnx.Rngs(0)))
    for refused in (lambda: plant(jax.random.key(0), PLAIN, state), lambda: nets.layers(state)):
        with pytest.raises(ValueError, match="must be a chain") as error:
            refused()
        assert len(str(error.value)) < 700
    with pytest.raises(ValueError, match=r"mask must have .* lacks norm/bias, norm/scale\.$"):
        masks.apply(state, {"layers": masks.full(state)["layers"]})
    with pytest.raises(ValueError, match="same paths in other containers"):
        masks.apply(FrozenDict(PLAIN), masks.full(PLAIN))
