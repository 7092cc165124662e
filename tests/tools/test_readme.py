"""The README says what is true: its tables match the registries, its commands the options."""

import re
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

import readme
import seek
from plantjax.finders import FINDERS, REFERENCES
from plantjax.jobs import cli
from plantjax.metrics import METRICS
from plantjax.scores import SCORES
from plantjax.sweeps.worlds import ticket_density
from plantjax.tasks import TASKS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this heading, by their first cell."""
    _, _, after = README.partition(f"\n| {heading} |")
    lines = after.partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: rest for first, *rest in cells for name in re.findall("`([^`]+)`", first)}


def test_tables_are_those_of_the_registries() -> None:
    assert readme.filled(README) == README, "`python experiments/readme.py` mends it"


def test_tables_list_exactly_the_registries() -> None:
    assert set(rows("finder")) == set(FINDERS)
    assert set(rows("task")) == set(TASKS)
    assert set(rows("score")) == set(SCORES)
    assert set(rows("metric")) == set(METRICS)
    for name in REFERENCES:
        assert f"`{name}`" in README


@pytest.mark.parametrize("name", TASKS)
def test_task_table_tells_sizes_and_metric(name: str) -> None:
    task = TASKS[name]
    sizes, metric, target = rows("task")[name]
    assert sizes == f"{task.n_in}, {task.n_out}"
    assert metric == task.metric
    total = sum(i * o + o for i, o in ((task.n_in, 100), (100, 100), (100, 100), (100, task.n_out)))
    assert target.startswith(f"{round(ticket_density(task, 5, 100) * total)}:")


def cited() -> None:
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


def test_the_command_mends_the_tables(tmp_path: Path) -> None:
    spoilt = tmp_path / "README.md"
    spoilt.write_text(README.replace("| `relu` |", "| `rule` |"))
    readme.main([str(spoilt)])
    assert spoilt.read_text() == README


@pytest.mark.parametrize("how", ["none", "twice", "order"])
def test_markers_must_be_there(how: str, tmp_path: Path) -> None:
    begin, end = "<!-- begin scores -->", "<!-- end scores -->"
    text = {
        "none": README.replace(end, ""),
        "twice": README + begin,
        "order": README.replace(begin, "").replace(end, end + begin),
    }[how]
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(cli.InputError, match=f"README must have {begin} and then {end}"):
        readme.main([str(path)])
    assert path.read_text() == text


def test_commands_use_options_that_exist() -> None:
    known = {f"--{field.name.replace('_', '-')}" for field in fields(seek.Settings)} | {"--help"}
    commands = [line.partition("experiments/seek.py")[2] for line in README.splitlines()]
    used = {word for words in commands for word in re.findall(r"(?<= )--[a-z-]+", words)}
    assert used <= known


def test_layout_names_every_module() -> None:
    layout = README.partition("## Layout")[2].partition("## Cite")[0]
    for folder in ("plantjax", "experiments"):
        for path in (ROOT / folder).glob("[a-z]*.py"):
            assert re.search(rf"\b{path.stem}\b", layout), path
