"""Edge-popup in levels: densities, restarts, and the same bits in one program and in pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import finders, masks
from plantjax.finders.edge_popup_scores import sgd
from plantjax.masks import schedules
from plantjax.tasks import TASKS
from shared import chain, circle, flat, shares

CIRCLE = TASKS["circle"]
WIDTHS = (2, 12, 4)
KEY = jax.random.key(3)
MOTHER = chain(*WIDTHS)
DATA = circle(96)
BRIEF = {"rounds": 3, "level_epochs": 1, "batch_size": 16}


@pytest.mark.slow
def test_one_level_on_whole_batches_is_edge_popup():
    """Where a batch is the whole data, the order of samples does not matter."""
    whole = {"scope": "layer", "batch_size": 96}
    one = finders.edge_popup(CIRCLE, search_epochs=6, **whole)
    other = finders.edge_popup_levels(CIRCLE, rounds=1, level_epochs=6, warmup=0.0, **whole)
    wanted, found = (jax.jit(f)(KEY, MOTHER, DATA, 0.3) for f in (one, other))
    np.testing.assert_array_equal(flat(found.mask), flat(wanted.mask))
    np.testing.assert_allclose(found.info["loss"][-1], wanted.info["losses"][-1], rtol=1e-4)


@pytest.mark.slow
def test_levels_one_by_one_are_the_search():
    finder = finders.edge_popup_levels(CIRCLE, scope="layer", **BRIEF)
    arguments = (KEY, MOTHER, DATA, jnp.float32(0.2))
    wanted = jax.jit(finder)(*arguments)
    state = jax.jit(finder.levels.begin)(*arguments)
    advance, told, scores = jax.jit(finder.levels.advance), [], []
    for level in (1, 2, 3):
        state, metrics = advance(*arguments, state, jnp.int32(level))
        told.append(metrics)
        scores.append(flat(state.learned["scores"]))
        kept = schedules.exponential(0.2, level, 3)
        sizes = np.asarray(masks.group_counts(masks.full(MOTHER)))
        k = int(masks.number_kept(kept, int(sizes.sum())))
        assert masks.group_counts(state.mask).tolist() == shares(k, sizes.tolist())
    told = {name: jnp.stack([metrics[name] for metrics in told]) for name in told[0]}
    found = finder.levels.finish(state, told)
    np.testing.assert_array_equal(flat(found.mask), flat(wanted.mask))
    for name in wanted.info:
        np.testing.assert_allclose(found.info[name], wanted.info[name], rtol=1e-4, err_msg=name)
    assert not np.allclose(scores[0], scores[1])
    np.testing.assert_array_equal(flat(found.params), flat(MOTHER))
    assert (finder.rounds, finder.scope, finder.exact_counts) == (3, "layer", False)


def test_the_learning_rate_rises_and_falls():
    optimizer, rates = sgd(0.5, 10, 4), []
    state = optimizer.init(jnp.float32(0.0))
    for step in range(10):
        with jax.numpy_dtype_promotion("standard"):  # optax does not run under "strict"
            update, state = optimizer.update(jnp.float32(step == 0), state, jnp.float32(0.0))
        rates.append(-float(update) / 0.9**step)  # momentum of one push
    np.testing.assert_allclose(rates[:5], [0.0, 0.125, 0.25, 0.375, 0.5], atol=1e-6)
    angles = np.pi * np.arange(6) / 6
    np.testing.assert_allclose(rates[4:], 0.25 * (1 + np.cos(angles)), atol=1e-6)


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"rounds": 0}, "rounds must be an integer of at least 1, got 0"),
        ({"warmup": 1.0}, r"warmup must lie in \[0, 0.99\], got 1.0"),
        ({"init": "zero"}, "init must be one of"),
    ],
)
def test_bad_options_are_refused(static, message):
    with pytest.raises(ValueError, match=message):
        finders.edge_popup_levels(CIRCLE, **static)


def test_batches_larger_than_the_data_are_refused():
    finder = finders.edge_popup_levels(CIRCLE, batch_size=97)
    with pytest.raises(ValueError, match=r"batch_size must be .* at most 96, got 97"):
        finder(KEY, MOTHER, DATA, 0.5)
