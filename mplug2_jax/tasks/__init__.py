"""Tasks, a file each: the modules it composes, its options, loss, predictions, scores, figures.

A task is known by being a file of this folder, or by being any other module that Python finds: one
class derived from `Task` in it is the task, its module's name is the name in configs.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mplug2_jax.contracts import options
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS, Stream
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.preprocess.tokenizer import Tokenizer
from mplug2_jax.tasks.base.older import own_keys, own_options, weighed_media
from mplug2_jax.tasks.base.options import check_shared
from mplug2_jax.tasks.base.sharing import with_rows
from mplug2_jax.tasks.base.task import Task

__all__ = ["Task", "complete", "load", "make", "names", "read", "section", "stored", "streams",
           "with_rows"]


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
    if "name" not in values:
        raise ConfigError(f"{place}.name: missing; expected one of {', '.join(names())}")
    task = load(values.pop("name"), place)
    found = options.read(task.Options, values, place)
    check_shared(found, place)
    try:
        task.composition(found)
    except ConfigError as error:
        said = str(error)
        raise ConfigError(f"{place}{said[4:]}" if said.startswith("task.") else said) from None
    return task, found


def streams(task: type[Task], found: Any, sections: Mapping[str, Any],
            place: str = "data.streams.{}", evaluates: bool = False) -> dict[str, Stream]:
    """The streams of a config's sections, with what the task gives them, checked.

    Args:
      task, found: of `read`.
      sections: by name.
      place: of a stream in the config, with its name for "{}".
      evaluates: whether they are of an evaluation, which may read less of a batch.

    Raises:
      ConfigError: a stream has a wrong key, or does not give what the task needs.
    """
    checked = {}
    for name, values in sections.items():
        checked[name] = task.stream(found, values, place.format(name))
        task.check_stream(found, name, checked[name])
        if evaluates and checked[name].questions > 1:
            raise ConfigError(f"{place.format(name)}.questions = {checked[name].questions}: an "
                              "evaluation asks every question apart; expected 1")
        if evaluates and not task.by_loss:
            checked[name] = dataclasses.replace(checked[name], contrasts=False)
    return checked


def complete(config: dict[str, Any], older: bool = False) -> list[str]:
    """Gives a config's tasks and streams, in place, all the keys that they do not name.

    Args:
      config: as plain values, with `task`, `data` and `evals`.
      older: as of `options.complete`.

    Returns:
      A line for each key.
    """
    filled: list[str] = []

    def fill(section: dict[str, Any], key: str, cls: type, place: str,
             hidden: tuple[str, ...] = ()) -> None:
        done, more = options.complete(cls, section[key], place, older)
        mine = tuple(f"{place}.{name} =" for name in hidden)
        filled.extend(line for line in more if not (mine and line.startswith(mine)))
        section[key] = {name: value for name, value in done.items() if name not in hidden}

    fill(config, "task", load(config["task"]["name"]).Options, "task")
    given = config["data"]["streams"]
    for name in given:
        fill(given, name, Stream, f"data.streams.{name}", GIVEN_BY_TASKS)
    if older:
        filled += load(config["task"]["name"]).as_it_was(config["task"], given)
    for name, entry in config["evals"].items():
        place = f"evals.{name}"
        fill(entry, "stream", Stream, f"{place}.stream", GIVEN_BY_TASKS)
        fill(entry, "task", load(entry["task"]["name"]).Options, f"{place}.task")
    return filled


def stored(meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The config of a checkpoint as plain values, its model, tasks and streams with all their keys.

    Those that it does not name get what reproduces what its run did.

    Args:
      meta: of the checkpoint. The config of converted weights may have a `model` section alone, and
        keeps to it.

    Returns:
      The config, and a line for each key.
    """
    config = ConfigDict(meta["config"]).to_dict()
    if meta.get("format", 1) == 1 and "task" in config:
        _from_format_1(config)
    weighed_media(config.get("data", {}))
    config["model"], filled = options.complete(ModelConfig, config["model"], "model")
    return config, filled + (complete(config, older=True) if "task" in config else [])


def _from_format_1(config: dict[str, Any]) -> None:
    """Leaves out, in place, of each section what was not its own."""
    def own(section: dict[str, Any]) -> dict[str, Any]:
        return own_options(load(section["name"]).Options, section)

    config["task"] = own(config["task"])
    for name, stream in config["data"]["streams"].items():
        config["data"]["streams"][name] = own_keys(stream, f"data.streams.{name}")
    for name, entry in config["evals"].items():
        expand = entry["stream"].get("expand", "record")
        entry["task"] = own(entry["task"] | {"expand": expand})
        if reference := entry.pop("reference", ""):
            entry["task"]["reference"] = reference
        entry["stream"] = own_keys(entry["stream"], f"evals.{name}.stream")


def make(given: Mapping[str, Any], model: ModelConfig, tokenizer: Tokenizer,
         evaluates: bool = False) -> Task:
    """The task of a config's section, ready to train and to predict; or, `evaluates`, just that."""
    task, found = read(given)
    return task(found, model, tokenizer, evaluates)
