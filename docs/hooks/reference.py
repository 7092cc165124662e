"""The pages of the API reference: one for each public module, from its docstrings.

The modules are found as files; nothing of them is imported.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from including import ROOT

FOLDER = "reference"


def modules(package: str = "plantjax") -> Iterator[tuple[str, Path]]:
    """The names and files of all public modules: the package itself, its modules, its packages."""
    for path in sorted((ROOT / package).rglob("*.py"), key=_order):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            yield ".".join(parts), path


def pages() -> dict[str, str]:
    """The reference's pages: path in the site, Markdown."""
    found = {f"{FOLDER}/index.md": _index()}
    for name, path in modules():
        lines = [f"# {name}", "", f"::: {name}"]
        if path.name == "__init__.py":  # what it imports has pages of its own
            own = _defined(path)
            lines += ["    options:", f"      members: {own or 'false'}"]
        found[f"{FOLDER}/{name}.md"] = "\n".join(lines) + "\n"
    return found


def nav() -> list[Any]:
    """The reference's part of the navigation; packages come last, folded."""
    entries: list[Any] = [f"{FOLDER}/index.md"]
    packages: dict[str, list[dict[str, str]]] = {}
    for name, path in modules():
        _, *inner = name.split(".")
        page = {name.removeprefix("plantjax."): f"{FOLDER}/{name}.md"}
        if len(inner) == 2 or (inner and path.name == "__init__.py"):
            packages.setdefault(inner[0], []).append(page)
        else:
            entries.append(page)
    return entries + [{name: pages} for name, pages in packages.items()]


def _index() -> str:
    rows = ["# API reference", "", "| module | what |", "| --- | --- |"]
    for name, path in modules():
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
        text = " ".join(first.split()).replace("|", "&#124;")
        rows.append(f"| [`{name}`]({name}.md) | {text} |")
    return "\n".join(rows) + "\n"


def _defined(path: Path) -> list[str]:
    """The public names that a file defines itself."""
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def _order(path: Path) -> tuple[bool, str, bool, str]:
    """Modules of the package by name, then its packages, each after its own `__init__`."""
    inner = path.relative_to(ROOT).parts[1:]
    folder = inner[0] if len(inner) > 1 else ""
    return bool(folder), folder, path.name != "__init__.py", path.name
