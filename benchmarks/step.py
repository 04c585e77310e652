"""Speed of a config's training step on the devices here, by implementation of attention.

    python -m benchmarks.step --config=configs/pretrain.py:large --global_batch=128

The whole step, optimizer included, on a batch of random numbers in the shapes that the config's
data would have: no data is needed, and none is waited for. Every implementation that is asked for
is compiled and timed in the same run; so is one large matrix product in the model's dtype, for by
its speed a step's says more than by the data sheet's: `of the product` is the model's FLOPs a
second (`mplug2_jax.planning.flops` has the convention) over the product's.
"""

import contextlib
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks.captioning import timed
from configs import checks
from mplug2_jax import launch
from mplug2_jax.model import attention
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.planning.chips import peak_flops
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.planning.plan import with_batch
from mplug2_jax.planning.shapes import batch_shapes, planned
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state
from mplug2_jax.training.step import make_train_step

CHOSEN = "auto"  # as the model chooses by itself
CONFIG = launch.define_config("The run's config.")
GLOBAL_BATCH = flags.DEFINE_integer(
    "global_batch", 0, "Examples a step of the largest stream, the others in proportion; 0 as the "
    "config has it.", lower_bound=0)
STEPS = flags.DEFINE_integer("steps", 10, "Steps that are timed; the median counts.", lower_bound=1)
ATTENTION = flags.DEFINE_list(
    "attention", [CHOSEN, "xla"], f"{CHOSEN} or implementations, in the order of timing.")
JSON = flags.DEFINE_bool("json", False, "One JSON object instead of a table.")
flags.mark_flag_as_required("config")


def random_batch(config: ConfigDict, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """A batch in the shapes of the config's streams: no padding, every pair another."""
    rng = np.random.default_rng(seed)

    def draw(name, x):
        if name.endswith("_id"):
            return np.arange(x.size, dtype=x.dtype).reshape(x.shape)
        if x.dtype == jnp.bool_:
            return np.ones(x.shape, x.dtype)
        if x.dtype == jnp.uint8:
            return rng.integers(0, 256, x.shape, x.dtype)
        if name == "label":
            return np.zeros(x.shape, x.dtype)
        if x.dtype == jnp.int32:  # behind the special tokens
            return rng.integers(8, config.model.vocab_size, x.shape, x.dtype)
        return np.tile(np.asarray([0.25, 0.25, 0.5, 0.5], x.dtype), (x.shape[0], 1))  # a box

    return {stream: {name: draw(name, x) for name, x in fields.items()}
            for stream, fields in batch_shapes(*planned(config)).items()}


def measure_step(config: ConfigDict, name: str, steps: int) -> dict[str, Any]:
    """Compiles and times the step with one implementation of attention.

    Returns:
      `compile_seconds`; `seconds`, the median, and its `fastest` and `slowest`; `model_flops` of a
      step; `temporary_bytes` of a device, beside state and batch; `loss` after the last step.
    """
    task, _ = planned(config)
    optimizer, _ = make_optimizer(config.optimizer)
    mesh = make_mesh(**config.mesh)

    def create():
        return create_state(task, optimizer, config.seed, config.optimizer.ema_decay > 0)

    shapes, batch = jax.eval_shape(create), random_batch(config, config.seed)
    state = sharding.init_sharded(create, mesh)
    batch = put_batch(batch, mesh)
    forced = contextlib.nullcontext() if name == CHOSEN else attention.implementation(name)
    step = make_train_step(task, optimizer, shapes, mesh, config.seed, config.optimizer.frozen,
                           config.optimizer.ema_decay)
    start = time.perf_counter()
    with forced:
        compiled = step.lower(state, batch).compile()
    result = {"compile_seconds": time.perf_counter() - start,
              "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes}
    seconds = []
    for _ in range(steps + 1):
        (state, metrics), spent = timed(compiled, state, batch)
        seconds.append(spent)
    del seconds[0]  # it also loads the program
    flops = 3 * count_flops(task.loss, shapes.params, batch, jax.random.key(0))
    return result | {"seconds": statistics.median(seconds), "fastest": min(seconds),
                     "slowest": max(seconds), "model_flops": flops,
                     "loss": float(metrics["loss"])}


def product_flops(dtype: Any, size: int, repeats: int = 5) -> float:
    """FLOP/s of a product of two square matrices of random numbers on one device."""
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    return 2 * size ** 3 / min(timed(product, x, x)[1] for _ in range(repeats))


def main() -> None:
    config = CONFIG.value
    if GLOBAL_BATCH.value:
        config = with_batch(config, GLOBAL_BATCH.value)
    model = checks.validate(config).model
    size = 1024 if jax.default_backend() == "cpu" else 8192
    product = product_flops(model.compute_dtype, size) * jax.device_count()
    report = {
        "device": jax.devices()[0].device_kind, "devices": jax.device_count(),
        "jax": jax.__version__, "dtype": config.model.dtype, "product_flops": product,
        "peak_flops": peak_flops(),
        "batches": {name: stream.batch_size for name, stream in config.data.streams.items()},
        "attention": {name: measure_step(config, name, STEPS.value) for name in ATTENTION.value},
    }
    if JSON.value:
        print(json.dumps(report))
        return
    examples = sum(report["batches"].values())
    print(f"{report['devices']} x {report['device']}, {report['dtype']}, examples a step: "
          + ", ".join(f"{name} {size}" for name, size in report["batches"].items())
          + f"; one product of {size} x {size}: {product / 1e12:.3g} TFLOP/s")
    print(f"{'attention':<12}{'s a step':>10}{'examples/s':>12}{'MFU':>7}{'of the product':>16}"
          f"{'temporaries':>13}{'compiled in':>13}")
    for name, run in report["attention"].items():
        speed = run["model_flops"] / run["seconds"]
        peak = report["peak_flops"]
        mfu = f"{speed / peak:.1%}" if peak else "-"  # of a chip that is not in the table
        print(f"{name:<12}{run['seconds']:>10.3f}{examples / run['seconds']:>12.1f}"
              f"{mfu:>7}{speed / product:>16.1%}"
              f"{run['temporary_bytes'] / 2 ** 30:>9.2f} GiB{run['compile_seconds']:>11.0f} s")


if __name__ == "__main__":
    launch.main(main)
