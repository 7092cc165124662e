"""Normalised scores against hand-computed cases and an independent computation."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ranking import scores

ACCURACY = {"metric": "accuracy", "ticket_value": 0.9, "dead_value": 0.5}
ERROR = {"metric": "mse", "ticket_value": 0.0, "dead_value": 0.2}


def made(seed=0):
    """Three finders, two tasks of three and four mothers, two densities."""
    random = np.random.default_rng(seed)
    sizes = {"circle": 3, "relu": 4}
    cases = [
        {"task": task, "seed": mother, "finder": finder, "density_name": density}
        for task, size in sizes.items()
        for finder, mother, density in itertools.product("abc", range(size), ("0.1", "ticket"))
    ]
    return pd.DataFrame(cases).assign(score=random.random(len(cases)).round(1))


def row(**values):
    return {"task": "t", "seed": 0, "status": "ok", **values}


def test_scores_run_from_the_best_constant_output_to_the_ticket():
    values = [0.5, 0.6, 0.9, 0.95, 0.1, np.nan, np.inf]
    rows = [row(**ACCURACY, value=value) for value in values]
    rows += [row(**ACCURACY, value=0.9) | {"status": "over budget"}]
    rows += [row(**ERROR, value=value) for value in (0.2, 0.05, 0.0, 7.0, np.inf)]
    wanted = [0, 0.25, 1, 1, 0, 0, 0, 0, 0, 0.75, 1, 0, 0]
    np.testing.assert_allclose(scores.normalised(pd.DataFrame(rows)), wanted, atol=1e-12)


@pytest.mark.parametrize("given", [ACCURACY, ERROR])
def test_tickets_that_are_no_better_than_a_constant_are_refused(given):
    rows = pd.DataFrame([row(**given, value=0.1) | {"dead_value": given["ticket_value"]}])
    with pytest.raises(ValueError, match=r"ticket_value must be better .* on t, seed 0"):
        scores.normalised(rows)
    with pytest.raises(ValueError, match="must have the column dead_value"):
        scores.normalised(rows.drop(columns="dead_value"))


def test_finders_that_lack_cells_are_named():
    table = made()
    whole, lacking = scores.complete(table.drop(index=table.index[table["finder"] == "b"][0]))
    assert lacking == ["b"]
    assert set(whole["finder"]) == {"a", "c"}
    with pytest.raises(ValueError, match="each cell of circle once"):
        scores.blocks(table.drop(index=0))


def test_middle_means_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    for n in range(1, 14):
        values = random.random(n)
        np.testing.assert_allclose(scores.middle_mean(values), stats.trim_mean(values, 0.25))


def test_nothing_depends_on_the_order_of_rows():
    table = made()
    finders, first = scores.blocks(table)
    _, second = scores.blocks(table.sample(frac=1.0, random_state=1))
    for task, block in first.items():
        np.testing.assert_array_equal(block, second[task])
    assert scores.means(finders, first) == scores.means(finders, second)
    assert scores.improvement(finders, first) == scores.improvement(finders, second)


def independent(table, index):
    """Draw by draw: the interquartile mean of every finder, and P(a > b), from the rows."""
    found, better = [], []
    for draw in range(201):
        rows = pd.concat(
            table[(table["task"] == task) & (table["seed"] == mother)].assign(place=place)
            for task, chosen in index.items()
            for place, mother in enumerate(chosen[draw])
        )
        middle = {}
        for finder, part in rows.groupby("finder"):
            values = sorted(part["score"])
            cut = len(values) // 4
            middle[finder] = np.mean(values[cut : len(values) - cut])
        found.append(middle)
        shares = []
        for _, part in rows.groupby(["task", "density_name"]):
            pairs = itertools.product(*(part[part["finder"] == name]["score"] for name in "ab"))
            shares.append(np.mean([(x > y) + 0.5 * (x == y) for x, y in pairs]))
        better.append(np.mean(shares))
    return pd.DataFrame(found), np.array(better)


def test_intervals_agree_with_a_computation_from_the_rows(monkeypatch):
    monkeypatch.setattr(scores, "RESAMPLES", 201)
    table = made()
    finders, arrays = scores.blocks(table)
    middles, better = independent(table, scores.draws(arrays))
    for name, found in scores.means(finders, arrays).items():
        ends = np.quantile(middles[name], (0.025, 0.975), method="inverted_cdf")
        np.testing.assert_allclose(found[1:], ends)
    places = middles.rank(axis=1, ascending=False)
    for name, found in scores.ranks(finders, arrays).items():
        ends = np.quantile(places[name], (0.025, 0.975), method="inverted_cdf")
        np.testing.assert_allclose(found[1:], ends)
    pairs = scores.improvement(finders, arrays)
    ends = np.quantile(better, (0.025, 0.975), method="inverted_cdf")
    np.testing.assert_allclose(pairs["a", "b"][1:], ends)
    assert pairs["a", "b"].value + pairs["b", "a"].value == pytest.approx(1.0)


def test_improvement_profiles_and_ranks_by_hand():
    arrays = {"t": np.array([[[0.2], [0.8]], [[0.2], [0.4]]])}
    pairs = scores.improvement(["x", "y"], arrays)
    assert pairs["x", "y"].value == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    found = scores.profiles(["x", "y"], arrays, np.array([0.0, 0.2, 0.5, 1.0]))
    np.testing.assert_allclose(found["x"][0], [1, 1, 0.5, 0])
    np.testing.assert_allclose(found["y"][0], [1, 1, 0, 0])
    np.testing.assert_allclose([found["x"][1][2], found["x"][2][2]], [0, 1])
    placed = scores.ranks(["x", "y"], arrays)
    assert placed["x"] == (1.0, 1.0, 1.5)  # both draws of the first mother are a tie
    assert placed["y"].value == 2.0


def test_costs_are_in_searches_of_edge_popup():
    seconds = {("edge_popup", "t"): 2.0, ("edge_popup", "u"): 8.0, ("s", "t"): 1.0, ("s", "u"): 1.0}
    rows = [
        {"finder": f, "task": t, "stage": stage, "seconds": value * (1 if stage == "pruned" else 9)}
        for (f, t), value in seconds.items()
        for stage in ("pruned", "trained")
    ]
    assert scores.costs(pd.DataFrame(rows)) == pytest.approx({"edge_popup": 1.0, "s": 0.25})
    with pytest.raises(ValueError, match="every sheet must have edge_popup"):
        scores.costs(pd.DataFrame(rows[4:]))
    assert scores.front({"a": 1, "b": 1, "c": 2}, {"a": 0.5, "b": 0.5, "c": 0.5}) == ["a", "b"]
