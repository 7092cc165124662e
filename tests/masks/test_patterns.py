"""Patterns: exact in every group, or of groups, for all kinds of scores, against brute force."""

import functools

import jax
import numpy as np
import pytest

import contract
from plantjax import masks, nets, recovery, tasks
from plantjax.finders import names
from shared import at

KEY = jax.random.key(0)
SHAPES = {
    "first": {"kernel": (8, 6), "bias": (6,)},
    "last": {"kernel": (3, 3, 10, 5), "bias": (5,)},
}
KINDS = {
    "random": lambda rng, shape: rng.normal(size=shape),
    "tied": lambda rng, shape: np.round(rng.random(shape) * 2),
    "zero": lambda rng, shape: np.zeros(shape),
    "infinite": lambda rng, shape: np.where(rng.random(shape) < 0.5, np.inf, -np.inf),
    "nan": lambda rng, shape: np.where(rng.random(shape) < 0.3, np.nan, 1.0),
}
DENSITIES = np.float32([0.25, 0.4, 0.5, 1.0])


def scores_of(kind):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: KINDS[kind](rng, shape).astype(np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


@functools.cache
def selecting(pattern):
    """Selection at all DENSITIES, compiled once."""

    def select(scores, within, density):
        return masks.select(KEY, scores, density, pattern, within)

    return jax.jit(jax.vmap(select, (None, None, 0)))


def selected(pattern, scores, within=None):
    """The masks by density, on the host."""
    within = (
        jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), scores) if within is None else within
    )
    found = jax.device_get(selecting(pattern)(scores, within, DENSITIES))
    return {float(density): at(found, index) for index, density in enumerate(DENSITIES)}


def groups_of(array, pattern):
    """All groups of an array as flat lists, the slow way."""
    view = np.asarray(array).reshape((1, *array.shape)) if array.ndim == 1 else np.asarray(array)
    if pattern == "fan_in":
        return [view[..., o].ravel() for o in range(view.shape[-1])]
    view = view.reshape(-1, *view.shape[-2:])
    down, across = (int(pattern[2:]), 1) if ":" in pattern else tuple(map(int, pattern.split("x")))
    return [
        plane[i : i + down, o : o + across].ravel()
        for plane in view
        for i in range(0, plane.shape[0], down)
        for o in range(0, plane.shape[1], across)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", ["2:4", "fan_in"])
def test_every_group_keeps_its_number(pattern, kind):
    scores = scores_of(kind)
    for density, mask in selected(pattern, scores).items():
        for values, kept in zip(jax.tree.leaves(scores), jax.tree.leaves(mask), strict=True):
            for value, group in zip(*(groups_of(a, pattern) for a in (values, kept)), strict=True):
                most = 4 if ":" in pattern else len(group)
                number = int(np.clip(np.floor(density * most + 0.5), 1, most))
                number = min(number, int(pattern[0])) if ":" in pattern else number
                assert group.sum() == min(number, len(group))
                if kind == "random":
                    assert set(np.flatnonzero(group)) == set(np.argsort(-value)[: group.sum()])


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_kept_or_pruned_as_a_whole(kind):
    scores = scores_of(kind)
    for density, mask in selected("2x3", scores).items():
        for values, kept in zip(jax.tree.leaves(scores), jax.tree.leaves(mask), strict=True):
            blocks = groups_of(kept, "2x3")
            assert all(block.all() or not block.any() for block in blocks)
            number = int(np.clip(np.floor(density * len(blocks) + 0.5), 1, len(blocks)))
            chosen = [index for index, block in enumerate(blocks) if block.all()]
            assert len(chosen) == number
            if kind == "random":
                means = [value.mean() for value in groups_of(values, "2x3")]
                assert set(chosen) == set(np.argsort(means)[::-1][:number])


@pytest.mark.parametrize("kind", KINDS)
def test_whole_channels_go_with_their_biases(kind):
    scores = scores_of(kind)
    mask = selected("whole_channels", scores)[float(np.float32(0.4))]
    for layer, number in (("first", 2), ("last", 2)):
        kernel, bias = (np.asarray(mask[layer][name]) for name in ("kernel", "bias"))
        rows = kernel.reshape(-1, kernel.shape[-1])
        np.testing.assert_array_equal(rows, np.broadcast_to(bias, rows.shape))
        assert bias.sum() == number
        if kind == "random":
            joined = np.concatenate(
                [scores[layer]["kernel"].reshape(rows.shape), scores[layer]["bias"][None]]
            )
            assert set(np.flatnonzero(bias)) == set(np.argsort(-joined.mean(0))[:number])


@pytest.mark.parametrize("pattern", ["2:4", "2x3", "whole_channels"])
def test_patterns_within_a_mask(pattern):
    scores = scores_of("tied")
    wide = selected(pattern, scores)[0.5]
    narrow = selected(pattern, scores, wide)[0.25]
    assert int(masks.overlap(narrow, wide)) == int(masks.count(narrow)) > 0
    counts = masks.group_counts(narrow, pattern)
    assert int(counts.sum()) == int(masks.count(narrow))
    assert float(recovery.feasible_recall(narrow, narrow, pattern)) == 1.0
    assert masks.unknown(scores, pattern).shape == (0,)  # patterns have no thresholds


def test_leaves_that_are_not_prunable_are_kept():
    prunable = lambda path: path.endswith("kernel")  # noqa: E731
    select = functools.partial(masks.select, scope="2:4", prunable=prunable)
    mask = jax.jit(select)(KEY, scores_of("random"), 0.5)
    assert mask["first"]["bias"].all()
    assert int(mask["first"]["kernel"].sum()) == 24


@pytest.mark.parametrize("scope", ["5:4", "0:4", "4x0", "2:4:8", "N:M", "x", ""])
def test_unknown_patterns_are_refused(scope):
    with pytest.raises(ValueError, match="scope must"):
        masks.select(KEY, scores_of("zero"), 0.5, scope)


CIRCLE = tasks.TASKS["circle"]


@pytest.mark.parametrize("name", ["random", pytest.param("edge_popup", marks=pytest.mark.slow)])
def test_finders_that_select_take_patterns(name):
    params, data = nets.init(KEY, (2, 8, 8, 4)), CIRCLE.sample(KEY, 64)
    finder = names.make(CIRCLE, name, **contract.brief(name) | {"scope": "2:4"})
    found = jax.jit(finder)(KEY, params, data, 0.5)
    kernel = np.asarray(found.mask["layer_01"]["kernel"])
    assert (kernel.reshape(2, 4, 8).sum(1) == 2).all()
    assert not finder.exact_counts
