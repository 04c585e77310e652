"""What a compiled program's text says: collectives, their bytes, and the traffic of its memory.

Loops count as often as they run. Only the parts of the text that these figures need are read.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

WIDTHS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "f16": 16}  # bits; of others, in the name
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# They move nothing, or what they do stands in the computations that they call.
FREE = {"parameter", "constant", "iota", "tuple", "get-tuple-element", "bitcast", "while",
        "conditional", "call", "after-all", "partition-id", "replica-id", "optimization-barrier"}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+(\d*)(?:e\d\w*)?)\[([\d,]*)\](\{[^{}]*\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|called_computations|branch_computations|"
                     r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: as in the text.
      results: the arrays of its type as (bytes, whether in HBM).
      operands: names.
      called: names of the computations that it runs.
      rest: the text behind the opcode.
    """

    name: str
    opcode: str
    results: tuple[tuple[int, bool], ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    rest: str


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective as the text has it.

    Attributes:
      kind: of `COLLECTIVES`.
      size: bytes of the whole array on one device: the result, of a reduce-scatter the operand.
      group: devices that take part together.
      times: how often a step runs it.
    """

    kind: str
    size: int
    group: int
    times: int

    @property
    def moved(self) -> float:
        """Bytes that a device sends in a step, by the algorithms on a ring."""
        share = {"all-reduce": 2 * (self.group - 1) / self.group,
                 "collective-permute": 1.0}.get(self.kind, (self.group - 1) / self.group)
        return self.size * share * self.times


class Program:
    """A parsed program.

    Attributes:
      computations: `{name: {instruction name: Instruction}}`.
      entry: the name of the first one to run.
    """

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self.computations.setdefault(header[2], {})
                self.entry = header[2] if header[1] else self.entry
            elif current is not None and (found := _INSTRUCTION.match(line)):
                instruction = _instruction(found[2], found[3])
                current[instruction.name] = instruction

    def runs(self) -> Iterator[tuple[Instruction, dict[str, Instruction], int]]:
        """Every instruction that runs by itself, its computation, and how often it runs.

        What a fusion computes inside is not among them.
        """
        def visit(name, times):
            computation = self.computations[name]
            for instruction in computation.values():
                yield instruction, computation, times
                if instruction.opcode in ("while", "call", "conditional", "async-start"):
                    for called in instruction.called:
                        yield from visit(called, times * self._trips(instruction))

        return visit(self.entry, 1)

    def _trips(self, instruction: Instruction) -> int:
        """How often a loop runs its body, 1 for what is no loop.

        Where the text does not say so itself, it is what the counter is compared with: loops count
        from 0 in steps of 1.
        """
        if instruction.opcode != "while":
            return 1
        if known := re.search(r'"?known_trip_count"?:\{"?n"?:"?(\d+)', instruction.rest):
            return int(known[1])
        named = re.search(r"condition=%?([\w.\-]+)", instruction.rest)
        assert named is not None, f"a loop without a condition: {instruction.name}"
        condition = self.computations[named[1]]
        compare = list(condition.values())[-1]
        limits = [condition[name].rest for name in compare.operands
                  if name in condition and condition[name].opcode == "constant"]
        return int(limits[0].partition(")")[0]) if limits and "direction=LT" in compare.rest else 1

    def collectives(self) -> list[Collective]:
        """Every collective that runs."""
        found = []
        for instruction, _, times in self.runs():
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                found.append(_collective(kind, instruction, times))
            elif instruction.opcode == "fusion":
                found += [_collective(inner.opcode, inner, times)
                          for called in instruction.called
                          for inner in self.computations[called].values()
                          if inner.opcode in COLLECTIVES]
        return found

    def moved(self) -> dict[str, float]:
        """Bytes that a device sends in a step, by kind of collective, the most first."""
        moved: defaultdict[str, float] = defaultdict(float)
        for collective in self.collectives():
            moved[collective.kind] += collective.moved
        return dict(sorted(moved.items(), key=lambda item: item[1], reverse=True))

    def traffic(self) -> int:
        """Bytes that a step reads from and writes to HBM, one reading of each operand.

        Of an operand from which a fusion only takes slices, the slices count; of an array that is
        updated in place, the update.
        """
        total = 0
        for instruction, computation, times in self.runs():
            if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
                continue
            total += times * self._bytes(instruction, computation)
        return total

    def _bytes(self, instruction: Instruction, computation: dict[str, Instruction]) -> int:
        operands = [_in_hbm(computation[name]) for name in instruction.operands
                    if name in computation]
        result = _in_hbm(instruction)
        if instruction.opcode in ("dynamic-slice", "gather"):
            return 2 * result
        if instruction.opcode == "dynamic-update-slice":
            return 2 * operands[1]
        if instruction.opcode.endswith("-start"):  # its type repeats the operands
            return sum(operands) + max(0, result - sum(operands))
        if instruction.opcode != "fusion":
            return sum(operands) + result
        inner = self.computations[instruction.called[0]]
        parameters = {int(x.rest.partition(")")[0]): x.name for x in inner.values()
                      if x.opcode == "parameter"}
        for number, name in parameters.items():
            users = [x for x in inner.values() if name in x.operands]
            if number >= len(operands) or not users:
                continue
            if all(x.opcode in ("dynamic-slice", "gather") and x.operands[0] == name
                   for x in users):
                operands[number] = min(operands[number], sum(_size(x) for x in users))
            elif all(x.opcode == "dynamic-update-slice" and x.operands[0] == name for x in users):
                written = sum(_size(inner[x.operands[1]]) for x in users)
                result -= max(0, min(result, operands[number]) - written)
                operands[number] = 0
        return sum(operands) + result


def _instruction(name: str, text: str) -> Instruction:
    kind, rest = _split_type(text)
    opcode, _, rest = rest.partition("(")
    operands = rest[:_closing(rest)]
    called = tuple(called.strip(" %") for group in _CALLED.findall(rest)
                   for called in group.strip("{}").split(",") if called.strip(" %"))
    return Instruction(
        name, opcode.strip(), tuple(_arrays(kind)), tuple(re.findall(r"%([\w.\-]+)", operands)),
        called, rest)


def _split_type(text: str) -> tuple[str, str]:
    """"f32[2]{0} add(...)" or "(f32[2], f32[2]) tuple(...)" to the type and what follows."""
    if text.startswith("("):
        end = _closing(text[1:]) + 2
        return text[:end], text[end:]
    kind, _, rest = text.partition(" ")
    return kind, rest


def _closing(text: str) -> int:
    """Where the bracket that was opened before `text` closes."""
    depth = 1
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i
    return len(text)


def _arrays(kind: str) -> Iterator[tuple[int, bool]]:
    for name, width, shape, layout in _ARRAY.findall(kind):
        if name in ("token", "opaque"):
            continue
        bits = WIDTHS.get(name) or int(width)
        count = math.prod(int(side) for side in shape.split(",") if side)
        yield -(-count * bits // 8), re.search(r"S\([1-9]", layout) is None


def _size(instruction: Instruction) -> int:
    return sum(size for size, _ in instruction.results)


def _in_hbm(instruction: Instruction) -> int:
    return sum(size for size, in_hbm in instruction.results if in_hbm)


def _collective(kind: str, instruction: Instruction, times: int) -> Collective:
    sizes = [size for size, _ in instruction.results]
    if instruction.opcode.endswith("-start") and kind in ("all-gather", "collective-permute"):
        sizes = [size for size in sizes if size > 4]  # without the contexts
        sizes = sizes[len(sizes) // 2:]  # operands, then results
    group = _group(instruction.rest)
    return Collective(kind, sum(sizes) * (group if kind == "reduce-scatter" else 1), group, times)


def _group(rest: str) -> int:
    """Devices a group: `replica_groups={{0,1},{2,3}}`, `replica_groups=[2,2]<=[4]`, or the axes of
    a mesh, `replica_groups=mesh['a'=2,'b'=4] {'b'}`, of which a part is `'b':(1)2`."""
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        return math.prod(int(part or sizes[axis]) for axis, part in re.findall(
            r"'([^']+)'(?::\(\d+\)(\d+))?", found[2]))
    return 2  # a permutation: from one device to another
