"""Matrix products of a program: their precision as lowered, and what a chip's default does to them.

TPUs compute a float32 product of default precision in one pass over operands rounded to bfloat16,
GPUs over operands rounded to TensorFloat32. A CPU does neither: here the rounding is done for it.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

BFLOAT16, TENSORFLOAT32 = 7, 10  # stored bits of a fraction


class Product(NamedTuple):
    """One `dot_general`: types of its operands, their precision, and where it stands."""

    types: tuple[str, str]
    precision: tuple[str, str]
    place: str


def products(lowered):
    """Those of a lowered program, as written into it."""
    text = lowered.as_text(debug_info=True)
    places = dict(re.findall(r"^(#loc\d+) = loc\((.*)\)$", text, re.M))
    found = []
    for line in text.splitlines():
        if "stablehlo.dot_general" in line:
            operands, place = re.search(r" : \((.*)\) -> .* loc\((#loc\d+)\)$", line).groups()
            types = tuple(re.findall(r"tensor<(?:\d+x)*(\w+)>", operands))
            precision = re.search(r"precision = \[(\w+), (\w+)\]", line)
            found.append(Product(types, precision.groups() if precision else ("DEFAULT",) * 2,
                                 places[place]))
    return found


def inexact(lowered):
    """Those products of float32 numbers whose operands a chip may round."""
    return [one for one in products(lowered)
            if "f32" in one.types and one.precision != ("HIGHEST", "HIGHEST")]


def rounded(function, fraction=BFLOAT16):
    """The function as a chip computes it that rounds what it multiplies, where it may."""

    def call(*args):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        values = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args), fraction)
        return jax.tree.unflatten(jax.tree.structure(shape), values)

    return call


def evaluate(jaxpr, consts, args, fraction):
    """A jaxpr's outputs, equation by equation."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(x):
        return x.val if isinstance(x, core.Literal) else known[x]

    for equation in jaxpr.eqns:
        inputs, name = [read(x) for x in equation.invars], equation.primitive.name
        if name == "dot_general":
            inputs = round_operands(inputs, equation.params["precision"], fraction)
        if name == "scan":
            outputs = scan(equation.params, inputs, fraction)
        elif (inner := equation.params.get("jaxpr")) is not None:  # jit and checkpoint
            closed = isinstance(inner, core.ClosedJaxpr)
            outputs = evaluate(inner.jaxpr if closed else inner, inner.consts if closed else (),
                               inputs, fraction)
        else:
            assert name == "dot_general" or "dot_general" not in str(equation.params), name
            outputs = equation.primitive.bind(*inputs, **equation.params)
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        known |= zip(equation.outvars, outputs, strict=True)
    return [read(x) for x in jaxpr.outvars]


def round_operands(inputs, precision, fraction):
    """The operands as a product of that precision takes them."""
    exact = jax.lax.Precision.HIGHEST
    if precision in (exact, (exact, exact)):
        return inputs
    return [jax.lax.reduce_precision(x, 8, fraction) if x.dtype == jnp.float32 else x
            for x in inputs]


def scan(params, inputs, fraction):
    """The outputs of a scan whose body is evaluated so."""
    body, fixed, carried = params["jaxpr"], params["num_consts"], params["num_carry"]
    consts, carry = inputs[:fixed], inputs[fixed:fixed + carried]

    def step(carry, part):
        values = evaluate(body.jaxpr, body.consts, [*consts, *carry, *part], fraction)
        return values[:carried], values[carried:]

    carry, parts = jax.lax.scan(step, carry, inputs[fixed + carried:], params["length"],
                                params["reverse"])
    return [*carry, *parts]
