"""Plugins: imported once, told by their source, named where they fail; see test_registration."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scripting
import seek
from plantjax.jobs import InputError, plugins
from plantjax.tasks import TASKS


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    with scripting.restored():
        yield


def write(path: Path, source: str) -> str:
    path.write_text(source)
    return str(path)


def test_a_plugin_is_imported_once(tmp_path: Path) -> None:
    source = "import plantjax as pj\nn = len(pj.TASKS)\npj.TASKS[f'own{n}'] = pj.TASKS['relu']\n"
    path = write(tmp_path / "mine.py", source)
    module = plugins.load(path)
    assert plugins.load(path) is module
    assert [name for name in TASKS if name.startswith("own")] == [f"own{module.n}"]


def test_a_module_is_a_plugin_too() -> None:
    assert plugins.load("plantjax.checks") is sys.modules["plantjax.checks"]
    assert plugins.absolute(["plantjax.checks", "a.py"]) == (
        "plantjax.checks",
        str(Path("a.py").absolute()),
    )


def test_settings_tell_versions_apart_and_not_places(tmp_path: Path) -> None:
    found = []
    for folder, source in (("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")):
        (tmp_path / folder).mkdir()
        path = write(tmp_path / folder / "mine.py", source)
        found.append(plugins.settings([path]))
        del sys.modules["plantjax_plugin_mine"]
    assert list(found[0]) == ["mine.py"]
    assert found[0] == found[1] != found[2]


def test_plugins_are_known_before_the_command_line_is_parsed() -> None:
    words = ["--tasks", "a", "--plugin", "b.py", "c", "--seeds", "3", "--plugin=d.py"]
    assert plugins.named(words) == ["b.py", "c", "d.py"]
    assert plugins.named(["--tasks", "a"]) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "FileNotFoundError: there is no such file"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def f(:\n", "SyntaxError"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere"),
    ],
)
def test_plugins_that_fail_are_one_line(source: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(InputError, match="--plugin must name a Python file or a module") as caught:
        seek.main(["--plugin", str(path), "--out", str(tmp_path / "out")])
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert "plantjax_plugin_mine" not in sys.modules


def test_a_module_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got nowhere\.to\.be\.found: ModuleNotFoundError"):
        seek.main(["--plugin", "nowhere.to.be.found", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
