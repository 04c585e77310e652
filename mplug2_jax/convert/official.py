"""The released checkpoints as our parameters: the sizes they imply, and where each name goes."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import bert_names, teacher
from mplug2_jax.convert.clip_names import openai_layout
from mplug2_jax.convert.fitting import (
    check_tied,
    parameter_shapes,
    require_complete,
    resizes,
    split,
)
from mplug2_jax.convert.layout import (
    DEPTHWISE,
    POINTWISE,
    Layout,
    Shape,
    Slot,
    WeightsError,
    check_names,
    fill,
    patches,
)
from mplug2_jax.convert.release_names import (
    DECODER,
    FUSION,
    HEAD,
    MLM_ADVICE,
    MOMENTUM_RULE,
    POSITION,
    TEMPERATURE,
    TEXT,
    TEXT_POSITIONS,
    TIED,
    VISUAL,
    connected_layers,
    dropped_names,
    fusion_place,
    heads_layout,
    heads_of,
    ignored_rule,
    mlm_twins,
    require_unneeded,
    rewritten,
)
from mplug2_jax.convert.weights_file import Tensors
from mplug2_jax.convert.weights_file import read_weights as read_weights
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.mplug2 import TEMPERATURE_MAX, TEMPERATURE_MIN


class Converted(NamedTuple):
    """Parameters of a checkpoint and what became of every name in it.

    Attributes:
      config: the model's, with the sizes of the parameters.
      params: float32 arrays by path.
      layout: where each used name went.
      ignored: names left out, by rule.
      notes: what else was done (resized, cut), a line each.
      fresh: parameters that keep their initial value.
      dropped: names left out because it was asked for.
      teacher: parameters of a pretraining's teacher, float32 arrays by path, where they were asked
        for.
    """

    config: ModelConfig
    params: dict[str, np.ndarray]
    layout: Layout
    ignored: dict[str, list[str]]
    notes: list[str]
    fresh: list[str]
    dropped: tuple[str, ...] = ()
    teacher: dict[str, np.ndarray] | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """Those that the checkpoint has."""
        return heads_of(self.layout)


def layers(tensors: Tensors, prefix: str) -> int:
    """How many layers `prefix.0. ... prefix.n.` there are, without a gap."""
    found = {name[len(prefix) + 1:].split(".")[0] for name in tensors
             if name.startswith(f"{prefix}.")}
    return next(n for n in range(len(found) + 1) if str(n) not in found)


def infer_sizes(tensors: Tensors, source: str) -> dict[str, int]:
    """The sizes that the weights imply, by the keys of `ModelConfig`.

    `fusion_layers` is the number stored, of which the last are run; `temporal_stride` is 1 where
    the patch embedding covers three frames (the stride itself leaves no trace), else 0.

    Raises:
      WeightsError: a name that tells a size is missing.
    """
    tensors = rewritten(tensors, source)

    def shape(name: str, axes: int) -> Shape:
        if name not in tensors:
            raise WeightsError(f"{source}: the weights do not fit the model: 1 missing: {name}")
        if len(tensors[name].shape) != axes:
            raise WeightsError(f"{source}: the weights do not fit the model: 1 of another shape: "
                               f"{name} {tensors[name].shape} instead of {axes} axes")
        return tensors[name].shape

    text = layers(tensors, f"{TEXT}.encoder.layer")
    universal = 0  # the last layers, as far as they have cross-attention
    while universal < text and any(
            name.startswith(f"{TEXT}.encoder.layer.{text - 1 - universal}.crossattention.")
            for name in tensors):
        universal += 1
    # They stand in the first of them; where a name is astray, `convert` says which.
    latents = [name for name in tensors
               if re.fullmatch(rf"{TEXT}\.encoder\.layer\.\d+\.latents", name)]
    kernel = shape(f"{VISUAL}.conv1.weight", 5)
    words = shape(f"{TEXT}.embeddings.word_embeddings.weight", 2)
    side = round(max(shape(POSITION, 2)[0] - 1, 0) ** 0.5)
    return dict(
        vision_width=kernel[0], patch_size=kernel[-1], temporal_stride=int(kernel[2] > 1),
        vision_layers=layers(tensors, f"{VISUAL}.transformer.resblocks"),
        image_size=side * kernel[-1], vocab_size=words[0], width=words[1],
        mlp_dim=shape(f"{TEXT}.encoder.layer.0.intermediate.dense.bias", 1)[0],
        max_positions=shape(TEXT_POSITIONS[0], 2)[0],
        text_layers=text - universal, universal_layers=universal,
        latents=shape(latents[0] if latents else
                      f"{TEXT}.encoder.layer.{text - universal}.latents", 2)[0],
        fusion_layers=layers(tensors, f"{FUSION}.encoder.layer"),
        decoder_layers=layers(tensors, f"{DECODER}.encoder.layer"),
    )


def check_sizes(config: ModelConfig, sizes: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Compares a config with the sizes of the weights.

    Returns:
      What does not fit, by key, and notes on what differs and is made to fit.
    """
    wrong, notes = [], []
    for key, size in sizes.items():
        value = getattr(config, key)
        if value == size or (key == "temporal_stride" and bool(value) == bool(size)):
            continue
        if key == "image_size":
            notes.append(f"vision positions resized from {size} to {value} pixels")
        elif key == "max_positions" and value < size:
            notes.append(f"text positions: the first {value} of {size}")
        elif key == "fusion_layers" and value < size:
            notes.append(f"fusion: the last {value} of the {size} stored layers run")
        else:
            wrong.append(f"model.{key} = {value}, the weights have {size}")
    return wrong, notes


def check_variants(config: ModelConfig) -> list[str]:
    """What of a config's variants is not the release's."""
    return [f"model.{key} = {getattr(config, key)!r}, the release has {expected!r}"
            for key, expected in (("local_temporal", "twice"), ("universal_variant", "release"),
                                  ("universal_sharing", "shared"))
            if getattr(config, key) != expected]


def vision_layout(config: ModelConfig) -> Layout:
    """Names of the dual-vision encoder and of the projection behind it."""
    depth = 3 if config.temporal_stride else 1
    layout = openai_layout(config, VISUAL, patches(config.patch_size, depth))
    for i in range(config.vision_layers):
        theirs, ours = f"{VISUAL}.transformer.resblocks.{i}", "vision/blocks/layer"
        for which in (1, 2):
            local, module = f"{theirs}.lmhra{which}", f"{ours}/temporal_{which}"
            layout |= bert_names.norm(f"{local}.ln", f"{module}/norm", i)
            layout |= bert_names.dense(f"{local}.down_proj", f"{module}/down", i, POINTWISE)
            layout |= bert_names.dense(f"{local}.up_proj", f"{module}/up", i, POINTWISE)
            layout[f"{local}.conv.weight"] = (Slot(f"{module}/temporal_kernel", i, DEPTHWISE),)
            layout[f"{local}.conv.bias"] = (Slot(f"{module}/temporal_bias", i),)
    if config.vision_width != config.width:
        layout |= bert_names.dense("visn_fc", "vision/project")
        layout |= bert_names.norm("visn_layer_norm", "vision/project_norm")
    return layout


def text_layout(config: ModelConfig, stored_fusion: int) -> Layout:
    """Names of the text encoder, the universal layers, the fusion and the decoder.

    Args:
      config: the model's.
      stored_fusion: fusion layers of the checkpoint, of which the last run.
    """
    layout = bert_names.embeddings(f"{TEXT}.embeddings", "text/embeddings")
    for i in range(config.text_layers):
        layout |= bert_names.layer(f"{TEXT}.encoder.layer.{i}", "text/layers/layer", i)
    for i in range(config.universal_layers):
        theirs = f"{TEXT}.encoder.layer.{config.text_layers + i}"
        layout |= bert_names.layer(theirs, f"universal/layers_{i}", None, cross=True)
    layout[f"{TEXT}.encoder.layer.{config.text_layers}.latents"] = (Slot("universal/latents"),)
    layout |= bert_names.norm("visn_emb_norm", "universal/norm")
    connected = connected_layers(config)
    for i in range(config.fusion_layers):
        theirs = f"{FUSION}.encoder.layer.{stored_fusion - config.fusion_layers + i}"
        layout |= bert_names.layer(theirs, *fusion_place(config, i), cross=i not in connected)
    layout |= bert_names.embeddings(f"{DECODER}.embeddings", "decoder/embeddings")
    for i in range(config.decoder_layers):
        layout |= bert_names.layer(f"{DECODER}.encoder.layer.{i}", "decoder/layers/layer", i,
                                   cross=True)
    return layout | bert_names.head(HEAD, "decoder/head")


def head_sizes(tensors: Tensors) -> dict[str, int]:
    """The width of the contrastive space, where there is a head for it."""
    shapes = [tensors[name].shape for name in ("vision_proj.weight", "text_proj.weight")
              if name in tensors]
    return {"contrastive_dim": shapes[0][0]} if shapes and len(shapes[0]) == 2 else {}


def convert(tensors: Tensors, config: ModelConfig, source: str, drop: Iterable[str] = (),
            with_teacher: bool = False) -> Converted:
    """A released checkpoint's weights as parameters of the five modules, and of heads it has.

    Args:
      tensors: of `read_weights`.
      config: the model they should be.
      source: the file, for messages.
      drop: regular expressions of names to leave out.
      with_teacher: whether the momentum copies are to become a teacher's parameters.

    Raises:
      ConfigError: the config's sizes are others, or what is dropped is needed, or not there.
      WeightsError: names are missing, unknown, or of another shape or dtype.
    """
    dropped = dropped_names(tensors, drop, source)
    tensors = rewritten(tensors, source)
    sizes = infer_sizes(tensors, source)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    wrong, notes = check_sizes(config, sizes | head_sizes(tensors))
    if variants := check_variants(config):
        raise ConfigError(f"{source}: the config is of another model: {'; '.join(variants)}")
    stored_fusion = max(sizes["fusion_layers"], config.fusion_layers)
    used, ignored = split(tensors, partial(ignored_rule, config=config,
                                           stored_fusion=stored_fusion))
    layout = (vision_layout(config) | text_layout(config, stored_fusion)
              | heads_layout(used, source))
    require_unneeded(dropped, (*layout, *TIED))
    ours = parameter_shapes(config, MODULES, heads_of(layout))
    twins = mlm_twins(used, source)
    kept = {name: tensor for name, tensor in used.items() if name not in (*TIED, *twins)}
    resizable = (POSITION, *TEXT_POSITIONS)
    check_fit(kept, layout, ours, source, resizable, wrong)
    # `safetensors` cannot hold a tensor twice, so there the tied ones are left out.
    check_tied(used, source, TIED, required=Path(source).suffix not in (".safetensors", ".json"))
    check_tied(used, source, twins, required=False, advice=MLM_ADVICE)
    params = fill(kept, layout, ours, resizes(kept, layout, ours), source)
    require_complete(ours, params)
    notes += check_temperature(params, source)
    found = Converted(config, params, layout, ignored, notes, [], tuple(dropped))
    if not with_teacher:
        return found
    copies, unused = teacher.momentum_copies(tensors, used, ignored, source)
    return found._replace(
        ignored=ignored | {MOMENTUM_RULE: unused}, notes=[*notes, teacher.NOTE],
        teacher=teacher.teacher_params(kept, copies, layout, TIED | twins, ours, resizable, source))


def check_temperature(params: Mapping[str, np.ndarray], source: str) -> list[str]:
    """A note where the contrastive temperature is one that the model clamps.

    Raises:
      WeightsError: it is no temperature.
    """
    value = float(params.get("heads/vtc/temperature", TEMPERATURE_MAX))
    if not 0 < value <= 1:
        raise WeightsError(f"{source}: {TEMPERATURE} = {value:g}: expected a number in (0, 1], by "
                           "which similarities are divided")
    if TEMPERATURE_MIN <= value <= TEMPERATURE_MAX:
        return []
    return [f"{TEMPERATURE} = {value:g} is used within {TEMPERATURE_MIN} and {TEMPERATURE_MAX}"]


def check_fit(kept: Tensors, layout: Layout, ours: Mapping[str, Shape], source: str,
              resizable: tuple[str, ...], wrong: list[str]) -> None:
    """`check_names`, where the config's sizes are `wrong` with them in front.

    Raises:
      ConfigError: the sizes are wrong.
      WeightsError: the names are.
    """
    advice = ("; what the model does not need is left out by --drop=REGEX"
              if any(name not in layout for name in kept) else "")
    try:
        check_names(kept, layout, ours, source, resizable)
    except WeightsError as error:
        if wrong:
            raise ConfigError(f"{source}: the config is of another model: {'; '.join(wrong)}. "
                              f"With it: {error}") from None
        raise WeightsError(f"{error}{advice}") from None
    if wrong:
        raise ConfigError(f"{source}: the config is of another model: {'; '.join(wrong)}")


def config_from_release(release: Mapping[str, Any], bert: Mapping[str, Any],
                        tensors: Tensors, source: str) -> ModelConfig:
    """The model's config of the release's own YAML and BERT json, and the weights' sizes.

    What both files leave out is taken from the weights; what they say must agree with them.

    Raises:
      ConfigError: they disagree with the weights, or a needed key is missing.
    """
    sizes = infer_sizes(tensors, source) | head_sizes(tensors)
    needed = ("num_attention_heads", "fusion_layers", "stride_layer", "text_encoder_layers",
              "num_uni_layer")
    if missing := [key for key in needed if key not in bert]:
        raise ConfigError(f"BERT json: lacks {', '.join(missing)}")
    downsampling = bool(release.get("temporal_downsampling", False))
    given = dict(
        vision_width=release.get("vision_width"), vision_layers=release.get("vision_layers"),
        patch_size=release.get("patch"), image_size=release.get("image_res"),
        temporal_stride=int(release.get("temporal_stride", 2)) if downsampling else 0,
        width=bert.get("hidden_size"), mlp_dim=bert.get("intermediate_size"),
        vocab_size=bert.get("vocab_size"), max_positions=bert.get("max_position_embeddings"),
        text_layers=bert["text_encoder_layers"] - bert["num_uni_layer"],
        universal_layers=bert["num_uni_layer"], fusion_layers=bert["fusion_layers"],
        decoder_layers=bert.get("text_decode_layers"),
    )
    values = sizes | {key: value for key, value in given.items() if value is not None}
    return ModelConfig(**values, heads=bert["num_attention_heads"],
                       fusion_stride=bert["stride_layer"],
                       dropout=bert.get("hidden_dropout_prob", 0.1))

