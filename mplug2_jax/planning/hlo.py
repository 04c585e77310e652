"""What a compiled program's text says: collectives, their bytes, and the traffic of its memory.

Loops count as often as they run. Only the parts of the text that these figures need are read.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

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
      members: the devices of a group that take part together, by their numbers in the mesh; of a
        permutation, a sender and the one that it sends to, of each pair.
      times: how often a step runs it.
      source: the operation of the traced program that it is for, such as "jit(step)/optimizer/mul".
      outside: whether it is between slices, each device with its like in the others, which are its
        members.
    """

    kind: str
    size: int
    members: tuple[int, ...]
    times: int
    source: str = ""
    outside: bool = False

    @property
    def group(self) -> int:
        """Devices that take part together."""
        return 2 if self.kind == "collective-permute" else len(self.members)

    @property
    def moved(self) -> float:
        """Bytes that a device sends in a step, by the algorithms on a ring."""
        return self.size * self.times * _share(self.kind, self.group)

    def axes(self, mesh: Mapping[str, int]) -> str:
        """The axes of a slice's mesh along which it goes, such as "data+fsdp"; or "slices"."""
        if self.outside:
            return "slices"
        places = np.unravel_index(np.array(self.members), tuple(mesh.values()))
        if self.kind == "collective-permute":
            places = tuple(place.reshape(-1, 2) for place in places)
        return "+".join(axis for axis, place in zip(mesh, places, strict=True)
                        if (place != place[..., :1]).any()) or "none"


def _share(kind: str, group: int) -> float:
    """Of the whole array what a device of a group sends, by the algorithms on a ring."""
    return {"all-reduce": 2 * (group - 1) / group,
            "collective-permute": 1.0}.get(kind, (group - 1) / group)


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
        for instruction, computation, times in self.runs():
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                found.append(_collective(kind, instruction, times))
            elif instruction.opcode == "send" and "_megascale_transfer_type" in instruction.rest:
                found.append(_between_slices(instruction, computation, times))
            elif instruction.opcode == "fusion":
                found += [collective for called in instruction.called
                          for collective in self._fused(called, times)]
        return found

    def _fused(self, name: str, times: int) -> Iterator[Collective]:
        """The collectives of a fusion. One of a TPU's, which sums and keeps its own part at once,
        sends what a reduce-scatter does."""
        for inner in self.computations[name].values():
            if inner.opcode in COLLECTIVES:
                found = _collective(inner.opcode, inner, times)
                yield (dataclasses.replace(found, kind="reduce-scatter")
                       if name.startswith("all-reduce-scatter") else found)

    def launches(self) -> dict[str, int]:
        """How often a step runs each kind of instruction, the most first; of calls of a library, as
        of cuBLAS, their names."""
        count: defaultdict[str, int] = defaultdict(int)
        for instruction, _, times in self.runs():
            if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
                continue
            target = re.search(r'custom_call_target="([^"]+)"', instruction.rest)
            count[target[1].lstrip("_") if target else instruction.opcode] += times
        return dict(sorted(count.items(), key=lambda item: item[1], reverse=True))

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
        if instruction.opcode in ("send", "recv"):
            return result
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
    if 'custom_call_target="__cu' in rest:  # the last result of cuBLAS and cuDNN is scratch memory
        kind = re.sub(r"[su]8\[\d+\]\{0\}\)$", ")", kind)
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
    members = _members(instruction.rest)
    whole = len(members) if kind == "reduce-scatter" else 1
    source = re.search(r'op_name="([^"]*)"', instruction.rest)
    return Collective(kind, sum(sizes) * whole, members, times, source[1] if source else "")


def _between_slices(instruction: Instruction, computation: dict[str, Instruction],
                    times: int) -> Collective:
    """What a device hands to the network between slices, and is summed or gathered there."""
    told = re.search(r'_megascale_target="\{\d+,(\d+)\}', instruction.rest)
    kind = re.search(r'_megascale_transfer_type="(\w+)"', instruction.rest)
    assert told and kind, f"a transfer between slices of another form: {instruction.name}"
    name, slices = kind[1].lower().replace("_", "-"), int(told[1])
    size = instruction.results[0][0] * (slices if name == "all-gather" else 1)
    given = computation.get(instruction.operands[0])
    source = re.search(r'op_name="([^"]*)"', given.rest if given else "")
    return Collective(name, size, tuple(range(slices)), times, source[1] if source else "", True)


def _members(rest: str) -> tuple[int, ...]:
    """The devices of a group: `replica_groups={{0,1},{2,3}}`, `replica_groups=[2,2]<=[4]`, or the
    axes of a mesh, `replica_groups=mesh['a'=2,'b'=4] {'b'}`, of which a part is `'b':(1)2`, and
    whose devices may stand in another order, `device_ids=([4,2]T(1,0))`; and of every pair of a
    permutation, `source_target_pairs={{0,1},{1,0}}`."""
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest):
        return tuple(_order(found[3]).reshape(int(found[1]), int(found[2]))[0].tolist())
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return tuple(int(one) for one in found[1].split(","))
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\S*)\))?\s*"
                          r"\{([^}]*)\}", rest):
        return _along(re.findall(r"'([^']+)'=(\d+)", found[1]), found[3], found[2])
    pairs = re.search(r"source_target_pairs=\{([\d,{} ]*)\}", rest)
    return tuple(int(one) for one in re.findall(r"\d+", pairs[1])) if pairs else (0, 1)


def _order(text: str) -> np.ndarray:
    """Devices in the order that `[4,2]T(1,0)` says: of an array of that shape, transposed."""
    shape, _, axes = text.strip("[)").replace("]", "").partition("T(")
    sizes = [int(size) for size in shape.split(",")]
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    return ids.transpose([int(axis) for axis in axes.split(",")]) if axes else ids


def _along(sides: list[tuple[str, str]], axes: str, order: str | None) -> tuple[int, ...]:
    """The devices of a mesh, from the first on, along axes or parts of them: `'a','b':(1)2`."""
    used = {axis: (int(before or 1), int(part or 0)) for axis, before, part in re.findall(
        r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)}
    shape = [int(size) for _, size in sides]
    ids = (_order(order) if order else np.arange(math.prod(shape))).reshape(shape)
    members = []
    for axis, size in zip((axis for axis, _ in sides), shape, strict=True):
        before, part = used.get(axis, (size, 1))
        part = part or size
        members.append(np.arange(part) * (size // before // part))
    return tuple(ids[np.ix_(*members)].ravel().tolist())
