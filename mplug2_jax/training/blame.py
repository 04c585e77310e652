"""Which operation of a computation first gives a value that is no number, and in which module.

The computation's own equations are run one by one, and of each it is asked whether all that it gave
is finite. Some give infinities that are meant (the logarithm of a probability of 0, which a mask
takes out): a batch that went well says which these are.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from mplug2_jax.parallel.sharding import path_name

# Parameters of equations that are computations of their own, run as if they stood there.
_INLINE = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
           "remat": "jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr",
           "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
           "custom_vjp_call_jaxpr": "fun_jaxpr"}
_SCOPE = re.compile(r"(?:\w+\()*([^()/]+)\)*")


class Place(NamedTuple):
    """An equation.

    Attributes:
      module: as flax names it, `fusion/layers/attention`; "" outside of any.
      operation: JAX's name of it.
      backward: whether it is a part of a gradient.
      source: file and line where it is written.
    """

    module: str
    operation: str
    backward: bool
    source: str

    def __str__(self) -> str:
        way = "the gradient of " if self.backward else ""
        return f"{way}{self.module or 'no module'}: {self.operation} at {self.source}"


def first_bad(function: Callable[..., Any], good: Sequence[Any] | None,
              bad: Sequence[Any]) -> str:
    """Says which value of a computation is the first that is no number, on `bad` arguments.

    Operation by operation, as where nothing is compiled: it takes minutes where a step takes
    seconds.

    Args:
      function: of trees of arrays, to anything.
      good: arguments with which all went well; None where there are none.
      bad: of the same shapes, those to examine.

    Returns:
      An argument's path and that it is not finite; or the place of the first equation that made
      such a value (`Place`); or "" where there is none.
    """
    for path, x in jax.tree_util.tree_leaves_with_path(tuple(bad)):
        if _is_float(x) and not bool(jnp.isfinite(x).all()):
            return f"what comes in is not finite: {path_name(path[1:])}"
    closed = jax.make_jaxpr(function)(*bad)
    found = _not_finite(closed, bad)
    meant = set(_not_finite(closed, good)) if found and good is not None else set()
    return next((str(place) for number, place in found.items() if number not in meant), "")


def _not_finite(closed: Any, args: Sequence[Any]) -> dict[int, Place]:
    """The equations that give what is not finite, by their number in the order run."""
    trace = _Trace()
    trace.run(closed.jaxpr, closed.consts, jax.tree.leaves(tuple(args)), "")
    finite = jax.device_get(trace.finite)
    return {number: place for number, (place, fine) in enumerate(
        zip(trace.places, finite, strict=True)) if not all(fine)}


class _Trace:
    """A computation as it runs.

    Attributes:
      places: of the equations that give floats.
      finite: of each of them, whether what it gave is finite, on the device.
    """

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.finite: list[list[Any]] = []

    def run(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any],
            scope: str) -> list[Any]:
        """What a jaxpr gives."""
        values: dict[Any, Any] = dict(zip(jaxpr.invars, args, strict=True))
        values |= zip(jaxpr.constvars, consts, strict=True)
        last = {atom: number for number, equation in enumerate(jaxpr.eqns)
                for atom in equation.invars if not isinstance(atom, core.Literal)}
        last |= dict.fromkeys((x for x in jaxpr.outvars if not isinstance(x, core.Literal)),
                              len(jaxpr.eqns))

        def read(atom):
            return atom.val if isinstance(atom, core.Literal) else values[atom]

        for number, equation in enumerate(jaxpr.eqns):
            given = [read(atom) for atom in equation.invars]
            out = self._equation(equation, given, f"{scope}/{equation.source_info.name_stack}",
                                 jaxpr.debug_info)
            values.update(zip(equation.outvars, out, strict=True))
            for atom in [*equation.invars, *equation.outvars]:
                if not isinstance(atom, core.Literal) and last.get(atom, -1) <= number:
                    values.pop(atom, None)  # its memory is free
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, given: list[Any], scope: str, about: Any) -> list[Any]:
        params, name = equation.params, equation.primitive.name
        if name in _INLINE and _INLINE[name] in params:
            return self.run(*_opened(params[_INLINE[name]]), given, scope)
        if name == "scan":
            return self._scan(params, given, scope)
        arrays = {atom: x for atom, x in zip(equation.invars, given, strict=True)
                  if not isinstance(atom, core.Literal)}
        # By a jaxpr of its own: how a primitive is bound differs between versions of JAX.
        one = core.Jaxpr((), list(arrays), equation.outvars, [equation], equation.effects,
                         about.with_unknown_names())
        out = core.jaxpr_as_fun(core.ClosedJaxpr(one, ()))(*arrays.values())
        if flags := [_finite(x) for x in out if _is_float(x)]:
            self.places.append(_place(scope, equation))
            self.finite.append(flags)
        return list(out)

    def _scan(self, params: Mapping[str, Any], args: list[Any], scope: str) -> list[Any]:
        """A loop, turn by turn."""
        jaxpr, consts = _opened(params["jaxpr"])
        fixed, carried = params["num_consts"], params["num_carry"]
        carry, rows = args[fixed:fixed + carried], []
        turns = range(params["length"])
        for turn in reversed(turns) if params["reverse"] else turns:
            xs = [x[turn] for x in args[fixed + carried:]]
            out = self.run(jaxpr, consts, [*args[:fixed], *carry, *xs], scope)
            carry = out[:carried]
            rows.append(out[carried:])
        if params["reverse"]:
            rows.reverse()
        return [*carry, *(jnp.stack(column) for column in zip(*rows, strict=True))]


def _opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants."""
    return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, core.ClosedJaxpr) else (jaxpr, ())


def _place(scope: str, equation: Any) -> Place:
    """Of an equation within `scope`: `jvp(MPlug2)/fusion/...`, as transformations wrap names."""
    frame = jax._src.source_info_util.user_frame(equation.source_info.traceback)
    source = f"{frame.file_name}:{frame.start_line}" if frame else "an unknown line"
    return Place("/".join(names(scope)), equation.primitive.name, "transpose(" in scope, source)


def names(scope: str) -> list[str]:
    """The names in a scope, out of what transformations wrapped around them."""
    return [found[1] for part in scope.split("/") if (found := _SCOPE.fullmatch(part))]


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


@jax.jit
def _finite(x: Any) -> Any:
    """Whether all of an array is finite."""
    return jnp.isfinite(x).all()
