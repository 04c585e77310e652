"""MPlug2: builds just the modules that a task names, and the heads over them.

Parameters are one dict whose top level is `vision, text, universal, fusion, decoder, heads`; what
a task does not name does not exist. All methods are pure: call them through `apply(..., method=)`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mplug2_jax.errors import ConfigError
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.decoder import Cache, TextDecoder, init_cache
from mplug2_jax.model.fusion import FusionEncoder
from mplug2_jax.model.layers import TiedHead, bert_init
from mplug2_jax.model.text import TextEncoder
from mplug2_jax.model.universal import UniversalLayers
from mplug2_jax.model.vision import DualVisionEncoder

Array = jax.Array
HEADS = ("vtc", "vtm", "mlm")  # of pretraining
TASK_HEADS = ("classify",)
# Range of the learnable temperature, as the predecessor's procedure clamps it.
TEMPERATURE_START, TEMPERATURE_MIN, TEMPERATURE_MAX = 0.07, 0.001, 0.5


class ContrastiveHead(nn.Module):
    """Projections of both class tokens to one normalised space, and the temperature."""

    width: int
    dim: int

    def setup(self):
        self.visual = nn.Dense(self.dim, kernel_init=bert_init(self.width))
        self.text = nn.Dense(self.dim, kernel_init=bert_init(self.width))
        self.temperature = self.param(
            "temperature", nn.initializers.constant(TEMPERATURE_START), ())

    def project(self, tokens: Array, modality: str) -> Array:
        """`[B, L, D]` to L2-normalised float32 features `[B, C]` of the first token."""
        x = getattr(self, modality)(tokens[:, 0].astype(jnp.float32))
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True).clip(1e-12)


class MlpHead(nn.Module):
    """Dense layers with ReLU between them, in float32: `[B, K]` to `[B, outputs]`."""

    width: int
    layers: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.astype(jnp.float32)
        init = bert_init(self.width)
        for _ in range(self.layers - 1):
            x = nn.relu(nn.Dense(self.width, kernel_init=init)(x))
        return nn.Dense(self.outputs, kernel_init=init)(x)


class Heads(nn.Module):
    """The task heads, each built only where the task names it.

    Attributes:
      config: the model's sizes.
      names: of `HEADS` and `TASK_HEADS`.
      outputs: of the `classify` head.
      classify_layers: of the `classify` head.
    """

    config: ModelConfig
    names: tuple[str, ...]
    outputs: int = 0
    classify_layers: int = 1

    def setup(self):
        config = self.config
        if "vtc" in self.names:
            self.vtc = ContrastiveHead(config.width, config.contrastive_dim)
        if "vtm" in self.names:
            self.vtm = nn.Dense(2, kernel_init=bert_init(config.width))
        if "mlm" in self.names:
            self.mlm = TiedHead(config.width, config.vocab_size, config.compute_dtype)
        if "classify" in self.names:
            self.classify = MlpHead(config.width, self.classify_layers, self.outputs)


class MPlug2(nn.Module):
    """The model, composed.

    Attributes:
      config: sizes and variants.
      modules: of `MODULES`, what this task uses.
      heads_used: of `HEADS` and `TASK_HEADS`.
      outputs: numbers that the `classify` head gives.
      images: of a record, whose pooled features are classified together.
    """

    config: ModelConfig
    modules: tuple[str, ...] = MODULES
    heads_used: tuple[str, ...] = HEADS
    outputs: int = 0
    images: int = 1

    def setup(self):
        config = self.config
        if "vision" in self.modules:
            self.vision = DualVisionEncoder(config)
        if "text" in self.modules:
            self.text = TextEncoder(config)
        if "universal" in self.modules:
            self.universal = UniversalLayers(config)
        if "fusion" in self.modules:
            self.fusion = FusionEncoder(config)
        if "decoder" in self.modules:
            self.decoder = TextDecoder(config)
        if self.heads_used:
            # As in the predecessors: a layer more where both modalities come together.
            layers = 2 if "fusion" in self.modules else 1
            self.heads = Heads(config, self.heads_used, self.outputs, layers)

    def encode_visual(self, video: Array) -> Array:
        """`video [B, T, H, W, 3]` (uint8, or normalised floating) to the embedding `[B, S, D]`."""
        features = self.vision(video)
        return self.universal.vision(features) if "universal" in self.modules else features

    def encode_text(self, ids: Array, mask: Array) -> Array:
        """`ids int32 [B, L]`, `mask bool [B, L]` to `[B, L, D]`."""
        x = self.text(ids, mask)
        return self.universal.text(x, mask) if "universal" in self.modules else x

    def fuse(self, visual: Array, text: Array, mask: Array) -> tuple[Array, Array]:
        """Fuses `visual [B, S, D]` and `text [B * R, L, D]`; see `FusionEncoder`."""
        return self.fusion(visual, text, mask)

    def decode(self, ids: Array, mask: Array | None, memory: Array | None,
               memory_mask: Array | None, cache: Cache | None = None,
               ) -> tuple[Array, Cache | None]:
        """Logits float32 `[B, L, V]` and the cache; see `TextDecoder`."""
        return self.decoder(ids, mask, memory, memory_mask, cache)

    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty decoding cache; see `decoder.init_cache`."""
        return init_cache(self.config, batch, length)

    def contrastive(self, tokens: Array, modality: str) -> Array:
        """`tokens [B, L, D]` of "visual" or "text" to normalised features `[B, C]`."""
        return self.heads.vtc.project(tokens, modality)

    def temperature(self) -> Array:
        """The contrastive temperature, a float32 scalar within its clamped range."""
        return self.heads.vtc.temperature.clip(TEMPERATURE_MIN, TEMPERATURE_MAX)

    def match_logits(self, fused_text: Array) -> Array:
        """Logits float32 `[B, 2]` (no match, match) of the fused class token of `[B, L, D]`."""
        return self.heads.vtm(fused_text[:, 0].astype(jnp.float32))

    def mlm_logits(self, tokens: Array) -> Array:
        """Vocabulary logits float32 `[..., V]` of `tokens [..., D]`, tied to the text's words."""
        return self.heads.mlm(tokens, self.text.word_embeddings())

    def class_logits(self, pooled: Array) -> Array:
        """Logits (or a score) float32 `[B, outputs]` of `pooled [B, images * D]`."""
        return self.heads.classify(pooled)

    def __call__(self, video: Array, ids: Array, mask: Array) -> tuple[Array, ...]:
        """Runs every module once: what `init` needs to create all parameters."""
        visual = text = None
        out = []
        if "vision" in self.modules:
            visual = self.encode_visual(video)
            out.append(visual)
        if "text" in self.modules:
            text = self.encode_text(ids, mask)
            out.append(text)
        if "fusion" in self.modules:
            visual, text = self.fuse(visual, text, mask)
            out.append(text)
        if "decoder" in self.modules:
            out.append(self.decode(ids, mask, text if visual is None else visual, None)[0])
        if "vtc" in self.heads_used:
            out += [self.contrastive(visual, "visual"), self.contrastive(text, "text"),
                    self.temperature()]
        if "vtm" in self.heads_used:
            out.append(self.match_logits(text))
        if "mlm" in self.heads_used:
            out.append(self.mlm_logits(text))
        if "classify" in self.heads_used:
            pooled = (visual if text is None else text)[:, 0]
            out.append(self.class_logits(jnp.tile(pooled, (1, self.images))))
        return tuple(out)


def build(config: ModelConfig, modules: tuple[str, ...], heads: tuple[str, ...],
          outputs: int = 0, images: int = 1) -> MPlug2:
    """The model of the named modules and heads; `outputs` and `images` as of `MPlug2`.

    Raises:
      ConfigError: an unknown name, or a head or module without what it works on.
    """
    for name in modules:
        if name not in MODULES:
            raise ConfigError(f"module {name!r}: unknown; known: " + ", ".join(MODULES))
    needs = {"fusion": ("vision", "text"), "vtc": ("vision", "text"), "vtm": ("fusion",),
             "mlm": ("text",)}
    for name in (*modules, *heads):
        missing = [need for need in needs.get(name, ()) if need not in modules]
        if missing:
            raise ConfigError(f"{name!r} needs the module(s) {', '.join(missing)}: name them too")
    if not config.universal_layers:  # the ablation without them
        modules = tuple(m for m in modules if m != "universal")
    return MPlug2(config, modules=tuple(m for m in MODULES if m in modules),
                  heads_used=tuple(h for h in (*HEADS, *TASK_HEADS) if h in heads),
                  outputs=outputs, images=images)


def init_params(model: MPlug2, rng: Array) -> dict[str, Any]:
    """Fresh float32 parameters; under `jax.eval_shape` only their shapes, at no memory.

    They do not depend on the batch, the number of frames or the text length, so a single tiny
    example creates them.
    """
    config = model.config
    frames = config.temporal_stride or 1
    video = jnp.zeros((1, frames, config.image_size, config.image_size, 3), jnp.uint8)
    ids = jnp.zeros((1, 2), jnp.int32)
    return model.init({"params": rng}, video, ids, jnp.ones((1, 2), bool))["params"]


def union(models: Iterable[MPlug2]) -> MPlug2:
    """A model of all modules and heads of several, for parameters that serve each of them.

    Raises:
      ConfigError: their `classify` heads differ in size.
    """
    models = list(models)
    sizes = {(model.outputs, model.images) for model in models if "classify" in model.heads_used}
    if len(sizes) > 1:
        raise ConfigError("classification: one checkpoint has one head, but the evaluations want "
                          "heads of " + ", ".join(str(outputs) for outputs, _ in sorted(sizes))
                          + " outputs; evaluate them one by one")
    outputs, images = next(iter(sizes), (0, 1))
    return build(models[0].config, tuple({name for model in models for name in model.modules}),
                 tuple({name for model in models for name in model.heads_used}), outputs, images)


def part_of(params: Mapping[str, Any], model: MPlug2) -> dict[str, Any]:
    """The modules and heads that a model names, as far as they are there, of a larger one's.

    The universal layers are one module: for text alone, too, with what they hold for vision.
    """
    part = {name: params[name] for name in model.modules if name in params}
    heads = {name: params["heads"][name] for name in model.heads_used
             if name in params.get("heads", {})}
    return part | ({"heads": heads} if heads else {})
