"""Finders by name: their options, and that the same name and options give the same object."""

import pytest

from plantjax import tasks
from plantjax.finders import FINDERS, REFERENCES, names

CIRCLE = tasks.TASKS["circle"]
SINGLESHOT = {"apply", "rounds", "schedule", "scope", "allow_revive"}
TRAINED = {"batch_size", "search_learning_rate", "optimizer"}
MULTISHOT = SINGLESHOT | TRAINED | {"level_epochs", "rewind", "rewind_step"}
EDGE_POPUP = {
    *("apply", "scope", "anneal", "anneal_share", "schedule", "search_epochs", "loss", "head"),
    *("init", *TRAINED),
}


@pytest.mark.parametrize(
    ("finder", "known"),
    [
        ("snip", SINGLESHOT),
        ("synflow100", SINGLESHOT - {"rounds"}),
        ("multishot_grasp", MULTISHOT),
        ("edge_popup", EDGE_POPUP),
        ("edge_popup_annealed", EDGE_POPUP - {"anneal"}),
        ("edge_popup_global", EDGE_POPUP - {"scope", "anneal", "anneal_share", "init"}),
        *((name, {"apply"}) for name in REFERENCES),
    ],
)
def test_options_of_finders(finder, known):
    assert known <= names.options(finder)
    assert not {"task", "score"} & names.options(finder)
    assert not (MULTISHOT | EDGE_POPUP) - known & names.options(finder)


def test_what_a_name_has_fixed_is_no_option():
    assert names.options("random_erk") == {"apply", "score", "prunable"}
    assert "allocation" in names.options("rigl")
    assert "grow" not in names.options("rigl")


def test_unknown_finders_have_no_options():
    with pytest.raises(ValueError, match=r"finder must be one of random, .*planted.*, got 'snap'"):
        names.options("snap")


def test_the_same_options_give_the_same_finder():
    made = names.make(CIRCLE, "snip+shuffled", scope="layer", rounds=2)
    assert names.make(CIRCLE, "snip+shuffled", rounds=2, scope="layer") is made
    assert names.make(CIRCLE, "snip+shuffled", rounds=3, scope="layer") is not made
    assert made.scope == "layer"
    assert made.rounds == 2


def test_another_function_under_the_same_name_is_another_finder(monkeypatch):
    before = names.make(CIRCLE, "snip+oracle")
    monkeypatch.setitem(FINDERS, "snip", FINDERS["synflow"])
    assert names.make(CIRCLE, "snip+oracle") is not before


@pytest.mark.parametrize(
    ("name", "static", "message"),
    [
        ("snip+sorted", {}, "control must be one of .*shuffled.*, got 'sorted'"),
        ("snap+shuffled", {}, "finder must be one of .*, got 'snap'"),
        ("snip", {"scope": ["layer"]}, r"scope must be hashable, got \['layer'\]"),
        ("snip+oracle", {"scope": "layer"}, r"scope is no option of finder 'snip\+oracle'"),
        ("snip+inverted", {"invert": True}, "invert is no option"),
    ],
)
def test_bad_names_and_options(name, static, message):
    with pytest.raises(ValueError, match=message):
        names.make(CIRCLE, name, **static)
