"""Modalities: an entry says all that the model has to know of one, and `register` adds another.

The paper's two are here. A third is a file anywhere, in the tree or not, that calls `register` when
it is imported, before a model is built:

    register(Modality("spectrogram", encoder, "spectrogram", example))

What is not in an entry goes by the names of its parameters. Those of `layers.py` are sharded, and
left out of weight decay, as they are everywhere. A table of positions is called `position`, the
matrix that cuts up the input `patch_kernel`, and the stack of layers `layers` or `blocks`: by these
names `parallel/sharding.py` and layer decay know them.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.text import TextEncoder
from mplug2_jax.model.vision import DualVisionEncoder, normalize_pixels

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Modality:
    """What the model has to know of a modality.

    Attributes:
      name: of its encoder among the parameters and in a task's modules.
      encoder: builds the module that takes what `normalise` gives, `[B, ...]`, and on the text path
        the mask, bool `[B, L]`, to `[B, L, D]`, the class token first. Sizes and a remat policy of
        its own are bound in it: `ModelConfig` has those of the paper's modules.
      field: of a batch, that it is read from; on the text path `<field>_mask` belongs to it.
      example: shape and dtype of its smallest example, without a batch dimension. The first
        dimension is the length (frames, tokens), which may be another.
      normalise: the batch's field to what the encoder takes, on the device.
      path: through the universal layers, "text" (self-attention alone, with a mask) or "visual"
        (latents that read the features).
      load: the bytes of a record's media to an example of the field, on the host; None where
        batches come from a loader of one's own. ValueError where they cannot be read.
      projection: of the contrastive head, what it is called if not by the modality's name.
    """

    name: str
    encoder: Callable[[ModelConfig], nn.Module]
    field: str
    example: Callable[[ModelConfig], jax.ShapeDtypeStruct]
    normalise: Callable[[Array], Array] = lambda x: x
    path: Literal["text", "visual"] = "visual"
    load: Callable[[bytes], np.ndarray] | None = None
    projection: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """The batch's fields that `MPlug2.encode` takes."""
        return (self.field, f"{self.field}_mask") if self.path == "text" else (self.field,)

    def shapes(self, config: ModelConfig, rows: int = 1,
               length: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
        """Those fields of a batch of `rows` examples, of another `length` where it is given."""
        example = self.example(config)
        shape = (rows, length or example.shape[0], *example.shape[1:])
        given = (jax.ShapeDtypeStruct(shape, example.dtype),
                 jax.ShapeDtypeStruct(shape[:2], jnp.bool_))
        return dict(zip(self.fields, given, strict=False))


def frame(config: ModelConfig) -> jax.ShapeDtypeStruct:
    """A clip uint8 `[T, H, W, 3]` of as few frames as the patch embedding takes."""
    side = config.image_size
    return jax.ShapeDtypeStruct((config.temporal_stride or 1, side, side, 3), jnp.uint8)


def tokens(config: ModelConfig) -> jax.ShapeDtypeStruct:
    """Token ids int32 `[L]`."""
    del config
    return jax.ShapeDtypeStruct((2,), jnp.int32)


# In the order in which a model runs them.
MODALITIES = {entry.name: entry for entry in (
    Modality("vision", DualVisionEncoder, "video", frame, normalize_pixels, projection="visual"),
    Modality("text", TextEncoder, "text", tokens, path="text"),
)}


def find(name: str) -> Modality:
    """The modality of that name; a module that Python finds by it may register it.

    Raises:
      ConfigError: there is none.
    """
    reason = ""
    if name not in MODALITIES:
        try:
            importlib.import_module(name)
        except (ImportError, TypeError, ValueError) as error:  # a path is no name
            reason = f" ({error})"
    if name not in MODALITIES:
        raise ConfigError(f"modality = {name!r}: expected one of {', '.join(MODALITIES)}, or a "
                          f"module that Python finds and that registers it{reason}")
    return MODALITIES[name]


def register(modality: Modality) -> None:
    """Adds a modality, for all models that are built after it.

    Raises:
      ConfigError: there is one of that name.
    """
    if modality.name in MODALITIES:
        raise ConfigError(f"modality {modality.name!r}: registered twice")
    MODALITIES[modality.name] = modality
