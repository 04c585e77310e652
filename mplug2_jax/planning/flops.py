"""Model FLOPs of a step, counted on its traced program.

Convention: a multiply-add is 2 FLOPs; matrix products and convolutions alone are counted; a
training step is 3 forward passes (PaLM, appendix B: recomputation under remat is not counted).
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from mplug2_jax.model import attention


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
