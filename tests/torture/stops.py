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
from mplug2_jax.contracts import exits

CONFIG = "tests/stops_config.py"
SIZES = {"video_train": 8, "video_validation": 4, "video_test": 4, "image_train": 4,
         "image_validation": 4, "image_test": 4, "text_train": 64, "text_validation": 4}


def prepare(folder):
    """A miniature of the demo corpus."""
    run("-m", "data.prepare", "moving_digits", f"--out={folder}", "--processes=1",
        *(f"--{name}={size}" for name, size in SIZES.items()))
    return folder


def train(data, workdir, *more):
    """A command."""
    return ("train.py", f"--config={CONFIG}", f"--config.data.root={data}",
            f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}", *more)


def parameters(workdir):
    """Every array of the newest checkpoint, the optimizer's too, by its name."""
    import orbax.checkpoint as ocp

    checkpoints = Checkpoints(workdir / "checkpoints")
    found = {}
    with ocp.StandardCheckpointer() as reader:
        for item in checkpoints.items():
            tree = reader.restore(checkpoints.folder / str(checkpoints.latest) / item)
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


def stopped_at(data, workdir, step, processes, rng, *more):
    """Starts the run, and stops it once it has logged a step; gives the step where it stopped.

    One of its processes, which is drawn, gets the signal, which is drawn too.
    """
    running = start_all(*train(data, workdir, *more), each=({},) * processes, devices=2)
    wait_for(lambda: (logged(workdir) or [0])[-1] >= step, running)
    number = rng.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
    running[rng.randrange(processes)].send_signal(number)
    outputs, codes = end(running, timeout=120)
    assert codes == [exits.STOPPED] * processes, (codes, [text[-3000:] for text in outputs])
    return Checkpoints(workdir / "checkpoints").latest


def signals(folder, stops=10, steps=400, processes=2, seed=0):
    """Stops over one run, against the run without them.

    Returns:
      `{"stops", "lost": steps that were done and had to be done again, "saved": where it stopped,
      "differing": arrays that differ at the end, "seconds": of the longest stop}`.
    """
    folder, rng = Path(folder), random.Random(seed)
    data = folder / "data"
    if not data.exists():
        prepare(data)
    more = (f"--config.optimizer.steps={steps}",)
    outputs, codes = end(start_all(*train(data, folder / "straight", *more),
                                   each=({},) * processes, devices=2))
    assert not any(codes), outputs[0][-5000:]
    saved, lost = [], 0
    for number in range(stops):
        after = (number + 1) * steps // (stops + 1) - rng.randrange(max(1, steps // (4 * stops)))
        step = stopped_at(data, folder / "stopped", after, processes, rng, *more)
        lost += max(logged(folder / "stopped")[-1] - step, 0)
        saved.append(step)
    outputs, codes = end(start_all(*train(data, folder / "stopped", *more),
                                   each=({},) * processes, devices=2))
    assert not any(codes), outputs[0][-5000:]
    assert losses(folder / "stopped") == losses(folder / "straight")
    assert logged(folder / "stopped") == list(range(1, steps + 1))
    return {"stops": stops, "lost": lost, "saved": saved,
            "differing": differing(folder / "straight", folder / "stopped")}


def main(folder, stops=10):
    """Prints what came of it; an exit code."""
    began = time.monotonic()
    found = signals(folder, stops)
    print(json.dumps(found | {"seconds": round(time.monotonic() - began)}))
    return int(found["lost"] > 0 or bool(found["differing"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
