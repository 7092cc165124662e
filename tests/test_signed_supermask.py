"""Signed supermasks: one step by hand, and judged with their own parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from shared import flat, jit

from plantjax import finders, judging, masks, nets, runs, tasks
from plantjax.finders.edge_popup import begin
from plantjax.worlds import cell_key

CIRCLE = tasks.TASKS["circle"]
KEY, RATE, DENSITY = jax.random.key(3), 3.0, jnp.float32(0.4)
MOTHER = nets.init(jax.random.key(0), (2, 12, 12, 4))
DATA = CIRCLE.sample(jax.random.key(1), 64)


def test_one_step_by_hand():
    """One batch of all data: scores lose RATE theta dL/d(m theta), and their signs flip theta."""
    options = {"search_epochs": 1, "batch_size": 64, "optimizer": optax.sgd(RATE), "loss": "plain"}
    finder = finders.FINDERS["signed_supermask"](CIRCLE, anneal="none", **options)
    found = jit(finder)(KEY, MOTHER, DATA, DENSITY)
    init_key, select_key, _ = jax.random.split(KEY, 3)
    scores = begin(init_key, MOTHER, "equal")["scores"]
    kept = masks.select(jax.random.fold_in(select_key, 0), scores, DENSITY)
    slope = jax.grad(lambda p: CIRCLE.loss(nets.apply(p, DATA.x), DATA.y))
    slope = jit(slope)(masks.apply(MOTHER, kept))
    moved = jax.tree.map(lambda s, p, g: s - RATE * p * g, scores, MOTHER, slope)
    flipped = flat(moved) < 0
    assert 0.02 < flipped.mean() < 0.98
    np.testing.assert_array_equal(flat(found.params), np.where(flipped, -1, 1) * flat(MOTHER))
    rank = np.argsort(np.argsort(-np.abs(flat(moved))))
    np.testing.assert_array_equal(flat(found.mask), rank < round(0.4 * rank.size))


def test_before_training_it_is_judged_with_its_signs():
    options = {"samples": 2000, "epochs": 0, "search_epochs": 4}
    run = runs.make_run("circle", 3, 20, "signed_supermask", **options)
    assert run.kind == "signed"
    cell = runs.Cell(cell_key(CIRCLE, 0), DENSITY, jnp.float32(0.0), jnp.float32(1e-3))
    world = jit(run.world)(cell)
    found, metrics = jit(run.seek)(cell)
    assert (flat(found.params) != flat(world.planted.params)).any()
    chex.assert_trees_all_equal(
        jax.tree.map(jnp.abs, found.params), jax.tree.map(jnp.abs, world.planted.params)
    )
    network = masks.apply(found.params, found.mask)
    wanted = jit(lambda p, test: judging.evaluate(CIRCLE, nets.apply, p, test))(network, world.test)
    np.testing.assert_allclose(metrics["pruned/value"], wanted["value"], atol=0.011)
    unsigned = masks.apply(world.planted.params, found.mask)
    other = jit(lambda p, test: judging.evaluate(CIRCLE, nets.apply, p, test))(unsigned, world.test)
    assert abs(float(other["value"]) - float(metrics["pruned/value"])) > 0.05
