"""A run that is stopped by signals again and again, and started again by the same command.

    PYTHONPATH=.:tests python tests/torture/stops.py /tmp/stops

What is left must be what a run without them leaves, to the last bit.
"""

import json
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from commands import losses, run
from processes import end, start_all, wait_for

from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.checkpoints.reading import read_shapes
from mplug2_jax.contracts import exits

CONFIG = "tests/stops_config.py"
OTHERS = [signal.SIGINT, signal.SIGUSR1]  # that stop a run as SIGTERM does
SIZES = {"video_train": 8, "video_validation": 4, "video_test": 4, "image_train": 4,
         "image_validation": 4, "image_test": 4, "text_train": 64, "text_validation": 4}


def prepare(folder):
    """A miniature of the demo corpus, unless it is there; its folder, by its real name."""
    folder = Path(folder).resolve()
    if not (folder / "vocab.model").exists():
        run("-m", "data.prepare", "moving_digits", f"--out={folder}", "--processes=1",
            *(f"--{name}={size}" for name, size in SIZES.items()))
    return folder


def train(data, workdir, *more, config=CONFIG):
    """A command."""
    return ("train.py", f"--config={config}", f"--config.data.root={data}",
            f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}", *more)


def parameters(workdir, step=None):
    """Every array of the newest checkpoint up to a step, the optimizer's too, by its name.

    Whatever processes and devices it was saved by.
    """
    import jax
    import orbax.checkpoint as ocp

    checkpoints = Checkpoints(workdir / "checkpoints", most=step)
    folder, found = checkpoints.folder / str(checkpoints.latest), {}
    for item in checkpoints.items():
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
                                read_shapes(folder, item))
        tree = ocp.PyTreeCheckpointHandler().restore(
            folder / item, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
        for path, leaf in ocp.tree.to_flat_dict(tree).items():
            found["/".join(map(str, (item, *path)))] = np.asarray(leaf)
    checkpoints.close()
    return found


def differing(one, other):
    """Names of arrays that are not equal to the last bit."""
    first, second = parameters(one), parameters(other)
    return sorted(name for name in first.keys() | second.keys() if name not in first
                  or name not in second or first[name].tobytes() != second[name].tobytes())


def logged(workdir):
    """Steps of `train.jsonl`."""
    log = workdir / "train.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines()
            if line.endswith("}")] if log.exists() else []


def stopped_at(data, workdir, step, processes, number, rng, *more):
    """Starts the run, and stops it once it has logged a step.

    One of its processes, which is drawn, gets the signal of that number.

    Returns:
      The step where it stopped, and the seconds until its processes had ended.
    """
    running = start_all(*train(data, workdir, *more), each=({},) * processes, devices=2)
    wait_for(lambda: (logged(workdir) or [0])[-1] >= step, running)
    running[rng.randrange(processes)].send_signal(number)
    began = time.monotonic()
    outputs, codes = end(running, timeout=120)
    seconds = time.monotonic() - began
    assert codes == [exits.STOPPED] * processes, (codes, [text[-3000:] for text in outputs])
    return Checkpoints(workdir / "checkpoints").latest, seconds


def signals(folder, terms=10, steps=240, processes=2, seed=0):
    """Stops over one run, against the run without them: by so many SIGTERMs, and `OTHERS`.

    Returns:
      `SIGTERM`, `others`: how many; `lost`: steps that were done and had to be done again; `saved`:
      where it stopped; `differing`: arrays that differ at the end; `seconds`: of the longest stop.
      Those that were not within the grace have another exit code, which is an error.
    """
    folder, rng = Path(folder), random.Random(seed)
    data, numbers = prepare(folder / "data"), [signal.SIGTERM] * terms + OTHERS
    rng.shuffle(numbers)
    more = (f"--config.optimizer.steps={steps}",)
    outputs, codes = end(start_all(*train(data, folder / "straight", *more),
                                   each=({},) * processes, devices=2))
    assert not any(codes), outputs[0][-5000:]
    saved, lost, longest = [], 0, 0.0
    for place, number in enumerate(numbers, start=1):
        after = place * steps // (len(numbers) + 1) - rng.randrange(
            max(1, steps // (4 * len(numbers))))
        step, seconds = stopped_at(data, folder / "stopped", after, processes, number, rng, *more)
        lost += max(logged(folder / "stopped")[-1] - step, 0)
        saved.append(step)
        longest = max(longest, seconds)
    outputs, codes = end(start_all(*train(data, folder / "stopped", *more),
                                   each=({},) * processes, devices=2))
    assert not any(codes), outputs[0][-5000:]
    assert losses(folder / "stopped") == losses(folder / "straight")
    assert logged(folder / "stopped") == list(range(1, steps + 1))
    return {"SIGTERM": terms, "others": len(OTHERS), "lost": lost, "saved": saved,
            "seconds": round(longest, 1),
            "differing": differing(folder / "straight", folder / "stopped")}


if __name__ == "__main__":
    found = signals(sys.argv[1], *map(int, sys.argv[2:]))
    print(json.dumps(found))
    sys.exit(bool(found["lost"] or found["differing"]))
