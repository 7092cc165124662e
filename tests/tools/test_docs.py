"""The documentation: its links and commands lead somewhere, and nothing is missing from it."""

import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest

import docstrings
import scripting
from plantjax import metrics
from plantjax.finders import FINDERS, REFERENCES
from plantjax.scores import SCORES

ROOT = scripting.ROOT
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMAND = re.compile(r"python3? (?:experiments|tools)/(\w+)\.py((?:\\\n|[^`\n'#|])*)")


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"(?s)```.*?```|`[^`\n]*`", "", path.read_text())


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", word) for word in words}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_can_be_read_without_a_build(path: Path) -> None:
    """Nothing but Markdown as repositories show it; pictures are files beside the pages."""
    for line in re.sub(r"(?s)```.*?```", "", path.read_text()).splitlines():
        for build in ("--8<--", ":::", "!!! ", "??? ", "{%", "{{", "{:", "[TOC]", "<img"):
            assert build not in re.sub(r"`[^`]*`", "", line), line


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_use_scripts_and_options_that_exist(path: Path) -> None:
    named = re.findall(r"\b(?:examples|experiments|tools)/\w+\.(?:py|sh)", path.read_text())
    assert path.stem == "CHANGELOG" or all((ROOT / name).exists() for name in named)
    for script, words in COMMAND.findall(path.read_text()):
        module = importlib.import_module(script)
        command = getattr(module, "COMMANDS", {}).get(next(iter(words.split()), ""))
        if command is not None:
            module = importlib.import_module(command.__module__)
        if hasattr(module, "Settings"):  # mutate takes paths alone
            known = {field.name.replace("_", "-") for field in fields(module.Settings)}
            assert set(re.findall(r"(?<=\s--)[a-z-]+", words)) <= known | {"help", "list"}, script


def test_results_page_names_every_column() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    assert [name for name in metrics.COLUMNS if f"`{name}`" not in text] == []


def test_layout_names_every_module() -> None:
    text = (ROOT / "docs" / "layout.md").read_text()
    for folder in ("plantjax", "experiments", "tools"):
        for path in (ROOT / folder).rglob("[a-z]*.py"):
            assert re.search(rf"\b{path.stem}\b", text), path


def test_every_example_is_linked() -> None:
    text = "\n".join(path.read_text() for path in PAGES)
    for path in (ROOT / "examples").glob("*.py"):
        assert f"(../examples/{path.name})" in text or f"(examples/{path.name})" in text


def test_every_finder_and_score_has_a_paragraph_and_a_source() -> None:
    for registry in (FINDERS, REFERENCES, SCORES):
        for name, entry in registry.items():
            maker, options = docstrings.unwrapped(entry)
            body, source = docstrings.paragraphs(maker)
            if options.get("score") in SCORES:
                body = [*body, *docstrings.paragraphs(SCORES[options["score"]])[0]]
            said = "\n".join([*body, *source])
            assert len(said) > 40, name
            assert re.search(r"https://arxiv\.org/abs/\d|[Bb]aseline|Source: ours", said), name


def test_examples_in_docstrings_become_code() -> None:
    pytest.importorskip("griffe")
    path = ROOT / "docs" / "site" / "doctests.py"
    spec = importlib.util.spec_from_file_location("doctests_of_the_site", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "Adds.\n\n>>> 1 + 1\n2\n\nMore.\n\n>>> x = 2"
    code = "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore.\n\n```pycon\n>>> x = 2\n```"
    assert module.fenced(text) == code
    assert module.fenced("Nothing to see.") == "Nothing to see."


def test_the_steps_on_a_device_use_scripts_and_options_that_exist() -> None:
    text = (ROOT / "tools" / "on_device.sh").read_text().replace("\\\n", " ")
    steps = re.findall(r"(?:experiments|tools)/(\w+)\.py(.*)", text)
    assert len(steps) > 8
    for script, words in steps:
        known = {f.name.replace("_", "-") for f in fields(importlib.import_module(script).Settings)}
        assert set(re.findall(r"(?<=\s--)[a-z-]+", words)) <= known, script
