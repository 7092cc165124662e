"""Fingerprints: what changes a result changes them, and nothing else does."""

import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import plantjax as pj
from plantjax.jobs import fingerprint as prints
from plantjax.jobs.fingerprint import differences, fingerprint

SOURCE = """
SIGN = {sign}
LIMITS = {{"low", "high", "middle"}}

def helper(x):  # {remark}
    return SIGN * abs(x) if "low" in {{"low", "high", "middle"}} else x

def make(apply, loss):
    factor = {factor}
    def score(key, params, mask, batch):
        return factor * helper(params)
    return score
"""
FILE = "own.py"
PLAIN = {"sign": 1, "remark": "a", "factor": 2.0}


def made(**changes: Any) -> Callable[..., Any]:
    scope: dict[str, Any] = {"__name__": "own"}
    exec(compile(SOURCE.format(**PLAIN | changes), FILE, "exec"), scope)
    return scope["make"]


def changed(monkeypatch: pytest.MonkeyPatch, old: Any, new: Any, kind: str = "score") -> list[str]:
    """The differences between two registrations under one name."""
    found = []
    for entry in (old, new):
        monkeypatch.setitem(prints.REGISTRIES[kind], "own", entry)
        found.append(fingerprint())
    return differences(*found)


@pytest.mark.parametrize("change", [{"sign": -1}, {"factor": 3.0}])
def test_a_changed_function_or_what_it_uses_is_told(monkeypatch, change) -> None:
    assert changed(monkeypatch, made(), made(**change)) == ["the score own has changed"]


def test_the_same_function_made_anew_has_not_changed(monkeypatch) -> None:
    assert changed(monkeypatch, made(), made(remark="b")) == []


def test_options_and_closures_count(monkeypatch) -> None:
    make = partial(pj.finders.singleshot, score=made())
    other = partial(pj.finders.singleshot, score=made(factor=5.0))
    assert changed(monkeypatch, make, other, "finder") == ["the finder own has changed"]
    assert changed(monkeypatch, partial(make, rounds=2), partial(make, rounds=3), "finder")

    def metric(table: np.ndarray) -> Callable[..., Any]:
        return lambda judged: table.sum()

    assert changed(monkeypatch, metric(np.ones(3)), metric(np.ones(3)), "metric") == []
    assert changed(monkeypatch, metric(np.ones(3)), metric(np.zeros(3)), "metric")


MODULE: Any = None


class Scaled:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, apply: Any, loss: Any) -> Any:
        return lambda key, params, mask, batch: self.factor


def test_jitted_functions_objects_and_methods_count(monkeypatch) -> None:
    for wrap in (jax.jit, lambda make: Scaled(make).__call__):
        assert changed(monkeypatch, wrap(made()), wrap(made())) == []
        assert changed(monkeypatch, wrap(made()), wrap(made(factor=3.0)))
    assert changed(monkeypatch, Scaled(1.0), Scaled(1.0)) == []
    assert changed(monkeypatch, Scaled(1.0), Scaled(2.0))


def test_a_file_beside_the_package_is_no_part_of_it(monkeypatch) -> None:
    monkeypatch.setitem(globals(), "FILE", f"{prints.PACKAGE}_plugin.py")
    assert changed(monkeypatch, made(), made(sign=-1))


def test_modules_that_a_function_uses_count(monkeypatch, tmp_path: Path) -> None:
    def used(constant: float) -> types.ModuleType:
        outer, inner = (types.ModuleType(name) for name in ("outer", "inner"))
        for module, text in ((outer, "import inner"), (inner, f"X = {constant}")):
            file = tmp_path / f"{module.__name__}_{constant}.py"
            file.write_text(text)
            module.__file__ = str(file)
        vars(outer)["inner"], vars(inner)["outer"] = inner, outer  # they import each other
        return outer

    def score(apply: Any, loss: Any) -> Any:
        return lambda key, params, mask, batch: MODULE.inner.X

    def hashed(constant: float) -> str:
        monkeypatch.setitem(globals(), "MODULE", used(constant))
        return prints._hash(score)

    assert hashed(1.0) == hashed(1.0) != hashed(2.0)


def test_versions_settings_and_sources_count(tmp_path: Path) -> None:
    source = tmp_path / "own.py"
    source.write_text("X = 1\n")
    before = fingerprint([tmp_path])
    source.write_text("X = 2\n")
    with jax.threefry_partitionable(False):
        after = fingerprint([tmp_path]) | {"jax": "0.0"}
    (words, *others) = differences(before, after)
    assert words.startswith(f"{tmp_path.name}: ")
    assert others == [
        f"jax: {jax.__version__} there, 0.0 here",
        "jax_threefry_partitionable: True there, False here",
    ]


def test_further_registrations_do_not_count(monkeypatch) -> None:
    before = fingerprint()
    monkeypatch.setitem(pj.SCORES, "own", made())
    assert differences(before, fingerprint()) == []
