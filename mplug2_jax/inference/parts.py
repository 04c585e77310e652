"""The plan of a job over many files: parts of so many, and which are done.

A part's file is a function of the files that it is of and of the job's settings alone, whoever
makes it, and how often. So a job that was killed goes on with the parts that are not there.

    <folder>/job.json             settings, and what the files are known by; written last
    <folder>/inputs/00000.json    the files of a part
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.options import flat
from mplug2_jax.inference.clips import chunks
from mplug2_jax.preprocess.files import File, InTar, media_kind
from mplug2_jax.preprocess.tars import Member

PLAN, INPUTS = "job.json", "inputs"
_AT_ONCE = 16  # files that are written: a bucket takes a while for each


class Plan(NamedTuple):
    """What a job is.

    Attributes:
      settings: all that its parts depend on beside the files, plain values.
      files: how many; `digest` tells them and their order.
      size: files of a part.
      most: files of each kind in a part, at most.
    """

    settings: dict[str, Any]
    files: int
    digest: str
    size: int
    most: dict[str, int]

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-self.files // self.size)


def divide(files: Sequence[File], size: int, settings: Mapping[str, Any]) -> Plan:
    """The plan of a job over files, at least one."""
    digest, most = hashlib.sha256(), Counter[str]()
    for some in chunks(files, size):
        most |= Counter(map(media_kind, some))
        digest.update("".join(f"{file}\0" for file in some).encode("utf-8", "surrogateescape"))
    return Plan(dict(settings), len(files), digest.hexdigest(), size, dict(sorted(most.items())))


def cut(files: Sequence[File], size: int) -> Iterator[tuple[int, Sequence[File]]]:
    """The parts, by number."""
    return enumerate(chunks(files, size))


def begin(folder: Path, plan: Plan, files: Sequence[File]) -> None:
    """Writes the plan to a folder, unless an earlier start of the same job did.

    Raises:
      DataError: the folder has another job's.
    """
    if (folder / PLAN).exists():
        _require_same(folder, load(folder), plan)
        for path in folder.glob(".*.partial"):  # of a process that was killed
            path.unlink(missing_ok=True)
        return
    (folder / INPUTS).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda part: paths.write(_inputs(folder, part[0]), json.dumps(
            [_said(file) for file in part[1]])), cut(files, plan.size)))
    paths.write(folder / PLAN, json.dumps(plan._asdict(), indent=1))


def load(folder: Path) -> Plan:
    """The plan of a folder; DataError where it is damaged."""
    try:
        return Plan(**json.loads((folder / PLAN).read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(f"{folder / PLAN} is damaged: delete {folder}, and begin again") from error


def files_of(folder: Path, number: int) -> list[File]:
    """The files of a part."""
    return [paths.parse(one) if isinstance(one, str) else InTar(
        paths.parse(one[0]), Member(*one[1:]))
            for one in json.loads(_inputs(folder, number).read_text())]


def _said(file: File) -> str | list[str | int]:
    """A file as JSON."""
    if isinstance(file, InTar):
        return [str(file.tar), *dataclasses.astuple(file.member)]
    return str(file)


def _inputs(folder: Path, number: int) -> Path:
    return folder / INPUTS / f"{number:05d}.json"


def _require_same(folder: Path, had: Plan, wanted: Plan) -> None:
    """DataError for the first thing in which two plans differ."""
    do = "go on with that, choose another --out, or delete it"
    begun, given = (dict(flat(json.loads(json.dumps(one.settings)))) | {
        "part_files": one.size, "files": one.files} for one in (had, wanted))
    for key in (*given, *sorted(begun.keys() - given.keys())):
        if begun.get(key) != given.get(key):
            raise DataError(f"{folder} was begun with {key}={begun.get(key)}, not "
                            f"{given.get(key)}: {do}")
    if had.digest != wanted.digest:
        raise DataError(f"{folder} was begun with other files, as many as these, or in another "
                        f"order: {do}")
