"""Reading a parameter without tracing its initialiser again, which takes a fifth of all tracing.

Flax does so each time that a module reads one, to compare shapes. An initialiser gives the shape
that it is asked for: where the parameter has it, there is nothing to trace.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from flax.core import meta
from flax.core.scope import Scope

_param = Scope.param


def _read(self: Scope, name: str, init_fn: Callable[..., Any], *arguments: Any,
          unbox: bool = True, **more: Any) -> Any:
    """`Scope.param`; whatever is not there, or of another shape, is left to Flax and its errors."""
    wanted = arguments[0] if arguments else None
    if isinstance(wanted, tuple | list) and self.has_variable("params", name):
        value = self.get_variable("params", name)
        if np.shape(meta.unbox(value)) == tuple(wanted):
            self.reserve(name, "params")
            return meta.unbox(value) if unbox else value
    return _param(self, name, init_fn, *arguments, unbox=unbox, **more)


def read_quickly() -> None:
    """From now on, in this process."""
    Scope.param = _read  # type: ignore[method-assign]
