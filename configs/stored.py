"""Configs of checkpoints: what is younger than they are, and what is no more."""

from collections.abc import Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from configs import common
from mplug2_jax import tasks
from mplug2_jax.contracts.options import complete, younger
from mplug2_jax.contracts.streams import SOURCES, Stream
from mplug2_jax.model.config import ModelConfig


def completed(meta: Mapping[str, Any]) -> ConfigDict:
    """The config of a checkpoint, with the keys younger than it, which the log names.

    They get the values that reproduce what its run did.

    Args:
      meta: of the checkpoint. The config of converted weights has a `model` section alone, and
        keeps to it.
    """
    config, filled = tasks.stored(meta)
    if "task" in config:
        filled += _fill(config, older=True)
    if filled:
        logging.info("the checkpoint's config is older than these keys, which get what its run "
                     "did: %s", ", ".join(filled))
    return ConfigDict(config)


def expanded(config: ConfigDict) -> ConfigDict:
    """A config with every key that it may have, for a checkpoint.

    A default may change; what a run did must stay known.
    """
    whole = config.to_dict()
    whole["model"], _ = complete(ModelConfig, whole["model"], "model", older=False)
    if "task" in whole:
        tasks.complete(whole)
        _fill(whole, older=False)
        if not whole["data"]["epoch_over"]:
            whole["data"]["epoch_over"] = tasks.load(whole["task"]["name"]).epoch_over
    return ConfigDict(whole)


def gone_on(config: ConfigDict, stored: ConfigDict) -> ConfigDict:
    """The config of a run that goes on, with what it did so far where the config says nothing.

    That is what its epochs go over, keys of streams that are younger than the run, and the sources
    of a mixture whose weights were of another kind.

    Args:
      config: as it was given; one that says `data.epoch_over` or another `seed` is followed, with
        a warning, for that changes the order.
      stored: that of the run's checkpoint, `completed`.
    """
    if "data" not in stored:  # converted weights
        return config
    if config.seed != stored.seed:
        logging.warning("seed = %r: the run drew by %r so far; from here on it draws in another "
                        "order", config.seed, stored.seed)
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


def _fill(config: dict[str, Any], older: bool) -> list[str]:
    """Gives a run's config, in place, the keys of sections that are no task's and no stream's.

    Returns:
      A line for each (`options.complete`).
    """
    filled: list[str] = []

    def fill(cls: type, values: Mapping[str, Any], place: str) -> dict[str, Any]:
        done, more = complete(cls, values, place, older)
        filled.extend(more)
        return done

    config |= fill(common.Run, config, "config")
    for name, cls in (("data", common.Data), ("mesh", common.Mesh),
                      ("optimizer", common.Optimizer), ("guard", common.Guard)):
        config[name] = fill(cls, config.get(name, {}), name)
    for name, entry in config["evals"].items():
        config["evals"][name] = fill(common.Evaluation, entry, f"evals.{name}")
    return filled
