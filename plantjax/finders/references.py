"""References: finders that are told the planted ticket, as lines to read all others against."""

import chex
import jax

from plantjax import masks, nets
from plantjax.finders import common
from plantjax.scores import SCORES
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Planted, Task


def dense(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: the whole network, m = 1 everywhere, whatever density is asked (a baseline).

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother = pj.nets.init(keys[0], (1, 10, 10, 1))
    >>> truth, data = pj.plant(keys[1], task.target(depth=4), mother), task.sample(keys[2], 64)
    >>> found = pj.finders.dense(task)(keys[2], truth.params, data, 1.0, truth)
    >>> int(pj.masks.count(found.mask))
    141
    """
    del task, apply

    def search(
        key: Key, params: Params, data: Batch, density: chex.Numeric, planted: Planted
    ) -> Found:
        del key, data, density, planted
        return Found(masks.full(params), params, {})

    return Finder(search, exact_counts=False)


def planted(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: the planted mask, whatever density is asked: what a perfect finder would find.

    Source: paper, Algorithm 1, https://arxiv.org/abs/2111.11153; see `planting.plant`.

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother = pj.nets.init(keys[0], (1, 10, 10, 1))
    >>> truth, data = pj.plant(keys[1], task.target(depth=4), mother), task.sample(keys[2], 64)
    >>> found = pj.finders.planted(task)(keys[2], truth.params, data, 1.0, truth)
    >>> int(pj.masks.count(found.mask))
    3
    """
    del task, apply

    def search(
        key: Key, params: Params, data: Batch, density: chex.Numeric, planted: Planted
    ) -> Found:
        del key, data, density
        return Found(planted.mask, params, {})

    return Finder(search, exact_counts=False)


def oracle_random(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: a random mask with the planted mask's layer counts, scaled to the density.

    Scores N(0, 1) in scope "oracle": what the right budgets alone are worth.

    Source: ours.

    >>> import jax, plantjax as pj
    >>> task, keys = pj.TASKS["relu"], jax.random.split(jax.random.key(0), 3)
    >>> mother = pj.nets.init(keys[0], (1, 10, 10, 1))
    >>> truth, data = pj.plant(keys[1], task.target(depth=4), mother), task.sample(keys[2], 64)
    >>> found = pj.finders.oracle_random(task)(keys[2], truth.params, data, 0.1, truth)
    >>> counts = pj.masks.group_counts
    >>> counts(truth.mask).tolist(), counts(found.mask).tolist()
    ([1, 1, 1], [5, 5, 4])
    """
    score_fn = SCORES["random"](apply, task.loss)

    def search(
        key: Key, params: Params, data: Batch, density: chex.Numeric, planted: Planted
    ) -> Found:
        common.check(task, params, data, density)
        score_key, select_key = jax.random.split(key)
        scores = score_fn(score_key, params, planted.mask, data)
        counts = masks.group_counts(planted.mask)
        mask = masks.select(select_key, scores, density, "oracle", counts=counts)
        return Found(mask, params, {})

    return Finder(search, scope="oracle")
