"""What XLA's profiler wrote: each operation that ran, how long, and where in the model it stands.

JAX's reader gives the times. The programs, which say of each instruction by which module it was
traced, lie beside them in the same file (`HloProto`); JAX has no reader of these, so that a few of
their fields are read here, by the numbers that they have in XLA's `hlo.proto` and `xplane.proto`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jax.profiler import ProfileData

PROGRAMS = "/host:metadata"  # the plane of the programs
# Of a TPU, the line of the instructions; its others sum them up by step, module and name.
INSTRUCTIONS = "XLA Ops"
# They only run others, which are there themselves.
CONTROL = {"while", "call", "conditional", "async-start", "async-done"}


class Instruction(NamedTuple):
    """Of a compiled program.

    Attributes:
      code: of XLA, `fusion` or `dot`.
      path: of JAX, `jit(step)/jvp(MPlug2)/vision/dot_general`; "" where it is the compiler's own.
    """

    code: str
    path: str


class Ran(NamedTuple):
    """An instruction as it ran once.

    Attributes:
      program: its name.
      name: of the instruction.
      instruction: what it is.
      seconds: without those of what ran within it.
    """

    program: str
    name: str
    instruction: Instruction
    seconds: float


def read(path: Path) -> list[Ran]:
    """All instructions that ran on the devices while a trace was taken.

    Args:
      path: of a file `....xplane.pb`.
    """
    content = path.read_bytes()
    known = programs(content)
    found = []
    for plane in ProfileData.from_serialized_xspace(content).planes:
        device = plane.name.startswith("/device:")
        for line in plane.lines:
            events = [(event.start_ns, event.duration_ns, *where) for event in line.events
                      if (where := _place(event, device and line.name == INSTRUCTIONS))]
            found += [Ran(program, name, instruction, seconds)
                      for program, name, seconds in _alone(events)
                      if (instruction := _look_up(known, program, name)).code not in CONTROL]
    return found


def programs(content: bytes) -> dict[str, dict[str, Instruction]]:
    """The instructions of each program of a trace, by their name, by the program's name."""
    found: dict[str, dict[str, Instruction]] = {}
    for plane in _each(content, 1):
        if _text(plane, 2) != PROGRAMS:
            continue
        for entry in _each(plane, 4):  # a map of numbers to the programs
            for stat in _each(_one(entry, 2), 5):
                module = _one(_one(stat, 6), 1)
                if name := _text(module, 1):
                    found.setdefault(name, {}).update(_instructions(module))
    return found


def _instructions(module: memoryview) -> Iterator[tuple[str, Instruction]]:
    """The instructions of all computations of a `HloModuleProto`."""
    for computation in _each(module, 3):
        for instruction in _each(computation, 2):
            yield _text(instruction, 1), Instruction(
                _text(instruction, 2), _text(_one(instruction, 7), 2))


def _place(event: Any, named: bool) -> tuple[str, str] | None:
    """The program and the instruction of an event; None where it is of neither.

    `named` where the event's own name is that of the instruction, or its text.
    """
    stats = dict(event.stats)
    if "hlo_op" in stats:
        return str(stats.get("hlo_module", "")), str(stats["hlo_op"])
    found = re.match(r"%?([\w.\-]+)", event.name) if named else None
    return ("", found[1]) if found else None


def _look_up(known: dict[str, dict[str, Instruction]], program: str, name: str) -> Instruction:
    """An instruction by its name; of an unknown program, in the largest one that has it."""
    for one in [known[program]] if program in known else sorted(known.values(), key=len)[::-1]:
        if name in one:
            return one[name]
    return Instruction("", "")


def _alone(events: list[tuple[float, float, str, str]]) -> list[tuple[str, str, float]]:
    """Events of one line by program and name, with the seconds in which no other ran within it."""
    found: list[list[Any]] = []
    within: list[tuple[float, list[Any]]] = []  # the end of each that is going on
    for start, duration, program, name in sorted(events, key=lambda one: (one[0], -one[1])):
        while within and within[-1][0] <= start:
            within.pop()
        if within:
            within[-1][1][2] -= duration / 1e9
        found.append([program, name, duration / 1e9])
        within.append((start + duration, found[-1]))
    return [(program, name, max(seconds, 0.0)) for program, name, seconds in found]


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message of protocol buffers, by their numbers."""
    data, at = memoryview(message), 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or number()
        yield key >> 3, data[at:at + size]
        at += size


def _each(message: bytes | memoryview, field: int) -> Iterator[memoryview]:
    """The values of a field that is a message or a text."""
    for number, value in _fields(message):
        if number == field and not isinstance(value, int):
            yield value


def _one(message: bytes | memoryview, field: int) -> memoryview:
    """The last of them; empty where there is none."""
    return (list(_each(message, field)) or [memoryview(b"")])[-1]


def _text(message: bytes | memoryview, field: int) -> str:
    return bytes(_one(message, field)).decode(errors="replace")
