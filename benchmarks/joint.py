"""Pretraining on images and videos together against each alone, over seeds: one table.

    python -m benchmarks.joint          (make joint)

Needs nothing but the two corpora, which it prepares. Trains and evaluates every arm of
`configs/demo_joint.py` with every seed, by the commands that a user would give, and writes
`benchmarks/joint.json`: for each arm and figure the held-out values by seed, their mean and their
spread (standard deviation of a sample), and how far `joint` is from the arm, seed by seed; with
seconds, device and commands. Nothing is chosen: what an arm's last step gives counts.
Interrupted, the same command goes on where it stopped; a run that is done is not run again.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from benchmarks.demo_tasks import run, write
from configs import demo, demo_joint, demo_tasks

OUT = Path("benchmarks/joint.json")
RUNS = Path("runs/joint")
SEEDS = (0, 1, 2)
# By figure of `report.json`, the one that a model without eyes reaches: each type's, or each
# class', most frequent answer.
FIGURES = {f"{kind}_accuracy": f"{kind}_majority"
           for kind in ("image_digit_zero_shot_class", "image_qa", "video_digit_zero_shot_class",
                        "video_motion_zero_shot_class", "video_qa")}
# Those of questions that image and video have alike.
FIGURES |= {f"{kind}_qa_{asked}_accuracy": None
            for kind in ("image", "video") for asked in ("digit", "colour")}


def commands(arm: str, seed: int) -> list[list[str]]:
    """What trains and evaluates an arm."""
    workdir = RUNS / f"{arm}_{seed}"
    return [["train.py", f"--config=configs/demo_joint.py:{arm}", f"--config.seed={seed}",
             f"--workdir={workdir}"], ["eval.py", f"--checkpoint={workdir}"]]


def measure(arm: str, seed: int) -> dict[str, Any]:
    """Trains and evaluates an arm with a seed; what the table takes of it."""
    spent = [run(command) for command in commands(arm, seed)]
    report = json.loads((RUNS / f"{arm}_{seed}" / "report.json").read_text())
    if report["seed"] != seed:
        raise ValueError(f"{RUNS}/{arm}_{seed}: a run of seed {report['seed']}, not {seed}: remove "
                         "it")
    return {"figures": {name: report[name] for name in FIGURES},
            "majorities": {name: round(report[other], 4)
                           for name, other in FIGURES.items() if other},
            "steps": report["step"], "device": report["run"]["device"],
            "batches": {name: stream["batch_size"]
                        for name, stream in report["config"]["data"]["streams"].items()},
            "seconds": {"training": round(spent[0], 1), "evaluation": round(spent[1], 1)}}


def spread(values: list[float]) -> dict[str, Any]:
    """`{values, mean, spread}`; the spread of one value is None."""
    return {"values": [round(value, 4) for value in values],
            "mean": round(statistics.mean(values), 4),
            "spread": round(statistics.stdev(values), 4) if len(values) > 1 else None}


def table(done: dict[str, dict[str, Any]], arms: list[str], seeds: list[int]) -> dict[str, Any]:
    """The table of runs that are done, `{"<arm>_<seed>": of measure}`."""
    entries = {}
    for arm in arms:
        runs = [done[f"{arm}_{seed}"] for seed in seeds]
        entry = {key: runs[0][key] for key in ("steps", "batches", "device")}
        for key, value in entry.items():
            if any(other[key] != value for other in runs):
                raise ValueError(f"{arm}: {key} of the seeds differ: remove {RUNS} and start again")
        entry["seconds"] = [round(sum(one["seconds"].values()), 1) for one in runs]
        entry["figures"] = {}
        for name in FIGURES:
            values = [one["figures"][name] for one in runs]
            row = entry["figures"][name] = spread(values)
            if "joint" in arms and arm != "joint":
                together = [done[f"joint_{seed}"]["figures"][name] for seed in seeds]
                row["joint_minus_this"] = spread(
                    [a - b for a, b in zip(together, values, strict=True)])
        entry["commands"] = ["python " + " ".join(part) for part in commands(arm, seeds[0])]
        entries[arm] = entry
    first = done[f"{arms[0]}_{seeds[0]}"]
    return {"command": "make joint", "seeds": seeds, "majority": first["majorities"],
            "seconds": round(sum(sum(entry["seconds"]) for entry in entries.values()), 1),
            "arms": entries}


def lines(made: dict[str, Any]) -> list[str]:
    """The table as text: figures down, arms across, mean and spread over the seeds."""
    arms = made["arms"]
    result = [" ".join([f"{'':38}", *(f"{arm:>15}" for arm in arms), f"{'majority':>9}"])]
    for name in FIGURES:
        row = [f"{name:38}"]
        for entry in arms.values():
            figure = entry["figures"][name]
            spread = "" if figure["spread"] is None else f" ± {figure['spread']:.3f}"
            row.append(f"{figure['mean']:.3f}{spread}".rjust(15))
        majority = made["majority"].get(name)
        result.append(" ".join(row + ["" if majority is None else f"{majority:9.3f}"]).rstrip())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=demo_joint.ARMS, default=list(demo_joint.ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    # Evaluations of all arms are the same program.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(".cache/jax").absolute()))
    run(["-m", "data.prepare", "moving_digits", f"--out={demo.DATA}"])
    run(["-m", "data.prepare", "moving_digits_tasks", f"--out={demo_tasks.LABELLED}"])
    kept = RUNS / "done.json"  # until all are done, so that the table is of whole arms
    done = json.loads(kept.read_text()) if kept.is_file() else {}
    RUNS.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for arm in options.arms:
            if f"{arm}_{seed}" in done:
                print(f"{arm}, seed {seed}: done", flush=True)
                continue
            done[f"{arm}_{seed}"] = measure(arm, seed)
            write(kept, done)
    made = table(done, options.arms, options.seeds)
    write(options.out, made)
    print("\n".join(lines(made)))


if __name__ == "__main__":
    main()
