"""MPlug2: builds just the modules that a task names, and the heads over them.

Parameters are one dict whose top level is `vision, text, universal, fusion, decoder, heads`, and
further modalities by their names; what a task does not name does not exist. All methods are pure:
call them through `apply(..., method=)`.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.config import MODULES, SHARED, ModelConfig
from mplug2_jax.model.decoder import Cache, TextDecoder, init_cache
from mplug2_jax.model.fusion import FusionEncoder
from mplug2_jax.model.layers import TiedHead, bert_init
from mplug2_jax.model.modalities import MODALITIES
from mplug2_jax.model.params import read_quickly
from mplug2_jax.model.rows import Shared
from mplug2_jax.model.universal import UniversalLayers

Array = jax.Array
HEADS = ("vtc", "vtm", "mlm")  # of pretraining
TASK_HEADS = ("classify",)
# Range of the learnable temperature, as the predecessor's procedure clamps it.
TEMPERATURE_START, TEMPERATURE_MIN, TEMPERATURE_MAX = 0.07, 0.001, 0.5
# Of heads that are small and said to be float32: chips would round what they multiply.
float32_dense = partial(nn.Dense, precision=jax.lax.Precision.HIGHEST)
read_quickly()


class ContrastiveHead(nn.Module):
    """Projections of the class tokens to one normalised space, and the temperature.

    Each modality has a projection of its own, called as it is; vision's is `visual`. The universal
    layers tie their weights, not where their class tokens lie. And what a parameter is called does
    not depend on which modalities are beside it, so that a checkpoint fits other compositions.

    Attributes:
      width: D.
      dim: C.
      projections: their names.
    """

    width: int
    dim: int
    projections: tuple[str, ...]

    def setup(self):
        for name in self.projections:
            setattr(self, name, float32_dense(self.dim, kernel_init=bert_init(self.width)))
        self.temperature = self.param(
            "temperature", nn.initializers.constant(TEMPERATURE_START), ())

    def project(self, tokens: Array, projection: str) -> Array:
        """`[B, L, D]` to L2-normalised float32 features `[B, C]` of the first token."""
        x = getattr(self, projection)(tokens[:, 0].astype(jnp.float32))
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
            x = nn.relu(float32_dense(self.width, kernel_init=init)(x))
        return float32_dense(self.outputs, kernel_init=init)(x)


class Heads(nn.Module):
    """The task heads, each built only where the task names it.

    Attributes:
      config: the model's sizes.
      names: of `HEADS` and `TASK_HEADS`.
      projections: of the `vtc` head.
      outputs: of the `classify` head.
      classify_layers: of the `classify` head.
    """

    config: ModelConfig
    names: tuple[str, ...]
    projections: tuple[str, ...]
    outputs: int = 0
    classify_layers: int = 1

    def setup(self):
        config = self.config
        if "vtc" in self.names:
            self.vtc = ContrastiveHead(config.width, config.contrastive_dim, self.projections)
        if "vtm" in self.names:
            self.vtm = float32_dense(2, kernel_init=bert_init(config.width))
        if "mlm" in self.names:
            self.mlm = TiedHead(config.width, config.vocab_size, config.compute_dtype)
        if "classify" in self.names:
            self.classify = MlpHead(config.width, self.classify_layers, self.outputs)


class MPlug2(nn.Module):
    """The model, composed.

    Attributes:
      config: sizes and variants.
      modules: of `known_modules`, what this task uses.
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
        for name in self.modalities:
            setattr(self, name, MODALITIES[name].encoder(config))
        if "universal" in self.modules:
            self.universal = UniversalLayers(config)
        if "fusion" in self.modules:
            self.fusion = FusionEncoder(config)
        if "decoder" in self.modules:
            self.decoder = TextDecoder(config)
        if self.heads_used:
            # As in the predecessors: a layer more where both modalities come together.
            layers = 2 if "fusion" in self.modules else 1
            names = tuple(MODALITIES[name].projection or name for name in self.modalities)
            self.heads = Heads(config, self.heads_used, names, self.outputs, layers)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of `modules` that encode a modality."""
        return tuple(name for name in self.modules if name in MODALITIES)

    def encode(self, modality: str, inputs: Array, mask: Array | None = None) -> Array:
        """A modality's embedding, through its encoder and its path of the universal layers.

        Args:
          modality: a name of `MODALITIES`.
          inputs: its batch field `[B, ...]`.
          mask: bool `[B, L]` on the text path, False for padding; None for none.

        Returns:
          `[B, L, D]`. What the encoder gives is named as it is, for `jax.checkpoint` to keep.
        """
        entry = MODALITIES[modality]
        encoder, inputs = getattr(self, modality), entry.normalise(inputs)
        if entry.path == "visual":
            x = checkpoint_name(encoder(inputs), modality)
            return self.universal.vision(x) if "universal" in self.modules else x
        mask = jnp.ones(inputs.shape[:2], bool) if mask is None else mask
        x = checkpoint_name(encoder(inputs, mask), modality)
        return self.universal.text(x, mask) if "universal" in self.modules else x

    def encode_visual(self, video: Array) -> Array:
        """`video [B, T, H, W, 3]` (uint8, or normalised floating) to the embedding `[B, S, D]`."""
        return self.encode("vision", video)

    def encode_text(self, ids: Array, mask: Array) -> Array:
        """`ids int32 [B, L]`, `mask bool [B, L]` to `[B, L, D]`."""
        return self.encode("text", ids, mask)

    def fuse(self, visual: Array | Shared, text: Array,
             mask: Array) -> tuple[Any, Array]:
        """Fuses `visual [B, S, D]` and `text [B * R, L, D]`; see `FusionEncoder`."""
        return self.fusion(visual, text, mask)

    def decode(self, ids: Array, mask: Array | None, memory: Array | Shared | None,
               memory_mask: Array | None, cache: Cache | None = None,
               ) -> tuple[Array, Cache | None]:
        """Logits float32 `[B, L, V]` and the cache; see `TextDecoder`."""
        return self.decoder(ids, mask, memory, memory_mask, cache)

    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty decoding cache; see `decoder.init_cache`."""
        return init_cache(self.config, batch, length)

    def contrastive(self, tokens: Array, modality: str) -> Array:
        """`tokens [B, L, D]` of a modality ("visual" is vision's) to normalised features `[B, C]`.
        """
        entry = MODALITIES.get(modality)
        name = entry.projection if entry and entry.projection else modality
        return self.heads.vtc.project(tokens, name)

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

    def __call__(self, batch: Mapping[str, Array]) -> tuple[Array, ...]:
        """Runs every module once: what `init` needs to create all parameters.

        `batch` has the fields of the model's modalities, and the text's, which a decoder reads.
        """
        tokens = {name: self.encode(name, *(batch[field] for field in MODALITIES[name].fields))
                  for name in self.modalities}
        out = list(tokens.values())
        seen = next((name for name in tokens if name != "text"), "text")
        if "fusion" in self.modules:
            tokens[seen], tokens["text"] = self.fuse(tokens[seen], tokens["text"],
                                                     batch["text_mask"])
            out.append(tokens["text"])
        if "decoder" in self.modules:
            out.append(self.decode(batch["text"], batch["text_mask"], tokens.get(seen), None)[0])
        if "vtc" in self.heads_used:
            out += [*(self.contrastive(x, name) for name, x in tokens.items()),
                    self.temperature()]
        if "vtm" in self.heads_used:
            out.append(self.match_logits(tokens["text"]))
        if "mlm" in self.heads_used:
            out.append(self.mlm_logits(tokens["text"]))
        if "classify" in self.heads_used:
            pooled = tokens["text" if "text" in tokens else seen][:, 0]
            out.append(self.class_logits(jnp.tile(pooled, (1, self.images))))
        return tuple(out)


def known_modules() -> tuple[str, ...]:
    """All that a model may be made of: an encoder for every modality, and what they share."""
    return (*MODALITIES, *SHARED)


def build(config: ModelConfig, modules: tuple[str, ...], heads: tuple[str, ...],
          outputs: int = 0, images: int = 1) -> MPlug2:
    """The model of the named modules and heads; `outputs` and `images` as of `MPlug2`.

    Raises:
      ConfigError: an unknown name, or a head or module without what it works on.
    """
    known = known_modules()
    for name in modules:
        if name not in known:
            raise ConfigError(f"module {name!r}: unknown; known: " + ", ".join(known))
    needs = {"fusion": ("text",), "vtc": ("text",), "vtm": ("fusion",), "mlm": ("text",)}
    others = [name for name in MODALITIES if name != "text"]
    for name in (*modules, *heads):
        missing = [need for need in needs.get(name, ()) if need not in modules]
        if name in ("fusion", "vtc") and not any(other in modules for other in others):
            missing.insert(0, " or ".join(others))
        if missing:
            raise ConfigError(f"{name!r} needs the module(s) {', '.join(missing)}: name them too")
    if not config.universal_layers:  # the ablation without them
        modules = tuple(m for m in modules if m != "universal")
    return MPlug2(config, modules=tuple(m for m in known if m in modules),
                  heads_used=tuple(h for h in (*HEADS, *TASK_HEADS) if h in heads),
                  outputs=outputs, images=images)


def init_params(model: MPlug2, rng: Array) -> dict[str, Any]:
    """Fresh float32 parameters; under `jax.eval_shape` only their shapes, at no memory.

    They do not depend on the batch, the number of frames or the text length, so a single tiny
    example creates them.
    """
    batch = {field: jnp.full(x.shape, x.dtype == jnp.bool_, x.dtype)
             for name in {*model.modalities, "text"}
             for field, x in MODALITIES[name].shapes(model.config).items()}
    return dict(model.init({"params": rng}, batch)["params"])


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
