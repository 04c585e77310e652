"""The model's hyper-parameters as one frozen, validated, hashable value.

`ModelConfig` is what the Flax modules read. It is built from the `model` section of a run's
`ml_collections` config, so that every inconsistency is found here, before anything compiles.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.errors import ConfigError

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

    Attributes:
      vision_width, vision_layers, patch_size, image_size: the ViT; heads are `vision_width / 64`.
      temporal_stride: 0 for one patch embedding a frame; s > 0 for the released
        `temporal_downsampling`: a 3-frame kernel with stride s over time.
      local_temporal: "twice" (release: before attention and before the MLP, images too), "once"
        (before attention only), "grouped" (paper's figure: once, channel groups, video only),
        "none".
      temporal_groups: number of channel groups of the "grouped" variant.
      position_gain: what the ViT multiplies its positional embedding by. More than 1 where the
        pretraining left it small, so that a task that asks for places can read it.
      stochastic_depth: share of examples for which training leaves out the last vision block's
        residuals; it grows linearly from 0 at the first block.
      width, heads, mlp_dim: of every BERT part (text, universal, fusion, decoder).
      vocab_size, max_positions, dropout: of the BERT parts.
      text_layers: layers of text alone; the universal layers come after them.
      universal_layers, latents, universal_variant: "release" (self-attention, cross-attention,
        FFN; no outer text residual) or "figure" (queries cross-attend first; text W0 + WS). With 0
        layers there is no such module: each modality goes on as it leaves its own encoder.
      universal_sharing: "shared" (the paper: both modalities through the same weights) or
        "separate" (as many layers for each of them, the paper's ablation).
      fusion_layers, fusion_stride: every `stride`-th layer but the first is a connected layer.
      decoder_layers: of the text decoder.
      contrastive_dim: width of the contrastive space.
      dtype: of computation; parameters are always float32.
      scan: one compiled layer body run in a loop, or the layers laid out one after another.
      shard_frames: whether the vision encoder spreads a clip's frames over the mesh's `tensor`
        axis: less memory for long clips, more communication.
      remat: what the backward pass keeps of each module's layers.
    """

    vision_width: int
    vision_layers: int
    patch_size: int
    image_size: int
    width: int
    heads: int
    mlp_dim: int
    vocab_size: int
    text_layers: int
    universal_layers: int
    fusion_layers: int
    decoder_layers: int
    temporal_stride: int = 0
    local_temporal: str = "twice"
    temporal_groups: int = 4
    position_gain: float = 1.0
    stochastic_depth: float = 0.0
    max_positions: int = 512
    dropout: float = 0.1
    latents: int = 50
    universal_variant: str = "release"
    universal_sharing: str = "shared"
    fusion_stride: int = 1000
    contrastive_dim: int = 256
    dtype: str = "float32"
    scan: bool = True
    remat: Remat = Remat()
    shard_frames: bool = False

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
        names = {field.name for field in dataclasses.fields(cls)}
        values = dict(mapping.items())
        for key in values:
            if key not in names:
                raise ConfigError(f"model.{key}: unknown key; known: " + ", ".join(sorted(names)))
        required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        for key in sorted(required - set(values)):
            raise ConfigError(f"model.{key}: missing; every size must be given")
        return cls(**values)

    @property
    def compute_dtype(self) -> Any:
        """The dtype of activations."""
        return DTYPES[self.dtype]
