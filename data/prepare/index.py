"""The indexes of a dataset (`data.written.schema`): of parts written with the shards, or of these.

    python -m data.prepare index DIR

writes those that a folder lacks, or that are of other shards: of one prepared before there were
any, or by TFDS. Each record is read once. They lie beside the shards; where nothing can be written
there, in the user's cache.
"""

import errno
import hashlib
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from data import media
from data.prepare import workers
from data.written import Part, Written, folders
from data.written.writing import join, remove_unfinished
from mplug2_jax.contracts.errors import DataError, MediaError, RecordError
from mplug2_jax.contracts.lock import locked
from mplug2_jax.contracts.machine import MachineError, machine_error, named
from mplug2_jax.contracts.paths import in_bucket


class Job(NamedTuple):
    """The part of one shard.

    Attributes:
        folder: of the dataset.
        split: name of the split.
        shard: its number in it.
        path: of the part.
    """

    folder: str
    split: str
    shard: int
    path: str


def part_path(parts: Path, split: str, shard: int) -> Path:
    """Where the part of a shard is written."""
    return parts / f"{split}-{shard:05d}.arrow"


def facts(kind: str, data: bytes) -> media.Facts:
    """What is known of a medium; nothing, if it cannot be read."""
    try:
        return media.probe(kind, data)
    except MediaError as error:
        if refused := machine_error(error, "a medium"):
            raise refused from error
        return media.Facts()


def scan(job: Job, progress: workers.Progress) -> tuple[Job, int]:
    """Writes the part of a shard from its records; gives how many bytes of media it read."""
    folder, size = Path(job.folder), 0
    builder = tfds.builder_from_directory(str(folder))
    written, lengths = Written(folder, builder, job.split), builder.info.splits[job.split]
    first = sum(lengths.shard_lengths[: job.shard])
    with Part(Path(job.path)) as part:
        for number in range(first, first + lengths.shard_lengths[job.shard]):
            progress.at(number)
            try:
                record = written[number]
            except RecordError:
                part.add(None, media.Facts())
                continue
            part.add(record, facts(record["kind"], record["media"]))
            size += len(record["media"])
    return job, size


def join_parts(folder: Path, parts: Path, out: Path, splits: Iterable[str],
               processes: int = 1) -> None:
    """Writes the indexes of some splits; of a shard without a part its records are read.

    Args:
        folder: of the dataset, with its metadata.
        parts: the folder of the parts.
        out: where the indexes go.
        splits: their names.
        processes: how many read at once.
    """
    info = tfds.builder_from_directory(str(folder)).info
    paths = {split: [part_path(parts, split, shard)
                     for shard in range(len(info.splits[split].shard_lengths))]
             for split in splits}  # fmt: skip
    jobs = [Job(str(folder), split, shard, str(path)) for split, found in paths.items()
            for shard, path in enumerate(found) if not path.exists()]
    _scan_all(jobs, processes)
    for split, found in paths.items():
        join(found, split, folders.shards(folder, info.splits[split]),
             folders.index_path(out, split))


def _scan_all(jobs: list[Job], processes: int) -> None:
    start, size = time.monotonic(), 0
    for number, (job, read) in enumerate(workers.run(scan, jobs, processes, _describe), 1):
        size += read
        print(f"{number:,} of {len(jobs):,} shards read, last of {job.split}: "
              f"{size / 1e6:,.1f} MB, {size / 1e6 / (time.monotonic() - start):,.1f} MB/s",
              flush=True)


def _describe(job: Job, number: int) -> str:
    at = f"at record {number}" if number >= 0 else "about to read"
    return f"{at} of split {job.split!r}, shard {job.shard} of {job.folder}"


def write_missing(folder: Path, processes: int = 1) -> dict[str, int]:
    """Writes the indexes that a dataset lacks; interrupted, it goes on with the next shard.

    Args:
        folder: of the dataset.
        processes: how many read at once.

    Returns:
        Records of each split whose index was written.

    Raises:
        DataError: there is no dataset, it cannot be read, or another process writes its indexes.
        MachineError: the machine refuses something.
    """
    if in_bucket(folder):
        raise DataError(f"{folder}: indexes are written beside shards on a disk; data.prepare "
                        "writes those of a bucket with them")
    with named(folder):
        return _write_missing(folder, processes)


def _write_missing(folder: Path, processes: int) -> dict[str, int]:
    builder = tfds.builder_from_directory(str(folder))
    wanted = [split for split in sorted(builder.info.splits)
              if not _is_there(folder, builder, split)]
    if not wanted:
        return {}
    named = [(split, *shard) for split in wanted
             for shard in folders.shards(folder, builder.info.splits[split])]
    # Named after the shards: parts of others are none.
    name = f"index.incomplete.{hashlib.sha256(repr(named).encode()).hexdigest()[:8]}"
    out = _writable(folder, name)
    with locked(out, "index"):
        for other in out.glob("index.incomplete.*"):
            if other.name != name:
                shutil.rmtree(other, ignore_errors=True)
        (out / name).mkdir(exist_ok=True)
        join_parts(folder, out / name, out, wanted, processes)
        shutil.rmtree(out / name, ignore_errors=True)
        remove_unfinished(out)
    return {split: builder.info.splits[split].num_examples for split in wanted}


def _is_there(folder: Path, builder: tfds.core.DatasetBuilder, split: str) -> bool:
    try:
        return Written(folder, builder, split).index is not None
    except MachineError:
        raise
    except DataError as error:
        print(f"{error}", flush=True)
        return False


def _writable(folder: Path, name: str) -> Path:
    """Where indexes can be written, with a folder of that name in it: beside the shards if so."""
    try:
        (folder / name).mkdir(exist_ok=True)
        return folder
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return folders.cache(folder)
