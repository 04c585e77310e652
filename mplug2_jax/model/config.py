"""The model's hyper-parameters as one frozen, validated, hashable value.

`ModelConfig` is what the Flax modules read. It is built from the `model` section of a run's
`ml_collections` config, so that every inconsistency is found here, before anything compiles.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option, read, required

SHARED = ("universal", "fusion", "decoder")  # by all modalities
# The paper's. A modality that is registered besides (`modalities.py`) is not among them, for what
# a release, a stored config and `model.remat` name must not depend on what was imported.
MODULES = ("vision", "text", *SHARED)
LOCAL_TEMPORAL = ("none", "once", "twice", "grouped")
UNIVERSAL_VARIANTS = ("release", "figure")
UNIVERSAL_SHARING = ("shared", "separate")
REMAT_POLICIES = {
    "none": None,  # keep every activation
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
MAY_BE_ZERO = ("temporal_stride", "text_layers", "universal_layers")
HOW = ("remat", "shard_frames")  # keys that say how the model is computed, not what it is
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Remat:
    """What the backward pass keeps of each layer, a name of `REMAT_POLICIES` for every module."""

    vision: str = "none"
    text: str = "none"
    universal: str = "none"
    fusion: str = "none"
    decoder: str = "none"

    def __post_init__(self):
        for module, policy in vars(self).items():
            if policy not in REMAT_POLICIES:
                raise ConfigError(f"model.remat.{module} = {policy!r}: expected one of "
                                  + ", ".join(REMAT_POLICIES))

    @classmethod
    def from_mapping(cls, mapping: "str | Remat | Mapping[str, str]") -> "Remat":
        """Builds it from a config's `model.remat`, or from one name for all modules."""
        if isinstance(mapping, Remat):
            return mapping
        if isinstance(mapping, str):
            return cls(*(mapping,) * len(MODULES))
        values = dict(mapping.items())
        for module in values:
            if module not in MODULES:
                raise ConfigError(f"model.remat.{module}: unknown; known: " + ", ".join(MODULES))
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and variants of the five modules (names as in the reference sizes of mPLUG-2).

    `local_temporal` is "twice" (release: before attention and before the MLP, images too), "once"
    (before attention only), "grouped" (the paper's figure: once, channel groups, video only) or
    "none". `universal_variant` is "release" (self-attention, cross-attention, FFN; no outer text
    residual) or "figure" (queries cross-attend first; text W0 + WS); with 0 universal layers there
    is no such module, and each modality goes on as it leaves its own encoder.
    """

    vision_width: int = required("of the ViT; its heads are vision_width / 64")
    vision_layers: int = required("of the ViT")
    patch_size: int = required("side of the ViT's patches, pixels")
    image_size: int = required("side of the pretrained frames, pixels")
    width: int = required("of the BERT parts: text, universal, fusion, decoder")
    heads: int = required("of attention in the BERT parts")
    mlp_dim: int = required("of the MLPs in the BERT parts")
    vocab_size: int = required("pieces of the vocabulary")
    text_layers: int = required("of text alone; the universal layers come after them")
    universal_layers: int = required("of the universal layers; 0 for none")
    fusion_layers: int = required("of the fusion encoder")
    decoder_layers: int = required("of the text decoder")
    temporal_stride: int = option(0, "0: one patch embedding a frame; s: the release's "
                                  "temporal_downsampling, a 3-frame kernel with stride s")
    local_temporal: str = option("twice", "local temporal modelling: " + ", ".join(LOCAL_TEMPORAL))
    temporal_groups: int = option(4, "channel groups of the 'grouped' variant")
    position_gain: float = option(1.0, "what the ViT multiplies its positions by: more than 1 "
                                  "where pretraining left them small and a task asks for places")
    stochastic_depth: float = option(0.0, "share of examples for which training leaves out the "
                                     "last vision block; it grows linearly from 0 at the first")
    max_positions: int = option(512, "tokens of a text at most")
    dropout: float = option(0.1, "of the BERT parts")
    latents: int = option(50, "of the universal layers' visual path")
    universal_variant: str = option("release", "of the universal layers: "
                                    + ", ".join(UNIVERSAL_VARIANTS))
    universal_sharing: str = option("shared", "whether both modalities go through the same weights "
                                    "('shared', the paper) or as many of their own ('separate')")
    fusion_stride: int = option(1000, "every so many fusion layers is a connected one")
    contrastive_dim: int = option(256, "width of the contrastive space")
    dtype: str = option("float32", "of computation; parameters are float32")
    scan: bool = option(True, "one compiled layer body in a loop, or layers one after another")
    remat: Remat = option(Remat, "what the backward pass keeps of each module's layers")
    shard_frames: bool = option(False, "spread a clip's frames over the mesh's tensor axis")

    def __post_init__(self):
        object.__setattr__(self, "remat", Remat.from_mapping(self.remat))

        def require(condition: bool, key: str, expected: str) -> None:
            if not condition:
                raise ConfigError(f"model.{key} = {getattr(self, key)!r}: expected {expected}")

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                least = 0 if field.name in MAY_BE_ZERO else 1
                require(isinstance(value, int) and value >= least, field.name, f"an int >= {least}")
        require(self.vision_width % 64 == 0, "vision_width", "a multiple of 64 (the head size)")
        require(self.image_size % self.patch_size == 0, "image_size",
                f"a multiple of model.patch_size = {self.patch_size}")
        require(self.width % self.heads == 0, "width", f"a multiple of model.heads = {self.heads}")
        require(0.0 <= self.dropout < 1.0, "dropout", "a share in [0, 1)")
        require(self.position_gain > 0.0, "position_gain", "a factor above 0")
        require(0.0 <= self.stochastic_depth < 1.0, "stochastic_depth", "a share in [0, 1)")
        require(self.local_temporal in LOCAL_TEMPORAL, "local_temporal",
                "one of " + ", ".join(LOCAL_TEMPORAL))
        require(self.local_temporal != "grouped" or self.vision_width % self.temporal_groups == 0,
                "temporal_groups", f"a divisor of model.vision_width = {self.vision_width}")
        require(self.universal_variant in UNIVERSAL_VARIANTS, "universal_variant",
                "one of " + ", ".join(UNIVERSAL_VARIANTS))
        require(self.universal_sharing in UNIVERSAL_SHARING, "universal_sharing",
                "one of " + ", ".join(UNIVERSAL_SHARING))
        require(self.dtype in DTYPES, "dtype", "one of " + ", ".join(DTYPES))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "ModelConfig":
        """Builds it from a config's `model` section; ConfigError for a wrong or missing key."""
        values = dict(mapping.items())
        if "remat" in values:
            values["remat"] = Remat.from_mapping(values["remat"])
        return read(cls, values, "model")

    @property
    def compute_dtype(self) -> Any:
        """The dtype of activations."""
        return DTYPES[self.dtype]
