"""A toy run over several processes with local checkpoints; it prints what it goes on from.

Its arrays take the places that a model's take, and are the same numbers on any mesh.
"""

import os
import signal
from pathlib import Path

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from local_walk import begin, digest, walk

from mplug2_jax import launch
from mplug2_jax.checkpoints import Checkpoints, LocalCheckpoints, parts
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.parallel.sharding import with_places

WORKDIR = flags.DEFINE_string("workdir", "", "As of train.py.")
LOCAL = flags.DEFINE_string("local", None, "As of train.py.")
MESH = flags.DEFINE_list("mesh", [1, -1, 1], "data, fsdp and tensor.")
STEPS = flags.DEFINE_integer("steps", 9, "Of the whole run.")
SHARED = flags.DEFINE_integer("shared", 2, "Step that is saved in shared storage, as the last is.")
KILLED = flags.DEFINE_integer("killed", 0, "Step in whose save SIGKILL ends the process.")
WAITS = flags.DEFINE_bool("waits", False, "Until its own part of that step is whole.")
WRONG = flags.DEFINE_integer("wrong", 0, "Step of which the process saves other numbers.")


def main():
    mesh = make_mesh(*map(int, MESH.value))
    shapes = {"params": jax.eval_shape(begin)}
    workdir, start, values = Path(WORKDIR.value), 0, begin()
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    local = LocalCheckpoints(workdir, LOCAL.value, 1)

    def newest():
        found = local.first_good(checkpoints.latest, shapes, mesh, lambda: (
            local.meta()["samples"]["x"], local.restore(shapes, mesh)))
        if found is None and checkpoints.latest is not None:
            found = checkpoints.meta()["samples"]["x"], checkpoints.restore(shapes, mesh)
        return found

    if (found := checkpoints.first_good(newest)) is not None:
        start = found[0]
        values = jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True),
                              found[1]["params"])
        place = "local" if start == local.latest else "shared"
        print(f"{place} {start} {digest(values)}", flush=True)
    with local, checkpoints:
        for step in range(start + 1, STEPS.value + 1):
            values = walk(values, step)
            arrays = jax.tree.map(spread, values, with_places(shapes, mesh)["params"])
            if step in (SHARED.value, STEPS.value):
                checkpoints.save(step, {"params": arrays}, {"model": {}}, {"x": step})
                checkpoints.wait()
            else:
                if local._pending is not None:
                    local._pending.result()  # in a toy they would all be skipped
                if step == WRONG.value:
                    parts.copied = wrongly(parts.copied)
                if local.due(step):
                    local.save(step, {"params": arrays}, {"model": {}}, {"x": step})
            if step == KILLED.value:
                if WAITS.value:
                    local._pending.result()
                os.kill(os.getpid(), signal.SIGKILL)
    print(f"end {digest(values)}", flush=True)


def wrongly(copied):
    """It, as memory is that loses a bit of an array before its file is summed."""
    def spoiled(items):
        found = copied(items)
        (shard,) = found["params/scale"].shards.values()
        shard.view(np.uint8)[0] ^= 1
        return found

    return spoiled


def spread(x, there):
    """A host's array on the devices."""
    return jax.make_array_from_callback(x.shape, there.sharding, lambda index: x[index])


if __name__ == "__main__":
    launch.main(main, distributed=True)
