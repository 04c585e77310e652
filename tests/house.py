"""The house as it stands: rooms, floors, imports between rooms, largest files, longest functions.

    python tests/house.py

The floors are the layers that import-linter holds, in `pyproject.toml`; the scripts of the top
level stand on the first. Ends with code 1 where an import does not go downward, a room has no
floor, a file of `mplug2_jax` or `data` has over 400 lines or a function over 60, or two files of
tests have one name, which pytest does not import.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SCRIPTS = ("train", "eval", "predict", "benchmarks")
LIMITED = ("mplug2_jax", "data")
MAX_FILE, MAX_FUNCTION = 400, 60  # lines
LISTED = 10


class Plan(NamedTuple):
    """What `pyproject.toml` says.

    Attributes:
      packages: the roots of all that is no script.
      floors: the rooms of each, from the top down.
      ignored: matches of imports, `importer -> imported`, that no floor forbids.
    """

    packages: list[str]
    floors: list[list[str]]
    ignored: list[re.Pattern[str]]


class House(NamedTuple):
    """What was found.

    Attributes:
      rooms: number of the floor of each, from 0 at the top; None where it has none.
      files: lines of each file.
      functions: lines of each function, by `file:line name`.
      imports: pairs of rooms, importer and imported.
      faults: a line each.
    """

    rooms: dict[str, int | None]
    files: dict[str, int]
    functions: dict[str, int]
    imports: set[tuple[str, str]]
    faults: list[str]


def read_plan(path: Path) -> Plan:
    """The plan of a `pyproject.toml`."""
    linter = tomllib.loads(path.read_text())["tool"]["importlinter"]
    (layers,) = (c for c in linter["contracts"] if c["type"] == "layers")
    # Rooms of one floor are divided by "|"; one that need not be there is in parentheses.
    floors = [[name.strip(" ()") for name in floor.split("|")] for floor in layers["layers"]]
    wild = {r"\*\*": ".+", r"\*": "[^.]+"}
    ignored = [re.compile(re.sub(r"(\\\*){1,2}", lambda m: wild[m[0]],
                                 re.escape(rule).replace(r"\ ", " ")))
               for rule in layers.get("ignore_imports", [])]
    return Plan(linter["root_packages"], [[*SCRIPTS, *floors[0]], *floors[1:]], ignored)


def modules(root: Path, plan: Plan) -> dict[str, Path]:
    """Every module's file, by name."""
    found = {}
    for top in (*plan.packages, *SCRIPTS):
        for path in sorted([root / f"{top}.py", *(root / top).rglob("*.py")]):
            if path.is_file():
                parts = path.relative_to(root).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str, plan: Plan) -> str:
    """The room that a module lies in: of the plan, or what should be one."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        name = ".".join(parts[:size])
        if any(name in floor for floor in plan.floors):
            return name
    return ".".join(parts[:2])


def imported(name: str, path: Path, tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """The project's modules that one imports, also within its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                up = node.level - (path.name == "__init__.py")
                parts = name.split(".")
                source = ".".join([*parts[:len(parts) - up], *filter(None, [source])])
            for alias in node.names:
                yield from [m for m in (f"{source}.{alias.name}", source) if m in known][:1]


def functions(file: str, tree: ast.AST) -> dict[str, int]:
    """Lines of each function and method, its decorators not counted."""
    return {f"{file}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
            for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def survey(root: Path) -> House:
    """Reads the tree under `root`."""
    plan = read_plan(root / "pyproject.toml")
    known = modules(root, plan)
    level = {name: number for number, floor in enumerate(plan.floors) for name in floor}
    house = House({}, {}, {}, set(), [])
    for name, path in known.items():
        here, file, text = room(name, plan), str(path.relative_to(root)), path.read_text()
        tree = ast.parse(text)
        if name not in plan.packages:  # their own `__init__` is no room
            house.rooms[here] = level.get(here)
        house.files[file] = len(text.splitlines())
        house.functions.update(functions(file, tree))
        for other in sorted(set(imported(name, path, tree, known))):
            there = room(other, plan)
            if there == here:
                continue
            house.imports.add((here, there))
            free = any(rule.fullmatch(f"{name} -> {other}") for rule in plan.ignored)
            if not free and None not in (level.get(here), level.get(there)):
                if level[here] >= level[there]:
                    house.faults.append(f"not downward: {name} imports {other}")
    house.faults.extend(f"on no floor: {name}" for name, floor in house.rooms.items()
                        if floor is None)
    for what, sizes, limit in (("file", house.files, MAX_FILE),
                               ("function", house.functions, MAX_FUNCTION)):
        house.faults.extend(f"{what} of {size} lines, over {limit}: {place}"
                            for place, size in sizes.items()
                            if size > limit and place.startswith(tuple(f"{n}/" for n in LIMITED)))
    house.faults.extend(twins(root))
    return house


def twins(root: Path) -> Iterator[str]:
    """A line for every file of tests that has the name of an earlier one."""
    first: dict[str, Path] = {}
    for path in sorted((root / "tests").rglob("*.py")):
        if path.name not in ("conftest.py", "__init__.py"):
            if first.setdefault(path.name, path) != path:
                yield (f"of one name: {first[path.name].relative_to(root)}, "
                       f"{path.relative_to(root)}")


def largest(sizes: dict[str, int]) -> str:
    """The largest few, a line each."""
    ordered = sorted(sizes.items(), key=lambda item: -item[1])[:LISTED]
    return "\n".join(f"{size:6} {name}" for name, size in ordered)


def report(house: House) -> str:
    """The survey as text."""
    floors: dict[int, list[str]] = {}
    for name, floor in house.rooms.items():
        if floor is not None:
            floors.setdefault(floor, []).append(name)
    upward = sum(fault.startswith("not downward") for fault in house.faults)
    lines = [f"{len(house.rooms)} rooms on {len(floors)} floors, {len(house.imports)} imports "
             f"between them, {upward} not downward",
             *(f"  {', '.join(sorted(floors[floor]))}" for floor in sorted(floors)),
             "largest files", largest(house.files),
             "longest functions", largest(house.functions), *house.faults]
    return "\n".join(lines)


if __name__ == "__main__":
    found = survey(Path(__file__).parents[1])
    print(report(found))
    sys.exit(bool(found.faults))
