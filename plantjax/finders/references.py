"""References: finders that know the planted ticket, for comparison with all others."""

from collections.abc import Callable

import chex
import jax

from plantjax import masks, nets
from plantjax.finders import common
from plantjax.scores import SCORES
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Planted, Task


def dense(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: the whole network, m = 1 everywhere, at any requested density (a baseline)."""
    del task, apply
    return _fixed(lambda params, planted: masks.full(params))


def planted(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: the planted mask at any requested density, as a perfect finder would find it.

    Source: paper, Algorithm 1, https://arxiv.org/abs/2111.11153; see `planting.plant`.
    """
    del task, apply
    return _fixed(lambda params, planted: planted.mask)


@common.on_floats
def oracle_random(task: Task, *, apply: Apply = nets.apply) -> Finder:
    """Reference: a random mask with the planted mask's layer counts, scaled to the density.

    Scores N(0, 1) in scope "oracle"; it shows what the right layer counts alone are worth.

    Source: ours.
    """
    score_fn = SCORES["random"](apply, task.loss)
    prunable = common.prunable_of(apply, None)

    def search(
        key: Key, params: Params, data: Batch, density: chex.Numeric, planted: Planted
    ) -> Found:
        common.check(task, params, data, density, prunable=prunable)
        score_key, select_key = jax.random.split(key)
        scores = score_fn(score_key, params, planted.mask, data)
        counts = masks.group_counts(planted.mask, prunable=prunable)
        mask = masks.select(select_key, scores, density, "oracle", counts=counts, prunable=prunable)
        return Found(mask, params, {})

    return Finder(search, scope="oracle")


def _fixed(mask_of: Callable[[Params, Planted], Mask]) -> Finder:
    """The finder that returns `mask_of(params, planted)`, whatever the density."""

    def search(
        key: Key, params: Params, data: Batch, density: chex.Numeric, planted: Planted
    ) -> Found:
        del key, data, density
        return Found(mask_of(params, planted), params, {})

    return Finder(search, exact_counts=False)
