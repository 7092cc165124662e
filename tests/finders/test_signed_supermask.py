"""Signed supermasks: one step by hand, and judged with their own parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import finders, masks, nets, tasks
from plantjax.finders.edge_popup_scores import begin
from plantjax.sweeps import evaluation, runs
from plantjax.sweeps.worlds import cell_key
from shared import chain, circle, flat

CIRCLE = tasks.TASKS["circle"]
KEY, RATE, DENSITY = jax.random.key(3), 3.0, jnp.float32(0.4)
MOTHER = chain(2, 12, 4)
DATA = circle(64)


@pytest.mark.slow
def test_one_step_by_hand():
    """One batch of all data: scores lose RATE theta dL/d(m theta), and their signs flip theta."""
    options = {"search_epochs": 1, "batch_size": 64, "optimizer": optax.sgd(RATE), "loss": "plain"}
    options |= {"signed": True, "scope": "global", "init": "equal"}  # all of the entry's, no anneal
    finder = finders.edge_popup(CIRCLE, **options)
    found = jax.jit(finder)(KEY, MOTHER, DATA, DENSITY)
    init_key, select_key, _ = jax.random.split(KEY, 3)
    scores = begin(init_key, MOTHER, "equal")["scores"]
    kept = masks.select(jax.random.fold_in(select_key, 0), scores, DENSITY)
    slope = jax.grad(lambda p: CIRCLE.loss(nets.apply(p, DATA.x), DATA.y))
    slope = jax.jit(slope)(masks.apply(MOTHER, kept))
    moved = jax.tree.map(lambda s, p, g: s - RATE * p * g, scores, MOTHER, slope)
    flipped = flat(moved) < 0
    assert 0.02 < flipped.mean() < 0.98
    np.testing.assert_array_equal(flat(found.params), np.where(flipped, -1, 1) * flat(MOTHER))
    rank = np.argsort(np.argsort(-np.abs(flat(moved))))
    np.testing.assert_array_equal(flat(found.mask), rank < round(0.4 * rank.size))


@pytest.mark.slow
def test_before_training_it_is_judged_with_its_signs():
    relu = tasks.TASKS["relu"]
    run = runs.make_run("relu", 3, 20, "signed_supermask", samples=300, epochs=0, search_epochs=2)
    assert run.finder.kind == "signed"
    cell = runs.Cell(cell_key(relu, 0), DENSITY, jnp.float32(0.0), jnp.float32(1e-3))
    world = jax.jit(run.world)(cell)
    found, metrics = jax.jit(run.seek)(cell)
    mother = world.planted.params
    assert (flat(found.params) != flat(mother)).any()
    np.testing.assert_array_equal(np.abs(flat(found.params)), np.abs(flat(mother)))

    signed, unsigned = (
        float(evaluation.evaluate(relu, params, found.mask, world.test)["mse_raw"])
        for params in (found.params, mother)
    )
    np.testing.assert_allclose(metrics["pruned/value_raw"], signed, rtol=1e-4)
    assert abs(unsigned - signed) > 0.01 * signed
