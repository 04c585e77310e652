"""The finished shards of a plan, made a dataset of TFDS."""

import shutil
from collections import Counter
from pathlib import Path

import tensorflow_datasets as tfds

from data import records
from data.prepare.index import join_parts
from data.prepare.plan import IN_PLACE, PLAN, VERSION, load_plan, shard_path
from data.prepare.problems import PROBLEMS, write
from data.prepare.shards import done, problems, remove_unfinished
from mplug2_jax.contracts.errors import DataError

CLASSES = "classes.txt"


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
    remove_unfinished(work)
    lengths: dict[str, list[int]] = {}
    sizes: Counter[str] = Counter()
    first = ""
    for _, split, index in plan.jobs(work):
        result = done(work, plan, split, index)
        if result is None:
            raise DataError(f"{work}: shard {index} of split {split!r} is gone: run the same "
                            "command again")
        lengths.setdefault(split, []).append(result["records"])
        sizes[split] += result["bytes"]
        first = first or "".join(one.reason for one in result["problems"][:1])
    if not any(map(sum, lengths.values())):
        shutil.rmtree(work)
        raise DataError(f"none of the media could be read, the first: {first}")
    write(work / PROBLEMS, problems(work, plan))
    for split in [split for split, counts in lengths.items() if not sum(counts)]:
        for index in range(len(lengths.pop(split))):  # a split without records is none
            shard_path(work, name, split, index, plan.shards[split]).unlink()
    if plan.classes:
        (work / CLASSES).write_text("".join(f"{name}\n" for name in plan.classes), "utf-8")
    write_metadata(work, name, summary, VERSION, plan.settings, lengths, sizes,
                   IN_PLACE in plan.settings)
    join_parts(work, work / "done", work, lengths)
    work.rename(final)
    remove_plan(final)
    return {split: sum(counts) for split, counts in lengths.items()}


def remove_plan(final: Path) -> None:
    """Removes from a finished dataset what only its writing needed, if it is still there."""
    shutil.rmtree(final / "plan", ignore_errors=True)
    shutil.rmtree(final / "done", ignore_errors=True)
    (final / PLAN).unlink(missing_ok=True)


def write_metadata(
    folder: Path, name: str, summary: str, version: str, settings: dict[str, int | str],
    lengths: dict[str, list[int]], sizes: dict[str, int], in_place: bool = False,
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
        in_place: whether media lie elsewhere.
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
        features=records.features(in_place),
        split_infos=splits,
        version=version,
        filename_template=template,
        check_data=False,  # would need TensorFlow
        description=summary,
        disable_shuffling=True,  # the pipeline shuffles; on disk records keep their order
        metadata=tfds.core.MetadataDict(settings),
    )
