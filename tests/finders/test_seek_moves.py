"""The seeker's parts against brute force: loss, samples, price, predictions, beam, both sweeps."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import losses, nets
from plantjax.finders.seek import (
    beam,
    designs,
    edges,
    linear,
    loss,
    predictions,
    price,
    sampling,
    units,
)
from plantjax.finders.seek import subnetwork as sub
from plantjax.finders.seek.loss import Aim, Sample
from plantjax.finders.seek.price import Terms
from plantjax.finders.seek.search import Search
from plantjax.types import Batch

WIDTHS = (2, 9, 7, 3)
CHAIN = sub.stack(nets.init(jax.random.key(0), WIDTHS))
N = 64
X = jax.random.normal(jax.random.key(1), (N, 2))
SHARE = jax.random.uniform(jax.random.key(9), (N,)) + 0.5
LABELS = Sample(X, jax.random.randint(jax.random.key(2), (N,), 0, 3), SHARE)
VALUES = Sample(X, jax.random.normal(jax.random.key(2), (N, 3)), SHARE)
CASES = {"circle": (loss.Classification(0.8), LABELS), "helix": (loss.Regression(), VALUES)}
AIM = Aim(jnp.float32(0.3), jnp.float32(0.6))
OUTPUTS = jax.random.normal(jax.random.key(4), (N, 3)) + 0.5 * VALUES.y


def terms(value, noise=0.0):
    return Terms(AIM, *[jnp.float32(x) for x in (value, 30.0, 0.6, 1.6, noise)])


def searcher(name, value):
    goal, sample = CASES[name]
    return Search(goal, sample, terms(value), first_samples=N, finalists=3)


def random_mask(key, share):
    kept = jax.random.bernoulli(key, share, CHAIN.weights.shape) & sub.real(WIDTHS)
    return sub.live(CHAIN, kept)


def log_loss(name, kept):
    goal, sample = CASES[name]
    return goal.log_loss(sub.run(CHAIN, kept, X), sample, AIM)


@pytest.mark.slow
def test_the_loss_of_probabilities_goes_from_cross_entropy_to_error():
    goal, sample = CASES["circle"][0], sampling.whole(Batch(X, LABELS.y))
    entropy = losses.scale_free_cross_entropy(OUTPUTS, sample.y, AIM.log_scale)
    found = goal.log_loss(OUTPUTS, sample, AIM._replace(power=jnp.float32(0.0)))
    np.testing.assert_allclose(jnp.exp(found), entropy, rtol=2e-3)
    error = jnp.mean(jnp.argmax(OUTPUTS, axis=1) != sample.y)
    np.testing.assert_allclose(jnp.exp(goal.log_error(OUTPUTS, sample)), error, rtol=1e-2)


@pytest.mark.parametrize("name", CASES)
def test_a_weight_of_two_is_a_sample_that_is_there_twice(name):
    goal, sample = CASES[name]
    twice = jnp.append(jnp.arange(N), jnp.int32(3))
    double = jax.tree.map(lambda a: a[twice], sample._replace(weight=jnp.ones(N)))
    weighted = sample._replace(weight=jnp.ones(N).at[3].set(2.0))
    wanted = goal.log_loss(OUTPUTS[twice], double, AIM)
    np.testing.assert_allclose(goal.log_loss(OUTPUTS, weighted, AIM), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_roots_make_the_second_derivative_at_a_fixed_scale(name):
    goal, sample = CASES[name]
    aim = AIM._replace(power=jnp.float32(0.0))
    root = jnp.sqrt(SHARE / SHARE.mean())[:, None]
    centred = OUTPUTS - OUTPUTS.mean(axis=1, keepdims=True)
    size = jnp.sqrt(jnp.mean(jnp.square(root * centred)))

    def value(row):
        moved = OUTPUTS.at[7].set(row)
        if name == "circle":
            logits = jnp.exp(aim.log_scale) / size * moved
            each = -jax.nn.log_softmax(logits)[jnp.arange(N), sample.y]
            return jnp.sum(SHARE * each) / jnp.sum(SHARE)
        factors = losses.output_factors(root * OUTPUTS, root * sample.y)[None, :]
        return jnp.mean(jnp.square(root * (factors * moved - sample.y)))

    exact = jax.jit(jax.hessian(value))(OUTPUTS[7]) / jnp.exp(goal.log_loss(OUTPUTS, sample, aim))
    roots = jax.jit(goal.roots)(OUTPUTS, sample, aim)[7]
    np.testing.assert_allclose(roots.T @ roots, exact, rtol=0.01, atol=1e-4)


@pytest.mark.slow
def test_samples_are_drawn_by_their_chances_and_weighted_back():
    data = Batch(jnp.arange(100.0)[:, None], jnp.zeros(100, jnp.int32))
    chances = jax.nn.softmax(jax.random.normal(jax.random.key(0), (100,)))
    draw = jax.jit(jax.vmap(lambda key: sampling.draw(key, data, chances, 40)))
    found = draw(jax.random.split(jax.random.key(1), 200))
    drawn = found.x[:, :, 0].astype(jnp.int32)
    counts = np.stack([np.bincount(row, minlength=100) for row in np.asarray(drawn)])
    assert (np.abs(counts - 40 * np.asarray(chances)) < 1.001).all()
    means = jnp.sum(found.weight * found.x[:, :, 0], axis=1) / 40
    assert abs(float(means.mean()) - 49.5) < 5 * float(means.std()) / 200**0.5
    even = jax.jit(sampling.draw, static_argnums=3)(
        jax.random.key(2), data, jnp.full(100, 0.01), 60
    )
    assert len(set(even.x[:, 0].tolist())) == 60
    np.testing.assert_allclose(even.weight, 1.0, rtol=1e-5)


def test_samples_near_boundaries_are_preferred():
    chances = CASES["circle"][0].chances(
        OUTPUTS, LABELS.y, AIM._replace(log_scale=jnp.float32(2.0))
    )
    sure = 20.0 * jax.nn.one_hot(LABELS.y, 3)
    doubtful = CASES["circle"][0].chances(sure.at[5].set(0.0), LABELS.y, AIM)
    np.testing.assert_allclose(jnp.sum(chances), 1.0, rtol=1e-5)
    assert jnp.argmax(doubtful) == 5
    assert jnp.min(doubtful) >= 0.2 / N - 1e-7


def test_the_cost_is_convex_and_the_price_follows_the_excess():
    costs = price.cost(terms(0.1), jnp.arange(60.0))
    steps = jnp.diff(costs)
    np.testing.assert_allclose(steps[:29], 0.06, rtol=1e-3)
    np.testing.assert_allclose(steps[31:], 0.16, rtol=1e-3)
    arguments = [jnp.float32(x) for x in (2.0, 40.0, 30.0)]
    assert price.steered(*arguments, jnp.float32(0.05)) == pytest.approx(2.0 * np.exp(0.05))
    assert price.steered(*arguments, jnp.float32(0.0)) == 2.0


@functools.cache
def modelled(name):
    """The model of a drive, compiled for all layers."""
    goal, sample = CASES[name]
    return jax.jit(
        lambda z, weights, layer: linear.model(goal, AIM, z, linear.Rest(weights, layer, 3), sample)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"), [("circle", 1), ("circle", 2), ("circle", 3), ("helix", 2)]
)
def test_the_model_has_the_gradient_and_moves_with_the_network(name, layer):
    goal, sample = CASES[name]
    kept = random_mask(jax.random.key(3), 0.6)
    weights = sub.masked(CHAIN, kept)
    drive = sub.matmul(sub.inputs(weights, X, layer - 1), weights[layer - 1])
    at = modelled(name)(drive, weights, jnp.int32(layer))

    def outputs(z):
        for kernel in weights[layer:]:
            z = sub.matmul(sub.fed(jax.nn.relu(z), 10), kernel)
        return z[:, :3]

    exact = jax.jit(jax.grad(lambda z: goal.log_loss(outputs(z), sample, AIM)))(drive)
    np.testing.assert_allclose(at.gradient, exact, rtol=1e-3, atol=1e-6)
    a, b = 0.1 * jax.random.normal(jax.random.key(5), (2, *drive.shape))
    parts = linear.predicted(at, a) + linear.predicted(linear.moved(at, a), b)
    np.testing.assert_allclose(linear.predicted(at, a + b), parts, rtol=1e-3)


@pytest.mark.slow
def test_predictions_are_those_of_the_model_for_every_move():
    kept = random_mask(jax.random.key(3), 0.6)
    weights = sub.masked(CHAIN, kept)
    fed = sub.inputs(weights, X, 0)
    hidden = jax.nn.relu(fed @ weights[0])
    drive = sub.fed(hidden, 10) @ weights[1]
    at = modelled("circle")(drive, weights, jnp.int32(2))
    real = sub.real(WIDTHS)
    unit = predictions.Lines(
        *(CHAIN.weights[0][:, 4], CHAIN.weights[1][4], kept[0][:, 4], kept[1][4]),
        *(real[0][:, 4], real[1][4]),
    )
    changed, possible = predictions.flips(unit.kept_in, unit.real_in, jnp.int32(9))
    assert possible.tolist() == [True, *([True] * 2 + [False] * 7 + [True]) * 2]
    new = jax.nn.relu(fed @ jnp.where(changed, unit.weights_in[None], 0.0).T)
    found = jax.jit(predictions.predict)(at, unit, hidden[:, 4:5], new)
    old_out = jnp.where(unit.kept_out, unit.weights_out, 0.0)
    masks = unit.kept_out[None] ^ jnp.eye(10, 9, -1, dtype=bool)

    def wanted(move, out):
        after = new[:, move][:, None] * jnp.where(masks[out], unit.weights_out, 0.0)[None]
        return linear.predicted(at, after - hidden[:, 4:5] * old_out[None])

    every = jax.jit(jax.vmap(jax.vmap(wanted, (None, 0)), (0, None)))
    exact = every(jnp.arange(21), jnp.arange(10))
    np.testing.assert_allclose(found, exact, rtol=1e-2, atol=1e-5)


def test_a_partner_is_the_bias_or_a_kept_entry_and_never_padding():
    real = jnp.array([True, True, True, False, True])
    for mask, wanted in (([0, 1, 1, 0, 0], {1, 2, 4}), ([0, 0, 0, 0, 0], {0, 1, 2, 4})):
        noise = jax.random.uniform(jax.random.key(0), (200, 6))
        drawn = jax.vmap(
            lambda row, mask: predictions.partner(row[5], row[:5], mask, real), (0, None)
        )(noise, jnp.array(mask, bool))
        assert set(drawn.tolist()) == wanted


def site_of(key, candidates, size, outs, allowed=True):
    keys = jax.random.split(key, 5)
    at = linear.Model(
        jax.random.normal(keys[0], (N, outs)) / N,
        0.3 * jax.random.normal(keys[1], (2, N, outs)) / N**0.5,
    )
    return beam.Site(
        jax.random.normal(keys[2], (N, size)),
        jax.random.normal(keys[3], (size, candidates)),
        jax.random.normal(keys[4], (candidates, outs)),
        jnp.ones(size, bool),
        jnp.ones(outs, bool),
        jnp.full(candidates, allowed),
        at,
        jnp.float32(0.002),
        jnp.float32(size),
    )


search = jax.jit(beam.search, static_argnums=1)
scores = jax.jit(beam.scores)


def all_sets(site, size):
    """Scores of all sets of `size` in-edges of all candidates, by (candidate, set)."""
    curvature = jnp.sum(jnp.square(site.model.roots), axis=0)
    fed, weights = np.asarray(site.fed), np.asarray(site.weights_in)
    sets = itertools.combinations(range(fed.shape[1]), size)
    names = list(itertools.product(range(weights.shape[1]), sets))
    drives = np.stack([fed[:, list(s)] @ weights[list(s), unit] for unit, s in names])
    found = scores(site, curvature, np.maximum(drives, 0), np.array([unit for unit, _ in names]))
    return dict(zip(names, (np.asarray(found) + size * 0.002).tolist(), strict=True))


@pytest.mark.slow
def test_the_beam_finds_the_best_of_all_sets_of_in_edges():
    gaps = []
    for seed in range(4):
        site = site_of(jax.random.key(seed), 12, 5, 4)
        found = search(site, beam.Options(12, 3, 4))
        names = [
            (int(u), tuple(np.flatnonzero(m)))
            for u, m in zip(found.unit, found.kept_in, strict=True)
        ]
        assert len(set(names)) == len(names) == 12
        for size in (1, 2, 3):
            wanted = all_sets(site, size)
            own = slice(4 * size - 4, 4 * size)
            assert all(len(s) == size for _, s in names[own])
            scores = [wanted[name] for name in names[own]]
            np.testing.assert_allclose(found.score[own], scores, rtol=1e-3, atol=1e-5)
            if size == 1:
                np.testing.assert_allclose(scores, sorted(wanted.values())[:4], rtol=1e-3)
            gaps.append(scores[0] - min(wanted.values()))
    assert np.mean(np.array(gaps) < 1e-4) >= 0.8


@pytest.mark.slow
def test_the_beam_uses_only_what_is_free_and_fed():
    site = site_of(jax.random.key(0), 6, 4, 3)._replace(
        usable=jnp.array([True, False, True, True]),
        allowed=jnp.array([True, False, False, True, False, False]),
    )
    found = search(site, beam.Options(6, 4, 5))
    real = jnp.isfinite(found.score)
    assert set(found.unit[real].tolist()) == {0, 3}
    assert not found.kept_in[real, 1].any()
    assert 0 < int(real.sum()) <= 2 * 7


def test_out_edges_are_nearly_those_of_the_best_of_all_sets():
    same = []
    every = jnp.array(list(itertools.product([False, True], repeat=4))[1:])

    @jax.jit
    def gaps(site):
        """How much worse the flips are than the best of all sets, for every design."""
        found = beam.search(site, beam.Options(6, 2, 4))

        def value(mask, unit, drive):
            out = jnp.where(mask, site.weights_out[unit], 0.0)
            change = jax.nn.relu(drive)[:, None] * out[None, :]
            return linear.predicted(site.model, change) + site.price * jnp.sum(mask, dtype="f4")

        def gap(mask, unit, drive):
            best = jnp.min(jax.vmap(lambda mask: value(mask, unit, drive))(every))
            return value(mask, unit, drive) - best

        kept = designs.out_edges(site, found)
        return jax.vmap(gap)(kept, found.unit, found.drive), jnp.any(kept, axis=1)

    for seed in range(8):
        found, some = gaps(site_of(jax.random.key(seed), 6, 4, 4))
        same.extend((found < 1e-5).tolist())
        assert some.all()
    assert np.mean(same) >= 0.8


def sweep_edges(key, search, kept):
    return edges.sweep(key, search, CHAIN, kept, candidates=12)


def sweep_units(key, search, kept):
    return units.sweep(key, search, CHAIN, kept, units.Options(9, 5, beam.Options(6, 3, 3)))


@functools.cache
def sweeping(sweep, name, value):
    return jax.jit(lambda key, kept: sweep(key, searcher(name, value), kept))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sweep", "name", "value"), [(sweep_edges, "helix", 0.0), (sweep_units, "circle", 0.02)]
)
def test_a_sweep_never_loses(sweep, name, value):
    """Log loss plus cost falls or stays, whatever the mask; and the mask is live."""

    def objective(kept):
        total = sub.count(kept).astype(jnp.float32)
        return log_loss(name, kept) + price.cost(terms(value), total)

    run = sweeping(sweep, name, value)
    gains = []
    for seed in range(5):
        kept = random_mask(jax.random.key(seed), 0.4)
        after = run(jax.random.key(seed), kept)
        gains.append(objective(kept) - objective(after))
        chex.assert_trees_all_equal(after, sub.live(CHAIN, after))
    assert min(gains) >= -1e-4
    assert np.median(gains) > 0.02


@pytest.mark.slow
def test_redesign_keeps_to_its_slots_and_adds_units_to_a_thin_network():
    search = searcher("helix", 1e-4)
    options = units.Options(3, 9, beam.Options(6, 3, 3))
    sweep = jax.jit(lambda key, kept: units.sweep(key, search, CHAIN, kept, options))
    thin = jnp.zeros(CHAIN.weights.shape, bool).at[0, :2, 4].set(True)
    thin = thin.at[1, 4, 2].set(True).at[2, 2, :3].set(True)
    for kept in (thin, random_mask(jax.random.key(1), 0.9)):
        before, after = [
            [int(n) for n in jnp.any(mask[:-1], axis=1).sum(axis=1)]
            for mask in (kept, sweep(jax.random.key(0), kept))
        ]
        assert max(after) <= 3
        assert all(new >= min(old, 2) for new, old in zip(after, before, strict=True))
        assert sum(after) > 2


@pytest.mark.slow
def test_a_sweep_leaves_no_single_flip_of_the_outputs_that_gains_much():
    """The last visits are the outputs': brute force over all their flips finds at most little."""
    kept = random_mask(jax.random.key(1), 0.5)
    after = sweeping(sweep_edges, "helix", 0.0)(jax.random.key(0), kept)
    value = log_loss("helix", after)
    flips = [
        log_loss("helix", after.at[-1, i, j].set(~after[-1, i, j]))
        for i in (*range(WIDTHS[-2]), -1)
        for j in range(WIDTHS[-1])
    ]
    assert min(flips) > value - 0.02
