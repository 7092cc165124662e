"""Fisher, Hutchinson, PX and movement against explicit formulas and their papers' invariants."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from plantjax import losses, masks, nets, tasks, training
from plantjax.finders import edge_popup_scores
from plantjax.scores import SCORES
from plantjax.scores.hutchinson import hutchinson
from plantjax.scores.movement import movement
from plantjax.scores.px import gated
from shared import chain, circle, flat

CIRCLE = tasks.TASKS["circle"]
KEY = jax.random.key(3)
PARAMS = chain(2, 5, 4, 4)
BATCH = circle(12)
RNG = np.random.default_rng(2)
MASK = jax.tree.map(lambda leaf: jnp.asarray(RNG.random(leaf.shape) < 0.6), PARAMS)


def loss_of(params, batch=BATCH, temperature=1.0):
    return losses.cross_entropy(nets.apply(params, batch.x) / temperature, batch.y)


def scores_of(make, params=PARAMS, mask=MASK, **options):
    score = make(nets.apply, losses.cross_entropy, **options)
    return jax.jit(score)(KEY, params, mask, BATCH)


def test_fisher_against_the_gradients_of_all_samples():
    masked, unravel = ravel_pytree(masks.apply(PARAMS, MASK))
    one = jax.tree.map(lambda leaf: leaf[:, None], BATCH)
    slope = jax.grad(lambda v, batch: loss_of(unravel(v), batch))
    gradients = jax.jit(jax.vmap(slope, (None, 0)))(masked, one)
    wanted = flat(PARAMS) ** 2 * np.mean(np.square(gradients), axis=0) / 2
    np.testing.assert_allclose(flat(scores_of(SCORES["fisher"])), wanted, rtol=1e-4, atol=1e-9)


def test_hutchinson_estimates_the_diagonal_of_the_hessian():
    masked, unravel = ravel_pytree(masks.apply(PARAMS, MASK))
    hessian = jax.jit(jax.hessian(lambda v: loss_of(unravel(v), temperature=2.0)))(masked)
    squares = flat(PARAMS) ** 2 / 2
    found = flat(scores_of(hutchinson, probes=4000, temperature=2.0)) / squares
    diagonal = np.diag(hessian)
    others = np.sum(np.square(hessian), axis=1) - diagonal**2  # the variance of a probe
    assert (np.abs(found - diagonal) <= 5 * np.sqrt(others / 4000) + 1e-5).all()
    assert (np.abs(diagonal) > 1e-3).any()


def test_movement_follows_training_and_sums_the_steps_of_scores():
    weights, total = PARAMS, jax.tree.map(jnp.zeros_like, PARAMS)
    slope = jax.jit(jax.grad(loss_of))
    for _ in range(3):
        gradient = slope(masks.apply(weights, MASK))
        total = jax.tree.map(lambda t, w, g: t - w * g, total, weights, gradient)
        weights = jax.tree.map(
            lambda w, g, m: jnp.where(m, w - 0.1 * g, w), weights, gradient, MASK
        )
    found = scores_of(movement, steps=3, learning_rate=0.1)
    np.testing.assert_allclose(flat(found), flat(total), rtol=1e-4, atol=1e-6)


def test_movement_with_frozen_weights_is_edge_popup():
    """Edge-popup's own objective, its mask held, moves scores by learning rate times movement."""
    steps, rate = 4, 0.5
    start = {"scores": masks.full(PARAMS), "log_scale": jnp.float32(0.0)}
    start = jax.tree.map(lambda s: 10.0 * s.astype(jnp.float32), start)  # scores stay positive
    objective = edge_popup_scores.objective(
        PARAMS,
        nets.apply,
        lambda outputs, y, log_scale: losses.cross_entropy(outputs, y),
        lambda scores, near, step: (MASK, near),
        edge_popup_scores.straight,
    )
    learned = training.minimize(
        KEY, start, jnp.zeros(0), BATCH, objective,
        optimizer=optax.sgd(rate), epochs=steps, batch_size=12,
    ).params  # fmt: skip
    moved = jax.tree.map(lambda a, b: (a - b) / rate, learned["scores"], start["scores"])
    frozen = scores_of(movement, steps=steps, learning_rate=0.0)
    np.testing.assert_allclose(flat(moved), flat(frozen), rtol=1e-4, atol=1e-5)


def paths_of(params, x):
    """Sums over all paths from x: of active units and kept weights, and of squared weights."""
    kernels = [np.asarray(layer["kernel"]) for layer in nets.layers(params)]
    active, hidden = [], np.asarray(x)
    for layer in nets.layers(params)[:-1]:
        hidden = np.maximum(hidden @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
        active.append(hidden > 0)
    n_out = kernels[-1].shape[1]
    first, second = np.zeros(n_out), np.zeros(n_out)
    widths = [kernel.shape[0] for kernel in kernels] + [n_out]
    for path in itertools.product(*map(range, widths)):
        edges = [k[i, j] for k, i, j in zip(kernels, path, path[1:], strict=False)]
        if all(edges):
            gates = np.all([a[:, j] for a, j in zip(active, path[1:], strict=False)], axis=0)
            first[path[-1]] += np.sum(np.square(x[:, path[0]]) * gates)
            second[path[-1]] += np.prod(np.square(edges))
    return first, second


@pytest.mark.slow
def test_px_is_conserved_and_sums_over_paths():
    params = nets.init(jax.random.key(4), (2, 4, 3, 3), "he_zero_bias")
    kept = jax.tree.map(
        lambda p: jax.random.bernoulli(jax.random.fold_in(KEY, p.size), 0.7, p.shape), params
    )
    found = scores_of(SCORES["px"], params, kept)
    first, second = paths_of(masks.apply(params, kept), np.asarray(BATCH.x))
    wanted = np.sum(first * second) / (2 * 4 * 3)  # by the fan-ins
    for layer in found.values():
        np.testing.assert_allclose(np.sum(layer["kernel"]), wanted, rtol=1e-4)
    assert (flat(found)[~flat(kept)] == 0).all()


def test_gates_are_the_networks_own():
    outputs = gated(nets.apply, PARAMS, PARAMS, BATCH.x, BATCH.x)
    np.testing.assert_allclose(outputs, nets.apply(PARAMS, BATCH.x), rtol=1e-5)
    doubled = jax.tree.map(jnp.negative, PARAMS)  # the same units stay active
    turned = gated(nets.apply, PARAMS, doubled, BATCH.x, BATCH.x)
    assert not np.allclose(turned, nets.apply(doubled, BATCH.x))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (hutchinson, {"probes": 0}, "probes must be an integer of at least 1"),
        (hutchinson, {"temperature": 0.0}, "temperature must lie in"),
        (movement, {"steps": 0}, "steps must be an integer of at least 1"),
        (movement, {"learning_rate": -1.0}, "learning_rate must lie in"),
    ],
)
def test_bad_options_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(nets.apply, losses.cross_entropy, **options)
