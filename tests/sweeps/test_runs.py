"""Runs: defaults of options, rescaled training, heads, what is refused before any compute."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, nets, sweeps, tasks
from plantjax.finders import FINDERS, REFERENCES, names
from plantjax.sweeps import runs, worlds
from plantjax.types import Finder, Found

RELU, CIRCLE = tasks.TASKS["relu"], tasks.TASKS["circle"]
SMALL = ("relu", 3, 8)  # 25 parameters


def test_every_option_may_be_given_as_its_default_and_none_is_needed():
    for finder, make in (FINDERS | REFERENCES).items():
        known = inspect.signature(make).parameters
        own = names.options(finder) - {"samples"}  # of make_run, too, where it is another thing
        defaults = {name: known[name].default for name in own}
        brief = {"rounds": 2, "batch_size": 32}
        defaults |= {name: value for name, value in brief.items() if name in defaults}
        run = sweeps.make_run("relu", 3, 40, finder, samples=100, **defaults)
        fixed = 100 if finder.endswith("100") else 1
        assert run.finder.rounds == (2 if "rounds" in defaults else fixed), finder


@pytest.mark.parametrize(
    ("finder", "option", "message"),
    [
        (
            "snip",
            {"anneal": "epoch"},
            "anneal is no option of finder 'snip', which takes allow_revive, apply, .*rounds,",
        ),
        ("snip", {"score": "grasp"}, "score is no option of finder 'snip', which takes "),
        ("multishot_snip", {"search_epochs": 1}, "search_epochs is no option of .*level_epochs"),
        ("edge_popup", {"rounds": 2}, "rounds is no option of finder 'edge_popup', .*anneal_share"),
        ("dense", {"rounds": 2}, "rounds is no option of finder 'dense', which takes apply"),
        ("planted", {"scope": "layer"}, "scope is no option of finder 'planted'"),
    ],
)
def test_options_that_a_finder_does_not_take_are_refused(finder, option, message):
    with pytest.raises(ValueError, match=message):
        sweeps.make_run(*SMALL, finder, samples=100, **option)


def found_nothing(key, params, data, density):
    return Found(masks.full(params), params, {})


def test_finders_of_ones_own_take_no_options():
    with pytest.raises(ValueError, match="a Finder takes no further options, got scope, rounds"):
        sweeps.make_run(*SMALL, Finder(found_nothing), samples=100, scope="layer", rounds=2)


@pytest.fixture
def no_compute(monkeypatch):
    """Drawing a world is an error."""

    def refuse(*arguments, **options):
        raise AssertionError("a world was drawn")

    monkeypatch.setattr(worlds, "make_world", refuse)


@pytest.mark.parametrize("finder", ["synflow", "multishot_random", "own"])
def test_more_rounds_than_parameters_are_refused_before_any_compute(finder, no_compute):
    def make(rounds):
        if finder == "own":
            return sweeps.make_run(*SMALL, Finder(found_nothing, rounds=rounds), samples=100)
        return sweeps.make_run(*SMALL, finder, samples=100, rounds=rounds)

    assert make(25).finder.rounds == 25
    with pytest.raises(ValueError, match=r"rounds must be .* at most 25, got 26"):
        make(26)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"rescale": "he"}, "rescale must be one of none, rms, got 'he'"),
        ({"head": "softmax"}, "head must be one of none, reference, got 'softmax'"),
        ({"anneal": "never"}, "anneal must be one of none, epoch, step, got 'never'"),
        ({"search_learning_rate": 0.0}, "search_learning_rate must lie in"),
        ({"search_epochs": 0}, "search_epochs must be an integer of at least 1, got 0"),
        ({"batch_size": 91}, "batch_size must be .* at most 90, got 91"),
    ],
)
def test_bad_values_are_refused_before_any_compute(option, message, no_compute):
    with pytest.raises(ValueError, match=message):
        sweeps.make_run(*SMALL, "edge_popup", samples=100, **option)


def test_the_batch_size_is_that_of_training_searches_as_well(monkeypatch):
    given = []

    def make(task, *, batch_size=32, scope="global"):
        given.append(batch_size)
        return Finder(found_nothing, scope)

    monkeypatch.setitem(FINDERS, "own", make)
    sweeps.make_run(*SMALL, "own", samples=100, batch_size=17)
    sweeps.make_run(*SMALL, "own", samples=100, scope="layer")
    assert given == [17, 32]


def test_finders_of_one_shape_share_all_but_the_search():
    first, second, rescaled, headed = (
        sweeps.make_run(*SMALL, finder, samples=100, **options)
        for finder, options in (
            ("snip", {}),
            ("multishot_magnitude", {}),
            ("snip", {"rescale": "rms"}),
            ("edge_popup", {"head": "reference", "scope": "global"}),
        )
    )
    assert first.world == second.world == rescaled.world == headed.world
    assert first.evaluate == second.evaluate == rescaled.evaluate
    assert first.fit == second.fit
    assert first.search != second.search
    assert first.fit != rescaled.fit
    assert headed.evaluate != first.evaluate
    assert headed.fit != first.fit


def test_what_a_search_tells_is_named():
    found = Found(None, None, {"loss": 1.0, "collapsed": 2.0})
    assert runs.search_info(found) == {"search/loss": 1.0, "search/collapsed": 2.0}
    assert runs.search_info(found._replace(info={})) == {}


# Rescaled training: a rate of 1e-30 moves nothing, so that the start can be read from the end.


@pytest.fixture(scope="module")
def ticket():
    """A world, one of its masks, with the mother's parameters times 0.7 as where to start."""
    make = functools.partial(worlds.make_world, task=RELU, depth=4, width=12, samples=100)
    world = jax.jit(make)(worlds.cell_key(RELU, 0))
    rng, planted = np.random.default_rng(0), world.planted
    mask = jax.tree.map(lambda m: m | jnp.asarray(rng.random(m.shape) < 0.3), planted.mask)
    return world, Found(mask, jax.tree.map(lambda p: 0.7 * p, planted.params), {})


def trained(ticket, rescale, learning_rate):
    world, found = ticket
    run = sweeps.make_run("relu", 4, 12, "snip", epochs=2, samples=100, rescale=rescale)
    cell = jax.tree.map(lambda a: a[0], sweeps.make_cells(RELU, [0], [0.5], 0.01, 1e-3))
    return fit(run.fit)(cell._replace(learning_rate=jnp.float32(learning_rate)), world, found)


@functools.cache
def fit(function):
    return jax.jit(function)


@pytest.mark.slow
def test_training_starts_from_the_rescaled_parameters(ticket):
    world, found = ticket
    metrics = {rescale: trained(ticket, rescale, 1e-30) for rescale in ("none", "rms")}
    outputs = np.asarray(nets.apply(masks.apply(found.params, found.mask), world.test.x))
    factor = 1.0
    for name in sorted(found.params):
        kept = np.asarray(found.mask[name]["kernel"])
        weights = np.asarray(found.params[name]["kernel"], np.float64)[kept]
        factor *= np.sqrt(2 * (kept.sum(axis=0) > 0).sum() / np.sum(weights**2))
    assert factor > 2
    y = np.asarray(world.test.y)
    for rescale, times in (("none", 1.0), ("rms", factor)):
        wanted = np.mean((times * outputs - y) ** 2)
        np.testing.assert_allclose(metrics[rescale]["trained/value_raw"], wanted, rtol=1e-4)
    values = [metrics[rescale]["trained/value"] for rescale in ("none", "rms")]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)


def test_rescaled_tickets_train(ticket):
    before, after = (trained(ticket, "rms", rate) for rate in (1e-30, 1e-2))
    assert after["trained/loss"] < before["trained/loss"]
    assert not after["trained/diverged"]
    assert not after["trained/constant"]


# The head of the paper's code: a softmax of one output is the constant 1.


@pytest.mark.slow
def test_the_head_of_the_papers_code_makes_regression_constant():
    options = {"head": "reference", "search_epochs": 1, "epochs": 1}
    run = sweeps.make_run(*SMALL, "edge_popup", samples=100, batch_size=90, **options)
    cell = jax.tree.map(lambda a: a[0], sweeps.make_cells(RELU, [0], [0.5]))
    found, results = jax.jit(run.seek)(cell)
    results |= jax.jit(run.train)(cell, found)
    data = RELU.sample(worlds.key_for(cell.key, "data"), 100, cell.noise)
    train, y = (np.asarray(part.y, np.float64) for part in tasks.split(data))
    for stage in ("pruned", "trained"):
        assert results[f"{stage}/constant"]
        np.testing.assert_allclose(results[f"{stage}/value_raw"], np.mean((1 - y) ** 2), rtol=1e-4)
        # a factor of the constant 1 fits the mean
        np.testing.assert_allclose(results[f"{stage}/value"], np.var(y), rtol=1e-4)
    np.testing.assert_allclose(results["trained/loss"], np.mean((1 - train) ** 2), rtol=1e-4)
    assert results["ticket/value"] < 1e-3  # which is judged without the head
    assert results["search/losses"].shape == (1,)
    assert results["search/scale"].shape == ()
