"""The tables of README and docs are those of the registries, and rows say what docstrings say."""

import inspect
import re
from functools import partial, wraps
from pathlib import Path

import pytest

import readme
from plantjax.data import DATASETS
from plantjax.finders import FINDERS, REFERENCES
from plantjax.jobs import InputError
from plantjax.metrics import METRICS
from plantjax.scores import SCORES
from plantjax.sweeps import mother_size, ticket_density
from plantjax.tasks import TASKS


def rows(table: str) -> dict[str, list[str]]:
    """The rows of a table by the name in their first cell."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    return {first.strip("`"): rest for first, *rest in cells}


FILES = [
    pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name == "tasks.md" else [])
    for path in readme.FILES
]
"""Targets of all tasks take long to draw."""


@pytest.mark.parametrize("path", FILES)
def test_tables_are_those_of_the_registries(path: Path) -> None:
    text = path.read_text()
    assert "<!-- begin " in text
    assert readme.filled(text) == text, "`python tools/readme.py` mends it"


def test_all_tables_stand_somewhere_and_list_their_registry() -> None:
    text = "\n".join(path.read_text() for path in readme.FILES)
    registries = {"tasks": TASKS, "finders": FINDERS, "scores": SCORES, "metrics": METRICS}
    registries |= {"references": REFERENCES, "datasets": DATASETS}
    for name, table in readme.TABLES.items():
        assert f"<!-- begin {name} -->" in text
        if name in registries and name != "tasks":  # whose table is read below
            assert list(rows(table())) == sorted(rows(table()), key=list(rows(table())).index)
            assert set(rows(table())) == set(registries[name])


def test_the_overview_fits_on_a_terminal_and_has_all_names() -> None:
    lines = readme.overview().splitlines()
    assert max(map(len, lines)) <= readme.COLUMNS
    named = set(re.findall(r"`(\w+)`", readme.overview()))
    assert set(TASKS) <= named
    stems = {name.replace("SCORE", score) for name in named for score in SCORES}
    assert set(FINDERS) <= stems


@pytest.mark.slow
def test_tasks_have_sizes_metric_and_kept_parameters() -> None:
    found = rows(readme.tasks())
    assert set(found) == set(TASKS)
    for name, task in TASKS.items():
        kept = round(ticket_density(task, 5, 100) * mother_size(task, 5, 100))
        assert found[name][:3] == [f"{task.n_in}, {task.n_out}", task.metric, str(kept)]


def cited(power: int = 1, rounds: int = 1) -> None:
    """Scores |w|^p,
    or less (Doe and Roe 2031, eq. 3, https://x.org/1).

    Another paragraph (Else et al. 2030, https://x.org/2).
    """


def with_sources() -> None:
    """Keeps all.

    Not this one (Else et al. 2030, https://x.org/2).

    Source: de Doe et al.
    2031, section 1, https://x.org/3. Then this; paper, section 2; Roe 2032, https://x.org/4
    """


def test_rows_say_what_docstrings_say() -> None:
    function = partial(partial(cited, power=2), rounds=3)
    assert readme.summary(function) == r"Scores \|w\|^p, or less"
    found = readme.sources(function)
    assert found == "[Doe and Roe 2031](https://x.org/1), [Else et al. 2030](https://x.org/2)"
    assert readme.options_of(function, but=("rounds",)) == " (power=2)"
    found = readme.sources(with_sources)
    assert found == "[de Doe et al. 2031](https://x.org/3), [Roe 2032](https://x.org/4)"
    assert readme.options_of(with_sources) == ""
    assert readme.summary(lambda: None) == readme.sources(lambda: None) == ""


def test_presets_tell_the_defaults_that_they_change() -> None:
    @wraps(cited)
    def preset() -> None:
        return None

    preset.__signature__ = inspect.signature(partial(cited, rounds=7))  # type: ignore[attr-defined]
    assert readme.options_of(partial(preset, power=2)) == " (rounds=7, power=2)"
    assert readme.summary(preset).startswith("Scores")


def test_the_command_mends_the_tables(tmp_path: Path) -> None:
    kept = [path for path in readme.FILES if path.name in ("README.md", "finders.md")]
    paths = [tmp_path / path.name for path in kept]
    for path, whole in zip(paths, kept, strict=True):
        path.write_text(whole.read_text().replace("`synflow`", "`sinflow`"))
    readme.main([*map(str, paths)])
    for path, whole in zip(paths, kept, strict=True):
        assert path.read_text() == whole.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- begin scores -->", "must have <!-- begin scores --> and then <!-- end scores -->"),
        ("<!-- end scores --> <!-- begin scores -->", "once each"),
        ("<!-- begin scores --> <!-- end scores --> <!-- begin scores -->", "once each"),
        ("<!-- begin wings --> <!-- end wings -->", "must name one of .*scores.*, got 'wings'"),
    ],
)
def test_bad_markers_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(InputError, match=message):
        readme.main([str(tmp_path / "README.md")])
    assert (tmp_path / "README.md").read_text() == text
