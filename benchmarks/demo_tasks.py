"""Every family of tasks on moving digits, learned from the demo's checkpoint: one table.

    python -m benchmarks.demo_tasks          (make demo-tasks)

Needs `runs/demo` (`make demo`). Prepares the labelled records, fine-tunes and evaluates each family
of `configs/demo_tasks.py` by the commands that a user would give, and writes
`benchmarks/demo_tasks.json`: for each family its held-out figure, the 95 % interval, what chance or
the majority reaches, what it started from where that says something, seconds and commands. Beside
them stands what the checkpoint classifies without training (`configs/demo_zero_shot.py`).
Interrupted, the same command goes on where it stopped; a family that is done is not run again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from configs import demo, demo_tasks, demo_zero_shot

ZERO_SHOT = "zero_shot"  # and k-NN: nothing is trained
FAMILIES = (ZERO_SHOT, *demo_tasks.FAMILIES)
OUT = Path("benchmarks/demo_tasks.json")
# By family the figures that count, and with what a reader compares each: a figure of the same
# report, "chance" of a random order, or None where an untrained model reaches next to nothing.
FIGURES = {
    ZERO_SHOT: {f"{family}_{kind}_class_accuracy": f"{family}_{kind}_class_majority"
                for family in demo_zero_shot.PROMPTS for kind in ("zero_shot", "knn")},
    **{family: {f"{family.partition('_')[0]}_class_accuracy":
                f"{family.partition('_')[0]}_class_majority"}
       for family in ("image_digit", "video_digit", "video_motion", "text_motion", "text_pair")},
    "image_text": {"image_class_accuracy": "image_class_majority"},
    "image_pair": {"images_class_accuracy": "images_class_majority"},
    "grounding": {"image_grounding_accuracy": None},
    "caption": {"image_caption_cider": None},
    "qa": {"image_qa_accuracy": "image_qa_majority"},
    "caption_scst": {"image_caption_cider": None},
    "instructions": {"image_caption_cider": None, "image_qa_accuracy": "image_qa_majority",
                     "image_grounding_accuracy": None},
    "retrieval": {name: "chance" for name in (
        "text_to_video_r1", "dual_text_to_video_r1", "video_to_text_r1", "dual_video_to_text_r1")},
}
# What a family is compared with: the same figures of another one.
STARTS = {"caption_scst": "caption"}


def commands(family: str) -> list[list[str]]:
    """What trains and evaluates a family."""
    workdir = f"{demo.RUN}/{family}"
    if family == ZERO_SHOT:
        return [["eval.py", "--config=configs/demo_zero_shot.py", f"--checkpoint={demo.RUN}",
                 f"--out={workdir}"]]
    return [["train.py", f"--config=configs/demo_tasks.py:{family}", f"--workdir={workdir}"],
            ["eval.py", f"--checkpoint={workdir}"]]


def run(command: list[str]) -> float:
    """Seconds of a command of this Python; raises CalledProcessError where it fails."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True)
    return time.perf_counter() - start


def rows(family: str, report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The table's entries of a family, by figure, of its `report.json`."""
    result = {}
    for name, baseline in FIGURES[family].items():
        row = {"value": report[name], "interval": [report[f"{name}_low"], report[f"{name}_high"]]}
        if baseline == "chance":
            row["chance"] = report["figures"][name]["chance"]
        elif baseline:
            row["majority"] = report[baseline]
        result[name] = row
    return result


def measure(family: str, done: dict[str, Any]) -> dict[str, Any]:
    """Trains and evaluates a family; its entry of the table."""
    workdir = Path(demo.RUN) / family
    spent = sum(run(command) for command in commands(family))
    report = json.loads((workdir / "report.json").read_text())
    figures = rows(family, report)
    if family in STARTS:
        start = done[STARTS[family]]["figures"]
        figures = {name: row | {"start": start[name]["value"]} for name, row in figures.items()}
    return {"figures": figures, "steps": report["step"], "seconds": round(spent, 1),
            "examples": report["gallery"], "device": report["run"]["device"],
            "commands": ["python " + " ".join(command) for command in commands(family)]}


def write(path: Path, table: dict[str, Any]) -> None:
    """The file, replaced in one step."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(part, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=FAMILIES, help="these families")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if not (Path(demo.RUN) / "report.json").is_file():
        sys.exit(f"{demo.RUN} has no report.json: make the demo first (make demo)")
    run(["-m", "data.prepare", "moving_digits_tasks", f"--out={demo_tasks.LABELLED}"])
    # Kept beside the checkpoints until all are done, so that the table is of one run of them all.
    kept = Path(demo.RUN) / "demo_tasks.json"
    done = json.loads(kept.read_text()) if kept.is_file() else {}
    for family in options.only or FAMILIES:
        if family in done:
            print(f"{family}: done")
            continue
        for needed in (STARTS.get(family), family):
            if needed and needed not in done:
                done[needed] = measure(needed, done)
                write(kept, done)
    table = {"command": "make demo-tasks", "seconds": round(sum(
        entry["seconds"] for entry in done.values()), 1), "families": done}
    write(options.out, table)
    for family, entry in done.items():
        for name, row in entry["figures"].items():
            beside = {key: row[key] for key in ("chance", "majority", "start") if key in row}
            print(f"{family:14} {name:36} {row['value']:.3f} {beside or ''} {entry['seconds']} s")


if __name__ == "__main__":
    main()
