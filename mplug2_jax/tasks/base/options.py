"""Options that several tasks have, and what is checked of them."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.model.modalities import find


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Of a task that has none."""


def modality() -> str:
    """The option `modality`, which says what a task sees."""
    return option("vision", "what is seen or heard: 'vision', or a modality of your own")


def accumulation() -> int:
    """The option `accumulation` of a task with a loss."""
    return option(1, "micro-batches of a step; the results are those of 1")


def check_shared(options: Any, place: str) -> None:
    """Raises ConfigError where one of them has a value that makes no sense.

    Args:
      options: of a task; has any of them, or none.
      place: of the section in the config.
    """
    if hasattr(options, "modality"):
        try:
            find(options.modality)
        except ConfigError as error:
            raise ConfigError(f"{place}.{error}") from None
    count = getattr(options, "accumulation", 1)
    if count < 1:
        raise ConfigError(f"{place}.accumulation = {count}: expected at least 1")


def check_accumulation(task: Any, streams: Mapping[str, Stream]) -> None:
    """Raises ConfigError where a task of one's own takes no notice of its `task.accumulation`.

    Its loss is then traced as one computation, whatever that option says: the same one as with 1.
    Tests hold the tasks of this folder to it.
    """
    count, loss = getattr(task.options, "accumulation", 1), type(task).loss
    if count == 1 or not streams or loss.__module__.startswith(__package__.rpartition(".")[0]):
        return
    whole = copy.copy(task)
    whole.options = dataclasses.replace(task.options, accumulation=1)
    key = jax.random.key(0)
    params = jax.eval_shape(task.init_params, key)
    batch = {name: task.shapes(stream) for name, stream in streams.items()}
    done = [_steps(jax.make_jaxpr(one.loss)(params, batch, key).jaxpr) for one in (task, whole)]
    if done[0] == done[1]:
        raise ConfigError(f"task.accumulation = {count}: the loss of task {task.name!r} computes "
                          "the batch whole all the same; set it to 1, or derive the task from "
                          "`PerExample`, which splits it")


def _steps(jaxpr: Any) -> list[Any]:
    """The operations of a traced computation, of what shapes, and those within each."""
    def inner(equation: Any) -> list[Any]:
        parts = (getattr(part, "jaxpr", part) for value in equation.params.values()
                 for part in (value if isinstance(value, list | tuple) else [value]))
        return [_steps(part) for part in parts if hasattr(part, "eqns")]

    return [(equation.primitive.name, [str(x.aval) for x in (*equation.invars, *equation.outvars)],
             inner(equation)) for equation in jaxpr.eqns]
