"""Tasks, a file each: the modules it composes, its options, loss, predictions, scores, figures.

A task is known by being a file of this folder, or by being any other module that Python finds: one
class derived from `Task` in it is the task, its module's name is the name in configs.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from mplug2_jax.contracts import options
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.preprocess.tokenizer import Tokenizer
from mplug2_jax.tasks.base.task import Task

__all__ = ["Task", "load", "make", "names", "read", "section", "streams"]


def names() -> list[str]:
    """The tasks of this folder."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.ispkg)


def load(name: str, place: str = "task") -> type[Task]:
    """The task of that name; no other task is imported.

    Raises:
      ConfigError: there is none; `place` is that of the section in the config.
    """
    expected = f"expected one of {', '.join(names())}, or a module that Python finds"
    try:
        module = importlib.import_module(f"{__name__}.{name}" if name in names() else name)
    except (ImportError, TypeError, ValueError) as error:  # a path is no name
        raise ConfigError(f"{place}.name = {name!r}: {expected} ({error})") from None
    found = [one for _, one in inspect.getmembers(module, inspect.isclass)
             if issubclass(one, Task) and one.__module__ == module.__name__]
    if len(found) != 1:
        raise ConfigError(f"{place}.name = {name!r}: {module.__file__} has {len(found)} tasks; "
                          f"{expected} with one")
    return found[0]


def section(name: str, **changes: Any) -> dict[str, Any]:
    """The `task` section of a config: a task's name and all of its options.

    Raises:
      ConfigError: no such task or option, or a value that it refuses.
    """
    return {"name": name, **options.section(options.read(load(name).Options, changes, "task"))}


def read(given: Mapping[str, Any], place: str = "task") -> tuple[type[Task], Any]:
    """The task of a config's section, and its options.

    Raises:
      ConfigError: no such task, a wrong option, or modules that do not go together.
    """
    values = dict(given.items())
    task = load(values.pop("name"), place)
    found = options.read(task.Options, values, place)
    try:
        task.composition(found)
    except ConfigError as error:
        said = str(error)
        raise ConfigError(f"{place}{said[4:]}" if said.startswith("task.") else said) from None
    return task, found


def streams(task: type[Task], found: Any, sections: Mapping[str, Any],
            prefix: str = "data.streams.") -> dict[str, Stream]:
    """The streams of a config's sections, with what the task gives them, checked.

    Args:
      task, found: of `read`.
      sections: by name.
      prefix: in front of their names in the config, for messages.

    Raises:
      ConfigError: a stream has a wrong key, or does not give what the task needs.
    """
    checked = {}
    for name, values in sections.items():
        checked[name] = task.stream(found, values, f"{prefix}{name}")
        task.check_stream(found, name, checked[name])
    return checked


def make(given: Mapping[str, Any], model: ModelConfig, tokenizer: Tokenizer) -> Task:
    """The task of a config's section, ready to train and to predict."""
    task, found = read(given)
    return task(found, model, tokenizer)
