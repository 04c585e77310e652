"""A public dataset from its raw files to records on disk, by this machine's processes or Beam's."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import tensorflow_datasets as tfds

from data.datasets import Dataset, RawFolder
from data.prepare import beam, builder, index, shards


def prepare(
    dataset: Dataset,
    raw: str | os.PathLike,
    out: str | os.PathLike,
    processes: int = 1,
    shard_records: int = 0,
    beam_runner: str = "",
    beam_options: Iterable[str] = (),
) -> dict[str, int]:
    """Writes a dataset to `out/name/version`, and prints what was found, missing and unreadable.

    Args:
        dataset: what to read.
        raw: folder of its raw files.
        out: folder to write to; made if it is missing.
        processes: how many write shards at once; 1 writes them here.
        shard_records: records in a shard, 0 for `shards.SHARD_RECORDS`.
        beam_runner: name of a Beam runner that writes the shards instead.
        beam_options: the runner's own options.

    Returns:
        Records by split.

    Raises:
        DataError: the raw files cannot be used, or the folder holds the dataset made otherwise.
    """
    shard_records = shard_records or shards.SHARD_RECORDS[dataset.kind]
    work, final = shards.folders(out, dataset.name)
    if final.exists():
        shards.remove_plan(final)
        info = tfds.builder_from_directory(str(final)).info
        wanted = {"raw": os.path.abspath(raw), "shard_records": shard_records, **dataset.settings}
        builder.check_same(final.parent.parent, dataset.name, dict(info.metadata or {}), wanted)
        print(f"{final} is there already")
        for split in index.write_missing(final, processes):
            print(f"{split}: wrote the index that it lacked")
        return {name: split.num_examples for name, split in info.splits.items()}
    print(f"reading the annotation of {dataset.name} in {raw}", flush=True)
    plan = shards.make_plan(dataset, RawFolder(raw), work, shard_records)
    _say_found(plan, dataset.published)
    jobs = plan.jobs(work)
    print(f"{shards.finished(work, plan):,} of {len(jobs):,} shards are written", flush=True)
    if beam_runner:
        beam.run(jobs, beam_runner, list(beam_options))
    else:
        _write_here(jobs, processes)
    sizes = shards.finish(work, final, dataset.name, dataset.summary)
    _say_lost(plan, sizes, final / shards.PROBLEMS)
    return sizes


def _say_found(plan: shards.Plan, published: dict[str, dict[str, int]]) -> None:
    """Prints what is in the annotation, and where that is not what was published."""
    for split, found in plan.found.items():
        counts = ", ".join(f"{count:,} {key}" for key, count in found.items() if count)
        first = "; ".join(plan.first.get(split, ()))
        print(f"{split}: found {counts}, media of {plan.missing[split]:,} missing"
              + f", the first: {first}" * bool(first), flush=True)
        for line in shards.compare(found, published.get(split, {}), split):
            _warn(line)
        if number := plan.left_out.get(split, 0):
            _warn(f"{split}: {number:,} items of the annotation cannot be used and are left out, "
                  f"listed in {shards.PROBLEMS}")
    for split in published.keys() - plan.found.keys():
        _warn(f"no annotation of split {split}")


def _say_lost(plan: shards.Plan, sizes: dict[str, int], problems: Path) -> None:
    """Prints how many records of each split were left out, and why."""
    for split, found in plan.found.items():
        lost = found["records"] - sizes.get(split, 0)
        if lost:
            unreadable = lost - plan.missing[split]
            _warn(
                f"{split} holds {sizes.get(split, 0):,} of {found['records']:,} records: "
                f"{plan.missing[split]:,} missing, {unreadable:,} unreadable, listed in {problems}"
            )


def _write_here(jobs: list[tuple[str, str, int]], processes: int) -> None:
    """Writes the shards, in this process or several, and prints how far it is."""
    start, records, size = time.monotonic(), 0, 0
    pool = None
    if processes > 1 and len(jobs) > 1:
        # Spawned, not forked: the caller may have threads or a device open.
        pool = multiprocessing.get_context("spawn").Pool(processes)
    try:
        results = (pool.imap_unordered if pool else map)(_write_shard, jobs)
        for number, (split, result) in enumerate(results, 1):
            if not result["new"]:
                continue
            records, size = records + result["records"], size + result["bytes"]
            seconds = time.monotonic() - start
            print(
                f"{number:,} of {len(jobs):,} shards, last of {split}: {records:,} records, "
                f"{size / 1e6:,.1f} MB, {records / seconds:,.1f} records/s",
                flush=True,
            )
    finally:
        if pool:
            pool.terminate()


def _write_shard(job: tuple[str, str, int]) -> tuple[str, dict]:
    return job[1], shards.write_shard(*job)


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)
