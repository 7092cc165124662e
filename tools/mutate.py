"""Do the tests notice? Changes one operator at a time, and counts the changes that tests refuse.

    python tools/mutate.py [--files masks/select planting/algorithm] [--sample N] [--least 0.9]

Every mutant is a copy of the package with one comparison, operator, number or truth value changed;
it dies if its tests fail, or take too long. Prints who survived; exits 1 if too many did.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "masks/select": ["tests/masks/test_select.py", "tests/masks/test_patterns.py"],
    "masks/groups": ["tests/masks/test_select.py", "tests/masks/test_allocations.py"],
    "masks/counts": ["tests/masks/test_select.py"],
    "masks/topk": [
        "tests/masks/test_topk.py",
        "tests/masks/test_select.py",
        "tests/test_doubles.py",
    ],
    "masks/thresholds": ["tests/masks/test_topk.py", "tests/masks/test_select.py"],
    "masks/select_live": ["tests/masks/test_select_live.py"],
    "masks/allocations": ["tests/masks/test_allocations.py"],
    "nets/liveness": ["tests/nets/test_liveness.py"],
    "planting/algorithm": ["tests/test_planting.py", "tests/test_planting_conv.py"],
    "planting/matching": ["tests/test_planting.py", "tests/test_planting_conv.py"],
    "scores/basic": ["tests/scores/test_basic.py"],
    "scores/synflow": ["tests/scores/test_basic.py", "tests/nets/test_balancing.py"],
    "scores/lamp": ["tests/scores/test_later.py"],
    "scores/ntk_sap": ["tests/scores/test_later.py"],
    "scores/prospr": ["tests/scores/test_later.py"],
}
SECONDS = 600
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


class Mutant(NamedTuple):
    """One change: the file's name, the line, what was changed, and the new source."""

    name: str
    line: int
    change: str
    source: str


def sites(tree: ast.AST) -> list[ast.AST]:
    """The nodes that can be changed, in order: of functions, but for annotations and errors."""
    found: list[ast.AST] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Raise) or (isinstance(node, ast.keyword) and node.arg == "strict"):
            return
        if inside and changed(node) is not None:
            found.append(node)
        inside = inside or isinstance(node, ast.FunctionDef)
        typed = {"annotation", "returns", "decorator_list"}
        typed |= {"args"} if isinstance(node, ast.FunctionDef) else set()
        for field, value in ast.iter_fields(node):
            if field in typed:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, inside)

    visit(tree, inside=False)
    return found


def changed(node: ast.AST) -> ast.AST | None:
    """The node with its operator, sign, number or truth value changed; None if it has none."""
    match node:
        case ast.Compare(left, [op], right):
            return ast.Compare(left, [SWAPS[type(op)]()], right)
        case ast.BinOp(left, op, right):
            return ast.BinOp(left, SWAPS[type(op)](), right)
        case ast.BoolOp(op, values):
            return ast.BoolOp(SWAPS[type(op)](), values)
        case ast.UnaryOp(_, operand):
            return operand
        case ast.Constant(bool() as value):
            return ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            return ast.Constant(value + 1)
        case ast.IfExp(test, body, orelse):
            return ast.IfExp(test, orelse, body)
    return None


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else super().generic_visit(node)


def mutants(name: str) -> list[Mutant]:
    """Every change of one file."""
    source = (ROOT / "plantjax" / f"{name}.py").read_text()
    made = []
    for index in range(len(sites(ast.parse(source)))):
        tree = ast.parse(source)
        old = sites(tree)[index]
        new = ast.copy_location(changed(old), old)
        change = f"{ast.unparse(old)}  ->  {ast.unparse(new)}"
        text = ast.unparse(ast.fix_missing_locations(_Replace(old, new).visit(tree)))
        made.append(Mutant(name, old.lineno, change, text))
    return made


def passes(copy: Path, name: str) -> bool:
    """Whether the file's tests pass in a copy of the tree."""
    files = [*TESTS[name], f"plantjax/{name}.py"]  # the last one for its examples
    command = [sys.executable, "-m", "pytest", "-x", "-q", *files]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):  # passed, failed, or could not be imported
        raise RuntimeError(done.stdout.decode() + done.stderr.decode())
    return done.returncode == 0


def survivors(chosen: list[Mutant], jobs: int) -> list[Mutant]:
    """Those that their tests do not notice; each job has a copy of the tree."""
    alive: list[Mutant] = []
    free: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory() as folder:
        for job in range(jobs):
            copy = Path(folder) / str(job)
            for part in ("plantjax", "experiments", "tests"):
                shutil.copytree(ROOT / part, copy / part)
            for part in ("pyproject.toml", "setup.cfg", "README.md"):
                shutil.copy(ROOT / part, copy / part)
            free.put(copy)
        for name in {mutant.name for mutant in chosen}:
            if not passes(free.queue[0], name):
                raise RuntimeError(f"the tests of {name} fail without any change.")

        def judge(mutant: Mutant) -> None:
            copy = free.get()
            file = copy / "plantjax" / f"{mutant.name}.py"
            try:
                file.write_text(mutant.source)
                noticed = not passes(copy, mutant.name)
            finally:
                shutil.copy(ROOT / "plantjax" / f"{mutant.name}.py", file)
                free.put(copy)
            print("died    " if noticed else "SURVIVED", *mutant[:3], flush=True)
            if not noticed:
                alive.append(mutant)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(judge, chosen))
    return alive


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--sample", type=int, help="so many mutants per file, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--least", type=float, default=0.9, help="share that has to die")
    options = parser.parse_args()
    chosen: list[Mutant] = []
    for name in options.files:
        made = mutants(name)
        count = min(options.sample or len(made), len(made))
        chosen += random.Random(options.seed).sample(made, count)
    alive = survivors(chosen, options.jobs)
    share = 1 - len(alive) / len(chosen)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutants died: {share:.1%}")
    sys.exit(share < options.least)


if __name__ == "__main__":
    main()
