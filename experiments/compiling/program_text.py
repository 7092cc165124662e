"""Loops, kernels, bytes and operations of a compiled program, read from its text.

A kernel is one instruction of the scheduled program that the device starts: a fusion, a product, a
sort, a copy. What only renames or groups arrays is none.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from compiling.instructions import Computation, Instruction, parse

FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id"),
    *("replica-id", "after-all", "add-dependency", "opt-barrier"),
)
"""Instructions that start nothing."""
CALLS = ("call", "conditional", "async-start")


class Loop(NamedTuple):
    """A loop, without the loops inside of it.

    Attributes:
      name: the instruction's.
      source: where in the traced program it comes from.
      depth: 0 for loops that are in no other loop.
      trips: number of passes; None if the device decides.
      kernels: started in each pass.
      bytes: read and written in each pass.
      operations: of matrix products and convolutions in each pass.
    """

    name: str
    source: str
    depth: int
    trips: int | None
    kernels: int
    bytes: int
    operations: int


class Cost(NamedTuple):
    """Of one kernel."""

    bytes: int
    operations: int


def loops(text: str) -> list[Loop]:
    """All loops of a program in the order of its text, each before those inside of it."""
    computations, entry = parse(text)
    return list(_loops(computations, entry, 0))


def seconds(text: str, rate: float, bandwidth: float, launch: float) -> float:
    """The least time of a program: each kernel is held up by products, memory or its start.

    Args:
      text: of the compiled program.
      rate: operations a second.
      bandwidth: bytes a second.
      launch: seconds to start a kernel.

    Returns:
      Seconds; loops whose length the device decides are counted once.
    """
    computations, entry = parse(text)

    def of(name: str) -> float:
        total = 0.0
        for one in computations[name].values():
            if one.opcode == "while":
                total += (_trips(computations, one) or 1) * of(_called(one, "body")[0])
            elif one.opcode in CALLS:
                total += max((of(branch) for branch in _branches(one)), default=0.0)
            elif _starts(one):
                cost = _cost(computations, name, one)
                total += launch + max(cost.operations / rate, cost.bytes / bandwidth)
        return total

    return of(entry)


def kernels(text: str) -> int:
    """The kernels of a program that are in no loop."""
    computations, entry = parse(text)
    return len(list(_kernels(computations, entry)))


def _loops(computations: Mapping[str, Computation], name: str, depth: int) -> Iterator[Loop]:
    for one in computations[name].values():
        if one.opcode == "while":
            body = _called(one, "body")[0]
            costs = list(_kernels(computations, body))
            source = re.search(r'op_name="([^"]*)"', one.rest)
            yield Loop(
                one.name,
                source[1] if source else "",
                depth,
                _trips(computations, one),
                len(costs),
                sum(cost.bytes for cost in costs),
                sum(cost.operations for cost in costs),
            )
            yield from _loops(computations, body, depth + 1)
        elif one.opcode in CALLS:
            for branch in _branches(one):
                yield from _loops(computations, branch, depth)


def _kernels(computations: Mapping[str, Computation], name: str) -> Iterator[Cost]:
    """The kernels of a computation, and of all that it calls, loops apart."""
    for one in computations[name].values():
        if one.opcode in CALLS:
            branches = [list(_kernels(computations, branch)) for branch in _branches(one)]
            yield from max(branches, key=len, default=[])
        elif one.opcode != "while" and _starts(one):
            yield _cost(computations, name, one)


def _starts(one: Instruction) -> bool:
    return one.opcode not in FREE and not one.opcode.endswith("-done")


def _called(one: Instruction, role: str) -> list[str]:
    return re.findall(rf"\b{role}=%?([\w.\-]+)", one.rest)


def _branches(one: Instruction) -> list[str]:
    """The computations that a call, or a choice among several, may run."""
    several = re.search(r"branch_computations=\{([^}]*)\}", one.rest)
    if several:
        return re.findall(r"%?([\w.\-]+)", several[1])
    roles = ("to_apply", "calls", "true_computation", "false_computation")
    return [name for role in roles for name in _called(one, role)]


def _trips(computations: Mapping[str, Computation], one: Instruction) -> int | None:
    """The number of passes; None if it depends on what is computed.

    Programs for TPUs do not tell it. There we read the limit of a counter that grows by one, from 0
    on as in every scan.
    """
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest)
    if found:
        return int(found[1])
    condition, body = (
        computations.get(name, {}) for role in ("condition", "body") for name in _called(one, role)
    )
    if not condition:
        return None
    *_, test = condition.values()
    if test.opcode != "compare" or "direction=LT" not in test.rest:
        return None
    counter, limit = (_element(condition, name) for name in test.operands)
    steps = [
        {_element(body, name) for name in part.operands}
        for part in body.values()
        if part.opcode == "add"
    ]
    passes = re.fullmatch(r"\((\d+)\)", limit)
    return int(passes[1]) if passes and {counter, "(1)"} in steps else None


def _element(here: Computation, name: str) -> str:
    """A constant's value, or which part of a loop's state an instruction is; else its name."""
    part = here.get(name)
    while part is not None and part.opcode in ("copy", "bitcast"):
        part = here.get(part.operands[0])
    if part is None or part.opcode not in ("constant", "get-tuple-element"):
        return name
    return part.rest if part.opcode == "constant" else part.rest.split("index=")[1].split(",")[0]


def _cost(computations: Mapping[str, Computation], name: str, one: Instruction) -> Cost:
    """What a kernel reads, writes and multiplies."""
    here, inner = computations[name], _called(one, "calls")
    if one.opcode == "fusion" and inner and inner[0] in computations:
        inside = computations[inner[0]]
        moved = _moved(inside, one)
        return Cost(moved, sum(_operations(inside, part) for part in inside.values()))
    if one.opcode in ("dynamic-slice", "gather"):
        return Cost(2 * one.bytes, 0)
    if one.opcode == "dynamic-update-slice" and one.operands[1] in here:
        return Cost(2 * here[one.operands[1]].bytes, 0)
    read = sum(here[operand].bytes for operand in one.operands if operand in here)
    return Cost(read + one.bytes, _operations(here, one))


def _moved(inside: Computation, one: Instruction) -> int:
    """The bytes of a fusion; of an array of which it reads or writes a slice, the slice's."""
    parameters = [part for part in inside.values() if part.opcode == "parameter"]
    total, written = 0, one.bytes
    for parameter in parameters:
        users = [part for part in inside.values() if parameter.name in part.operands]
        first = [part for part in users if part.operands[0] == parameter.name]
        sliced = [part for part in first if part.opcode in ("dynamic-slice", "gather")]
        updated = [part for part in first if part.opcode == "dynamic-update-slice"]
        if users and len(sliced) + len(updated) == len(users):
            changes = sum(inside[part.operands[1]].bytes for part in updated)
            total += sum(part.bytes for part in sliced) + changes
            written -= sum(part.bytes for part in updated) - changes
        else:
            total += parameter.bytes
    return total + max(written, 0)


def _operations(here: Computation, one: Instruction) -> int:
    """Two for each multiplication of a product or convolution."""
    if one.opcode == "convolution":
        kernel = here[one.operands[1]].shapes[0][1]
        labels = re.search(r"dim_labels=\w+_(\w+)->", one.rest)
        contracted = math.prod(kernel) // kernel[labels[1].index("o")] if labels else 1
        # Of a dilated input's zeros nothing is computed: TPUs write batches of products like that.
        for size, holes in zip(_window(one, "size"), _window(one, "lhs_dilate"), strict=False):
            contracted = contracted // size * math.ceil(size / holes)
    elif one.opcode == "dot" or "gemm" in one.rest[:200]:
        given = here.get(one.operands[0]) if one.operands else None
        contracted = math.prod(given.shapes[0][1][d] for d in _contracted(one)) if given else 1
    else:
        return 0
    return 2 * math.prod(one.shapes[0][1]) * contracted


def _window(one: Instruction, name: str) -> list[int]:
    found = re.search(rf"window={{[^}}]*\b{name}=([\dx]+)", one.rest)
    return [int(d) for d in found[1].split("x")] if found else []


def _contracted(one: Instruction) -> list[int]:
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
    if found:
        return [int(d) for d in found[1].split(",") if d]
    found = re.search(r'"lhs_contracting_dimensions":(\[[^\]]*\])', one.rest)
    return [int(d) for d in json.loads(found[1])] if found else []


def nested(loops: Sequence[dict[str, Any]]) -> str:
    """Kernels times passes of each loop, those inside of it in brackets, equal ones once."""
    parts: Counter[str] = Counter()
    place = 0
    while place < len(loops):
        loop, end = loops[place], place + 1
        while end < len(loops) and loops[end]["depth"] > loop["depth"]:
            end += 1
        inside = nested(loops[place + 1 : end])
        trips = "" if loop["trips"] is None else f"x{loop['trips']}"
        parts[f"{loop['kernels']}{trips}" + (f" [{inside}]" if inside else "")] += 1
        place = end
    return ", ".join(text + (f" ({count}*)" if count > 1 else "") for text, count in parts.items())
