"""Tuning: the draws of trials, the rule, the published file, and a tiny run."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tune
from plantjax.finders import FINDERS, names
from plantjax.finders.spaces import Choice
from plantjax.jobs.job import InputError
from plantjax.metrics import OVER
from plantjax.tasks import TASKS
from tuning import published, rule, trials

TINY = ["--tasks", "relu", "--finders", "forensic", "--depth", "3", "--width", "8"]
TINY += ["--trials", "2", "--finalists", "2", "--seeds", "2", "--samples", "50"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tests publish."""
    monkeypatch.setattr(published, "PATH", tmp_path / "tuning.json")
    return published.PATH


def test_finders_are_judged_by_what_they_are_made_for():
    weak, strong = ("snip", "multishot_synflow", "aligned", "rigl"), ("edge_popup", "gem_miner")
    assert {trials.stage(name) for name in weak} == {"trained"}
    assert {trials.stage(name) for name in (*strong, "forensic", "genetic")} == {"pruned"}


@pytest.mark.parametrize("finder", FINDERS)
def test_every_finder_has_a_space_that_holds_its_defaults_and_that_it_takes(finder: str) -> None:
    space, usual = trials.space(finder), trials.defaults(finder)
    assert set(space) <= names.options(finder)
    drawn = trials.draws(finder, "circle", 24)
    assert drawn[0] == {}
    assert len(drawn) == (24 if space else 1)
    for name, part in space.items():
        assert usual[name] in part
        assert "oracle" not in (part.values if isinstance(part, Choice) else ())  # the truth
    for options in drawn:
        assert all(options[name] in space[name] for name in options)
        assert all(options[name] != usual[name] for name in options)
    for options in drawn[:4]:
        names.make(TASKS["circle"], finder, **options)


def test_what_has_nothing_to_tune_has_one_trial() -> None:
    assert trials.distinct("phew", "relu", 24) == {0: {}}
    assert "phew" not in tune.Settings().names()
    assert {"gem_miner", "snip", "rigl", "multishot_snip"} <= set(tune.Settings().names())
    assert tune.Settings(finders=("phew",)).names() == ["phew"]


def test_draws_depend_on_names_alone_and_repetitions_are_left_out() -> None:
    drawn = trials.draws("gem_miner", "relu", 24)
    assert drawn == trials.draws("gem_miner", "relu", 24)
    assert drawn[:7] == trials.draws("gem_miner", "relu", 7)
    assert drawn[1:] != trials.draws("gem_miner", "helix", 24)[1:]
    rates = [options["penalty"] for options in drawn[1:]]
    assert min(rates) < 1e-7 < 1e-5 < max(rates)
    kept = trials.distinct("forensic", "relu", 24)
    assert len(kept) == 3
    assert next(iter(kept)) == 0
    every = trials.draws("forensic", "relu", 24)
    assert all(every.index(options) == index for index, options in kept.items())


def table(
    metric: str, values: dict[int, dict[str, list[float]]], ticket: float, dead: float
) -> pd.DataFrame:
    """Rows of trials, densities and mothers."""
    return pd.DataFrame(
        {
            **{"trial": trial, "density_name": density, "seed": seed, "stage": "pruned"},
            **{"metric": metric, "value": value, "ticket_value": ticket, "status": "ok"},
            "dead_value": dead,
        }
        for trial, by_density in values.items()
        for density, by_seed in by_density.items()
        for seed, value in enumerate(by_seed)
    )


def test_scores_are_shares_of_the_way_to_the_ticket() -> None:
    values = {
        0: {"0.1": [0.3, 0.2, 0.4], "ticket": [0.1, 0.1, 0.1]},
        2: {"0.1": [0.9, 0.6, 0.3], "ticket": [0.95, 0.3, 0.45]},
        5: {"0.1": [0.6, 0.6, 0.6], "ticket": [0.45, 0.45, 0.45]},
    }
    rows = table("accuracy", values, ticket=0.9, dead=0.3)
    found = rule.scores(rows, "pruned")
    np.testing.assert_allclose(found["score"], [0.0, 0.375, 0.375])  # (0.5 + 0.25) / 2
    np.testing.assert_allclose(found["ticket"], [0.1, 0.45, 0.45])
    assert rule.winner(found["score"]) == 2  # the earlier one
    rows.loc[(rows["trial"] == 2) & (rows["seed"] == 1), "status"] = OVER
    rows.loc[(rows["trial"] == 2) & (rows["seed"] == 2), "value"] = math.nan
    found = rule.scores(rows, "pruned")
    np.testing.assert_allclose(found["score"], [0.0, 0.0, 0.375])
    assert rule.winner(found["score"]) == 5
    assert rule.winner(found["score"] * 0.0) == 0
    assert rule.finalists(found["score"], 2) == [0, 5]


def test_errors_count_by_their_logarithms() -> None:
    values = {0: {"0.1": [1e-1]}, 1: {"0.1": [1e-2]}, 2: {"0.1": [1e-4]}, 3: {"0.1": [3.0]}}
    found = rule.scores(table("mse", values, ticket=1e-3, dead=0.1), "pruned")
    np.testing.assert_allclose(found["score"], [0.0, 0.5, 1.0, 0.0])
    worse = rule.scores(table("mse", values, ticket=0.2, dead=0.1), "pruned")
    np.testing.assert_array_equal(worse["score"], 0.0)  # than a dead network: nothing to gain


def entry(*scores: float) -> dict[str, object]:
    """What is published of three trials."""
    found = pd.DataFrame({"0.1": 0.5, "ticket": 0.25, "score": scores}, index=[0, 1, 2])
    return published.entry("snip", "relu", found, found.loc[[0, 2]], 1.23456, "versions")


def test_publishing_keeps_what_it_does_not_replace(file: Path) -> None:
    plan = {"trials": 3, "seeds": [5, 6]}
    assert published.load()["finders"] == {}
    first = published.merged(published.load(), plan, {"snip": {"relu": entry(0.1, 0.2, 0.9)}})
    published.save(first)
    more = {"snip": {"helix": entry(0.5, 0.5, 0.1)}, "lamp": {"relu": entry(0.0, 0.1, 0.0)}}
    published.save(published.merged(published.load(), plan, more))
    tuned = published.load()
    assert tuned["settings"] == plan
    assert set(tuned["finders"]) == {"snip", "lamp"}
    assert tuned["finders"]["snip"]["relu"] == first["finders"]["snip"]["relu"]
    won = tuned["finders"]["snip"]["relu"]
    assert won["winner"] == 2
    assert (
        won["options"]
        == trials.draws("snip", "relu", 3)[2]
        == published.options(tuned, "snip", "relu")
    )
    assert won["columns"][:5] == ["trial", "score", "first", "0.1", "ticket"]
    assert won["columns"][5:] == ["rounds", "scope", "batches"]
    assert won["trials"][0] == [0, 0.1, 0.1, 0.5, 0.25, 1, "global", 1]
    assert won["trials"][1][:3] == [1, None, 0.2]
    assert sum(line.strip().startswith("[0, ") for line in file.read_text().splitlines()) == 3
    assert published.options(tuned, "snip", "helix") == {}
    with pytest.raises(ValueError, match="trials: 3 there, 4 here"):
        published.merged(tuned, plan | {"trials": 4}, {})


def test_tuned_options_are_known_or_asked_for() -> None:
    tuned = {"finders": {"snip": {"relu": {"options": {"scope": "layer", "rounds": 10}}}}}
    assert published.options(tuned, "snip", "relu") == {"scope": "layer", "rounds": 10}
    assert published.options(tuned, "snip+shuffled", "relu") == {"scope": "layer", "rounds": 10}
    assert published.options(tuned, "snip+oracle", "relu") == {"rounds": 10}
    assert published.options(tuned, "phew", "relu") == {}  # nothing to tune
    with pytest.raises(ValueError, match="lamp must have been tuned on relu"):
        published.options(tuned, "lamp", "relu")


def test_the_committed_winners_follow_from_their_logs() -> None:
    tuned = published.load()
    for finder, by_task in tuned["finders"].items():
        for task, found in by_task.items():
            space = {name: str(part) for name, part in trials.space(finder).items()}
            assert found["space"] == space, f"tune {finder} again: its space has changed"
            first = pd.Series({row[0]: row[2] for row in found["trials"]})
            scores = {row[0]: row[1] for row in found["trials"] if row[1] is not None}
            tried = trials.distinct(finder, task, tuned["settings"]["trials"])
            assert list(first.index) == list(tried)
            assert list(scores) == rule.finalists(first, tuned["settings"]["finalists"])
            assert found["winner"] == rule.winner(pd.Series(scores))
            assert found["options"] == tried[found["winner"]]


@pytest.mark.slow
def test_a_run_is_resumed_and_published(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    tune.main([*TINY, "--out", str(out), "--publish"])
    found = json.loads(file.read_text())["finders"]["forensic"]["relu"]
    assert [row[0] for row in found["trials"]] == [0, 1]
    results = pd.read_csv(out / "forensic" / "results.csv")
    assert set(results["trial"]) == {0, 1}
    assert set(results["stage"]) == {"pruned"}
    assert set(results["seed"]) == {50_000, 50_001}
    assert "8 searches, 8 of them left" in capsys.readouterr().out
    next((out / "forensic" / "chunks").glob("*.npz")).unlink()
    more = [*TINY, "--out", str(out), "--publish", "--finders", "phew", "forensic"]
    tune.main([*more, "--estimate"])
    assert "12 searches, 6 of them left" in capsys.readouterr().out
    tune.main(more)
    assert "going on with the others" in capsys.readouterr().out
    again = json.loads(file.read_text())["finders"]
    assert set(again) == {"forensic", "phew"}
    for name in ("winner", "trials", "options"):
        assert again["forensic"]["relu"][name] == found[name]
    assert again["phew"]["relu"]["options"] == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "nowhere"], "--tasks must be one of circle.*nowhere"),
        (["--finders", "guess"], "--finders must be one of random.*guess"),
        (["--finders"], "--finders must name at least one"),
        (["--finalists", "3"], "--finalists must be an integer of at least 1 and at most 2, got 3"),
        (["--trials", "0"], "--trials must be an integer of at least 1"),
        (["--samples", "5"], "--samples must be an integer of at least 10"),
        (["--depth", "2"], "--depth must be an integer of at least 3"),
        (
            ["--finders", "snip", "--trials", "24"],
            "rounds must be an integer .* at most 25, got 100",
        ),
        (["--publish"], "--publish needs the settings of docs/tuning.json, got trials: 3"),
    ],
)
def test_bad_input_is_refused(words: list[str], message: str, file: Path, tmp_path: Path) -> None:
    published.save({"settings": {"trials": 3}, "finders": {"snip": {}}})
    with pytest.raises(InputError, match=message):
        tune.main([*TINY, *words, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
