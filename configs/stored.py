"""Configs of checkpoints: what is younger than they are, and what is no more."""

from collections.abc import Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from configs import common
from mplug2_jax import tasks
from mplug2_jax.contracts.options import comments, complete, younger
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS, ITEMS, MEDIA, SOURCES, Stream
from mplug2_jax.model.config import ModelConfig


def completed(meta: Mapping[str, Any]) -> ConfigDict:
    """The config of a checkpoint, with the keys younger than it, which the log names.

    They get the values that reproduce what its run did.

    Args:
      meta: of the checkpoint. The config of converted weights has a `model` section alone, and
        keeps to it.
    """
    config = ConfigDict(meta["config"]).to_dict()
    if meta.get("format", 1) == 1 and "task" in config:
        config = _from_format_1(config)
    _weighed_media(config.get("data", {}))
    whole, filled = _filled(config, older=True)
    if filled:
        logging.info("the checkpoint's config is older than these keys, which get what its run "
                     "did: %s", ", ".join(filled))
    return ConfigDict(whole)


def expanded(config: ConfigDict) -> ConfigDict:
    """A config with every key that it may have, for a checkpoint.

    A default may change; what a run did must stay known.
    """
    whole = _filled(config.to_dict(), older=False)[0]
    if "task" in whole and not whole["data"]["epoch_over"]:
        whole["data"]["epoch_over"] = tasks.load(whole["task"]["name"]).epoch_over
    return ConfigDict(whole)


def gone_on(config: ConfigDict, stored: ConfigDict) -> ConfigDict:
    """The config of a run that goes on, with what it did so far where the config says nothing.

    That is what its epochs go over, keys of streams that are younger than the run, and the sources
    of a mixture whose weights were of another kind.

    Args:
      config: as it was given; one that says `data.epoch_over` is followed, with a warning where
        that changes the order.
      stored: that of the run's checkpoint, `completed`.
    """
    if "data" not in stored:  # converted weights
        return config
    kept = _streams_before(config, stored)
    before = stored.data.epoch_over
    said = config.data.get("epoch_over")
    given = said or tasks.load(config.task.name).epoch_over
    if before != given and said:
        logging.warning("data.epoch_over = %r: the run went over %s so far; from here on it draws "
                        "in another order", given, before)
    elif before != given:
        kept["data.epoch_over"] = before
    if not kept:
        return config
    for key, value in kept.items():
        logging.info("%s = %r, as the run began, before there was this key or another default; "
                     "name it to have another", key, value)
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(kept)
    return config


def _weighed_media(data: dict[str, Any]) -> None:
    """Says of an older run, in place, that its weights were of media where its epochs were."""
    for stream in data.get("streams", {}).values():
        if (stream.get("weights_of") == ITEMS and data.get("epoch_over") == MEDIA
                and "empty_items" not in stream):  # which is as young as the difference
            stream["weights_of"] = MEDIA


def _streams_before(config: ConfigDict, stored: ConfigDict) -> dict[str, Any]:
    """What streams did and a config does not name, by key."""
    kept: dict[str, Any] = {}
    for name, stream in config.data.streams.items():
        if name not in stored.data.streams:
            continue
        before, place = stored.data.streams[name], f"data.streams.{name}"
        kept |= {f"{place}.{key}": before[key] for key, default in younger(Stream).items()
                 if key not in stream and before[key] != default}
        if before.weights_of != stream.get("weights_of", SOURCES):
            kept |= {f"{place}.{key}": before[key] for key in ("split", "weights_of")}
    return kept


def _filled(config: dict[str, Any], older: bool) -> tuple[dict[str, Any], list[str]]:
    """A config with all keys, and a line for each that it does not name (`options.complete`)."""
    filled: list[str] = []

    def fill(cls: type, values: Mapping[str, Any], place: str) -> dict[str, Any]:
        done, more = complete(cls, values, place, older)
        filled.extend(more)
        return done

    config["model"] = fill(ModelConfig, config["model"], "model")
    if "task" not in config:
        return config, filled
    config |= fill(common.Run, config, "config")
    for name, cls in (("data", common.Data), ("mesh", common.Mesh),
                      ("optimizer", common.Optimizer), ("guard", common.Guard)):
        config[name] = fill(cls, config.get(name, {}), name)
    for name, entry in config["evals"].items():
        config["evals"][name] = fill(common.Evaluation, entry, f"evals.{name}")
    return config, filled + tasks.complete(config, older)


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
    """Of a stream what its task does not give it."""
    if stream.get("text_buckets"):
        logging.warning("%s.text_buckets = %r: texts of several lengths are no more", place,
                        stream["text_buckets"])
    return {key: value for key, value in stream.items()
            if key not in (*GIVEN_BY_TASKS, "text_buckets")}
