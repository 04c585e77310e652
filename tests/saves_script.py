"""A toy run: a walk of a few arrays that is saved after every step and goes on where it was.

It prints which step it goes on from and a digest of what it restored, and the digest at its end.
With `--killed_at` it ends by SIGKILL once so many bytes have appeared in the folder.
"""

import hashlib
import os

import jax
import killed
import numpy as np
from absl import flags

from mplug2_jax import launch
from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.parallel.mesh import make_mesh

STEPS = flags.DEFINE_integer("steps", 3, "Of the whole walk.")
KEEP = flags.DEFINE_integer("keep", 2, "Checkpoints of the newest.")
NAN = flags.DEFINE_integer("nan", 0, "Step at which an array is lost.")
FAIL = flags.DEFINE_integer("fail", 0, "Step after which the run fails, its save in flight.")
KILLED = flags.DEFINE_integer("killed_at", 0, "Bytes in the folder.")
USER = flags.DEFINE_integer("user", 0, "Number of the user that the run belongs to.")
BATCH = 8


def main(folder):
    if USER.value:
        os.setuid(USER.value)
    if KILLED.value:
        killed.start(folder, KILLED.value)
    with Checkpoints(folder, keep=KEEP.value) as checkpoints:
        params, start = begin(), 0
        if checkpoints.latest is not None:
            params = checkpoints.first_good(lambda: restored(checkpoints))
            start = checkpoints.latest
            print(f"from {start} {digest(params)}", flush=True)
        for step in range(start + 1, STEPS.value + 1):
            params = walk(params, step)
            if step == NAN.value:
                params["text"]["kernel"] = params["text"]["kernel"].at[1, 2].set(np.nan)
            checkpoints.save(step, {"params": params}, {"model": {}}, {"video": BATCH * step})
            if step == FAIL.value:
                raise ValueError("a record that cannot be read")
    print(f"end {digest(params)}")


def begin():
    """The arrays at step 0."""
    return {"text": {"kernel": jax.numpy.zeros((96, 64)), "bias": jax.numpy.zeros(64)},
            "vision": {"kernel": jax.numpy.zeros((3, 32, 32))}}


@jax.jit
def walk(params, step):
    """The arrays one step later, by random numbers of that step."""
    keys = iter(jax.random.split(jax.random.key(step), 3))
    return jax.tree.map(lambda x: 0.9 * x + jax.random.normal(next(keys), x.shape), params)


def restored(checkpoints):
    """The arrays of the newest checkpoint; what it says of the data is of its step."""
    assert checkpoints.meta()["samples"] == {"video": BATCH * checkpoints.latest}
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    return checkpoints.restore({"params": jax.eval_shape(begin)}, mesh)["params"]


def digest(params):
    """Of all bits."""
    leaves = jax.tree.leaves(jax.device_get(params))
    return hashlib.sha256(b"".join(x.tobytes() for x in leaves)).hexdigest()[:16]


if __name__ == "__main__":
    launch.main(main, ("FOLDER",))
