"""Writes a dataset of records that are made once, whole or not at all."""

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from data import records
from data.prepare import finish, index, shards
from data.prepare.plan import differing, shard_path
from data.written import Part
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.lock import locked
from mplug2_jax.contracts.machine import named

# Records of a split, made when they are written.
Splits = dict[str, Callable[[], Iterable[dict]]]


class RecordBuilder:
    """A dataset of records: one derives from it to give its name, version and docstring."""

    name: str
    VERSION: tfds.core.Version


def write(
    builder_class: type[RecordBuilder], out: Path, splits: Splits, settings: dict[str, int | str]
) -> bool:
    """Writes a dataset to `out/name/version`, a file a split, unless it is there.

    What an interrupted run left is removed first.

    Args:
        builder_class: its name, version and description.
        out: the folder; made if it is missing.
        splits: {split: function that gives its records, in the order they are stored in}.
        settings: everything that the records depend on, kept beside them.

    Returns:
        Whether anything was written, but for an index that was not there.

    Raises:
        DataError: the dataset is there, made with other settings, or another process writes it.
        MachineError: the machine refuses something.
    """
    name, version = builder_class.name, str(builder_class.VERSION)
    final = Path(out).absolute() / name / version
    if not final.exists():
        with locked(final.parent, version), named(final):
            if not final.exists():  # another one has just made it
                _write(builder_class, final, splits, settings)
                return True
    written = tfds.builder_from_directory(str(final))
    check_same(out, name, dict(written.info.metadata or {}), settings)
    index.write_missing(final)
    return False


def _write(builder_class: type[RecordBuilder], final: Path, splits: Splits,
           settings: dict[str, int | str]) -> None:
    """Writes a dataset that is not there."""
    name, version = builder_class.name, final.name
    for path in final.parent.glob("*incomplete*"):
        logging.warning("removing %s, which an interrupted run left", path)
        shutil.rmtree(path)
    work = final.with_name(f"{version}.incomplete")
    work.mkdir(parents=True)
    try:
        sizes = {split: _write_split(work, name, split, make()) for split, make in splits.items()}
        finish.write_metadata(
            work, name, builder_class.__doc__, version, settings,
            {split: [count] for split, (count, _) in sizes.items()},
            {split: size for split, (_, size) in sizes.items()},
        )  # fmt: skip
        index.join_parts(work, work, work, sizes)
        for split in sizes:
            index.part_path(work, split, 0).unlink()
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    work.rename(final)


def _write_split(work: Path, name: str, split: str, made: Iterable[dict]) -> tuple[int, int]:
    """Writes the shard of a split and its part of the index; gives records and their bytes."""
    count = size = 0
    writer = ArrayRecordWriter(str(shard_path(work, name, split, 0, 1)), shards.OPTIONS)
    try:
        with Part(index.part_path(work, split, 0)) as part:
            for one in made:
                stored, said = records.serialize(one), records.plain(one)
                writer.write(stored)
                part.add(said, index.facts(said["kind"], said["media"]))
                count, size = count + 1, size + len(stored)
    finally:
        writer.close()
    return count, size


def check_same(out: Path, name: str, written: dict, wanted: dict) -> None:
    """Raises DataError if what a dataset was written with is not what is wanted now."""
    for key, had, value in differing(written, wanted):
        raise DataError(f"{out} holds {name} with {key}={had}, not {value}: choose another --out, "
                        "or delete it")
