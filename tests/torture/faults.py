"""Losses and gradients that are no numbers, many of them, in one run that saves at each step.

    PYTHONPATH=.:tests:tests/torture python tests/torture/faults.py /tmp/faults
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import stops
from commands import ROOT, run

from mplug2_jax.checkpoints.choice import stored

KINDS = ("gradient nan", "gradient inf", "loss nan", "loss inf")  # of `bad_numbers.py`, in turn
BAD = {step: KINDS[step % 4] for step in range(3, 32) if step % 3 != 2}
STEPS = max(BAD) + 2
WRONG = ("unseen", "missing", "not_finite", "changed")  # of what `faults` counts


def faults(folder):
    """One run with `BAD` steps, whose checkpoints are all kept.

    Returns:
      `injected`; `kinds`: how many of each of `KINDS` the run tells of, and `unseen`, those that it
      tells of otherwise, or not, or that are none; `checkpoints`, and how many are `missing`, and
      `not_finite`; `changed`: bad steps after which anything but the count of them is another
      than before, and good ones after which nothing is.
    """
    folder = Path(folder)
    data, workdir = stops.prepare(folder / "data"), folder / "run"
    run("train.py", "--config=tests/bad_config.py", f"--config.data.root={data}",
        f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}",
        f"--config.optimizer.steps={STEPS}", f"--config.task.bad={tuple(BAD)}",
        "--config.checkpoint_every=1", f"--config.keep_checkpoints={STEPS + 1}",
        path=ROOT / "tests")
    told = {line["step"]: _kind(line["loss"], line["grad_norm"])
            for line in map(json.loads, (workdir / "bad_steps.jsonl").open())}
    before: dict[str, bytes] = {}
    not_finite = changed = 0
    steps = sorted(stored(workdir / "checkpoints"))
    for step in steps:
        arrays = stops.parameters(workdir, step)
        not_finite += not all(np.isfinite(x).all() for x in arrays.values()
                              if np.issubdtype(x.dtype, np.floating))
        bits = {name: x.tobytes() for name, x in arrays.items() if not name.startswith("guard/")}
        changed += (bits == before) != (step in BAD)
        before = bits
    return {"injected": len(BAD), "kinds": Counter(told.values()),
            "unseen": len(BAD.items() ^ told.items()),
            "checkpoints": len(steps), "missing": STEPS - len(steps), "not_finite": not_finite,
            "changed": changed}


def _kind(loss, norm):
    return f"loss {loss}" if isinstance(loss, str) else f"gradient {norm}"


if __name__ == "__main__":
    found = faults(sys.argv[1])
    print(json.dumps(found))
    sys.exit(any(found[key] for key in WRONG))
