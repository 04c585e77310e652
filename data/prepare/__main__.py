"""Prepares a dataset once: `python -m data.prepare DATASET --out=DIR`.

The two of moving digits are made from nothing, every other one from the raw files in `--raw=DIR`,
which `docs/data.md` lists. Interrupted, the same command goes on where it stopped.
"""

import argparse
import dataclasses
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable

import tensorflow_datasets as tfds

from data.datasets import DATASETS as RAW
from data.datasets.raw import Dataset, RawFolder
from data.demo import builder as moving_digits_builder
from data.demo import tasks_builder as moving_digits_tasks_builder
from data.prepare import beam, builder, shards
from mplug2_jax.errors import DataError

# Each has `Settings`, a dataclass whose fields become flags, and `prepare(out, settings,
# processes)`.
MADE = {
    "moving_digits": moving_digits_builder,
    "moving_digits_tasks": moving_digits_tasks_builder,
}


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
        wanted = {"raw": os.path.abspath(raw), "shard_records": shard_records}
        builder.check_same(final.parent.parent, dataset.name, dict(info.metadata or {}), wanted)
        print(f"{final} is there already")
        return {name: split.num_examples for name, split in info.splits.items()}
    print(f"reading the annotation of {dataset.name} in {raw}", flush=True)
    plan = shards.make_plan(dataset, RawFolder(raw), work, shard_records)
    for split, found in plan.found.items():
        counts = ", ".join(f"{count:,} {key}" for key, count in found.items() if count)
        print(f"{split}: found {counts}, media of {plan.missing[split]:,} missing", flush=True)
        for line in shards.compare(found, dataset.published.get(split, {}), split):
            _warn(line)
    for split in dataset.published.keys() - plan.found.keys():
        _warn(f"no annotation of split {split}")
    jobs = plan.jobs(work)
    print(f"{shards.finished(work, plan):,} of {len(jobs):,} shards are written", flush=True)
    if beam_runner:
        beam.run(jobs, beam_runner, list(beam_options))
    else:
        _write_here(jobs, processes)
    sizes = shards.finish(work, final, dataset.name, dataset.summary)
    for split, found in plan.found.items():
        lost = found["records"] - sizes.get(split, 0)
        if lost:
            unreadable = lost - plan.missing[split]
            _warn(
                f"{split} holds {sizes.get(split, 0):,} of {found['records']:,} records: "
                f"{plan.missing[split]:,} missing, {unreadable:,} unreadable, "
                f"listed in {final / shards.PROBLEMS}"
            )
    return sizes


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


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="dataset", required=True)
    for name, made in MADE.items():
        command = commands.add_parser(name, help=made.__doc__)
        for field in dataclasses.fields(made.Settings):
            command.add_argument(f"--{field.name}", type=field.type, default=field.default)
    for name, dataset in RAW.items():
        command = commands.add_parser(name, help=dataset.summary)
        command.add_argument("--raw", required=True, help="folder of the raw files")
        command.add_argument("--shard_records", type=int, default=0, help="records in a shard")
        command.add_argument(
            "--beam_runner", default="", help="Apache Beam runner; further options are its own"
        )
    for command in commands.choices.values():
        command.add_argument("--out", required=True, help="folder to write to")
        command.add_argument("--processes", type=int, default=2, help="processes that write")
    known, further = parser.parse_known_args(argv)
    options = vars(known)
    if further and not options.get("beam_runner"):
        parser.error(f"unknown arguments: {' '.join(further)}")
    name, out, start = options.pop("dataset"), options.pop("out"), time.monotonic()
    try:
        if name in MADE:
            processes = options.pop("processes")
            sizes = MADE[name].prepare(out, MADE[name].Settings(**options), processes)
        else:
            sizes = prepare(RAW[name], out=out, beam_options=further, **options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for split, size in sizes.items():
        print(f"{split:20} {size:8,} records")
    print(f"{out} is ready ({time.monotonic() - start:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
