"""Raw files to ArrayRecord, a shard at a time, so that an interruption costs at most a shard.

TFDS's own writer keeps a whole split in a temporary file and cuts it into shards at the end, so it
cannot go on where it stopped. Here a plan is made first: which records go into which shard, and
where their media are. Then each shard is written by a function of the plan alone, on this machine
or any other that sees the same folders; a shard that exists under its final name is finished. In
the end TFDS's metadata make it a dataset of TFDS like any other.

    <out>/<name>/<version>.incomplete/
        plan.json                    counts, and what the plan was made of; written last
        plan/<split>-00000.jsonl     the records of one shard
        plan/missing.jsonl           the records that cannot be written, as is known without media
        done/<split>-00000.json      records, bytes and problems of one finished shard
        done/<split>-00000.arrow     its part of the index
        <name>-<split>.array_record-00000-of-00012
    <out>/<name>/<version>/          the same shards with the metadata, renamed at the end
        problems.tsv                 all that is left out, and why (`problems`)
        classes.txt                  the classes, in the order of the alphabet, if there are any
        <split>.index.arrow          what is said of the records, without media (`data.written`)
"""

import itertools
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordWriter

from data import media, records, stores
from data.datasets import Media
from data.datasets.own import elsewhere, read_media
from data.datasets.raw import of_file
from data.prepare.index import part_path
from data.prepare.plan import IN_PLACE, MISSING, Plan, load_plan, shard_path, sync
from data.prepare.problems import Problem, loads
from data.prepare.workers import Progress
from data.written import Part
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.contracts.machine import OF_A_FILE, MachineError, machine_error, named, refusal, say
from mplug2_jax.preprocess.pictures import as_annotated

# One record a group for reading at random; media are compressed as they are.
OPTIONS = "group_size:1,uncompressed"
MEDIA_BYTES = 2**30  # of a record, at most; a process holds them twice, beside 0.2 GiB


def write_shard(work: str, split: str, index: int, progress: Progress | None = None) -> dict:
    """Writes one shard of a plan, unless it is finished; safe to run twice at once.

    Args:
        work: the unfinished folder.
        split: name of the split.
        index: number of the shard in it.
        progress: hears which record it is at, and each `Problem`.

    Returns:
        {'records': written, 'bytes': of them, 'size': of the file, 'problems': [`Problem`], 'new':
        whether it was written now}.

    Raises:
        MachineError: the machine refuses to read or to write.
    """
    folder, plan = Path(work), load_plan(Path(work))
    shard = _shard(folder, plan, split, index)
    if found := done(folder, plan, split, index):
        return found | {"new": False}
    unfinished = shard.with_name(f".{shard.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        with named(unfinished):
            result = _write(folder, plan, split, index, unfinished, progress)
            with unfinished.open("rb") as file:
                sync(file)
            result["size"] = unfinished.stat().st_size
            # The shard's own name comes last: it says that all of it is whole.
            paths.write(_done_path(folder, split, index), json.dumps(result))
            unfinished.replace(shard)
    except BaseException:
        unfinished.unlink(missing_ok=True)  # where the disk is full, it is in the way
        raise
    return result | {"new": True}


def writer() -> Callable[[tuple[str, str, int]], dict]:
    """What writes a shard of a job (`Plan.jobs`), for a process elsewhere."""
    return _write_job


def _write_job(job: tuple[str, str, int]) -> dict:
    return write_shard(*job)


def _write(folder: Path, plan: Plan, split: str, index: int, path: Path,
           progress: Progress | None) -> dict:
    """Writes the records of a shard and its part of the index."""
    result = {"records": 0, "bytes": 0, "problems": []}
    raw, in_place = str(plan.settings["raw"]), IN_PLACE in plan.settings
    writer = ArrayRecordWriter(str(path), OPTIONS)
    try:
        with (
            (folder / "plan" / f"{split}-{index:05d}.jsonl").open(encoding="utf-8") as file,
            Part(part_path(folder / "done", split, index)) as part,
        ):
            for number, line in enumerate(file):
                if progress:
                    progress.at(number)
                try:
                    size = _add(raw, json.loads(line), writer, part, in_place)
                except _LeftOut as left_out:
                    problem = Problem(split, *left_out.args).cut()
                    result["problems"].append(problem)
                    if progress:
                        progress.say(problem)
                    continue
                result["records"] += 1
                result["bytes"] += size
                if not writer.ok():  # closing it says why
                    break
    finally:
        writer.close()
    return result


class _LeftOut(Exception):
    """A record that is left out: its id, the reason, the file."""


def _add(raw: str, entry: dict, writer: ArrayRecordWriter, part: Part, in_place: bool) -> int:
    """Adds a record, and gives its bytes; `_LeftOut` where it cannot be made, whatever it is."""
    name, file = entry["id"], ""
    try:
        if entry["media"] and not isinstance(entry["media"], list):
            file = entry["media"]["path"]
        made, facts, place = _record(raw, entry)
        stored = records.serialize(made, place if in_place else None)
        said = records.plain(made)
        part.add(said, facts)
    except MachineError:
        raise
    except _Refused as error:
        raise _LeftOut(name, f"refused: {error}", file) from error
    except _Large as error:
        raise _LeftOut(name, f"large: {error}", file) from error
    except MediaError as error:
        raise _LeftOut(name, f"unreadable: {error}", file) from error
    except Exception as error:
        if refused := machine_error(error, f"record {name!r}"):
            raise refused from error
        raise _LeftOut(name, f"odd: {type(error).__name__}: {error}", file) from error
    del made, said  # a medium of a gigabyte is held once less
    writer.write(stored)
    return len(stored)


class _Refused(MediaError):
    """A file that the machine does not give."""


class _Large(MediaError):
    """Media that are more than a record may have."""


def _record(raw: str, entry: dict) -> tuple[dict, media.Facts, records.Place | None]:
    """One record, what is known of its medium, and where that lies as it is, if it does.

    Raises:
        MediaError: the medium cannot be read.
    """
    kind, places = entry["kind"], entry["media"]
    data, facts, found = b"", media.Facts(), None
    if kind == "images":
        images, room = [], MEDIA_BYTES
        for place in places:
            images.append(_read(raw, Media(**place), "image", room)[:2])
            room -= len(images[-1][0])
        data = media.pack_images([image for image, _ in images])
        facts = media.together([one for _, one in images])
    elif places:
        data, facts, found = _read(raw, Media(**places), kind, size=entry.get("size"))
    fields = entry["fields"]
    if isinstance(places, dict) and places.get("maybe_cut"):
        fields = of_file(fields, facts.duration)
    return records.record(entry["id"], kind, media=data, **fields), facts, found


def _read(raw: str, place: Media, kind: str, room: int = MEDIA_BYTES,
          size: tuple[int, int] | None = None) -> tuple[bytes, media.Facts, records.Place | None]:
    """A medium's bytes, such that its boxes fit if an annotation states its `size`.

    And where these bytes lie, if it is in a file.

    Raises:
        MediaError: they are not readable as one of its kind.
    """
    try:
        if elsewhere(place.path):
            data = read_media(Path(raw), place)
        else:
            with stores.local(stores.within(raw, place.path)) as path:
                data = _read_file(path, place, room)
    except OSError as error:
        number = refusal(error)
        if number and number not in OF_A_FILE:
            raise
        said = say(number) if number else error.strerror or error
        raise (_Refused if number else MediaError)(f"{place.path}: {said}") from error
    if len(data) < place.size:
        raise MediaError(f"{place.path} ends {place.size - len(data)} bytes too early")
    if len(data) > room:
        raise _Large(f"{place.path[:200]} has {len(data):,} bytes: a record may have "
                     f"{MEDIA_BYTES:,}")
    try:
        turned = as_annotated(data, size) if size else data
        return turned, media.probe(kind, turned), _lies(place, data) if turned == data else None
    except MediaError as error:
        if refused := machine_error(error, place.path):
            raise refused from error
        raise MediaError(f"{place.path[:200]}: {error}") from error


def _lies(place: Media, data: bytes) -> records.Place | None:
    """Where a medium lies; None of one that is in a table, or on the web."""
    if elsewhere(place.path) and stores.protocol(place.path) not in stores.STORES:
        return None
    return records.Place(place.path, place.offset, len(data), zlib.crc32(data))


def _read_file(path: Path, place: Media, room: int) -> bytes:
    """The bytes of a file, or of a part of it. What is no file, a pipe, is not waited for."""
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    state = os.fstat(opened)
    if not stat.S_ISREG(state.st_mode):
        os.close(opened)
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe, a socket or a device"
        raise MediaError(f"{place.path} is {kind}, not a file")
    with open(opened, "rb") as file:
        size = place.size if place.size >= 0 else state.st_size - place.offset
        if size > room:
            raise _Large(f"{place.path} has {size:,} bytes: a record may have {MEDIA_BYTES:,}")
        file.seek(place.offset)
        return file.read(max(size, 0))


def done(work: Path, plan: Plan, split: str, index: int) -> dict | None:
    """What `write_shard` gave of a finished shard; None where it is not, or was lost in a crash."""
    try:
        found = json.loads(_done_path(work, split, index).read_text(encoding="utf-8"))
        whole = _shard(work, plan, split, index).stat().st_size == found.get("size")
    except (FileNotFoundError, ValueError):
        return None
    return found | {"problems": [Problem(*one) for one in found["problems"]]} if whole else None


def finished(work: Path, plan: Plan) -> int:
    """How many shards of a plan are written."""
    return sum(done(work, plan, split, index) is not None for _, split, index in plan.jobs(work))


def problems(work: Path, plan: Plan) -> Iterator[Problem]:
    """All that are known, in the order of the records: of the annotation, then of its media."""
    with (work / "plan" / MISSING).open(encoding="utf-8") as file:
        yield from map(loads, file)
    for _, split, index in plan.jobs(work):
        yield from (done(work, plan, split, index) or {}).get("problems", ())


def describe(job: tuple[str, str, int], number: int) -> str:
    """What the writing of a shard was at: its record of a number, -1 where it had not begun."""
    work, split, index = job
    where = f"shard {index} of split {split!r}"
    if number < 0:
        return f"about to write {where}"
    with (Path(work) / "plan" / f"{split}-{index:05d}.jsonl").open(encoding="utf-8") as file:
        entry = json.loads(next(itertools.islice(file, number, None), "{}"))
    return f"at record {entry.get('id')!r}, number {number} of {where}"


def remove_unfinished(work: Path) -> None:
    """Removes what killed processes left half written."""
    for path in itertools.chain(work.glob(".*"), (work / "done").glob(".*")):
        path.unlink(missing_ok=True)


def _shard(folder: Path, plan: Plan, split: str, index: int) -> Path:
    return shard_path(folder, plan.settings["dataset"], split, index, plan.shards[split])


def _done_path(work: Path, split: str, index: int) -> Path:
    return work / "done" / f"{split}-{index:05d}.json"
