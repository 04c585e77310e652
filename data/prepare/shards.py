"""Raw files to ArrayRecord, a shard at a time, so that an interruption costs at most a shard.

TFDS's own writer keeps a whole split in a temporary file and cuts it into shards at the end, so it
cannot go on where it stopped. Here a plan is made first: which records go into which shard, and
where their media are. Then each shard is written by a function of the plan alone, on this machine
or any other that sees the same folders; a shard that exists under its final name is finished. In
the end TFDS's metadata make it a dataset of TFDS like any other.

    <out>/<name>/<version>.incomplete/
        plan.json                    counts, and what the plan was made of; written last
        plan/<split>-00000.jsonl     the records of one shard
        plan/missing.jsonl           the records whose media are not there
        done/<split>-00000.json      records, bytes and unreadable media of one finished shard
        done/<split>-00000.arrow     its part of the index
        <name>-<split>.array_record-00000-of-00012
    <out>/<name>/<version>/          the same shards with the metadata, renamed at the end
        problems.tsv                 split, record, problem: all that is missing or unreadable
        classes.txt                  the classes, in the order of the alphabet, if there are any
        <split>.index.arrow          what is said of the records, without media (`data.written`)
"""

import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from data import media, records
from data.datasets import Dataset, Entry, Media, Missing, RawFolder
from data.datasets.own import read_media
from data.datasets.raw import of_file
from data.prepare.index import join_parts, part_path
from data.written import Part
from mplug2_jax.contracts.errors import DataError, MediaError
from mplug2_jax.preprocess.pictures import as_annotated

VERSION = "1.0.0"
PROBLEMS = "problems.tsv"
CLASSES = "classes.txt"
# About a gigabyte, where there are media.
SHARD_RECORDS = {"video": 500, "image": 5000, "images": 2500, "text": 100_000, "other": 2500}
# One record a group for reading at random; media are compressed as they are.
OPTIONS = "group_size:1,uncompressed"
_COUNTED = ("texts", "questions", "boxes")
_PLAN = "plan.json"
_FIRST = 3  # missing media that are named where they are counted


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


def make_plan(dataset: Dataset, raw: RawFolder, work: Path, shard_records: int) -> Plan:
    """Reads the annotation and looks for the media, unless an earlier run did.

    Args:
        dataset: what to read.
        raw: its raw files.
        work: the unfinished folder.
        shard_records: records in a shard.

    Raises:
        DataError: the raw files cannot be used, none of the media are there, or the folder was
            planned with other settings.
    """
    settings = {
        "dataset": dataset.name,
        "raw": str(raw.root.absolute()),
        "shard_records": shard_records,
        **dataset.settings,
    }
    if (work / _PLAN).exists():
        plan = load_plan(work)
        for key, value in settings.items():
            if plan.settings.get(key) != value:
                raise DataError(
                    f"{work} was begun with {key}={plan.settings.get(key)}, not {value}: "
                    "go on with that, choose another --out, or delete it"
                )
        return plan
    if work.exists():
        shutil.rmtree(work)
    (work / "plan").mkdir(parents=True)
    (work / "done").mkdir()
    plan = Plan(settings, dataset.kind)
    with (work / "plan" / "missing.jsonl").open("w", encoding="utf-8") as missing:
        for split, entries in dataset.read(raw).items():
            _plan_split(plan, split, entries, work, missing, shard_records, raw)
    if not plan.shards:
        shutil.rmtree(work)
        total = sum(plan.missing.values())
        first = list(itertools.chain(*plan.first.values()))[:_FIRST] or ["any record"]
        raise DataError(f"all {total:,} media are missing in --raw={raw.root}, the first: missing: "
                        + "; ".join(first))
    _write_whole(work / _PLAN, json.dumps(asdict(plan)))
    return plan


def load_plan(work: Path) -> Plan:
    """The plan of an unfinished folder."""
    return Plan(**json.loads((work / _PLAN).read_text(encoding="utf-8")))


def _plan_split(
    plan: Plan, split: str, entries: Iterable[Entry], work: Path, missing, shard_records: int,
    raw: RawFolder,
) -> None:
    counts, absent, classes = Counter(records=0), 0, set(plan.classes)

    def say_left_out() -> None:
        for file, place, reason in raw.left_out:
            missing.write(json.dumps([split, f"{file}, {place}", f"left out: {reason}"]) + "\n")
        plan.left_out[split] = plan.left_out.get(split, 0) + len(raw.left_out)
        raw.left_out.clear()

    def present() -> Iterator[Entry]:
        nonlocal absent
        for entry in entries:
            say_left_out()
            counts["records"] += 1
            for key in _COUNTED:
                counts[key] += len(entry.fields.get(key, ()))
            if entry.fields.get("label"):
                classes.add(entry.fields["label"])
            if isinstance(entry.media, Missing):
                absent += 1
                if absent <= _FIRST:
                    plan.first.setdefault(split, []).append(entry.media.expected)
                missing.write(json.dumps([split, entry.id, f"missing: {entry.media.expected}"]))
                missing.write("\n")
            else:
                yield entry
        say_left_out()

    rest = present()
    shards = 0
    while block := list(itertools.islice(rest, shard_records)):
        # Escaped, for names of files may be no UTF-8.
        text = "\n".join(json.dumps(asdict(entry)) for entry in block)
        (work / "plan" / f"{split}-{shards:05d}.jsonl").write_text(text, encoding="utf-8")
        shards += 1
    plan.found[split], plan.missing[split] = dict(counts), absent
    plan.classes = sorted(classes)
    if shards:
        plan.shards[split] = shards


def write_shard(work: str, split: str, index: int) -> dict:
    """Writes one shard of a plan, unless it is finished; safe to run twice at once.

    Args:
        work: the unfinished folder.
        split: name of the split.
        index: number of the shard in it.

    Returns:
        {'records': written, 'bytes': of them, 'problems': [[split, record id, problem]], 'new':
        whether it was written now}.
    """
    folder, plan = Path(work), load_plan(Path(work))
    done, shard = folder / "done" / f"{split}-{index:05d}.json", _shard(folder, plan, split, index)
    if shard.exists():
        return json.loads(done.read_text(encoding="utf-8")) | {"new": False}
    result = {"records": 0, "bytes": 0, "problems": []}
    raw = Path(plan.settings["raw"])
    unfinished = shard.with_name(f".{shard.name}.{os.uname().nodename}.{os.getpid()}")
    writer = ArrayRecordWriter(str(unfinished), OPTIONS)
    try:
        with (
            (folder / "plan" / f"{split}-{index:05d}.jsonl").open(encoding="utf-8") as file,
            Part(part_path(folder / "done", split, index)) as part,
        ):
            for line in file:
                entry = json.loads(line)
                try:
                    made, facts = _record(raw, entry)
                except MediaError as error:
                    result["problems"].append([split, entry["id"], f"unreadable: {error}"])
                    continue
                stored = records.serialize(made)
                writer.write(stored)
                part.add(records.plain(made), facts)
                result["records"] += 1
                result["bytes"] += len(stored)
    finally:
        writer.close()
    # The shard's own name comes last: it says that all of it is whole.
    _write_whole(done, json.dumps(result))
    unfinished.replace(shard)
    return result | {"new": True}


def _record(raw: Path, entry: dict) -> tuple[dict, media.Facts]:
    """One record, and what is known of its medium; MediaError if that cannot be read."""
    kind, places = entry["kind"], entry["media"]
    data, facts = b"", media.Facts()
    if kind == "images":
        images = [_read(raw, Media(**place), "image") for place in places]
        data = media.pack_images([image for image, _ in images])
        facts = media.together([one for _, one in images])
    elif places:
        data, facts = _read(raw, Media(**places), kind, entry.get("size"))
    fields = entry["fields"]
    if isinstance(places, dict) and places.get("maybe_cut"):
        fields = of_file(fields, facts.duration)
    return records.record(entry["id"], kind, media=data, **fields), facts


def _read(
    raw: Path, place: Media, kind: str, size: tuple[int, int] | None = None
) -> tuple[bytes, media.Facts]:
    """A medium's bytes, such that its boxes fit if an annotation states its `size`.

    Raises:
        MediaError: they are not readable as one of its kind.
    """
    data = read_media(raw, place)
    try:
        data = as_annotated(data, size) if size else data
        return data, media.probe(kind, data)
    except MediaError as error:
        raise MediaError(f"{place.path[:200]}: {error}") from error


def finished(work: Path, plan: Plan) -> int:
    """How many shards of a plan are written."""
    return sum(_shard(work, plan, split, index).exists() for _, split, index in plan.jobs(work))


def finish(work: Path, final: Path, name: str, summary: str) -> dict[str, int]:
    """Makes a dataset of TFDS of the finished shards.

    Args:
        work: the unfinished folder, all of whose shards are written.
        final: where it goes.
        name: of the dataset.
        summary: its description.

    Returns:
        Records by split.

    Raises:
        DataError: none of the media could be read.
    """
    plan = load_plan(work)
    for path in work.glob(".*"):
        path.unlink()  # half-written shards of interrupted runs
    lengths: dict[str, list[int]] = {}
    sizes: Counter[str] = Counter()
    unreadable = []
    for _, split, index in plan.jobs(work):
        done = work / "done" / f"{split}-{index:05d}.json"
        result = json.loads(done.read_text(encoding="utf-8"))
        lengths.setdefault(split, []).append(result["records"])
        sizes[split] += result["bytes"]
        unreadable += result["problems"]
    for split in [split for split, counts in lengths.items() if not sum(counts)]:
        for index in range(len(lengths.pop(split))):  # a split without records is none
            _shard(work, plan, split, index).unlink()
    if not lengths:
        shutil.rmtree(work)
        raise DataError(f"none of the media could be read, the first: {unreadable[0][2]}")
    with (
        (work / "plan" / "missing.jsonl").open(encoding="utf-8") as missing,
        (work / PROBLEMS).open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        file.write("split\trecord\tproblem\n")
        for row in itertools.chain(map(json.loads, missing), unreadable):
            file.write("\t".join(" ".join(str(cell).split()) for cell in row) + "\n")
    if plan.classes:
        (work / CLASSES).write_text("".join(f"{name}\n" for name in plan.classes), "utf-8")
    write_metadata(work, name, summary, VERSION, plan.settings, lengths, sizes)
    join_parts(work, work / "done", work, lengths)
    work.rename(final)
    remove_plan(final)
    return {split: sum(counts) for split, counts in lengths.items()}


def remove_plan(final: Path) -> None:
    """Removes from a finished dataset what only its writing needed, if it is still there."""
    shutil.rmtree(final / "plan", ignore_errors=True)
    shutil.rmtree(final / "done", ignore_errors=True)
    (final / _PLAN).unlink(missing_ok=True)


def write_metadata(
    folder: Path, name: str, summary: str, version: str, settings: dict[str, int | str],
    lengths: dict[str, list[int]], sizes: dict[str, int],
) -> None:  # fmt: skip
    """Makes a dataset of TFDS of shards.

    Args:
        folder: of the shards.
        name: of the dataset.
        summary: its description.
        version: of the dataset.
        settings: everything that the records depend on.
        lengths: records of each shard, by split.
        sizes: bytes of a split's records.
    """
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, filetype_suffix="array_record"
    )
    splits = [
        tfds.core.SplitInfo(split, counts, sizes[split], template.replace(split=split))
        for split, counts in lengths.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=records.features(),
        split_infos=splits,
        version=version,
        filename_template=template,
        check_data=False,  # would need TensorFlow
        description=summary,
        disable_shuffling=True,  # the pipeline shuffles; on disk records keep their order
        metadata=tfds.core.MetadataDict(settings),
    )


def compare(found: dict[str, int], published: dict[str, int], split: str) -> list[str]:
    """How the numbers of a split differ from the published ones: a line each, [] if in none."""
    return [
        f"{split} has {found.get(key, 0):,} {key}, published are {count:,} "
        f"({found.get(key, 0) - count:+,})"
        for key, count in published.items()
        if found.get(key, 0) != count
    ]


def _shard(folder: Path, plan: Plan, split: str, index: int) -> Path:
    return shard_path(folder, plan.settings["dataset"], split, index, plan.shards[split])


def shard_path(folder: Path, name: str, split: str, index: int, count: int) -> Path:
    """A shard's file, by the number of it and of all of its split."""
    return folder / f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def _write_whole(path: Path, text: str) -> None:
    """Writes a file so that it is never seen half written."""
    unfinished = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
