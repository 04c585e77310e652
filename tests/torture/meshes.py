"""A run whose devices, processes and batch sizes change, against one in which nothing changes.

    PYTHONPATH=.:tests:tests/torture python tests/torture/meshes.py /tmp/meshes

Each part of the run is stopped by a signal to one of its processes, and the next begins on other
devices by the same command but for the mesh, or with another batch size.
"""

import json
import math
import random
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import meshes_config
import stops
from commands import losses
from processes import end, start_all, wait_for

from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.contracts import exits
from mplug2_jax.training.optimizer import make_optimizer

CONFIG = "tests/meshes_config.py"
BATCH = 8  # of the config
RELATIVE = 1e-5  # of losses, in float32
BAD = ("lost", "disordered", "differing", "astray")  # of what `changes` counts


class Part(NamedTuple):
    """A part of a run: processes, devices of each, `data, fsdp, tensor`, examples a step."""

    processes: int
    devices: int
    mesh: tuple[int, int, int]
    batch: int = BATCH


ONE = Part(1, 1, (1, 1, 1))
MESHES = (Part(4, 2, (8, 1, 1)), Part(2, 2, (1, 4, 1)), Part(2, 4, (2, 2, 2)), ONE,
          Part(1, 8, (1, 2, 4)), Part(4, 1, (2, 2, 1)))
BATCHES = (ONE, Part(2, 2, (1, 4, 1), 16), Part(1, 1, (1, 1, 1), 4), Part(2, 1, (2, 1, 1)),
           Part(1, 4, (2, 1, 2), 12), ONE)


def start(data, workdir, part, *more):
    """The processes of a part; they are many for few cores."""
    mesh = zip(("data", "fsdp", "tensor"), part.mesh, strict=True)
    return start_all("train.py", f"--config={CONFIG}", f"--config.data.root={data}",
                     f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}",
                     f"--config.data.streams.text.batch_size={part.batch}", "--grace=300", *more,
                     *(f"--config.mesh.{axis}={size}" for axis, size in mesh),
                     each=({},) * part.processes, devices=part.devices)


def finish(running):
    """Waits for the end of the run."""
    outputs, codes = end(running)
    assert not any(codes), "\n".join(output[-5000:] for output in outputs)


def changing(data, workdir, parts, ends, draw, *more):
    """A run of parts, which end after about these samples of it; gives the steps where they did."""
    saved = []
    for part, samples in zip(parts, ends, strict=False):
        running = start(data, workdir, part, *more)
        wait_for(lambda samples=samples: seen(workdir) >= samples, running)
        running[draw.randrange(part.processes)].send_signal(
            draw.choice((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)))
        outputs, codes = end(running)
        assert codes == [exits.STOPPED] * part.processes, (codes, [o[-3000:] for o in outputs])
        saved.append(Checkpoints(workdir / "checkpoints").latest)
    finish(start(data, workdir, parts[-1], *more))
    return saved


def seen(workdir):
    """Samples that `train.jsonl` tells of so far."""
    log = workdir / "train.jsonl"
    lines = [line for line in log.read_text().splitlines() if line.endswith("}")] if (
        log.exists()) else []
    return sum(name.startswith("row/") for line in lines for name in json.loads(line))


def changes(folder, parts=MESHES, steps=60, seed=0, name="changing"):
    """A run of these parts, called so, and one on one device; both of `steps` as they were planned.

    Returns:
      `changes`, and `saved`, the steps where they came; `lost`: steps that are not there, or there
      twice, or 1 where what is saved tells of other samples; `disordered`: samples that are not
      those of the other run, one after the other; `differing`: steps whose loss is not that of the
      other run, as long as both read as many examples a step, and `relative`, the largest
      difference; `astray`: steps with another learning rate than was planned at their samples, and
      1 where the run ends elsewhere than was planned.
    """
    folder, draw = Path(folder), random.Random(seed)
    data, more = stops.prepare(folder / "data"), (f"--config.optimizer.steps={steps}",)
    if not (folder / "straight").exists():
        finish(start(data, folder / "straight", ONE, *more))
    ends = [BATCH * steps * number // len(parts) for number in range(1, len(parts))]
    saved = changing(data, folder / name, parts, ends, draw, *more)
    return {"changes": len(saved), "saved": saved} | compared(
        losses(folder / "straight"), losses(folder / name), steps) | {
        "lost": lost(folder / name)}


def lost(workdir):
    """What `changes` says of it."""
    steps, checkpoints = stops.logged(workdir), Checkpoints(workdir / "checkpoints")
    missing = len(set(range(1, checkpoints.latest + 1)) ^ set(steps))
    return missing + len(steps) - len(set(steps)) + int(
        checkpoints.meta()["samples"]["text"] != seen(workdir))


def compared(straight, changed, steps):
    """The rest of it, by what both logged."""
    orders = [[int(values[f"row/text/{row}"]) for values in logged.values()
               for row in range(width(values))] for logged in (straight, changed)]
    apart = []
    for step, values in changed.items():
        if width(values) != BATCH:
            break
        apart.append(abs(values["loss"] / straight[step]["loss"] - 1))
    planned = meshes_config.get_config().optimizer
    planned.steps = steps
    rate, before, astray = make_optimizer(planned)[1]["learning_rate"], 0, 0
    for values in changed.values():
        astray += not math.isclose(values["learning_rate"], float(rate(before / BATCH)),
                                   rel_tol=RELATIVE)
        before += width(values)
    astray += not 0 <= before - BATCH * steps < width(values)
    return {"disordered": sum(a != b for a, b in zip(*orders, strict=False)),
            "relative": max(apart), "differing": sum(value > RELATIVE for value in apart),
            "astray": astray}


def width(values):
    """Examples of a step."""
    return sum(name.startswith("row/") for name in values)


def both(folder):
    """Both kinds of changes, five of each: `changes`, what each kind counts, the sums of `BAD`."""
    found = {name: changes(folder, parts, name=name)
             for name, parts in (("meshes", MESHES), ("batches", BATCHES))}
    return {key: sum(one[key] for one in found.values()) for key in ("changes", *BAD)} | found


if __name__ == "__main__":
    began = time.monotonic()
    found = both(sys.argv[1])
    print(json.dumps(found | {"seconds": round(time.monotonic() - began)}))
    sys.exit(any(found[key] for key in BAD))
