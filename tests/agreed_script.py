"""A process of several, each of which has a folder of its own: what all of them take from it.

`FOLDER/N` is the folder of process N. Each line that is printed is JSON of a process's answer.
"""

import json
import sys
from pathlib import Path

import jax
import saves_script

from mplug2_jax import launch
from mplug2_jax.checkpoints import Checkpoints, find_folder, manifest
from mplug2_jax.parallel import hosts
from mplug2_jax.parallel.addresses import HostError
from mplug2_jax.parallel.mesh import make_mesh


def main(folder):
    manifest._SIGHT = 0.5
    own = Path(folder) / str(jax.process_index())
    for name in ("shared", "absent", "other", "lacking", "flipped"):
        print(json.dumps([name, answer(own / name)]), flush=True)
    print(json.dumps(["inner", find_folder(own / "inner").name]))
    try:
        hosts.agree({"files": launch.files_of({"task": {"classes": str(own / "classes.txt")}})})
    except HostError as error:
        print(json.dumps(["classes", str(error)]))


def answer(folder):
    """The number that is taken of a folder, the digest of what is restored, and the items."""
    try:
        checkpoints = Checkpoints(folder)
        mesh = make_mesh(2, 1, 1)
        shapes = {"params": jax.eval_shape(saves_script.begin)}
        params = checkpoints.first_good(lambda: checkpoints.restore(shapes, mesh)["params"])
    except HostError as error:
        return str(error)
    return [checkpoints.latest, saves_script.digest(params), checkpoints.has("ema"),
            checkpoints.items(), checkpoints.meta()["samples"]]


if __name__ == "__main__":
    sys.exit(launch.main(main, ("FOLDER",), distributed=True))
