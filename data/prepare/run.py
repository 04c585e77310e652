"""A public dataset from its raw files to records on disk, by this machine's processes or Beam's."""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data.datasets import Dataset, RawFolder
from data.datasets.buckets import open_raw
from data.prepare import builder, finish, index, shards, workers
from data.prepare import plan as plans
from data.prepare.problems import PROBLEMS, Listing
from mplug2_jax.contracts.lock import locked
from mplug2_jax.contracts.machine import named
from mplug2_jax.parallel import beam


def prepare(
    dataset: Dataset,
    raw: str | os.PathLike,
    out: str | os.PathLike,
    processes: int = 1,
    shard_records: int = 0,
    beam_runner: str = "",
    beam_options: Iterable[str] = (),
    in_place: bool = False,
) -> dict[str, int]:
    """Writes a dataset to `out/name/version`, and prints what was found, missing and unreadable.

    Args:
        dataset: what to read.
        raw: folder of its raw files; of some datasets also a bucket's address.
        out: folder to write to; made if it is missing.
        processes: how many write shards at once; 1 writes them here.
        shard_records: records in a shard, 0 for `plan.SHARD_RECORDS`.
        beam_runner: name of a Beam runner that writes the shards instead.
        beam_options: the runner's own options.
        in_place: leaves the media where they are, and writes where that is.

    Returns:
        Records by split.

    Raises:
        DataError: the raw files cannot be used, the folder holds the dataset made otherwise, or
            another process writes it; or one of those that write here was killed.
        MachineError: the machine refuses something; what is done is kept.
    """
    work, final = plans.folders(out, dataset.name)
    wanted = plans.settings_of(dataset, raw, shard_records, in_place)
    if not final.exists():
        with locked(final.parent, final.name), named(work):
            if not final.exists():  # another one has just made it
                return _make(dataset, open_raw(dataset, raw), work, final, wanted, processes,
                             (beam_runner, list(beam_options)))
    finish.remove_plan(final)
    info = tfds.builder_from_directory(str(final)).info
    builder.check_same(final.parent.parent, dataset.name, dict(info.metadata or {}), wanted)
    print(f"{final} is there already")
    for split in index.write_missing(final, processes):
        print(f"{split}: wrote the index that it lacked")
    return {name: split.num_examples for name, split in info.splits.items()}


def _make(dataset: Dataset, raw: RawFolder, work: Path, final: Path,
          settings: dict[str, str | int], processes: int,
          runner: tuple[str, list[str]]) -> dict[str, int]:
    """Writes a dataset that is not there; goes on where an earlier run stopped."""
    print(f"reading the annotation of {dataset.name} in {raw.place}", flush=True)
    plan = plans.make_plan(dataset, raw, work, settings)
    shards.remove_unfinished(work)
    _say_found(plan, dataset.published)
    jobs = plan.jobs(work)
    print(f"{shards.finished(work, plan):,} of {len(jobs):,} shards are written", flush=True)
    with Listing(work / PROBLEMS, shards.problems(work, plan)) as listing:
        if runner[0]:
            beam.run(shards.writer, jobs, *runner)
        else:
            _write_here(jobs, processes, listing)
    sizes = finish.finish(work, final, dataset.name, dataset.summary)
    _say_lost(plan, sizes, final / PROBLEMS)
    return sizes


def _say_found(plan: plans.Plan, published: dict[str, dict[str, int]]) -> None:
    """Prints what is in the annotation, and where that is not what was published."""
    for split, found in plan.found.items():
        counts = ", ".join(f"{count:,} {key}" for key, count in found.items() if count)
        first = "; ".join(plan.first.get(split, ()))
        print(f"{split}: found {counts}, media of {plan.missing[split]:,} missing"
              + f", the first: {first}" * bool(first), flush=True)
        for line in plans.compare(found, published.get(split, {}), split):
            _warn(line)
        if number := plan.left_out.get(split, 0):
            _warn(f"{split}: {number:,} items of the annotation cannot be used and are left out, "
                  f"listed in {PROBLEMS}")
    for split in published.keys() - plan.found.keys():
        _warn(f"no annotation of split {split}")


def _say_lost(plan: plans.Plan, sizes: dict[str, int], problems: Path) -> None:
    """Prints how many records of each split were left out, and why."""
    for split, found in plan.found.items():
        lost = found["records"] - sizes.get(split, 0)
        if lost:
            unreadable = lost - plan.missing[split]
            _warn(
                f"{split} holds {sizes.get(split, 0):,} of {found['records']:,} records: "
                f"{plan.missing[split]:,} missing, {unreadable:,} unreadable, listed in {problems}"
            )


def _write_here(jobs: list[tuple[str, str, int]], processes: int, listing: Listing) -> None:
    """Writes the shards, in this process or several, and prints how far it is."""
    start, records, size = time.monotonic(), 0, 0

    results = workers.run(_write_shard, jobs, processes, shards.describe, listing.add)
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


def _write_shard(job: tuple[str, str, int], progress: workers.Progress) -> tuple[str, Any]:
    return job[1], shards.write_shard(*job, progress)


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)
