"""What the guard of the compiled step costs: FLOPs, and bytes of HBM by the compiler of a TPU.

    python -m benchmarks.guard --config=configs/demo.py:start --topology=v5e:2x2 \
        --global_batch=48

compiles the step as it is, and with every step taken for good (`mplug2_jax/training/guard.py`).
FLOPs are those of the program before it is optimised, sums and comparisons among them; traffic is
that of `mplug2_jax.planning aot`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict

from mplug2_jax import launch
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.planning.plan import batch_on, compile_plan, state_shapes, with_batch
from mplug2_jax.planning.topology import Topology, parse_topology
from mplug2_jax.training import guard
from mplug2_jax.training.step import make_train_step

flags.DEFINE_string("topology", "v5e:4x4", "Chip and slice.")
flags.DEFINE_integer("global_batch", 0, "Examples a step of the largest stream; 0 as the config "
                     "has it.", lower_bound=0)


@contextmanager
def unguarded() -> Iterator[None]:
    """Within it, steps are made that change something whatever their loss is."""
    with mock.patch.object(guard, "is_good", lambda *_: jnp.bool_(True)), \
            mock.patch.object(guard, "chosen", lambda good, new, old: new):
        yield


def flops(config: ConfigDict) -> float:
    """Of the whole step, lowered for one device of this machine."""
    task, streams, optimizer, shapes = state_shapes(config)
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    step = make_train_step(task, optimizer, shapes, mesh, config.seed, config.optimizer.frozen,
                           config.optimizer.ema_decay)
    costs = step.lower(shapes, batch_on(task, streams, mesh)).cost_analysis()
    assert costs is not None, "a CPU's backend says it"
    return float(costs["flops"])


def measure(config: ConfigDict, topology: Topology) -> dict[str, Any]:
    """Both steps' figures, and what the guard adds to them."""
    found: dict[str, Any] = {}
    with_guard = {"flops": flops(config), "traffic": compile_plan(config, topology).traffic}
    with unguarded():
        without = {"flops": flops(config), "traffic": compile_plan(config, topology).traffic}
    for name, value in with_guard.items():
        found[name] = {"guarded": value, "unguarded": without[name],
                       "share": value / without[name] - 1}
    return found


def main() -> None:
    config = flags.FLAGS.config
    jax.config.update("jax_platforms", "cpu")
    if flags.FLAGS.global_batch:
        config = with_batch(config, flags.FLAGS.global_batch)
    print(json.dumps(measure(config, parse_topology(flags.FLAGS.topology)), indent=1))


if __name__ == "__main__":
    launch.define_config("The run's config.")
    launch.main(main)
