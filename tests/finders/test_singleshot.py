"""Singleshot search and the references: counts, rounds, revival, score samples."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import contract
from plantjax import finders, masks, nets, tasks
from plantjax.finders import FINDERS, REFERENCES, common
from plantjax.scores import SCORES
from plantjax.sweeps import worlds
from plantjax.types import Batch
from shared import shares

CIRCLE, RELU = tasks.TASKS["circle"], tasks.TASKS["relu"]
DEPTH, WIDTH = 4, 20
ROUNDS = 4
KEY = jax.random.key(11)


@pytest.fixture(scope="module")
def world():
    make = functools.partial(worlds.make_world, task=CIRCLE, depth=DEPTH, width=WIDTH, samples=200)
    return jax.jit(make)(worlds.cell_key(CIRCLE, 0))


def search(finder, world, densities, *planted):
    """Masks and info for all densities [D], on the host."""
    params, data = world.planted.params, world.train
    run = jax.vmap(lambda density: finder(KEY, params, data, density, *planted))
    found = jax.device_get(jax.jit(run)(jnp.asarray(densities, jnp.float32)))
    for leaf, mother in zip(*map(jax.tree.leaves, (found.params, params)), strict=True):
        np.testing.assert_array_equal(leaf, np.stack([mother] * len(densities)))
    return found


def flat(tree):
    """The masks of all densities as rows of one matrix."""
    leaves = jax.tree.leaves(tree)
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


@pytest.fixture
def seen(monkeypatch):
    """Adds a score "spied_NAME" for every score, which records the masks that it is asked about."""
    recorded = []

    def spied(make, apply, loss):
        score_fn = make(apply, loss)

        def score(key, params, mask, batch):
            jax.debug.callback(recorded.append, mask)
            return score_fn(key, params, mask, batch)

        return score

    for name, make in list(SCORES.items()):
        monkeypatch.setitem(SCORES, f"spied_{name}", functools.partial(spied, make))
    return recorded


def trail(world, seen, density=0.1, **static):
    """The masks of all rounds of one search [R + 1, P], the full one first."""
    finder = finders.singleshot(CIRCLE, **static)
    found = jax.jit(finder)(KEY, world.planted.params, world.train, density)
    jax.effects_barrier()
    trees = [jax.tree.map(lambda leaf: np.asarray(leaf)[None], m) for m in (*seen, found.mask)]
    rows = np.concatenate([flat(tree) for tree in trees])
    np.testing.assert_allclose(found.info["kept_density"], rows[1:].mean(axis=1), rtol=1e-6)
    return rows[np.argsort(-rows.sum(axis=1))], found


def wanted_counts(density, n, schedule="exponential"):
    steps = np.arange(1, ROUNDS + 1) / ROUNDS
    kept = density**steps if schedule == "exponential" else 1 - (1 - density) * steps
    return [n, *np.floor(kept * n + 0.5)]


@pytest.mark.slow
def test_rounds_are_nested_and_follow_the_schedule(world, seen):
    rows, _ = trail(world, seen, score="spied_snip", rounds=ROUNDS, schedule="linear")
    np.testing.assert_array_equal(rows.sum(axis=1), wanted_counts(0.1, rows.shape[1], "linear"))
    assert rows[0].all()
    assert not (rows[1:] & ~rows[:-1]).any()


def test_allow_revive_lets_pruned_parameters_come_back(world, seen):
    rows, _ = trail(world, seen, score="spied_random", rounds=ROUNDS, allow_revive=True)
    np.testing.assert_array_equal(rows.sum(axis=1), wanted_counts(0.1, rows.shape[1]))
    assert (rows[1:] & ~rows[:-1]).any()


@pytest.mark.slow
def test_every_round_keeps_the_highest_scores_of_the_masked_network(world, seen):
    rows, found = trail(world, seen, score="spied_synflow", rounds=ROUNDS)
    np.testing.assert_array_equal(rows.sum(axis=1), wanted_counts(0.1, rows.shape[1]))
    leaves, structure = jax.tree.flatten(found.mask)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    score = jax.jit(SCORES["synflow"](nets.apply, CIRCLE.loss))
    for mask, kept in itertools.pairwise(rows):
        parts = zip(np.split(mask, ends), leaves, strict=True)
        tree = structure.unflatten([part.reshape(leaf.shape) for part, leaf in parts])
        scores = score(KEY, world.planted.params, tree, world.train)
        scores = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(scores)])
        assert scores[kept].min() >= scores[mask & ~kept].max()
        assert not (kept & ~mask).any()


@pytest.mark.slow
def test_counts_are_exact_in_a_scope(world):
    densities = np.float32([1e-4, 0.01, 0.1, 1 / 3, 0.5, 0.999, 1.0])
    found = search(finders.singleshot(CIRCLE, score="magnitude", scope="layer"), world, densities)
    layers = [flat(jax.tree.leaves(layer)) for layer in found.mask.values()]
    sizes = [layer.shape[1] for layer in layers]
    n = sum(sizes)
    wanted = np.clip(np.floor(densities * np.float32(n) + np.float32(0.5)), 1, n)
    counts = np.stack([layer.sum(axis=1) for layer in layers], axis=1)
    assert counts.tolist() == [shares(int(k), sizes) for k in wanted]


@pytest.mark.slow
def test_the_oracle_scope_has_the_layer_counts_of_the_target(world):
    ticket = worlds.ticket_density(CIRCLE, DEPTH, WIDTH)
    finder = finders.singleshot(CIRCLE, score="magnitude", scope="oracle")
    assert finder.scope == "oracle"
    found = search(finder, world, [ticket, ticket / 2, 2 * ticket])
    layers = np.stack([flat(layer).sum(axis=1) for layer in found.mask.values()], axis=1)
    planted = [4, 40 + 18, 80 + 4]  # circle at depth 4, weights and biases
    np.testing.assert_array_equal(layers[0], planted)
    assert (np.abs(layers[1] - np.array(planted) / 2) < 1).all()
    # twice the counts exceed the last layer, which is filled; the rest goes to the others by share
    size = WIDTH * 4 + 4
    assert layers[2][2] == size
    rest = 2 * sum(planted) - size
    assert layers[2].sum() == 2 * sum(planted)
    np.testing.assert_allclose(layers[2][:2], rest * np.array(planted[:2]) / 62, atol=1)


@pytest.mark.parametrize(("task", "wanted"), [("circle", 40), ("relu", 40), ("helix", 40)])
def test_scores_see_distinct_training_samples(task, wanted):
    y = jnp.arange(300) if task == "circle" else jnp.arange(300.0)[:, None]
    data = Batch(jnp.arange(300.0)[:, None], y)
    draw = jax.jit(lambda key: common.score_batch(key, tasks.TASKS[task], data))
    batch, again, other = (draw(jax.random.key(seed)) for seed in (0, 0, 1))
    assert batch.x.shape[0] == wanted
    assert np.unique(batch.x).size == wanted
    np.testing.assert_array_equal(batch.x[:, 0], np.ravel(batch.y))  # x and y stay together
    chex.assert_trees_all_equal(batch, again)
    assert (np.asarray(batch.x) != np.asarray(other.x)).any()


def test_scores_see_all_of_a_small_data_set():
    data = Batch(jnp.arange(7.0)[:, None], jnp.arange(7.0)[:, None])
    batch = common.score_batch(jax.random.key(0), RELU, data)
    np.testing.assert_array_equal(np.sort(batch.x[:, 0]), np.arange(7))


@pytest.mark.parametrize(("name", "rounds"), [("synflow", 1), ("synflow100", 100)])
def test_finders_say_what_they_do(name, rounds):
    finder = FINDERS[name](CIRCLE)
    assert (finder.scope, finder.rounds, finder.exact_counts) == ("global", rounds, True)
    assert FINDERS[name](CIRCLE, scope="layer").scope == "layer"


def test_every_score_has_a_finder():
    assert set(SCORES) <= set(FINDERS)


@pytest.mark.parametrize("name", ["dense", "planted"])
def test_references_keep_what_they_say_whatever_the_density(name, world):
    finder = REFERENCES[name](CIRCLE)
    found = search(finder, world, [0.01, 0.5], world.planted)
    wanted = world.planted.mask if name == "planted" else masks.full(world.planted.mask)
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[0], found.mask), wanted)
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[1], found.mask), wanted)
    assert not finder.exact_counts


@pytest.mark.slow
def test_the_random_reference_has_the_planted_layer_counts(world):
    ticket = worlds.ticket_density(CIRCLE, DEPTH, WIDTH)
    found = search(REFERENCES["oracle_random"](CIRCLE), world, [ticket, ticket / 2], world.planted)
    layers = np.stack([flat(layer).sum(axis=1) for layer in found.mask.values()], axis=1)
    np.testing.assert_array_equal(layers[0], masks.group_counts(world.planted.mask))
    assert layers[1].sum() == np.floor(layers[0].sum() / 2 + 0.5)
    planted = flat(jax.tree.map(lambda leaf: np.asarray(leaf)[None], world.planted.mask))[0]
    assert (flat(found.mask)[0] != planted).any()


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"score": "snap"}, r"score must be one of random, .*, got 'snap'"),
        ({"score": "snip", "scope": "all"}, r"scope must be one of global, .*, got 'all'"),
        ({"score": "snip", "rounds": 1.5}, r"rounds must be an integer of at least 1, got 1.5"),
    ],
)
def test_bad_options_are_refused(static, message):
    with pytest.raises(ValueError, match=message):
        finders.singleshot(CIRCLE, **static)


MOTHER = {"layer_00": {"kernel": np.ones((1, 1), np.float32), "bias": np.ones(1, np.float32)}}
NAN = {"layer_00": MOTHER["layer_00"] | {"bias": np.full(1, np.nan, np.float32)}}
DATA = Batch(np.ones((50, 1), np.float32), np.ones((50, 1), np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MOTHER, DATA, float("nan")), r"density must lie in \(0, 1\], got nan"),
        ((NAN, DATA, 0.5), r"params\[layer_00/bias\] must be finite"),
        ((MOTHER, Batch(DATA.x[:0], DATA.y[:0]), 0.5), r"at least one sample"),
        ((MOTHER, Batch(DATA.x, DATA.y[1:]), 0.5), r"the same N"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FINDERS["snip"](RELU)(KEY, *arguments)


@pytest.mark.parametrize("name", sorted(contract.representatives() & {*FINDERS}))
def test_every_finder_checks_its_arguments(name):
    with pytest.raises(ValueError, match=r"density must lie in \(0, 1\], got 1.5"):
        FINDERS[name](RELU)(KEY, MOTHER, DATA, 1.5)


def test_labels_out_of_range_are_refused(world):
    data = world.train._replace(y=world.train.y.at[3].set(4))
    with pytest.raises(ValueError, match=r"labels y must lie in \[0, 4\), got 0 to 4"):
        FINDERS["snip"](CIRCLE)(KEY, world.planted.params, data, 0.5)


def test_finders_take_any_network_that_comes_with_its_apply():
    params = {"gain": jnp.float32(2.0), "mix": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}

    def apply(p, x):
        return jnp.tanh(jnp.matmul(x, p["mix"], precision="highest")) * p["gain"]

    data = Batch(jnp.linspace(-1.0, 1.0, 100).reshape(50, 2), jnp.ones((50, 3)))
    found = jax.jit(FINDERS["grasp"](RELU, apply=apply))(KEY, params, data, 3 / 7)
    chex.assert_trees_all_equal_structs(found.mask, params)
    assert int(masks.count(found.mask)) == 3
