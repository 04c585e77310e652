"""Weights of BERT and CLIP as a start for pretraining.

BERT gives the text encoder, the universal layers, the fusion and the decoder their self-attention
and MLP, and the vocabulary heads; CLIP's image tower (`clip_names`) gives the vision encoder. What
they do not have (cross-attention, latents, local temporal modules) keeps its fresh initial value.
The fusion has BERT's last layers, the decoder its first, as in the release, whose fusion and
decoder are initialised from BERT by the names of its layers.
"""

import re
from functools import partial
from pathlib import Path

import jax
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import bert_names, clip_names
from mplug2_jax.convert.fitting import (
    check_tied,
    first_rule,
    parameter_shapes,
    resizes,
    split,
)
from mplug2_jax.convert.layout import Layout, WeightsError, check_names, fill
from mplug2_jax.convert.official import Converted, layers
from mplug2_jax.convert.release_names import fusion_place
from mplug2_jax.convert.weights_file import Tensors, json_beside
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.mplug2 import HEADS, build, init_params
from mplug2_jax.parallel.sharding import path_name
from mplug2_jax.preprocess.tokenizer import vocabulary_file

BERT_IGNORED = (
    ("position_ids buffers", r"\.(position|token_type)_ids$"),
    ("pooler", r"^pooler\."),
    ("next-sentence head", r"^cls\.seq_relationship\."),
)
GELU = ("gelu", "gelu_python")  # the exact one, by its two names
BERT_POSITIONS = "embeddings.position_embeddings.weight"
BERT_TYPES = "embeddings.token_type_embeddings.weight"
# Encoders that are called after BERT and are none, by a name that only they have.
OTHERS = (("RoBERTa", r"^(roberta|lm_head)\."),
          ("DistilBERT", r"^(distilbert\.|(transformer|encoder)\.layer\.\d+\.attention\.q_lin\.)"),
          ("ALBERT", r"^albert\.|albert_layer_groups"),
          ("ELECTRA", r"^(electra|generator_predictions|discriminator_predictions)\."),
          ("DeBERTa", r"^deberta\.|^encoder\.rel_embeddings"),
          ("MPNet", r"^mpnet\.|relative_attention_bias"))
BERT_TIED = {"cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
             "cls.predictions.decoder.bias": "cls.predictions.bias"}


def convert_bert(tensors: Tensors, config: ModelConfig, source: str, seed: int = 0) -> Converted:
    """`BertModel` or `BertForMaskedLM` as all text modules and, if there, `heads/mlm`.

    Raises:
      ConfigError: other numbers of layers than the config's, or other facts (`check_facts`).
      WeightsError: names are missing, unknown, or of another shape.
    """
    named = {bert_name(name): tensor for name, tensor in tensors.items()}
    if other := other_encoder(named):
        raise WeightsError(f"{source}: the weights of {other}, whose vocabulary, positions or "
                           "layers are not BERT's: expected BertModel or BertForMaskedLM")
    if len(named) != len(tensors):
        raise WeightsError(f"{source}: names stand twice, with and without bert. in front")
    kept, ignored = split(named, partial(first_rule, BERT_IGNORED))
    stored = layers(kept, "encoder.layer")
    if stored != config.text_layers + config.universal_layers:
        raise ConfigError(f"model.text_layers + model.universal_layers = {config.text_layers} + "
                          f"{config.universal_layers}: {source} has {stored} layers")
    for key in ("decoder_layers", "fusion_layers"):
        if getattr(config, key) > stored:
            raise ConfigError(f"model.{key} = {getattr(config, key)}: {source} has only {stored} "
                              "layers")
    with_head = any(name.startswith("cls.") for name in kept)
    layout = bert_layout(config, with_head)
    ours = parameter_shapes(config, MODULES, HEADS)
    check_tied(kept, source, BERT_TIED, required=False)
    kept = {name: tensor for name, tensor in kept.items() if name not in BERT_TIED}
    modules = ("text/", "universal/", "fusion/", "decoder/",
               *(("heads/mlm/",) if with_head else ()))
    found = finish(kept, layout, ours, config, source, BERT_POSITIONS, ignored, modules, seed)
    check_facts(config, source)
    return found


def convert_clip(tensors: Tensors, config: ModelConfig, source: str, seed: int = 0) -> Converted:
    """The image tower of a CLIP of Hugging Face, OpenAI or OpenCLIP as `vision`.

    Raises:
      ConfigError: its heads are of another size.
      WeightsError: it is none, or names are missing, unknown, or of another shape.
    """
    root, tensors = clip_names.find_tower(tensors, source)
    kept, ignored = split(tensors, partial(first_rule, clip_names.IGNORED[root]))
    ours = parameter_shapes(config, MODULES, HEADS)
    found = finish(kept, clip_names.tower_layout(config, root), ours, config, source,
                   clip_names.POSITIONS[root], ignored, ("vision/",), seed)
    return found._replace(notes=[*found.notes, *clip_names.check_kind(config, source)])


def finish(kept: Tensors, layout: Layout, ours: dict[str, tuple[int, ...]], config: ModelConfig,
           source: str, positions: str, ignored: dict[str, list[str]], modules: tuple[str, ...],
           seed: int) -> Converted:
    """Fills what the layout gives; the modules' other parameters get fresh values."""
    check_names(kept, layout, ours, source, (positions,))
    changed = resizes(kept, layout, ours)
    params = fill(kept, layout, ours, changed, source)
    fresh = [path for path in ours if path.startswith(modules) and path not in params]
    notes = [f"{name}: positions resized or cut to the config's" for name in changed]
    return Converted(config, params | initial_values(config, fresh, seed), layout, ignored, notes,
                     fresh)


def bert_name(name: str) -> str:
    """A name without the `bert.` in front, and with today's names of LayerNorm's parameters."""
    name = name.removeprefix("bert.")
    return re.sub(r"LayerNorm\.(gamma|beta)$",
                  lambda m: "LayerNorm." + {"gamma": "weight", "beta": "bias"}[m[1]], name)


def check_facts(config: ModelConfig, source: str) -> None:
    """No tensor tells a BERT's heads or activation: a `config.json` beside it does.

    Raises:
      ConfigError: another number of heads, another activation, or it is not BERT's.
    """
    facts = json_beside(Path(source), "config.json")
    beside = f"the config.json beside {source}"
    kind, heads = facts.get("model_type", "bert"), facts.get("num_attention_heads", config.heads)
    if kind != "bert":
        raise ConfigError(f"{source}: the config.json beside it is of {str(kind)[:40]}, expected "
                          "bert")
    if heads != config.heads:
        raise ConfigError(f"model.heads = {config.heads}: {beside} has num_attention_heads = "
                          f"{str(heads)[:40]}")
    activation = facts.get("hidden_act", GELU[0])
    if activation not in GELU:
        raise ConfigError(f"{beside} has hidden_act = {str(activation)[:40]}: the text side "
                          "computes gelu, with which its weights would mean something else")


def check_vocabulary(source: str, tokenizer: str) -> list[str]:
    """The pieces beside the weights are those of the run: others may be as many.

    Args:
      source: the file of weights, or its folder.
      tokenizer: as `data.tokenizer`.

    Returns:
      Notes, where they cannot be compared.

    Raises:
      ConfigError: they are others.
    """
    found, ours = pieces_beside(Path(source)), vocabulary_file(tokenizer)
    if found is None:
        return ["the vocabulary could not be compared: no vocab.txt or tokenizer.json beside the "
                f"file; its ids are taken to be those of data.tokenizer = {tokenizer}"]
    name, theirs = found
    if ours.suffix == ".txt":
        try:
            same = pieces_of(ours)
        except (OSError, ValueError):
            return [f"the vocabulary could not be compared: {ours} cannot be read"]
        if same == theirs:
            return []
        at = next((i for i, (one, other) in enumerate(zip(theirs, same, strict=False))
                   if one != other), min(len(theirs), len(same)))
        first = f"; the first difference is piece {at}: {ascii(theirs[at:at + 1])[:60]} there, " \
                f"{ascii(same[at:at + 1])[:60]} here"
    else:
        first = ", a WordPiece vocabulary"
    raise ConfigError(f"data.tokenizer = {tokenizer}: the {name} beside {source} is another"
                      f"{first}; its embeddings would be of other pieces")


def pieces_beside(path: Path) -> tuple[str, list[str]] | None:
    """The name and the pieces of a WordPiece vocabulary beside weights, if there is one."""
    folder = path if path.is_dir() else path.parent
    try:
        return "vocab.txt", pieces_of(folder / "vocab.txt")
    except (OSError, ValueError):
        pass
    try:
        ids = json_beside(path, "tokenizer.json")["model"]["vocab"]
        return "tokenizer.json", sorted(ids, key=ids.__getitem__)
    except (KeyError, TypeError, AttributeError):  # of another kind
        return None


def pieces_of(file: Path) -> list[str]:
    """The lines of a `vocab.txt`, whichever way they end."""
    return file.read_text(encoding="utf-8").rstrip("\n").split("\n")


def other_encoder(tensors: Tensors) -> str | None:
    """Which encoder that is none of BERT's has these names, if one."""
    for encoder, pattern in OTHERS:
        if any(re.search(pattern, name) for name in tensors):
            return encoder
    # Without its prefix RoBERTa has BERT's names; and one type of tokens.
    types = tensors.get(BERT_TYPES)
    return "RoBERTa" if types is not None and types.shape[:1] == (1,) else None


def bert_layout(config: ModelConfig, with_head: bool) -> Layout:
    """Where BERT's tensors go: most go to the text side and to the decoder."""
    sides = [bert_names.embeddings("embeddings", "text/embeddings"),
             bert_names.embeddings("embeddings", "decoder/embeddings")]
    for i in range(config.text_layers + config.universal_layers):
        theirs, inner = f"encoder.layer.{i}", i - config.text_layers
        sides.append(bert_names.layer(theirs, "text/layers/layer", i) if inner < 0 else
                     bert_names.layer(theirs, f"universal/layers_{inner}", None))
        if inner >= 0 and config.universal_sharing == "separate":
            sides.append(bert_names.layer(theirs, f"universal/text_layers_{inner}", None))
        if i < config.decoder_layers:
            sides.append(bert_names.layer(theirs, "decoder/layers/layer", i))
    last = config.text_layers + config.universal_layers - config.fusion_layers
    for i in range(config.fusion_layers):
        sides.append(bert_names.layer(f"encoder.layer.{last + i}", *fusion_place(config, i)))
    if with_head:
        sides += [bert_names.head("cls.predictions", place) for place in ("heads/mlm",
                                                                          "decoder/head")]
    layout: Layout = {}
    for side in sides:
        for name, slots in side.items():
            layout[name] = layout.get(name, ()) + slots
    return layout


def initial_values(config: ModelConfig, paths: list[str], seed: int) -> dict[str, np.ndarray]:
    """Fresh values of some parameters; the others are never computed."""
    if not paths:
        return {}
    wanted = set(paths)

    def create():
        tree = init_params(build(config, MODULES, HEADS), jax.random.key(seed))
        flat = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}
        return {path: x for path, x in flat.items() if path in wanted}

    return {path: np.asarray(x) for path, x in jax.jit(create)().items()}
