"""Model FLOPs of a step, counted on its traced program, and the device's peak, for MFU.

Convention: a multiply-add is 2 FLOPs; matrix products and convolutions alone are counted; a
training step is 3 forward passes (PaLM, appendix B: recomputation under remat is not counted).
"""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.model import attention

# Dense bf16 peak, FLOP/s a chip, from the vendors' data sheets.
PEAK_FLOPS = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5": 459e12,
    "TPU v5p": 459e12, "TPU v6 lite": 918e12, "TPU v6e": 918e12,
    "NVIDIA A100": 312e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12,
}


def count_flops(function: Callable[..., Any], *args: Any) -> int:
    """FLOPs of the matrix products in `function(*args)`; nothing is run.

    Loops of a known length count as often as they run; a `while` counts once. Attention counts as
    its plain products, whichever kernel computes it.
    """
    with attention.implementation("xla"):
        return _jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def _jaxpr_flops(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(
                left[i] for i in contract)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * (
                math.prod(kernel) // kernel[features])
        else:
            times = equation.params["length"] if name == "scan" else 1
            inner = [x for value in equation.params.values()
                     for x in (value if isinstance(value, list | tuple) else [value])]
            for value in inner:
                body = getattr(value, "jaxpr", value)  # a ClosedJaxpr holds one
                if hasattr(body, "eqns"):
                    total += times * _jaxpr_flops(body)
    return total


def peak_flops() -> float:
    """Peak FLOP/s of all devices: the data sheet's, or on others a measured matrix product's."""
    kind = jax.devices()[0].device_kind
    known = [peak for name, peak in PEAK_FLOPS.items() if kind.startswith(name)]
    if known:
        return max(known) * jax.device_count()
    # Simulated devices share the machine, so one product measures all of them together.
    size = 2048
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(x))
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(product(x))
        best = min(best, time.perf_counter() - start)
    return 2 * size ** 3 / best
