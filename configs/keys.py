"""Every key of a run's config with its comment: what `--help_config` prints.

    python train.py --config=configs/demo.py --help_config
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common
from mplug2_jax import tasks
from mplug2_jax.contracts.options import comments
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS, Source, Stream
from mplug2_jax.model.config import ModelConfig

# The path of a key, and the path of its kind: streams, sources, evaluations and modules are named
# by the run, and each kind of them has the same keys. A source's keys are those of the stream that
# they replace, but for its weight; an evaluation's stream is a stream, the name of its task one.
KINDS = (
    (r"^data\.streams\.([^.]+)\.split\.([^.]+)\.(?=weight$)", "data.streams.*.split.*."),
    (r"^data\.streams\.([^.]+)\.split\.([^.]+)\.", "data.streams.*."),
    (r"^data\.streams\.([^.]+)\.", "data.streams.*."),
    (r"^evals\.([^.]+)\.stream\.", "data.streams.*."),
    (r"^evals\.([^.]+)\.task\.name$", "task.name"),
    (r"^evals\.([^.]+)\.", "evals.*."),
    (r"^model\.remat\..*", "model.remat.*"),
)
WIDTH = 58  # of a line's comment before its values


def leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of every key of a config; empty sections, and what is open, have none."""
    for key, value in section.items():
        if isinstance(value, ConfigDict | Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def kind_of(path: str) -> str:
    """The path of a key's kind."""
    for pattern, kind in KINDS:
        if re.match(pattern, path):
            return re.sub(pattern, kind, path)
    return path


def keys(config: ConfigDict) -> dict[str, list[tuple[str, Any]]]:
    """The config's different keys: for each kind of key the paths and values that are of it."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for path, value in leaves(config):
        found.setdefault(kind_of(path), []).append((path, value))
    return found


def all_comments(config: ConfigDict) -> dict[str, str]:
    """The comment of every kind of key that the config may have."""
    sections = {"": common.Run, "model.": ModelConfig, "data.": common.Data, "mesh.": common.Mesh,
                "optimizer.": common.Optimizer, "guard.": common.Guard,
                "data.streams.*.": Stream,
                "data.streams.*.split.*.": Source, "evals.*.": common.Evaluation}
    said = {path: text for prefix, cls in sections.items() for path, text in comments(cls, prefix)}
    own = [("task.", config.task), *(("evals.*.task.", entry.task)
                                     for entry in config.evals.values())]
    for prefix, name in ((prefix, given.name) for prefix, given in own if "name" in given):
        said[f"{prefix}name"] = "of the task: a file of mplug2_jax/tasks, or a module of your own"
        said |= comments(tasks.load(name).Options, prefix)
    said["model.remat.*"] = "what the backward pass keeps of a module's layers"
    return said


def help_text(config: ConfigDict) -> str:
    """A line for every different key, and their number beside that of all leaves."""
    said, found = all_comments(config), keys(config)
    width = max(map(len, found))
    lines = [f"{kind:<{width}}  {said.get(kind, ''):<{WIDTH}}  {_values(given)}".rstrip()
             for kind, given in sorted(found.items())]
    by_tasks = {f"data.streams.*.{key}" for key in GIVEN_BY_TASKS}
    more = sorted(key for key in said if key not in found and key not in by_tasks)
    lines += ["", "They have their defaults where they are not named, and may be given:",
              *(f"{kind:<{width}}  {said[kind]}" for kind in more)]
    total = sum(map(len, found.values()))
    return "\n".join([*lines, "", f"{len(found)} different keys, {total} leaves"])


def _values(given: list[tuple[str, Any]]) -> str:
    values = [value for _, value in given]
    shown = [repr(value) for value in values]
    text = shown[0] if len(set(shown)) == 1 else ", ".join(dict.fromkeys(shown))
    return text if len(text) <= 60 else f"{text[:57]}..."
