"""Losses and gradients that are no numbers, many of them, in one run that saves at each step.

    PYTHONPATH=.:tests:tests/torture python tests/torture/faults.py /tmp/faults
"""

import json
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import stops
from commands import ROOT, run

from mplug2_jax.checkpoints.choice import stored

STEPS, BAD = 40, tuple(range(3, 40, 2)) + (20,)  # of these, each kind of fault in turn


def faults(folder):
    """One run with `BAD` steps, whose checkpoints are all kept.

    Returns:
      `injected`; `skipped`: as the run says; `checkpoints`, and of these `not_finite` ones;
      `changed`: bad steps after which anything is another than before.
    """
    folder = Path(folder)
    data, workdir = folder / "data", folder / "run"
    if not data.exists():
        stops.prepare(data)
    run("train.py", "--config=tests/bad_config.py", f"--config.data.root={data}",
        f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}",
        f"--config.optimizer.steps={STEPS}", f"--config.task.bad={BAD}",
        "--config.checkpoint_every=1", f"--config.keep_checkpoints={STEPS + 1}",
        path=ROOT / "tests")
    lines = [json.loads(line) for line in (workdir / "train.jsonl").open()]
    before: dict[str, bytes] = {}
    not_finite = changed = 0
    for step in sorted(stored(workdir / "checkpoints")):
        arrays = _arrays(workdir / "checkpoints" / str(step))
        not_finite += not all(np.isfinite(x).all() for x in arrays.values()
                              if np.issubdtype(x.dtype, np.floating))
        bits = {name: x.tobytes() for name, x in arrays.items()}
        changed += step in BAD and bits != before
        before = bits
    return {"injected": len(set(BAD)), "skipped": int(lines[-1]["skipped_steps"]),
            "checkpoints": len(stored(workdir / "checkpoints")), "not_finite": not_finite,
            "changed": changed}


def _arrays(checkpoint):
    """Parameters and what the optimizer has, by name."""
    with ocp.StandardCheckpointer() as reader:
        return {f"{item}/{'/'.join(map(str, path))}": np.asarray(leaf)
                for item in ("params", "rest")
                for path, leaf in ocp.tree.to_flat_dict(reader.restore(checkpoint / item)).items()}


if __name__ == "__main__":
    found = faults(sys.argv[1])
    print(json.dumps(found))
    sys.exit(found["skipped"] != found["injected"] or found["not_finite"] or found["changed"])
