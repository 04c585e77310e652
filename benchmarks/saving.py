"""What a checkpoint costs: how long a run waits for a save, how long that takes, and restoring.

    python -m benchmarks.saving --gib=1 --rounds=5

Random parameters with two moments each, as Adam has them, are saved to a folder and restored, after
one round that is not counted. `blocked` is the time until the run goes on, `whole` until the
checkpoint counts; `checksums` is their part of what blocks. `read` is the bytes that restoring
reads over those of the checkpoint, where the system counts them.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from mplug2_jax import launch, places
from mplug2_jax.checkpoints import OPTIMIZER, Checkpoints
from mplug2_jax.checkpoints.checksums import checksums
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import make_mesh

GIB = flags.DEFINE_float("gib", 1.0, "GiB of a checkpoint.", lower_bound=0.001)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Saves that are timed; medians.", lower_bound=1)
FOLDER = flags.DEFINE_string("folder", None, "Where; a temporary folder by default.")
WIDTH = 1024


def main() -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER.value) as folder:
        print(json.dumps(measure(Path(folder), GIB.value, ROUNDS.value), indent=1))


def measure(folder: Path, gib: float, rounds: int) -> dict[str, float | str]:
    """Seconds and shares, medians over the rounds."""
    mesh = make_mesh(1, -1, 1)
    layers = max(round(gib * 2 ** 30 / (3 * 4 * WIDTH * WIDTH)), 1)

    draw = np.random.default_rng(0)
    params, mu, nu = ({f"layer_{i}": {"kernel": draw.standard_normal((WIDTH, WIDTH), np.float32)}
                       for i in range(layers)} for _ in range(3))
    drawn = {"params": params, OPTIMIZER: {"mu": mu, "nu": nu}}
    items = jax.device_put(drawn, sharding.tree_shardings(drawn, mesh))
    found: dict[str, list[float]] = {"blocked": [], "whole": [], "checksums": []}
    with Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        for step in range(rounds + 1):
            items = jax.block_until_ready(jax.tree.map(jnp.negative, items))
            begun = time.perf_counter()
            checksums(items)
            found["checksums"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            checkpoints.save(step, items, {"model": {}}, {})
            found["blocked"].append(time.perf_counter() - begun)
            checkpoints.wait()
            found["whole"].append(time.perf_counter() - begun)
    result: dict[str, float | str] = {
        name: statistics.median(times[1:]) for name, times in found.items()}
    shapes, size = jax.eval_shape(lambda: drawn), places.size(folder)
    del items
    source = Checkpoints(folder / "checkpoints")
    before, begun = _bytes_read(), time.perf_counter()
    jax.block_until_ready(source.restore(shapes, mesh))
    result |= {"restore": time.perf_counter() - begun, "GiB": size / 2 ** 30,
               "read": (_bytes_read() - before) / size}
    device = jax.devices()[0].device_kind
    return result | {"device": f"{jax.device_count()} x {device}", "jax": jax.__version__}


def _bytes_read() -> int:
    """Bytes that this process has read so far, also those that were in memory; 0 if unknown."""
    path = Path("/proc/self/io")
    return int(path.read_text().split()[1]) if path.exists() else 0


if __name__ == "__main__":
    launch.main(main)
