"""Tables of levels: one row per cell and level."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantjax import metrics, sweeps

TOLD = ("kept_density", "live_density", "collapsed", "loss")


def results(cells, rounds):
    """Results whose entries say where they belong: 100 times the cell plus the level."""
    where = 100 * np.arange(cells)[:, None] + np.arange(1, rounds + 1)
    entries = {f"search/{name}": where + 10_000 * i for i, name in enumerate(TOLD)}
    others = {
        "search/scale": np.arange(cells),
        "search/losses": np.zeros((cells, rounds + 1)),
        "pruned/value": np.arange(cells),
        "mask": np.ones((cells, rounds), bool),
    }
    return entries | others


@settings(deadline=None, max_examples=20)
@given(cells=st.integers(1, 5), rounds=st.integers(2, 6))
def test_levels_have_a_row_for_each_cell_and_level(cells, rounds):
    labels = {"seed": range(cells), "finder": [f"finder {i}" for i in range(cells)]}
    table = metrics.to_levels(results(cells, rounds), labels)
    assert list(table.columns) == ["seed", "finder", "level", *TOLD]
    assert len(table) == cells * rounds
    assert list(table.index) == [*range(cells * rounds)]
    assert table.level.tolist() == [*range(1, rounds + 1)] * cells
    assert table.seed.tolist() == [seed for seed in range(cells) for _ in range(rounds)]
    assert (table.finder == [f"finder {seed}" for seed in table.seed]).all()
    for index, name in enumerate(TOLD):
        np.testing.assert_array_equal(table[name], 100 * table.seed + table.level + 10_000 * index)


def test_finders_that_tell_less_have_fewer_columns():
    told = {name: results(3, 4)[name] for name in ("search/kept_density", "search/collapsed")}
    table = metrics.to_levels(told, {})
    assert list(table.columns) == ["level", "kept_density", "collapsed"]
    assert len(table) == 12


@pytest.mark.parametrize(
    "results",
    [
        results(3, 1),  # singleshot
        {"search/losses": np.ones((3, 10)), "search/scale": np.ones(3)},  # edge-popup
        {"pruned/value": np.ones(3)},  # references
    ],
    ids=["one round", "no levels", "no search"],
)
def test_finders_of_a_single_round_have_no_rows(results):
    assert metrics.to_levels(results, {"seed": range(3)}).empty


def test_sweeps_hand_the_tables_on():
    assert sweeps.to_levels is metrics.to_levels
    assert sweeps.to_frame is metrics.to_frame
