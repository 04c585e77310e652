"""All of it, two trials at a time: what, how often, what was lost.

    PYTHONPATH=.:tests:tests/torture python tests/torture/run.py /tmp/torture [--out=FILE.json]
    ... run.py /tmp/torture --only=kill --only=disks      # those whose names have one of these

Ends with 1 where anything was lost, or where a trial could not be made. The file is written after
each trial, with those that are done. Each trial is a process, which leaves its row in its folder.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import conftest
import determinism
import faults
import local
import machine
import memory
import meshes
import saves
import stops

# What is done; what of its counts, of which the first says how often, must be nothing. The longest
# come first.
TRIALS = {
    "kill -9 over one run": (saves.kills, (
        "half", "older", "lost", "doubled", "differing", "outside")),
    "signals to one of two processes": (stops.signals, ("lost", "differing")),
    "kill -9 with local checkpoints": (local.kills, ("older", "differing")),
    "hosts that stand still": (machine.stopped_hosts, ("unseen", "untold", "lost", "differing")),
    "memory and handles": (memory.flat, ("growing",)),
    "threads and workers": (determinism.bits, ("differing",)),
    "changes of mesh, processes and batch size": (meshes.both, meshes.BAD),
    "full disks (tmpfs)": (machine.full_disks, ("untold", "lost", "half", "differing")),
    "damaged checkpoints": (machine.damages, ("taken", "unnamed", "differing")),
    "losses and gradients that are no numbers": (faults.faults, faults.WRONG),
    "folders that another user may not write": (machine.other_users, (
        "untold", "changed", "differing")),
    "bits of a checkpoint flipped": (saves.flips, ("wrong",)),
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorstore", "grain", "numpy")


ROW = "row.json"
AT_ONCE = 2  # each waits for a process most of the time


def main(place, out=None, only=()):
    """Prints a table; an exit code."""
    print("compilations are kept in", conftest.CACHE, flush=True)
    began, results = time.monotonic(), {}
    versions = {"python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in PACKAGES}
    about = {"date": time.strftime("%Y-%m-%d"), "versions": versions, "cores": os.cpu_count()}
    data = stops.prepare(Path(place) / "data")
    folders = {name: Path(place).absolute() / name.replace(" ", "_") for name in TRIALS
               if not only or any(part in name for part in only)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = {pool.submit(_apart, folder, data, name): name for name, folder in folders.items()}
        for done in as_completed(rows):
            results[rows[done]] = row = done.result()
            print(f"{rows[done]} ({row['seconds']} s): {json.dumps(row)}", flush=True)
            about["seconds"] = round(time.monotonic() - began)
            if out:
                Path(out).write_text(json.dumps(about | {"trials": results}, indent=2) + "\n")
    print("", about["date"] + ", " + ", ".join(map(" ".join, versions.items())), "",
          "| what | how often | lost | seconds |", "| --- | --- | --- | --- |",
          *(f"| {name} | {results[name]['times']} | {results[name]['lost']} | "
            f"{results[name]['seconds']} |" for name in folders),
          f"| all | | | {about['seconds']} |", sep="\n")
    return int(any(found["bad"] for found in results.values()))


def _apart(folder, data, name):
    """The row of a trial that a process of its own makes in a folder, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "data").symlink_to(data.absolute())
    began = time.monotonic()
    with (folder / "said").open("w") as said:
        subprocess.run([sys.executable, __file__, folder, "--trial", name], stdout=said,
                       stderr=said)
    row = folder / ROW
    found = json.loads(row.read_text()) if row.exists() else _failed(f"it ended: see {said.name}")
    return found | {"seconds": round(time.monotonic() - began)}


def trial(folder, name):
    """Leaves a trial's row of the table, with the counts that it was made of; its process ends."""
    made, wrong = TRIALS[name]
    try:
        counts = made(folder)
        first = next(iter(counts))
        row = {"times": f"{counts[first]} {first}",
               "lost": ", ".join(f"{_number(counts[key])} {key}" for key in wrong),
               "bad": any(_number(counts[key]) for key in wrong), "counts": counts}
    except Exception as error:
        traceback.print_exc()
        row = _failed((str(error).strip() or type(error).__name__).splitlines()[-1])
    (folder / ROW).write_text(json.dumps(row))


def _failed(why):
    return {"times": "", "lost": f"FAILED: {why[:200]}", "bad": True, "counts": {}}


def _number(count):
    """Of things counted, or listed."""
    return len(count) if isinstance(count, list) else int(count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", help="a folder for what the trials write")
    parser.add_argument("--out", help="a file for all counts, as JSON")
    parser.add_argument("--trial", help="this alone, in that folder")
    parser.add_argument("--only", action="append", default=[], help="a part of a trial's name")
    given = parser.parse_args()
    if given.trial:
        trial(Path(given.place), given.trial)
    else:
        sys.exit(main(given.place, given.out, given.only))
