"""What it costs that the trainer runs few steps ahead of the device, not as many as it logs.

    python -m benchmarks.run_ahead --config=configs/demo.py:start --rounds=5

One compiled step on batches of random numbers, which are put on the device for each step as the
trainer does. Blocks of steps with at most 2 in flight and with a whole block in flight take turns
in one run; the table has the medians, and the ratio of each pair, in time and in processor time.
"""

import json
import statistics
import time
from typing import Any

import jax
from absl import flags

from benchmarks.step import random_batch
from configs import checks
from mplug2_jax import launch
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.planning.shapes import planned
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state
from mplug2_jax.training.step import make_train_step
from mplug2_jax.training.vigil import AHEAD, Flight

CONFIG = launch.define_config("The run's config.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Pairs of blocks.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 50, "Of a block: `log_every`.", lower_bound=3)


def block(step: Any, state: Any, batch: Any, mesh: Any, steps: int, most: int) -> Any:
    """The state after so many steps, and the seconds and processor seconds that they took."""
    flight, began, used = Flight(most), time.perf_counter(), time.process_time()
    for _ in range(steps):
        flight.make_room()
        state, metrics = step(state, put_batch(batch, mesh))
        flight.add(metrics["loss"])
    jax.block_until_ready(metrics)
    return state, time.perf_counter() - began, time.process_time() - used


def main() -> None:
    config = CONFIG.value
    checked = checks.validate(config)
    mesh = make_mesh(**config.mesh)
    task, _ = planned(config)
    optimizer, _ = make_optimizer(config.optimizer)

    def create():
        return create_state(task, optimizer, config.seed, config.optimizer.ema_decay > 0)

    state = sharding.init_sharded(create, mesh)
    step = make_train_step(task, optimizer, jax.eval_shape(create), mesh, config.seed,
                           config.optimizer.frozen, config.optimizer.ema_decay)
    batch = random_batch(config, 0)
    state, *_ = block(step, state, batch, mesh, 3, AHEAD)  # compiles
    rows = []
    for number in range(ROUNDS.value):
        found = {}
        for most in (AHEAD, STEPS.value)[::1 if number % 2 else -1]:
            state, *found[most] = block(step, state, batch, mesh, STEPS.value, most)
        rows.append([few / many for few, many in zip(found[AHEAD], found[STEPS.value],
                                                     strict=True)])
    seconds, processor = zip(*rows, strict=True)
    print(json.dumps({"device": jax.devices()[0].device_kind, "examples": {
        name: stream.batch_size for name, stream in checked.streams.items()},
        "steps": STEPS.value, "rounds": ROUNDS.value, "ahead": AHEAD,
        "time of few to many": statistics.median(seconds), "range": [min(seconds), max(seconds)],
        "processor time": statistics.median(processor),
        "its range": [min(processor), max(processor)]}))


if __name__ == "__main__":
    launch.main(main)
