"""Pretraining on images and videos together against each alone, over seeds: one table.

    python -m benchmarks.joint          (make joint)

Needs nothing but the two corpora, which it prepares. Trains and evaluates every arm of
`configs/demo_joint.py` with every seed, by the commands that a user would give, and writes
`benchmarks/joint.json`: for each arm and figure the held-out values by seed, their mean and their
spread (standard deviation of a sample), and how far `joint` is from the arm, seed by seed; with
seconds, device and commands. Nothing is chosen: what an arm's last step gives counts.
Interrupted, the same command goes on where it stopped; a run that is done is not run again.
"""

from pathlib import Path
from typing import Any

from benchmarks import arms
from benchmarks.demo_tasks import run, write
from configs import demo, demo_joint, demo_tasks

OUT = Path("benchmarks/joint.json")
RUNS = Path("runs/joint")
SEEDS = arms.SEEDS
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
    training, evaluation = (run(command) for command in commands(arm, seed))
    return arms.facts(arms.report(RUNS / f"{arm}_{seed}", seed), FIGURES) | {
        "seconds": {"training": round(training, 1), "evaluation": round(evaluation, 1)}}


def main() -> None:
    options = arms.parse(__doc__, demo_joint.ARMS, OUT)
    run(["-m", "data.prepare", "moving_digits", f"--out={demo.DATA}"])
    run(["-m", "data.prepare", "moving_digits_tasks", f"--out={demo_tasks.LABELLED}"])
    done = arms.collect(RUNS, options.arms, options.seeds,
                        lambda arm, seed: measure(arm, seed))
    made = arms.table(done, options.arms, options.seeds, "make joint", commands, "joint")
    write(options.out, made)
    print("\n".join(arms.lines(made)))


if __name__ == "__main__":
    main()
