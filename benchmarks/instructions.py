"""Pretraining with instructions against pretraining without, over seeds: one table.

    python -m benchmarks.instructions          (make instructions)

Needs nothing but the demo's corpus, which it prepares. Trains both arms of `configs/demo.py`, the
start and what goes on from it, with every seed, by the commands that a user would give, and
evaluates the last checkpoint and the best: `benchmarks/instructions.json`. Questions are zero-shot
in the sense that nothing but pretraining is trained; captions and retrieval say what instructions
cost. Both arms see the same batches of pairs in the same steps, and have the same modules from the
start. The best checkpoint is that of the best retrieval on the validation clips, which favours
neither. Interrupted, the same command goes on where it stopped; what is done is not run again.
"""

from pathlib import Path
from typing import Any

from benchmarks import arms
from benchmarks.demo_tasks import run, write
from configs import demo

OUT = Path("benchmarks/instructions.json")
RUNS = Path("runs/instructions")
ARMS = {"instructed": "", "uninstructed": ",uninstructed"}
CHECKPOINTS = ("last", "best")
BEST, EVERY = "text_to_video_r1", 110  # the figure that chooses, and steps of validation
# By figure of `report.json`, what a model without eyes reaches.
FIGURES: arms.Figures = {
    **{f"{kind}_qa_accuracy": f"{kind}_qa_majority" for kind in ("image", "video")},
    **{f"video_qa_{asked}_accuracy": None for asked in ("digit", "colour", "motion", "count")},
    **{f"{kind}_caption_cider": None for kind in ("image", "video")},
    **{f"text_to_{kind}_r1": None for kind in ("image", "video")},
}


def commands(arm: str, seed: int) -> list[list[str]]:
    """What trains an arm's start and the arm, and evaluates its checkpoints."""
    workdir = RUNS / f"{arm}_{seed}"
    common = [f"--config.seed={seed}"]
    return [["train.py", f"--config=configs/demo.py:start{ARMS[arm]}", *common,
             f"--workdir={workdir}/start"],
            ["train.py", f"--config=configs/demo.py:joint{ARMS[arm]}", *common,
             f"--config.init_from={workdir}/start", f"--config.best={BEST}",
             f"--config.eval_every={EVERY}", f"--workdir={workdir}"],
            *(["eval.py", f"--checkpoint={workdir}", f"--which={which}",
               f"--out={workdir}/{which}_report"] for which in CHECKPOINTS)]


def measure(arm: str, seed: int) -> dict[str, Any]:
    """Trains and evaluates an arm with a seed; what the table takes of it."""
    spent = [run(command) for command in commands(arm, seed)]
    workdir = RUNS / f"{arm}_{seed}"
    reports = {which: arms.facts(arms.report(workdir / f"{which}_report", seed), FIGURES)
               for which in CHECKPOINTS}
    named = {key: {f"{which} {name}": value for which, found in reports.items()
                   for name, value in found[key].items()} for key in ("figures", "majorities")}
    return reports["last"] | named | {
        "best_step": reports["best"]["steps"],
        "seconds": {"training": round(sum(spent[:2]), 1), "evaluation": round(sum(spent[2:]), 1)}}


def main() -> None:
    options = arms.parse(__doc__, ARMS, OUT)
    run(["-m", "data.prepare", "moving_digits", f"--out={demo.DATA}"])
    done = arms.collect(RUNS, options.arms, options.seeds, lambda arm, seed: measure(arm, seed))
    made = arms.table(done, options.arms, options.seeds, "make instructions", commands,
                      "instructed")
    for arm, entry in made["arms"].items():
        entry["best_steps"] = [done[f"{arm}_{seed}"]["best_step"] for seed in options.seeds]
    write(options.out, made)
    print("\n".join(arms.lines(made)))


if __name__ == "__main__":
    main()
