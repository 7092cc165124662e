"""What finders share: networks that some do not take, and optimizers that all take."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from plantjax import nets
from plantjax.finders import FINDERS, names
from plantjax.tasks import TASKS
from shared import circle

CIRCLE = TASKS["circle"]
DATA = circle(40)
BRIEF = {
    "phew": {},
    "seek": {"search_epochs": 1, "sweeps": 1, "restarts": 2, "teachers": 0, "sweep_samples": 32},
    "aligned": {"score": "magnitude", "rounds": 1, "level_epochs": 1, "align_epochs": 0},
    "edge_popup": {"scope": "global", "budget": "live", "search_epochs": 1},
}


class Layers(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List(
            [nnx.Linear(*sizes, rngs=rngs) for sizes in ((2, 8), (8, 8), (8, 4))]
        )

    def __call__(self, x):
        *hidden, last = self.layers
        for layer in hidden:
            x = nnx.relu(layer(x))
        return last(x)


def shortcut(params, x):
    return nets.apply(params, x) + x[:, :1]


def smooth(params, x):
    chain = nets.layers(params)
    for index, layer in enumerate(chain):
        x = jax.nn.gelu(x) if index else x
        x = x @ layer["kernel"] + layer["bias"][None, :]
    return x


def found(name, apply, params):
    finder = FINDERS[name](CIRCLE, apply=apply, **BRIEF[name])
    return jax.eval_shape(finder.search, jax.random.key(1), params, DATA, jnp.float32(0.3))


@pytest.mark.slow
@pytest.mark.parametrize("name", BRIEF)
def test_other_networks_are_refused_and_modules_that_are_chains_are_not(name):
    params = nets.init(jax.random.key(2), (2, 8, 8, 4))
    others = [shortcut, smooth, lambda params, x: jax.nn.softmax(nets.apply(params, x))]
    for apply in others if name == "phew" else others[:1]:
        with pytest.raises(ValueError, match="apply must be the chain of dense layers"):
            found(name, apply, params)
    mlp = nets.MLP((2, 8, 8, 4))
    chains = [
        nets.from_nnx(Layers()),
        nets.from_linen(mlp, mlp.init(jax.random.key(0), DATA.x)),
        (lambda params, x: nets.apply(params, x), params),
    ]
    for apply, given in chains if name == "phew" else chains[:1]:
        mask = found(name, apply, given).mask
        assert jax.tree.structure(mask) == jax.tree.structure(given)


def test_networks_are_checked_before_they_are_searched():
    params = nets.init(jax.random.key(2), (2, 8, 4))
    with pytest.raises(ValueError, match=r"seek searches, as nets\.apply is, got 'shortcut'"):
        FINDERS["seek"](CIRCLE, apply=shortcut)(jax.random.key(0), params, DATA, 0.3)


TRAINED = ["multishot_magnitude", "edge_popup", "gem_miner", "rigl", "sign_in", "hard_concrete"]


@pytest.mark.parametrize("name", TRAINED)
def test_every_optimizer_of_optax_may_search(name):
    """Also one that needs the loss and searches along a line, traced only."""
    params = nets.init(jax.random.key(2), (2, 8, 4))
    brief = {"rounds": 2, "level_epochs": 1, "search_epochs": 1, "phases": 2}
    options = {option: brief[option] for option in brief if option in names.options(name)}
    searching = ("hard_concrete", "rigl", "sign_in")
    rule = optax.lbfgs(memory_size=2) if name in searching else optax.polyak_sgd()
    search = names.make(CIRCLE, name, optimizer=rule, **options).search
    found = jax.eval_shape(search, jax.random.key(1), params, DATA, jnp.float32(0.3))
    assert jax.tree.structure(found.mask) == jax.tree.structure(params)
