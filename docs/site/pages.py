"""The pages of the documentation site, made by mkdocs-gen-files when MkDocs builds it.

The repository's Markdown files keep their paths, so that their links work in the site as they do in
the repository. Examples become pages of code. The API reference has a page for every public name of
`plantjax`, with what its `__all__` names.
"""

import contextlib
import re
import sys
from pathlib import Path

import griffe
import mkdocs_gen_files

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("*.md", "docs/*.md")
FILES = ("LICENSE", "docs/*.png", "docs/*.csv", "docs/findings/*", "experiments/results/*.json")
BOARD = "board.html"
FRAME = f'\n<iframe class="board" src="{BOARD}" title="The leaderboard"></iframe>\n'
LINKED_EXAMPLE = re.compile(r"(examples/\w+)\.py\)")


def write(path: str, text: str) -> None:
    """Adds a page."""
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def copy_files() -> None:
    """Adds the repository's Markdown files, and the files that they link to."""
    for path in (path for pattern in PAGES for path in ROOT.glob(pattern)):
        text = LINKED_EXAMPLE.sub(r"\1.md)", path.read_text())
        write(path.relative_to(ROOT).as_posix(), text)
    for path in (path for pattern in FILES for path in ROOT.glob(pattern)):
        with mkdocs_gen_files.open(path.relative_to(ROOT).as_posix(), "wb") as file:
            file.write(path.read_bytes())


def write_board() -> None:
    """Adds the leaderboard's own page, made of the release's table, inside LEADERBOARD.md."""
    sys.path.append(str(ROOT / "experiments"))
    from ranking import release, site

    write(BOARD, site.page(release.read(()), "docs/finders.html"))
    text = (ROOT / "LEADERBOARD.md").read_text()
    title, rest = text.split("\n", 1)
    write("LEADERBOARD.md", f"{title}\n\n[On a page of its own]({BOARD})\n{FRAME}{rest}")


def write_examples() -> None:
    """Adds a page of code for each example."""
    for path in ROOT.glob("examples/*.py"):
        code = f'```python\n--8<-- "examples/{path.name}"\n```'
        write(f"examples/{path.stem}.md", f"# {path.stem}\n\n{code}\n")


def public(module: griffe.Object) -> dict[str, griffe.Object]:
    """The public names of a module and what they stand for: `__all__`, or else all it defines."""
    own = [n for n, m in module.members.items() if not m.is_alias and not n.startswith("_")]
    found = {}
    for name in map(str, own if module.exports is None else module.exports):
        with contextlib.suppress(griffe.AliasResolutionError):  # "A, B = 1, 2" is not seen
            found[name] = _target(module.members[name])
            while found[name].is_module and name in found[name].members:  # a module hides it
                found[name] = _target(found[name].members[name])
    return found


def _target(member: griffe.Object | griffe.Alias) -> griffe.Object:
    return member.final_target if isinstance(member, griffe.Alias) else member


def write_reference() -> None:
    """Adds a page for each public name of `plantjax`, with the names that are public in it."""
    package = griffe.load("plantjax", search_paths=[ROOT])
    names = public(package) | {"jobs": package["jobs"]}
    page_of = {o.path: name for name, m in names.items() if m.is_module for o in public(m).values()}
    rows = ["# API reference", "", "| name | content |", "| --- | --- |"]
    for name, thing in sorted(names.items(), key=lambda item: item[0].lower()):
        text = thing.docstring.value if thing.docstring else ""
        first = " ".join(text.partition("\n\n")[0].split()).replace("|", "&#124;")
        if thing.path in page_of:
            link = f"{page_of[thing.path]}.md#{thing.path}"
        else:
            link = f"{name}.md"
            shown = public(thing).values() if thing.is_module else [thing]
            parts = [text if thing.is_module else "", *(f"::: {item.path}" for item in shown)]
            write(f"reference/{name}.md", "\n\n".join([f"# plantjax.{name}", *parts]) + "\n")
        rows.append(f"| [`plantjax.{name}`]({link}) | {first} |")
    write("reference/index.md", "\n".join(rows) + "\n")


copy_files()
write_board()
write_examples()
write_reference()
