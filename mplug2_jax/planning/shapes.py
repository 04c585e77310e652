"""What a config's data and vocabulary are in shape alone, where neither is there."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.preprocess.classes import SCORE
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, Tokenizer


def batch_shapes(streams: Mapping[str, Any]) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """A training step's global batch, of the config's `data.streams`, as ShapeDtypeStructs."""
    batch = {}
    for name, stream in streams.items():
        rows = stream.batch_size
        fields = {"pair_id": ((rows,), jnp.int32), "example_mask": ((rows,), jnp.bool_)}
        if stream.frames:
            size = stream.image_size
            fields["video"] = (rows, stream.frames, size, size, 3), jnp.uint8
        sources = [] if isinstance(stream.split, str) else stream.split.values()
        asks = {stream.ask, *(source.get("ask") for source in sources)}
        # A question comes with its answer, or not at all.
        asked = stream.target_length or stream.ask != "question"
        for text in ("text", "prompt", "target") if asked else ("text",):
            if length := stream[f"{text}_length"]:
                fields |= {text: ((rows, length), jnp.int32),
                           f"{text}_mask": ((rows, length), jnp.bool_)}
        if stream.classes:
            fields["label"] = (rows,), jnp.float32 if stream.classes == SCORE else jnp.int32
        if "box" in asks:
            fields["box"] = (rows, 4), jnp.float32
        batch[name] = {field: jax.ShapeDtypeStruct(*value) for field, value in fields.items()}
    return batch


def placeholder_tokenizer(size: int) -> Tokenizer:
    """A vocabulary of the right size: a program does not depend on what its pieces are.

    They are reserved entries, of which a task may want some.
    """
    pieces = [*SPECIAL_TOKENS, *(f"[unused{i}]" for i in range(size - len(SPECIAL_TOKENS)))]
    return Tokenizer(pieces, [True] * size, lambda text: [], lambda ids: "")
