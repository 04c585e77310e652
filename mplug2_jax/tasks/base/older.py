"""What sections of older checkpoints said otherwise, in today's words."""

from collections.abc import Mapping
from typing import Any

from absl import logging

from mplug2_jax.contracts.options import comments
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS, ITEMS, MEDIA


def weighed_media(data: dict[str, Any]) -> None:
    """Says of an older run's `data`, in place, that weights were of media where its epochs were."""
    for stream in data.get("streams", {}).values():
        if (stream.get("weights_of") == ITEMS and data.get("epoch_over") == MEDIA
                and "empty_items" not in stream):  # which is as young as the difference
            stream["weights_of"] = MEDIA


def own_options(options: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """Of a `task` section the options of its task: in format 1 each had those of all tasks."""
    known: dict[str, Any] = {"name": {}}
    for path, _ in comments(options):
        place = known
        for part in path.split("."):
            place = place.setdefault(part, {})

    def kept(values: Mapping[str, Any], names: dict[str, Any]) -> dict[str, Any]:
        return {key: kept(value, names[key]) if names[key] else value
                for key, value in values.items() if key in names}

    return kept(section, known)


def own_keys(stream: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Of a stream what its task does not give it: in format 1 streams said that again."""
    if stream.get("text_buckets"):
        logging.warning("%s.text_buckets = %r: texts of several lengths are no more", place,
                        stream["text_buckets"])
    return {key: value for key, value in stream.items()
            if key not in (*GIVEN_BY_TASKS, "text_buckets")}
