"""The README says what is true: its tables match the registries, its commands the options."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from experiments import seek
from plantjax.finders import FINDERS, REFERENCES
from plantjax.tasks import TASKS
from plantjax.worlds import ticket_density

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this heading, by their first cell."""
    _, _, after = README.partition(f"\n| {heading} |")
    lines = after.partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: rest for first, *rest in cells for name in re.findall("`([^`]+)`", first)}


def test_tables_list_exactly_the_registries() -> None:
    assert set(rows("finder")) == set(FINDERS)
    assert set(rows("task")) == set(TASKS)
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
