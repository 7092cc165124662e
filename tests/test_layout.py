"""The layout: who imports whom, in one order; how long files and functions are; what is public."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import plantjax

ROOT = Path(__file__).parent.parent
PACKAGE = Path(plantjax.__file__).parent
ORDER = (
    *("types", "checks", "draws", "losses", "targets", "nets", "data", "tasks", "masks"),
    *("planting", "audit", "scores", "training", "optim", "recovery", "metrics", "finders"),
    *("theory", "interchange", "sweeps", "results", "jobs"),
)
"""The public names of the package, each using only those before it."""
OUTSIDE = {"experiments", "tools", "tests"}
EXTRAS = {"tyro", "pandas", "matplotlib", "orbax", "jinja2", "rich", "filelock"}
"""What `import plantjax` does without; flax imports rich by itself, and JAX filelock."""
MOST_LINES, MOST_CODE, MOST_ENTRIES, MOST_CACHES = 300, 60, 24, 3


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def name_of(path: Path) -> str:
    """The public name that a file of the package belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path, outermost: bool = False) -> set[str]:
    """The names that a file imports, in functions as well, or where it starts alone."""
    nodes = parsed(path).body if outermost else ast.walk(parsed(path))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    total = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is None:
        return total
    said = function.body[0]
    return total - (said.end_lineno - said.lineno + 1)


def test_a_module_uses_only_what_comes_before_it() -> None:
    for path in modules(PACKAGE):
        for name in imported(path):
            first, *rest = name.split(".")
            assert first not in OUTSIDE, f"{path} imports {name}"
            if first == "plantjax" and path != PACKAGE / "__init__.py":
                place = ORDER.index(name_of(path))
                assert ORDER.index(rest[0]) <= place, f"{path} imports {name}"


def test_the_package_has_these_names_and_few_entries() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert len(entries) <= MOST_ENTRIES
    assert {name.removesuffix(".py") for name in entries} == {*ORDER, "__init__", "py.typed"}


def test_scripts_and_tools_import_no_tests_and_scripts_no_tools() -> None:
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    tests = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    for folder, others in (("experiments", tools | tests), ("tools", tests)):
        for path in modules(ROOT / folder):
            assert not {name.partition(".")[0] for name in imported(path)} & others, path


@pytest.mark.parametrize("folder", ["plantjax", "experiments", "tools"])
def test_files_and_functions_are_short(folder: str) -> None:
    for path in modules(ROOT / folder):
        assert len(path.read_text().splitlines()) <= MOST_LINES, path
        for function in functions(path):
            assert lines_of_code(function) <= MOST_CODE, f"{path}: {function.name}"


def test_few_functions_are_cached_for_ever() -> None:
    cached = [
        f"{path}: {function.name}"
        for path in modules(PACKAGE)
        for function in functions(path)
        for decorator in function.decorator_list
        if ast.unparse(decorator).partition("(")[0].rpartition(".")[2] in ("cache", "lru_cache")
    ]
    assert len(cached) <= MOST_CACHES, cached


def test_folders_define_nothing_in_their_init() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        kinds = {type(node) for node in ast.walk(parsed(path))}
        assert not kinds & {ast.FunctionDef, ast.ClassDef}, path


def test_importing_the_package_takes_no_extra() -> None:
    for path in modules(PACKAGE):
        if name_of(path) != "jobs":
            named = {name.partition(".")[0] for name in imported(path, outermost=True)}
            assert not named & EXTRAS, path
    program = f"import sys, plantjax; print(*({EXTRAS!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= {"rich", "filelock"}
