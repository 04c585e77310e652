"""Which records of a dataset go into which shard, and where their media are.

Made once, of the raw files, and kept in the unfinished folder: what is written afterwards is a
function of the plan alone (`shards`).
"""

import contextlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.datasets import Dataset, Entry, Missing, RawFolder
from data.prepare.problems import Problem, loads
from data.stores import absolute
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import machine_error

VERSION = "1.0.0"
# About a gigabyte, where there are media.
SHARD_RECORDS = {"video": 500, "image": 5000, "images": 2500, "text": 100_000, "other": 2500}
SAID_CHARACTERS = 2**24  # what an annotation says of a record, at most
PLAN = "plan.json"
IN_PLACE = "in_place"  # among the settings of a dataset whose media stay where they are
MISSING = "missing.jsonl"
_FIRST = 3  # missing media that are named where they are counted
_COUNTED = ("texts", "questions", "boxes")


@dataclass
class Plan:
    """What a folder of unfinished shards is to hold.

    Attributes:
        settings: what it was made of; another run must have the same.
        kind: of `records.KINDS`.
        shards: {split: number of shards}, without splits that have no media at all.
        found: {split: {'records', 'texts', 'questions', 'boxes': number in the annotation}}.
        missing: {split: number of records whose media are not there}.
        first: {split: what was looked for, of the first few of them}.
        classes: the labels of all splits, sorted.
        left_out: {split: items of the annotation that cannot be used}.
    """

    settings: dict[str, str | int]
    kind: str
    shards: dict[str, int] = field(default_factory=dict)
    found: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def jobs(self, work: Path) -> list[tuple[str, str, int]]:
        """Arguments of `write_shard` for every shard, finished or not."""
        return [
            (str(work), split, index)
            for split, count in self.shards.items()
            for index in range(count)
        ]


def folders(out: str | os.PathLike, name: str) -> tuple[Path, Path]:
    """Where a dataset is while it is being written, and where it is afterwards."""
    final = Path(out).absolute() / name / VERSION
    return final.with_name(f"{VERSION}.incomplete"), final


def settings_of(dataset: Dataset, raw: str | os.PathLike, shard_records: int,
                in_place: bool) -> dict[str, str | int]:
    """All that the records of a dataset depend on.

    Args:
        dataset: what is read.
        raw: the raw folder, or its address.
        shard_records: records in a shard, 0 for `SHARD_RECORDS`.
        in_place: whether their media stay where they are.
    """
    return {"dataset": dataset.name, "raw": absolute(raw),
            "shard_records": shard_records or SHARD_RECORDS[dataset.kind],
            **dataset.settings} | ({IN_PLACE: 1} if in_place else {})


def differing(written: dict, wanted: dict) -> Iterator[tuple[str, Any, Any]]:
    """What of the settings of a dataset is not as wanted: key, value as written, and as wanted."""
    for key in (*wanted, *({IN_PLACE} & written.keys() - wanted.keys())):
        if written.get(key) != wanted.get(key):
            yield key, written.get(key), wanted.get(key)


def make_plan(dataset: Dataset, raw: RawFolder, work: Path, settings: dict[str, str | int]) -> Plan:
    """Reads the annotation and looks for the media, unless an earlier run did.

    Args:
        dataset: what to read.
        raw: its raw files.
        work: the unfinished folder.
        settings: of `settings_of`.

    Raises:
        DataError: the raw files cannot be used, none of the media are there, or the folder was
            planned with other settings.
    """
    if (work / PLAN).exists():
        plan = load_plan(work)
        for key, written, value in differing(plan.settings, settings):
            raise DataError(f"{work} was begun with {key}={written}, not {value}: go on with that, "
                            "choose another --out, or delete it")
        return plan
    if work.exists():
        shutil.rmtree(work)
    (work / "plan").mkdir(parents=True)
    (work / "done").mkdir()
    plan = Plan(settings, dataset.kind)
    with (work / "plan" / MISSING).open("w", encoding="utf-8") as missing:
        with _reading(f"the annotation of {dataset.name} in --raw={raw.place}"):
            splits = dataset.read(raw)
        for split, entries in splits.items():
            _plan_split(plan, split, entries, work, missing, int(settings["shard_records"]), raw)
    if not plan.shards:
        with (work / "plan" / MISSING).open(encoding="utf-8") as file:
            odd = next((loads(line).reason for line in file), "any record")
        shutil.rmtree(work)
        total = sum(plan.missing.values())
        first = list(itertools.chain(*plan.first.values()))[:_FIRST]
        raise DataError(f"all {total:,} media are missing in --raw={raw.place}, the first: "
                        + ("missing: " + "; ".join(first) if first else odd))
    paths.write(work / PLAN, json.dumps(asdict(plan)))
    return plan


def load_plan(work: Path) -> Plan:
    """The plan of an unfinished folder."""
    try:
        return Plan(**json.loads((work / PLAN).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{work / PLAN} is damaged: delete {work}, and begin again") from error


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Makes an error of one line of whatever a reader of raw files raises."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise machine_error(error, what) or DataError(
            f"{what} cannot be read: {type(error).__name__}: {said}: it is damaged, or of another "
            "layout than its reader knows") from error  # fmt: skip


def _plan_split(
    plan: Plan, split: str, entries: Iterable[Entry], work: Path, missing, shard_records: int,
    raw: RawFolder,
) -> None:  # fmt: skip
    counts, absent, classes = Counter(records=0), 0, set(plan.classes)

    def say_left_out() -> None:
        for file, place, reason in raw.left_out:
            line = place.removeprefix("line ")
            missing.write(Problem(split, "", f"left out: {reason}", file, line).dumps())
        plan.left_out[split] = plan.left_out.get(split, 0) + len(raw.left_out)
        raw.left_out.clear()

    def present() -> Iterator[str]:
        nonlocal absent
        for entry in _each(entries, plan.settings["dataset"], split):
            say_left_out()
            counts["records"] += 1
            if isinstance(entry.media, Missing):
                absent += 1
                if absent <= _FIRST:
                    plan.first.setdefault(split, []).append(entry.media.expected)
                reason = "odd: no" if entry.media.odd else "missing:"
                problem = Problem(split, entry.id, f"{reason} {entry.media.expected}",
                                  *_place(raw, entry.id))
                missing.write(problem.dumps())
                _count(counts, entry)
                continue
            try:
                _count(counts, entry)
                line = json.dumps(asdict(entry))  # escaped: names of files may be no UTF-8
                if len(line) > SAID_CHARACTERS:
                    raise _Large(f"{len(line):,} characters are said of it, over "
                                 f"{SAID_CHARACTERS:,}")
                if label := entry.fields.get("label"):
                    classes.add(str(label))
            except _Large as error:
                missing.write(Problem(split, entry.id, f"large: {error}").dumps())
            except (TypeError, ValueError, AttributeError, RecursionError) as error:
                missing.write(Problem(split, entry.id, f"odd: {error}").dumps())
            else:
                yield line
        say_left_out()

    rest = present()
    shards = 0
    for first in rest:
        with (work / "plan" / f"{split}-{shards:05d}.jsonl").open("w", encoding="utf-8") as file:
            file.write(first)
            file.writelines(f"\n{line}" for line in itertools.islice(rest, shard_records - 1))
            sync(file)
        shards += 1
    plan.found[split], plan.missing[split] = dict(counts), absent
    plan.classes = sorted(classes)
    if shards:
        plan.shards[split] = shards


class _Large(Exception):
    """More is said of a record than may be."""


def _count(counts: Counter, entry: Entry) -> None:
    """Counts what is said of a record; an odd one raises nearly anything."""
    counts.update({key: len(entry.fields.get(key, ())) for key in _COUNTED})


def _each(entries: Iterable[Entry], name: str, split: str) -> Iterator[Entry]:
    """The entries; an error that their reader raises says after which one."""
    iterator, after = iter(entries), "at the start"
    while True:
        with _reading(f"the annotation of {name}, split {split!r}, {after},"):
            entry = next(iterator, None)
        if entry is None:
            return
        after = f"after record {entry.id!r}"
        yield entry


def _place(raw: RawFolder, name: str) -> tuple[str, str]:
    """The file and the line in a record's name, where it is made of these."""
    file, _, line = name.rpartition(":")
    return (file, line) if line.isdigit() and (raw.root / file).is_file() else ("", "")


def compare(found: dict[str, int], published: dict[str, int], split: str) -> list[str]:
    """How the numbers of a split differ from the published ones: a line each, [] if in none."""
    return [
        f"{split} has {found.get(key, 0):,} {key}, published are {count:,} "
        f"({found.get(key, 0) - count:+,})"
        for key, count in published.items()
        if found.get(key, 0) != count
    ]


def shard_path(folder: Path, name: str, split: str, index: int, count: int) -> Path:
    """A shard's file, by the number of it and of all of its split."""
    return folder / f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def sync(file) -> None:
    """Has a file on the disk, before a name says that it is."""
    file.flush()
    os.fsync(file.fileno())
