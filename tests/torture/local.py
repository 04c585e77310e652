"""A run of two processes that is killed again and again, and has local checkpoints alone.

    PYTHONPATH=.:tests:tests/torture python tests/torture/local.py /tmp/local

What is left must be what a run leaves that nothing interrupts and that has none, to the last bit.
"""

import json
import random
import re
import sys
import time
from pathlib import Path

import stops
from commands import losses
from processes import end, start_all, wait_for

from mplug2_jax.checkpoints import manifest
from mplug2_jax.checkpoints.choice import stored

EVERY = 2  # steps from one to the next


def kills(folder, count=10, steps=240, seed=0):
    """SIGKILLs of both processes of one run, of one some time before the other.

    Returns:
      `kills`; `local`: starts from a local checkpoint; `again`: steps that each kill undid;
      `older`: starts from an older one than the newest that both hosts had whole; `differing`:
      arrays of the last checkpoint, against a run without kills and local checkpoints.
    """
    folder, draw = Path(folder), random.Random(seed)
    data, workdir = stops.prepare(folder / "data"), folder / "killed"
    more = (f"--config.optimizer.steps={steps}", f"--config.checkpoint_every={2 * steps}")
    own = (*more, f"--local={folder / 'disk'}", f"--local_every={EVERY}")
    _ended(stops.train(data, folder / "straight", *more))
    counts, again, expected = dict(kills=0, local=0, older=0), [], 0
    for number in range(count):
        running = start_all(*stops.train(data, workdir, *own), each=({}, {}), devices=2)
        after = (number + 1) * steps // (count + 1) - draw.randrange(max(1, steps // (4 * count)))
        wait_for(lambda least=after: (stops.logged(workdir) or [0])[-1] >= least, running)
        first = draw.randrange(2)
        running[first].kill()
        time.sleep(draw.uniform(0, 0.2))
        running[1 - first].kill()
        outputs, _ = end(running)
        _check_start(outputs[0], expected, counts)
        counts["kills"] += 1
        expected = _newest(folder / "disk")
        again.append(stops.logged(workdir)[-1] - expected)
    _check_start(_ended(stops.train(data, workdir, *own)), expected, counts)
    assert losses(workdir) == losses(folder / "straight")
    assert stops.logged(workdir) == list(range(1, steps + 1))
    assert not list((folder / "disk").iterdir())
    return counts | dict(again=again,
                         differing=stops.differing(folder / "straight", workdir))


def _ended(arguments):
    """What the first of two processes says that run to their end."""
    outputs, codes = end(start_all(*arguments, each=({}, {}), devices=2))
    assert not any(codes), outputs[0][-5000:]
    return outputs[0]


def _newest(disk):
    """The newest step that both hosts have whole; 0 for none."""
    hosts = [{step for step in stored(own) if not manifest.damage(own / str(step))}
             for own in disk.glob("killed-*/host-*")]
    return max(set.intersection(*hosts), default=0)


def _check_start(output, expected, counts):
    """Counts what a life says of its start."""
    started = re.findall(r"going on from step (\d+) of \S+/host-0", output)
    counts["local"] += len(started)
    counts["older"] += started != ([str(expected)] if expected else [])


if __name__ == "__main__":
    found = kills(sys.argv[1], *map(int, sys.argv[2:]))
    print(json.dumps(found))
    sys.exit(bool(found["older"] or found["differing"]))
