"""The registry of finders: a mapping that follows the scores."""

import inspect
import pydoc
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import contract
from plantjax import masks, nets, scores, tasks
from plantjax.finders import FINDERS, multishot, names, singleshot
from plantjax.finders.entries import fixed, opened, space_of, tunable
from plantjax.finders.registry import Registry
from plantjax.finders.spaces import choice, log_uniform
from plantjax.scores import SCORES
from plantjax.types import Batch, Finder, Found


def find(task, *, score="own"):
    return task, score


def again(task, *, score="own"):
    return score, task


def make():
    """Two scores, and entries before, between and after those of all scores."""
    known = {"a": str.upper, "b": str.lower}
    return known, Registry(
        known, {"first": find, "*": find, "b": again, "x_*": again, "last": find}
    )


def test_scores_have_their_finders_in_order():
    known, registry = make()
    assert list(registry) == ["first", "a", "b", "x_a", "x_b", "last"]
    known["c"] = str.title
    assert list(registry) == ["first", "a", "b", "c", "x_a", "x_b", "x_c", "last"]
    assert len(registry) == 8
    assert registry["c"]("task") == ("task", "c")
    assert registry["x_c"]("task") == ("c", "task")
    del known["a"]
    assert "a" not in registry
    assert "x_a" not in registry


def test_full_names_go_before_those_of_all_scores():
    _, registry = make()
    assert registry["b"] is again
    registry["x_a"] = find
    assert registry["x_a"] is find
    assert list(registry)[3] == "x_a"
    del registry["x_a"]
    assert "x_a" not in registry


def test_it_is_used_like_a_dict():
    known, registry = make()
    registry["own"] = find
    assert list(registry)[-1] == "own"
    assert registry.get("none") is None
    assert dict(registry) == registry
    assert list(registry | {"more": find}) == [*registry, "more"]
    assert "own" in repr(registry)
    del registry["own"]
    assert "own" not in registry
    for missing in ("own", "nowhere"):
        with pytest.raises(KeyError, match=missing):
            del registry[missing]
        with pytest.raises(KeyError, match=missing):
            registry[missing]
    with pytest.raises(KeyError, match="Did you mean 'first'"):
        registry["frist"]
    assert registry.pop("a")("task") == ("task", "a")  # also the finder of a score
    assert registry.pop("a", None) is None
    assert "a" not in registry
    assert "a" in known
    assert list(registry) == ["first", "b", "x_a", "x_b", "last"]
    registry["a"] = again
    assert registry["a"] is again
    registry |= {"c": find}
    assert list({"z": find} | registry) == ["z", *registry]
    assert registry.copy() == dict(registry)
    while registry:
        registry.popitem()
    assert list(registry) == []


def test_what_a_name_fixes_is_no_option_of_it():
    task = tasks.TASKS["relu"]
    for name, option, value in (
        ("snip100", "rounds", 5),
        ("synflow100", "rounds", 5),
        ("snip", "score", "grasp"),
        ("multishot_snip", "score", "grasp"),
        ("rigl", "grow", "random"),
        ("random_erk", "allocation", "igq"),
        ("edge_popup_annealed", "anneal", "never"),
    ):
        assert option not in names.options(name)
        assert option not in inspect.signature(FINDERS[name]).parameters
        with pytest.raises(ValueError, match=f"{option} is fixed to .* here, got {value!r}"):
            FINDERS[name](task, **{option: value})
        with pytest.raises(ValueError, match=f"{option} is no option of finder '{name}'"):
            names.make(task, name, **{option: value})
    assert FINDERS["ntk_sap"](task, rounds=3).rounds == 3  # only a default
    assert names.make(task, "snip+inverted").rounds == 1


def test_a_space_changes_nothing_but_what_is_tuned():
    space = {"score": choice("own", "other")}
    entry = tunable(find, **space)
    assert entry("task", score="other") == find("task", score="other")
    assert inspect.signature(entry) == inspect.signature(find)
    assert space_of(entry) == space
    assert space_of(find) == {}
    assert opened(tunable(fixed(find, score="a"))) is not find
    assert opened(tunable(fixed(find, score="a"))).keywords == {"score": "a"}
    assert space_of(fixed(entry, score="own")) == {}  # what is fixed is not tuned
    with pytest.raises(ValueError, match="rate is no option of find, which takes score"):
        tunable(find, rate=choice(1))
    with pytest.raises(ValueError, match="task is no option"):
        tunable(find, task=choice(1))


def test_spaces_hold_what_they_give():
    for space in (choice(1, 2, 5), log_uniform(3e-4, 0.77), log_uniform(1.0, 1.0)):
        for share in np.linspace(0.0, 1.0, 200, endpoint=False):
            assert space.at(share) in space
    values = [log_uniform(1e-4, 1.0).at(share) for share in np.linspace(0.0, 1.0, 101)[:-1]]
    assert values == sorted(values)
    np.testing.assert_allclose(np.log10(values), np.linspace(-4, 0, 101)[:-1], atol=0.003)
    with pytest.raises(ValueError, match="values must be at least one"):
        choice()
    for low, high in ((0.0, 1.0), (2.0, 1.0), (1.0, np.inf)):
        with pytest.raises(ValueError, match="must lie in"):
            log_uniform(low, high)


def test_help_shows_the_finder_and_its_options():
    for name in ("snip", "snip100", "multishot_magnitude", "edge_popup_global"):
        text = pydoc.plain(pydoc.render_doc(FINDERS[name]))
        assert inspect.getdoc(contract.function_of(FINDERS[name])).splitlines()[0] in text
        assert ("scope: str = 'global'" in text) is (name != "edge_popup_global")
        assert "partial" not in text.partition("Args:")[0]


def test_finders_of_a_score_are_the_same_object_until_it_changes():
    known, registry = make()
    first = registry["a"]
    assert registry["a"] is first
    known["a"] = str.title
    assert registry["a"] is not first
    known["a"] = str.upper
    assert registry["a"] is first


def test_finders_come_from_the_scores():
    for name in SCORES:
        maker = opened(FINDERS[f"multishot_{name}"])
        assert maker.keywords == {"score": name}
        assert contract.function_of(maker) is contract.function_of(multishot)
        assert contract.function_of(FINDERS[name]) is contract.function_of(singleshot)
    assert FINDERS["ntk_sap"](tasks.TASKS["relu"]).rounds == 100


@pytest.mark.parametrize(
    ("registry", "first", "second"),
    [
        (SCORES, scores.random, scores.magnitude),
        (FINDERS, *(partial(singleshot, score=name) for name in ("random", "magnitude"))),
    ],
    ids=["score", "finder"],
)
def test_a_name_registered_anew_is_another_finder(registry, first, second, monkeypatch):
    def search(name):
        return names.make(tasks.TASKS["relu"], name).search

    found = []
    for function in (first, second, first):
        monkeypatch.setitem(registry, "mine", function)
        found.append([search(name) for name in ("mine", "mine+shuffled")])
        assert found[-1] == [search(name) for name in ("mine", "mine+shuffled")]
    assert found[0] == found[2]
    assert not set(found[0]) & set(found[1])


def test_finders_take_numpy_arrays_and_compute_in_single_precision():
    def search(key, params, data, density):
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((params, data)))
        assert params["w"].dtype == data.x.dtype == jnp.float32
        assert params["count"].dtype == data.y.dtype == jnp.int32
        return Found(masks.full(params), jax.tree.map(lambda leaf: 3 * leaf, params), {})

    params = {"w": jnp.ones(2, jnp.bfloat16), "count": np.arange(2, dtype=np.int32)}
    data = Batch(np.ones((4, 1), np.float16), np.zeros(4, np.int32))
    found = Finder(search)(jax.random.key(0), params, data, 0.5)
    assert found.params["w"].dtype == jnp.bfloat16
    assert found.params["w"].tolist() == [3.0, 3.0]


@pytest.mark.slow
def test_masks_do_not_depend_on_how_numbers_are_stored():
    """bfloat16 parameters that float32 holds exactly, in numpy arrays."""
    task, options = tasks.TASKS["circle"], contract.brief("rigl")
    params = nets.init(jax.random.key(0), (2, 8, 4))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    data = task.sample(jax.random.key(1), 100)
    finder = names.make(task, "rigl", **options)
    found = finder(jax.random.key(2), params, jax.tree.map(np.asarray, data), 0.3)
    wanted = finder(jax.random.key(2), jax.tree.map(np.asarray, wide), data, 0.3)
    chex.assert_trees_all_equal(found.mask, wanted.mask)
    chex.assert_trees_all_equal_dtypes(found.params, params)
