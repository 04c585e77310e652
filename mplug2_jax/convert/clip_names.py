"""CLIP's image towers by the names of Hugging Face, of OpenAI and of OpenCLIP, and what beside its
names a tower has to have in common with this model's: the size of heads and the activation.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import bert_names
from mplug2_jax.convert.layout import DENSE, Layout, Slot, Transform, WeightsError, patches
from mplug2_jax.convert.weights_file import Tensors, json_beside
from mplug2_jax.model.config import ModelConfig

HUGGING_FACE, OPENAI = "vision_model", "visual"
HEAD = 64  # numbers a head, of this model and of all towers but some of OpenCLIP's, by their width
OTHER_HEADS = {1280: 80, 1408: 88, 1664: 104}  # ViT-H, ViT-g and ViT-bigG
IGNORED = {
    HUGGING_FACE: (
        ("position_ids buffers", r"\.position_ids$"),
        ("CLIP text tower", r"^(text_model\..+|text_projection\.weight|logit_scale)$"),
        ("CLIP projection of the image tower", r"^visual_projection\.weight$"),
    ),
    OPENAI: (
        ("CLIP text tower", r"^(positional_embedding|text_projection|logit_scale|logit_bias|"
                            r"attn_mask|token_embedding\.weight|ln_final\.(weight|bias)|"
                            r"transformer\..+|text\..+)$"),
        ("CLIP projection of the image tower", r"^visual\.proj$"),
        ("sizes", r"^(input_resolution|context_length|vocab_size)$"),
    ),
}
POSITIONS = {HUGGING_FACE: f"{HUGGING_FACE}.embeddings.position_embedding.weight",
             OPENAI: f"{OPENAI}.positional_embedding"}
# Towers that are no ViT of this kind, by a name that only they have.
OTHERS = (("a ResNet", r"^visual\.(layer1\.|attnpool\.)"), ("timm's", r"^visual\.trunk\."),
          ("EVA's", r"^visual\.(blocks\.|rope\.)"),
          ("SigLIP's", r"^(vision_model\.)?(head\.probe|embeddings\.patch_embedding\.bias)$"))


class Tower(NamedTuple):
    """An image tower.

    Attributes:
      root: whose names it has: `HUGGING_FACE` or `OPENAI`.
      tensors: of the file, with the root before the names of the tower.
    """

    root: str
    tensors: Tensors


def find_tower(tensors: Tensors, source: str) -> Tower:
    """The image tower of a CLIP; of a tower that was saved alone the names lack the root.

    Raises:
      WeightsError: there is none of a known kind.
    """
    for kind, pattern in OTHERS:
        if name := next((name for name in tensors if re.search(pattern, name)), None):
            raise WeightsError(f"{source}: the image tower is {kind} ({name}): expected a ViT of "
                               "CLIP's kind")
    for root, mark in ((HUGGING_FACE, "embeddings.class_embedding"), (OPENAI, "class_embedding")):
        if any(name.startswith(f"{root}.") for name in tensors):
            return Tower(root, tensors)
        if mark in tensors:
            return Tower(root, {f"{root}.{name}": x for name, x in tensors.items()})
    raise WeightsError(f"{source}: holds no image tower: expected names that begin with "
                       f"{HUGGING_FACE}. (Hugging Face) or {OPENAI}. (OpenAI, OpenCLIP); it has "
                       + ", ".join(list(tensors)[:3]) + ", ..." * (len(tensors) > 3))


def tower_layout(config: ModelConfig, root: str) -> Layout:
    """Where the tensors of an image tower go.

    Args:
      config: the model's.
      root: of `Tower`.
    """
    kernel = patches(config.patch_size, None, 3 if config.temporal_stride else 1)
    if root == OPENAI:
        return openai_layout(config, OPENAI, kernel)
    layout: Layout = {
        f"{root}.embeddings.class_embedding": (Slot("vision/class_embedding"),),
        f"{root}.embeddings.patch_embedding.weight": (Slot("vision/patch_kernel",
                                                           transform=kernel),),
        POSITIONS[root]: (Slot("vision/position"),),
        # The missing "e" is the format's own.
        **bert_names.norm(f"{root}.pre_layrnorm", "vision/norm_pre"),
        **bert_names.norm(f"{root}.post_layernorm", "vision/norm_post"),
    }
    for i in range(config.vision_layers):
        theirs, ours = f"{root}.encoder.layers.{i}", "vision/blocks/layer"
        for name, place in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"),
                            ("out_proj", "out")):
            layout |= bert_names.dense(f"{theirs}.self_attn.{name}", f"{ours}/attention/{place}", i)
        for which in (1, 2):
            layout |= bert_names.norm(f"{theirs}.layer_norm{which}", f"{ours}/norm_{which}", i)
        layout |= bert_names.dense(f"{theirs}.mlp.fc1", f"{ours}/mlp/wi", i)
        layout |= bert_names.dense(f"{theirs}.mlp.fc2", f"{ours}/mlp/wo", i)
    return layout


def openai_layout(config: ModelConfig, root: str, kernel: Transform) -> Layout:
    """Where a tower's tensors go by OpenAI's names, which the release's encoder has, too.

    Args:
      config: the model's.
      root: before every name.
      kernel: the transform of the patch embedding.
    """
    layout: Layout = {
        f"{root}.class_embedding": (Slot("vision/class_embedding"),),
        f"{root}.positional_embedding": (Slot("vision/position"),),
        f"{root}.conv1.weight": (Slot("vision/patch_kernel", transform=kernel),),
        **bert_names.norm(f"{root}.ln_pre", "vision/norm_pre"),
        **bert_names.norm(f"{root}.ln_post", "vision/norm_post"),
    }
    for i in range(config.vision_layers):
        theirs, ours = f"{root}.transformer.resblocks.{i}", "vision/blocks/layer"
        for which in (1, 2):
            layout |= bert_names.norm(f"{theirs}.ln_{which}", f"{ours}/norm_{which}", i)
        # One stored matrix holds query, key and value, one below the other.
        three = [(f"{ours}/attention/{name}", (k, 3))
                 for k, name in enumerate(("query", "key", "value"))]
        layout[f"{theirs}.attn.in_proj_weight"] = tuple(
            Slot(f"{module}/kernel", i, DENSE, part) for module, part in three)
        layout[f"{theirs}.attn.in_proj_bias"] = tuple(
            Slot(f"{module}/bias", i, part=part) for module, part in three)
        layout |= bert_names.dense(f"{theirs}.attn.out_proj", f"{ours}/attention/out", i)
        layout |= bert_names.dense(f"{theirs}.mlp.c_fc", f"{ours}/mlp/wi", i)
        layout |= bert_names.dense(f"{theirs}.mlp.c_proj", f"{ours}/mlp/wo", i)
    return layout


def check_kind(config: ModelConfig, source: str) -> list[str]:
    """What no tensor tells of a tower: its heads and its activation, by the json beside the file.

    Args:
      config: the model's.
      source: the file of weights, or its folder.

    Returns:
      Notes on an activation that is another, or not known.

    Raises:
      ConfigError: its heads are of another size.
    """
    facts = facts_beside(Path(source))
    head = facts.get("head", OTHER_HEADS.get(config.vision_width, HEAD))
    if head != HEAD:
        raise ConfigError(f"{source}: the image tower of width {config.vision_width} has heads of "
                          f"{head} numbers, model.vision_width's are of {HEAD}: its weights would "
                          "mean something else")
    activation = facts.get("activation")
    if activation == "quick_gelu":
        return []
    told = (f"{facts['file']} says {activation}" if activation else
            "no json beside the file says which; OpenAI's towers have it, OpenCLIP's only those "
            "whose name ends with -quickgelu")
    return [f"activation: the vision encoder computes quick_gelu, x * sigmoid(1.702 x); {told}"]


def facts_beside(path: Path) -> Mapping[str, Any]:
    """`activation` and `head`, its size, of the json of Hugging Face or OpenCLIP beside weights;
    `file`, its name. Nothing where there is none, or another."""
    for name, read in (("config.json", hugging_face_facts),
                       ("open_clip_config.json", open_clip_facts)):
        try:
            found = read(json_beside(path, name))
        except (TypeError, KeyError, AttributeError):  # of something else
            continue
        if found:
            return found | {"file": name}
    return {}


def hugging_face_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a `config.json`; what it does not name has CLIP's default.

    Raises:
      ConfigError: its heads do not divide the width.
    """
    if config.get("model_type") not in ("clip", "clip_vision_model"):
        return {}
    vision = config.get("vision_config") or (config if config["model_type"] != "clip" else {})
    width, heads = vision.get("hidden_size", 768), vision.get("num_attention_heads", 12)
    if not (type(heads) is type(width) is int and 0 < heads <= width and width % heads == 0):
        raise ConfigError(f"config.json: num_attention_heads = {str(heads)[:40]}, expected a "
                          f"divisor of hidden_size = {str(width)[:40]}")
    return {"activation": vision.get("hidden_act", "quick_gelu"), "head": width // heads}


def open_clip_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of an `open_clip_config.json`."""
    model = config["model_cfg"]
    return {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
            "head": model["vision_cfg"].get("head_width", HEAD)}
