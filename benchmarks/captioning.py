"""Time and memory of captioning one clip: vision, universal layers, beam search.

    python -m benchmarks.captioning --size=large --frames=16 --beam=5 --max_length=20 --json

Random weights. No beam may end early, so that every run decodes `max_length` tokens. Compilation
is timed apart; of `--repeats` runs the fastest counts. `product_gflops` is what the machine makes
of one matrix product of the model's size alone, in the same run: by it, seconds of different
machines compare.
"""

import argparse
import json
import resource
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import sizes
from mplug2_jax.model.config import DTYPES, ModelConfig
from mplug2_jax.model.decoding import beam_search
from mplug2_jax.model.mplug2 import MPlug2, build, init_params


def random_params(model: MPlug2, seed: int) -> Any:
    """Parameters drawn one array at a time, so that memory holds little more than the result."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))

    def draw(path, shape):
        values = rng.standard_normal(shape.shape, np.float32)
        values *= 0.02
        if path[-1].key == "scale":  # of a LayerNorm
            values += 1
        return jax.device_put(values)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def timed(function: Any, *args: Any) -> tuple[Any, float]:
    """The result, once computed, and the seconds it took."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return result, time.perf_counter() - start


def product_speed(dtype: Any, repeats: int) -> float:
    """GFLOP/s of a product `[4112, 1024] x [1024, 4096]`, the first of an MLP of size large."""
    rows, inner, columns = 4112, 1024, 4096
    product = jax.jit(jnp.matmul)
    x, w = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
    product(x, w)  # compiles
    return 2e-9 * rows * inner * columns / min(timed(product, x, w)[1] for _ in range(repeats))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the stages, each compiled on its own, and the process's peak memory."""
    config = ModelConfig.from_mapping(dict(sizes.model(options.size)) | {"dtype": options.dtype})
    model = build(config, ("vision", "universal", "decoder"), ())
    params = random_params(model, options.seed)
    side = config.image_size
    rng = np.random.default_rng(options.seed)
    video = jnp.asarray(rng.integers(0, 256, (1, options.frames, side, side, 3), np.uint8))

    def vision(params, video):
        return model.apply({"params": params}, video, method=lambda m, x: m.vision(x))

    def universal(params, features):
        return model.apply({"params": params}, features, method=lambda m, x: m.universal.vision(x))

    def decoding(params, memory):
        return beam_search(model, params, memory, None, beams=options.beam,
                           min_length=options.max_length, max_length=options.max_length,
                           start_id=2, end_id=3, pad_id=0)

    result, x = {"compile": {}, "run": {}}, video
    for stage in (vision, universal, decoding):
        name = stage.__name__
        start = time.perf_counter()
        compiled = jax.jit(stage).lower(params, x).compile()
        result["compile"][name] = time.perf_counter() - start
        runs = [timed(compiled, params, x) for _ in range(options.repeats)]
        result["run"][name] = min(seconds for _, seconds in runs)
        if name != "decoding":
            x = runs[0][0]
    tokens = x.shape[1]
    for seconds in (result["compile"], result["run"]):
        seconds["total"] = sum(seconds.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return {
        "size": options.size, "dtype": options.dtype, "frames": options.frames,
        "visual_tokens": tokens, "beam": options.beam, "max_length": options.max_length,
        "device": jax.devices()[0].device_kind, "jax": jax.__version__,
        "seconds": result["run"], "compile_seconds": result["compile"],
        "peak_host_memory_gb": peak / 1e9,
        "product_gflops": product_speed(config.compute_dtype, 10),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="large", choices=("tiny", "base", "large"))
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--max_length", type=int, default=20)
    parser.add_argument("--dtype", default="float32", choices=sorted(DTYPES))
    parser.add_argument("--repeats", type=int, default=2, help="runs of a stage after compiling")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    report = measure(options)
    if options.json:
        print(json.dumps(report))
        return
    print(f"{report['size']}, {report['dtype']}, {report['device']}: {report['frames']} frames, "
          f"{report['visual_tokens']} visual tokens, {report['beam']} beams, "
          f"{report['max_length']} tokens")
    print(f"{'stage':<12}{'compile s':>12}{'run s':>12}")
    for name, seconds in report["seconds"].items():
        print(f"{name:<12}{report['compile_seconds'][name]:>12.2f}{seconds:>12.2f}")
    print(f"peak host memory {report['peak_host_memory_gb']:.2f} GB; one matrix product alone "
          f"{report['product_gflops']:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
