"""The text of a compiled program as computations of instructions."""

import math
import re
from typing import NamedTuple

BYTES = {"pred": 1, "bf16": 2, "token": 0, "opaque": 0}
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)")
HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\]")


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    shapes: list[tuple[str, tuple[int, ...]]]  # (kind of number, shape) of each array it returns
    opcode: str
    operands: list[str]
    rest: str

    @property
    def bytes(self) -> int:
        """The size of all arrays that it returns."""
        return sum(math.ceil(_width(kind) * math.prod(shape)) for kind, shape in self.shapes)


Computation = dict[str, Instruction]


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a program by name, and the name of its entry."""
    found: dict[str, Computation] = {}
    entry, current = "", {}
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        head = HEAD.match(line)
        if head and not line.startswith(" "):
            current = found.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif match := INSTRUCTION.match(line):
            made = _instruction(match[1], match[2])
            if made is not None:
                current[made.name] = made
    return found, entry


def _instruction(name: str, rest: str) -> Instruction | None:
    kind, rest = (_balanced(rest) if rest.startswith("(") else rest.split(" ", 1))[:2]
    match = re.match(r"\s*([\w\-]+)(\(.*)", rest)
    if match is None:
        return None
    inside, rest = _balanced(match[2])
    shapes = [
        (array[1], tuple(int(re.sub(r"\D", "", n)) for n in array[2].split(",") if n))
        for array in ARRAY.finditer(kind)
    ]
    operands = re.findall(r"%([\w.\-]+)", inside)
    told = inside[:32] if match[1] == "constant" else rest  # constants may be long
    return Instruction(name, shapes, match[1], operands, told)


def _balanced(text: str) -> tuple[str, str]:
    """The part in the first parentheses, and what follows."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    return text, ""


def _width(kind: str) -> float:
    digits = re.search(r"\d+", kind)
    return BYTES[kind] if kind in BYTES else int(digits[0]) / 8 if digits else 4
