"""References: finders that are told the planted ticket, as lines to read all others against."""

import chex
import jax

from plantjax import masks, nets
from plantjax.finders import common
from plantjax.scores import SCORES
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Planted, Task


def dense(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: the whole network, m = 1 everywhere, whatever density is asked (a baseline)."""
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
    >>> task = pj.TASKS["relu"]
    >>> world = pj.worlds.make_world(jax.random.key(0), task, depth=3, width=20, samples=100)
    >>> tell = pj.REFERENCES["planted"](task)
    >>> told = tell(jax.random.key(1), world.planted.params, world.train, 0.1, world.planted)
    >>> float(pj.recovery.compare(world.planted.params, told.mask, world.planted)["recall"])
    1.0
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
