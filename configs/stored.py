"""Configs of checkpoints: what is younger than they are, and what is no more."""

from collections.abc import Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from configs import common
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import comments, complete
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS, Stream
from mplug2_jax.model.config import ModelConfig

LATEST = 2  # format of the configs that are written now


def completed(meta: Mapping[str, Any], log: bool = True) -> ConfigDict:
    """The config of a checkpoint, with the keys younger than it, which the log names.

    They get the values that reproduce what its run did.

    Args:
      meta: of the checkpoint. The config of converted weights has a `model` section alone, and
        keeps to it.
      log: whether to name them.

    Raises:
      ConfigError: it was made with something that is no more.
    """
    config = ConfigDict(meta["config"]).to_dict()
    if meta.get("format", 1) < LATEST and "task" in config:
        config = _from_format_1(config)
    filled: list[str] = []

    def fill(cls: type, values: Mapping[str, Any], place: str) -> dict[str, Any]:
        done, more = complete(cls, values, place)
        filled.extend(more)
        return done

    def stream(values: Mapping[str, Any], place: str) -> dict[str, Any]:
        done, more = complete(Stream, values, place)
        own = [line for line in more if not line.startswith(tuple(
            f"{place}.{key} =" for key in GIVEN_BY_TASKS))]
        filled.extend(own)
        return {key: value for key, value in done.items() if key not in GIVEN_BY_TASKS}

    config["model"] = fill(ModelConfig, config["model"], "model")
    if "task" in config:
        config |= fill(common.Run, config, "config")
        for name, cls in (("data", common.Data), ("mesh", common.Mesh),
                          ("optimizer", common.Optimizer)):
            config[name] = fill(cls, config[name], name)
        config["task"] = fill(tasks.load(config["task"]["name"]).Options, config["task"], "task")
        for name, values in config["data"]["streams"].items():
            config["data"]["streams"][name] = stream(values, f"data.streams.{name}")
        for name, entry in config["evals"].items():
            place = f"evals.{name}"
            entry = config["evals"][name] = fill(common.Evaluation, entry, place)
            entry["stream"] = stream(entry["stream"], f"{place}.stream")
            entry["task"] = fill(tasks.load(entry["task"]["name"]).Options, entry["task"],
                                 f"{place}.task")
    if filled and log:
        logging.info("the checkpoint's config is older than these keys, which get what its run "
                     "did: %s", ", ".join(filled))
    return ConfigDict(config)


def expanded(config: ConfigDict) -> ConfigDict:
    """A config with every key that it may have, for a checkpoint.

    A default may change; what a run did must stay known.
    """
    return completed({"format": LATEST, "config": config.to_dict()}, log=False)


def _from_format_1(config: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had all tasks' options in every `task` section, and said some again in streams."""
    config["task"] = _own_options(config["task"])
    for name, stream in config["data"]["streams"].items():
        config["data"]["streams"][name] = _own_keys(stream, f"data.streams.{name}")
    for name, entry in config["evals"].items():
        expand = entry["stream"].get("expand", "record")
        entry["task"] = _own_options(entry["task"] | {"expand": expand})
        if reference := entry.pop("reference", ""):
            entry["task"]["reference"] = reference
        entry["stream"] = _own_keys(entry["stream"], f"evals.{name}.stream")
    return config


def _own_options(section: dict[str, Any]) -> dict[str, Any]:
    """Of a `task` section the options of its task."""
    known: dict[str, Any] = {"name": {}}
    for path, _ in comments(tasks.load(section["name"]).Options):
        place = known
        for part in path.split("."):
            place = place.setdefault(part, {})

    def kept(values: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
        return {key: kept(value, names[key]) if names[key] else value
                for key, value in values.items() if key in names}

    return kept(section, known)


def _own_keys(stream: dict[str, Any], place: str) -> dict[str, Any]:
    """Of a stream what its task does not give it.

    Raises:
      ConfigError: its texts were cut to lengths of their own.
    """
    if stream.get("text_buckets"):
        raise ConfigError(f"{place}.text_buckets = {stream['text_buckets']!r}: texts of several "
                          "lengths are no more; train from its parameters (init_from)")
    return {key: value for key, value in stream.items()
            if key not in (*GIVEN_BY_TASKS, "text_buckets")}
