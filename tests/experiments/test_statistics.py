"""Statistics of the leaderboard against hand-computed cases and brute force."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ranking import statistics


def table(values, task="circle", finder="snip", stage="pruned", ticket=0.98, metric="accuracy"):
    """Tidy rows of {density: [value of every mother]}."""
    return pd.DataFrame(
        [
            {
                **{"task": task, "finder": finder, "stage": stage, "metric": metric},
                **{"density": density, "density_name": str(density), "seed": seed},
                **{"value": value, "ticket_value": ticket, "constant": value == 0.25},
                **{"status": "ok" if np.isfinite(value) else "diverged", "seconds": 1.0 + seed},
                **{"recall": 0.1 * seed, "lift": 2.0, "kept": 0, "kept_density": 0.0},
            }
            for density, row in values.items()
            for seed, value in enumerate(row)
        ]
    )


def ranked(rows):
    return statistics.ranking(statistics.lowest(rows), statistics.cases(rows))


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [3.0, -1.0, 0.5, 7.0]])
def test_intervals_are_those_of_all_draws_of_mothers(values):
    """Of few mothers all draws can be listed, S^S of them; the sample comes near."""
    medians = sorted(np.median(draw) for draw in itertools.product(values, repeat=len(values)))
    middle, low, high = statistics.interval(values)
    assert middle == np.median(values)
    for found, share in ((low, 0.025), (high, 0.975)):
        below = np.mean(np.asarray(medians) < found - 1e-9)
        upto = np.mean(np.asarray(medians) <= found + 1e-9)
        assert below - 0.02 <= share <= upto + 0.02


def test_intervals_cover_the_median_as_often_as_they_say():
    rng = np.random.default_rng(0)
    ends = np.array([statistics.interval(rng.normal(size=25))[1:] for _ in range(400)])
    covered = np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
    assert 0.90 < covered < 0.99


def test_intervals_are_the_same_every_time_and_take_infinite_values():
    values = [1.0, np.inf, 2.0, np.inf, np.inf]
    assert statistics.interval(values) == statistics.interval(values)
    assert statistics.interval(values)[0] == np.inf
    assert statistics.interval([5.0]) == (5.0, 5.0, 5.0)
    assert statistics.interval([np.inf, 1.0])[0] == np.inf


def test_masks_above_their_budget_are_no_tickets():
    rows = table({0.1: [0.98] * 3}).assign(status=["ok", "over budget", "ok"])
    assert list(np.isinf(statistics.with_excess(rows)["excess"])) == [False, True, False]
    assert statistics.cases(rows)["over"].tolist() == [1]


def test_excess_is_one_at_what_is_allowed():
    accuracy = statistics.with_excess(table({0.1: [0.98, 0.97, 0.96, np.nan]}))
    np.testing.assert_allclose(accuracy["excess"], [0, 1, 2, 98])
    error = statistics.with_excess(
        table({0.1: [1e-4, 2e-4, 4e-4, np.nan]}, ticket=1e-4, metric="mse")
    )
    np.testing.assert_allclose(error["excess"], [0.5, 1, 2, np.inf])
    both = statistics.with_excess(pd.concat([accuracy, error], ignore_index=True))
    np.testing.assert_allclose(both["excess"], [0, 1, 2, 98, 0.5, 1, 2, np.inf])


def test_cases_count_mothers_and_give_medians():
    (row,) = statistics.cases(table({0.1: [0.98, 0.96, 0.25, 0.97, np.nan]})).to_dict("records")
    assert row["value"] == 0.96
    assert (row["seeds"], row["reached"], row["dead"], row["diverged"]) == (5, 2, 1, 1)
    assert row["value_low"] <= row["value"] <= row["value_high"]
    assert (row["recall"], row["lift"], row["lift_low"]) == (0.2, 2.0, 2.0)
    assert row["seconds"] == 3.0
    assert row["seconds_low"] < 3.0 < row["seconds_high"]


def test_ten_of_a_thousand_samples_are_a_point():
    values = [float(np.float32(972) / np.float32(1000))] * 3
    ticket = float(np.float32(982) / np.float32(1000))
    assert statistics.cases(table({0.1: values}, ticket=ticket))["reached"].tolist() == [3]
    assert statistics.lowest(table({0.1: values}, ticket=ticket))["lowest"].tolist() == [0.1]


def test_the_lowest_density_is_that_of_the_median_mother():
    found = statistics.lowest(
        table(
            {
                0.5: [0.98, 0.98, 0.98],
                0.1: [0.97, 0.98, 0.50],  # two of three reach
                0.01: [0.98, 0.50, 0.50],  # one does
            }
        )
    ).iloc[0]
    assert found["lowest"] == 0.1
    assert found["lowest_low"] == 0.01  # some draws hold the first mother twice
    assert found["lowest_high"] == 0.5
    never = statistics.lowest(table({0.5: [0.5, 0.6], 0.1: [np.nan, 0.5]})).iloc[0]
    assert never[["lowest", "lowest_low", "lowest_high"]].tolist() == [np.inf] * 3


def test_twice_the_error_reaches():
    values = {0.5: [1e-4, 1.9e-4, 2e-4], 0.1: [2.1e-4, 3e-4, 1e-4]}
    found = statistics.lowest(table(values, ticket=1e-4, metric="mse"))
    assert found["lowest"].tolist() == [0.5]


def test_cells_that_are_missing_reach_nothing():
    whole = table({0.5: [0.98, 0.98, 0.98], 0.1: [0.98, 0.98, 0.98]})
    part = whole[~((whole["density"] == 0.1) & (whole["seed"] > 0))]
    assert statistics.lowest(part)["lowest"].tolist() == [0.5]


def test_only_subnetworks_have_strong_scores():
    good, poor = ({0.5: [v] * 3} for v in (0.98, 0.5))
    parts = [
        table(good, finder=finder, stage=stage)
        for finder in ("snip", "rigl", "flips")
        for stage in ("pruned", "trained")
    ]
    kinds = {"snip": "subnetwork", "rigl": "trained", "flips": "signed"}
    every = pd.concat(parts, ignore_index=True)
    whole = statistics.by_kind(every.assign(kind=every["finder"].map(kinds)))
    stages = whole.groupby("finder")["stage"].unique().map(list).to_dict()
    assert stages == {
        "snip": ["pruned", "trained"],
        "rigl": ["trained"],
        "flips": ["signed", "trained"],
    }
    whole = pd.concat([whole, table(poor, finder="poor")], ignore_index=True)
    assert ranked(whole)[0] == "snip"


def test_ranking_is_by_strong_then_weak_then_nearness():
    good, fair, poor = ({0.5: [v] * 3, 0.1: [v] * 3} for v in (0.98, 0.9, 0.5))
    parts = [
        table(poor, finder="a"), table(poor, finder="a", stage="trained"),
        table(good, finder="b"), table(poor, finder="b", stage="trained"),
        table(poor, finder="c"), table(good, finder="c", stage="trained"),
        table(fair, finder="d"), table(poor, finder="d", stage="trained"),
    ]  # fmt: skip
    whole = pd.concat(parts, ignore_index=True)
    assert ranked(whole) == ["b", "c", "d", "a"]
    strong = whole[whole["stage"] == "pruned"]
    assert ranked(strong) == ["b", "d", "a", "c"]
