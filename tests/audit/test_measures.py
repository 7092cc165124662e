"""AUC and recall against counts over all pairs and choices; leaks of real tickets."""

import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from plantjax import audit, nets, plant, planting, targets
from plantjax.finders import FINDERS
from plantjax.sweeps import worlds
from plantjax.tasks import TASKS
from plantjax.types import Planted
from shared import at, net

N = 8
both = jax.jit(lambda scores, truth: (audit.auc(scores, truth), audit.recall(scores, truth)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    scores=st.lists(st.integers(0, 3), min_size=N, max_size=N),
    truth=st.lists(st.booleans(), min_size=N, max_size=N),
)
def test_auc_and_recall_are_those_of_all_pairs_and_orders(scores, truth):
    scores, truth = np.float32(scores), np.array(truth)
    found, recalled = map(float, both(scores, truth))
    if truth.all() or not truth.any():
        assert np.isnan(found)
    else:
        pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
        np.testing.assert_allclose(found, np.mean(pairs), rtol=1e-6)
    if truth.any():
        k = truth.sum()
        sums = {c: scores[list(c)].sum() for c in itertools.combinations(range(N), int(k))}
        best = [truth[list(c)].sum() / k for c in sums if sums[c] == max(sums.values())]
        np.testing.assert_allclose(recalled, np.mean(best), rtol=1e-6)


def mother(width):
    """A network of random numbers, in the sizes of "he"."""
    params = net((2, width), (width, 4))
    return jax.tree.map(lambda leaf: leaf * np.float32((2 / width) ** 0.5), params)


def test_shapes_and_dtypes_are_checked():
    with pytest.raises(ValueError, match=r"scores must have the shape of truth \(3,\)"):
        audit.auc(jnp.zeros(2), jnp.zeros(3, bool))
    with pytest.raises(ValueError, match="truth must be a bool array, got float32"):
        audit.recall(jnp.zeros(2), jnp.zeros(2))


def drawn(name):
    """Mothers [4] of width 60 with a ticket of depth 3, and the finder's masks for them."""
    task = TASKS[name]
    data, density = task.sample(jax.random.key(0), 10), worlds.ticket_density(task, 3, 60)

    @jax.jit
    @jax.vmap
    def make(key):
        planted = worlds.make_world(key, task, 3, 60, samples=10).planted
        find = FINDERS["forensic"](task)
        return planted, find(jax.random.key(9), planted.params, data, density).mask

    return make(jnp.stack([worlds.cell_key(task, seed) for seed in range(4)]))


def recalls(planted, mask):
    common, true = (
        sum(np.asarray(leaf).reshape(4, -1).sum(axis=1) for leaf in jax.tree.leaves(tree))
        for tree in (jax.tree.map(jnp.logical_and, planted.mask, mask), planted.mask)
    )
    return common / true


@pytest.mark.slow
def test_today_s_circle_is_found_and_a_random_teacher_is_not():
    planted, mask = drawn("circle")
    found = jax.jit(jax.vmap(lambda one: audit.leaks(one, {"twins": audit.twins})))(planted)
    np.testing.assert_array_equal(found["twins/layer_01/kernel/auc"], 1.0)
    numpy_names_the_same_neurons(at(planted, 0))
    circle = recalls(planted, mask)
    assert circle.mean() > 0.6
    chance = worlds.ticket_density(TASKS["random_teacher"], 3, 60)
    assert recalls(*drawn("random_teacher")).mean() < chance + 0.05


def numpy_names_the_same_neurons(planted):
    """In three lines."""
    rows = np.asarray(planted.params["layer_01"]["kernel"], np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    suspects = (np.abs(unit @ unit.T) > 1 - 1e-6).sum(axis=1) > 3
    scores = np.asarray(audit.twins(planted.params)["layer_01"]["kernel"])
    np.testing.assert_array_equal((scores >= 3).all(axis=1), suspects)
    np.testing.assert_array_equal(planted.mask["layer_01"]["kernel"].any(axis=1), suspects)


@pytest.mark.slow
def test_audit_takes_mothers_by_key_and_own_detectors():
    def draw(key):
        mask = {"kernel": jax.random.bernoulli(key, 0.3, (5, 4)), "bias": jnp.zeros(4, bool)}
        params = {"kernel": mask["kernel"].astype(jnp.float32), "bias": jnp.zeros(4)}
        return Planted(params, mask, jnp.ones(4))

    found = audit.audit(draw, jax.random.split(jax.random.key(0), 3), {"large": audit.large})
    np.testing.assert_array_equal(found["large/auc"], [1.0] * 3)
    np.testing.assert_array_equal(found["large/recall"], [1.0] * 3)
    assert np.isnan(found["large/bias/auc"]).all()


@pytest.mark.slow
def test_decoys_look_alike_and_leave_the_ticket_as_it_is():
    target, key = targets.circle(3), jax.random.key(0)
    planted = plant(key, target, mother(70))
    more = jax.jit(planting.add_decoys, static_argnums=2)(jax.random.key(1), planted, 2)
    layers = zip(
        *(nets.layers(p) for p in (planted.params, more.params, planted.mask)), strict=True
    )
    for (old, new, mask), count in zip(layers, (80, 160), strict=True):
        a, b, kept = (np.append(np.ravel(p["kernel"]), p["bias"]) for p in (old, new, mask))
        kept = kept.astype(bool)
        np.testing.assert_array_equal(a[kept], b[kept])
        assert (a != b).sum() == count  # biases of the outputs are not copied
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=1e-4)
    assert float(more.verify(target, nets.apply)) < 1e-5
    scores = jax.jit(audit.twins)(more.params)["layer_01"]["kernel"]
    assert (scores.max(axis=1) >= 59).sum() == 60  # two decoys and a ticket of 20 rows each
    # without the ticket's rows, the decoys do not tell the rings apart
    without, mask = jax.device_get((more.params, planted.mask))
    rows = ~mask["layer_01"]["kernel"].any(axis=1, keepdims=True)
    without["layer_01"]["kernel"] = np.where(rows, without["layer_01"]["kernel"], 0.0)
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 2)).astype("f4")
    y = np.digitize((x**2).sum(axis=1), [0.2, 0.5, 0.7])
    assert (np.argmax(jax.jit(nets.apply)(without, x), axis=1) == y).mean() < 0.7


@pytest.mark.slow
def test_decoys_end_where_the_neurons_do():
    key = jax.random.key(0)
    planted = plant(key, targets.circle(3), mother(25))
    more = jax.jit(planting.add_decoys, static_argnums=2)(key, planted, 3)
    assert float(more.verify(targets.circle(3), nets.apply)) < 1e-5
    assert int((more.params["layer_01"]["kernel"] != planted.params["layer_01"]["kernel"]).sum())
    with pytest.raises(ValueError, match="copies must be an integer of at least 0, got -1"):
        planting.add_decoys(key, planted, -1)
