"""The documentation site: nothing is missing from it, and its links lead somewhere."""

import pkgutil
import re
import sys
from pathlib import Path

import pytest

import plantjax as pj
from plantjax import metrics

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))

import comments
import including
import reference
import registries

PAGES = sorted((ROOT / "docs").glob("*.md"))
FOUND = {name: getattr(pj, name) for name in ("FINDERS", "REFERENCES", "SCORES")}


def section_of(text: str, anchor: str) -> str:
    """What stands under a heading with this anchor."""
    _, heading, after = text.partition(f"{{ #{anchor} }}")
    assert heading, anchor
    return after.partition("\n### ")[0].strip()


@pytest.mark.parametrize(
    ("registry", "name"), [(r, n) for r, entries in FOUND.items() for n in entries]
)
def test_every_finder_and_score_has_a_paragraph_and_a_source(registry: str, name: str) -> None:
    text = registries.sections(f"plantjax.{registry}")
    said = section_of(text, f"{registry.lower()}-{name}")
    body, _, _ = said.partition("Function: ")
    assert len(body) > 40
    assert re.search(r"https://arxiv\.org/abs/\d|baseline|Source: ours", body)
    assert f"[`{name}`](#{registry.lower()}-{name})" in text


def test_what_is_registered_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    def loudest(apply, loss):
        """Scores exp |theta| (Nobody 2099, https://example.org)."""

    def guess(task):
        return None

    task = pj.tasks.parity("parity3", k=3, d=6)
    monkeypatch.setitem(pj.SCORES, "loudest", loudest)
    monkeypatch.setitem(pj.FINDERS, "guess", guess)
    monkeypatch.setitem(pj.TASKS, "parity3", task)
    names = ("SCORES", "FINDERS", "TASKS")
    scores, finders, tasks = (registries.sections(f"plantjax.{name}") for name in names)
    assert section_of(scores, "scores-loudest").startswith("Scores exp |theta|")
    assert section_of(finders, "finders-guess") == ""  # it says nothing of itself
    said = section_of(tasks, "tasks-parity3")
    assert said.startswith("Inputs: 6. Outputs: 2. Metric: accuracy.")
    assert "Target (k = 3, d = 6): Whether an even" in said


def test_entries_are_told_by_the_registries_that_they_name() -> None:
    text = registries.sections("plantjax.FINDERS")
    assert "|theta dL/d(m theta)|" in section_of(text, "finders-multishot_snip")
    assert "rewinds, level by level" in section_of(text, "finders-multishot_snip")
    assert "Erdos-Renyi" in section_of(text, "finders-random_erk")
    call = "[`singleshot(score='snip', rounds=100)`][plantjax.finders.singleshot.singleshot]"
    assert call in section_of(text, "finders-snip100")


def test_only_registries_are_found() -> None:
    with pytest.raises(ValueError, match=r"plantjax\.__version__ must be a registry"):
        registries.find("plantjax.__version__")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_are_filled_in(path: Path) -> None:
    copied = []
    text = comments.expanded(path.read_text(), lambda name: copied.append(name) or name)
    assert not re.search(r"<!-- (include|code|registry|table|files)", text)
    assert all((ROOT / name).is_file() for name in copied)
    targets = re.findall(r"(?<=\]\()[^):]+(?=\))", re.sub(r"(?s)```.*?```|`[^`\n]*`", "", text))
    pages = {path.name for path in PAGES} | set(including.PAGES.values()) | set(reference.pages())
    for target in targets:
        page, _, anchor = target.partition("#")
        assert not page or page in pages | set(copied) or (ROOT / "docs" / page).exists(), target
        assert page or f"{{ #{anchor} }}" in text


def test_results_page_names_every_column() -> None:
    text = comments.expanded((ROOT / "docs" / "results.md").read_text(), str)
    for column in metrics.COLUMNS:
        assert f"`{column}`" in text


def test_every_example_has_its_place() -> None:
    text = (ROOT / "docs" / "extend.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"{{ #{path.stem} }}" in text
        assert f"<!-- code examples/{path.name} -->" in text


def test_a_section_is_what_stands_under_its_heading() -> None:
    commands = including.section("README.md", "From one core to a cluster")
    assert commands.startswith("Every way gives the same")
    assert "# SLURM: four nodes" in commands  # a comment in code is no heading
    assert "\n## " not in commands
    lead = including.section("README.md", "plantjax")
    assert "docs/seek.png" in lead
    assert "python3 -m venv" not in lead
    assert including.section("SECURITY.md", None).startswith("# Security")
    with pytest.raises(ValueError, match=r"heading must be one of README\.md, got 'Nothing'"):
        including.section("README.md", "Nothing")


def test_links_of_the_repository_become_those_of_the_site() -> None:
    copied = []

    def linked(text: str, file: str = "README.md") -> str:
        return including.linked(text, file, lambda name: copied.append(name) or name)

    assert linked("[a](FINDINGS.md) [b](https://x.org/y.md)") == (
        "[a](findings.md) [b](https://x.org/y.md)"
    )
    assert linked("![p](docs/seek.png) [t](docs/findings)") == (
        "![p](seek.png) [t](findings.md#tables)"
    )
    assert linked("[s](examples/own_score.py)") == "[s](extend.md#own_score)"
    assert linked("[up](../README.md#words)", "examples/cluster.md") == "[up](index.md#words)"
    assert linked("`FINDERS[name](task)`") == "`FINDERS[name](task)`"
    assert linked("```\nf[x](y.md)\n```") == "```\nf[x](y.md)\n```"
    assert not copied
    assert linked("[r](LICENSE)") == "[r](LICENSE)"
    assert copied == ["LICENSE"]
    with pytest.raises(ValueError, match=r"README\.md must link to what there is, got lost\.md"):
        linked("[l](lost.md)")


def test_reference_has_every_module_once() -> None:
    names = [name for name, _ in reference.modules()]
    known = pkgutil.walk_packages(pj.__path__, "plantjax.")
    assert sorted(names) == sorted(["plantjax", *(module.name for module in known)])

    def leaves(entry: object) -> list[str]:
        if isinstance(entry, dict):
            return [leaf for value in entry.values() for leaf in leaves(value)]
        return [leaf for e in entry for leaf in leaves(e)] if isinstance(entry, list) else [entry]

    assert sorted(leaves(reference.nav())) == sorted(reference.pages())
    finders = reference.pages()["reference/plantjax.finders.md"]
    assert "members: ['FINDERS', 'REFERENCES']" in finders  # what it imports is elsewhere


def test_examples_in_docstrings_become_code() -> None:
    pytest.importorskip("griffe")
    from doctests import fenced

    text = "Adds.\n\n>>> 1 + 1\n2\n\nMore.\n\n>>> x = 2"
    code = "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore.\n\n```pycon\n>>> x = 2\n```"
    assert fenced(text) == code
    assert fenced("Nothing to see.") == "Nothing to see."
