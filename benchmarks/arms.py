"""What comparisons of several trainings over seeds share: runs that go on, and their table.

An arm is a way to train; every arm is trained and evaluated with every seed, by the commands that a
user would give. Nothing is chosen: what the commands give counts.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.demo_tasks import write

SEEDS = (0, 1, 2)
Figures = dict[str, str | None]  # by figure what a model without eyes reaches, if there is such one


def parse(doc: str, arms: Iterable[str], out: Path) -> argparse.Namespace:
    """`arms`, `seeds` and `out` of the command line."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=list(arms), default=list(arms))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=out)
    return parser.parse_args()


def collect(folder: Path, arms: list[str], seeds: list[int],
            measure: Callable[[str, int], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`measure(arm, seed)` of all, `{"<arm>_<seed>": ...}`; one that is done is not run again.

    They are kept in the folder until all are done, so that a table is of whole arms.
    """
    # Evaluations of all arms are the same program.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(".cache/jax").absolute()))
    kept = folder / "done.json"
    done = json.loads(kept.read_text()) if kept.is_file() else {}
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for arm in arms:
            if f"{arm}_{seed}" in done:
                print(f"{arm}, seed {seed}: done", flush=True)
                continue
            done[f"{arm}_{seed}"] = measure(arm, seed)
            write(kept, done)
    return done


def report(folder: Path, seed: int) -> dict[str, Any]:
    """An evaluation's `report.json`; ValueError where it is of another seed's run."""
    found = json.loads((folder / "report.json").read_text())
    if found["seed"] != seed:
        raise ValueError(f"{folder}: a run of seed {found['seed']}, not {seed}: remove it")
    return found


def facts(report: dict[str, Any], figures: Figures) -> dict[str, Any]:
    """What a table takes of a report, beside the seconds."""
    return {"figures": {name: report[name] for name in figures},
            "majorities": {name: round(report[other], 4)
                           for name, other in figures.items() if other},
            "steps": report["step"], "device": report["run"]["device"],
            "batches": {name: stream["batch_size"]
                        for name, stream in report["config"]["data"]["streams"].items()}}


def spread(values: list[float]) -> dict[str, Any]:
    """`{values, mean, spread}`; the spread (standard deviation) of one value is None."""
    return {"values": [round(value, 4) for value in values],
            "mean": round(statistics.mean(values), 4),
            "spread": round(statistics.stdev(values), 4) if len(values) > 1 else None}


def table(done: dict[str, dict[str, Any]], arms: list[str], seeds: list[int], command: str,
          commands: Callable[[str, int], list[list[str]]], against: str) -> dict[str, Any]:
    """The table of runs that are done.

    Args:
      done: of `collect`; each run has what `facts` gives, and `seconds` by what took them.
      arms, seeds: those of the table.
      command: that makes it.
      commands: of an arm and a seed.
      against: the arm that others are compared with, seed by seed: `<against>_minus_this`.

    Raises:
      ValueError: runs of an arm differ in more than the seed.
    """
    entries = {}
    for arm in arms:
        runs = [done[f"{arm}_{seed}"] for seed in seeds]
        entry = {key: runs[0][key] for key in ("steps", "batches", "device")}
        for key, value in entry.items():
            if any(other[key] != value for other in runs):
                raise ValueError(f"{arm}: {key} of the seeds differ: remove the runs and start "
                                 "again")
        entry["seconds"] = [round(sum(one["seconds"].values()), 1) for one in runs]
        entry["figures"] = {}
        for name in runs[0]["figures"]:
            values = [one["figures"][name] for one in runs]
            row = entry["figures"][name] = spread(values)
            if against in arms and arm != against:
                others = [done[f"{against}_{seed}"]["figures"][name] for seed in seeds]
                row[f"{against}_minus_this"] = spread(
                    [a - b for a, b in zip(others, values, strict=True)])
        entry["commands"] = ["python " + " ".join(part) for part in commands(arm, seeds[0])]
        entries[arm] = entry
    first = done[f"{arms[0]}_{seeds[0]}"]
    return {"command": command, "seeds": seeds, "majority": first["majorities"],
            "seconds": round(sum(sum(entry["seconds"]) for entry in entries.values()), 1),
            "arms": entries}


def lines(made: dict[str, Any]) -> list[str]:
    """The table as text: figures down, arms across, mean and spread over the seeds."""
    arms = made["arms"]
    result = [" ".join([f"{'':38}", *(f"{arm:>15}" for arm in arms), f"{'majority':>9}"])]
    for name in next(iter(arms.values()))["figures"]:
        row = [f"{name:38}"]
        for entry in arms.values():
            figure = entry["figures"][name]
            spread = "" if figure["spread"] is None else f" ± {figure['spread']:.3f}"
            row.append(f"{figure['mean']:.3f}{spread}".rjust(15))
        majority = made["majority"].get(name)
        result.append(" ".join(row + ["" if majority is None else f"{majority:9.3f}"]).rstrip())
    return result
