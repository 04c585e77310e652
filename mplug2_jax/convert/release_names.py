"""The names of the release's checkpoints: how they are rewritten, which are used, which ignored.

Beside what one of fine-tuning has, a pretraining checkpoint has `bert.` and `fusion.` inside the
encoders' names, heads by the names of ALBEF's family, momentum copies and their queues. A name is
dropped (`--drop`), or else rewritten, then ignored by a rule, or used; what is left is an error.
"""

import re
from collections.abc import Iterable, Mapping

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import bert_names
from mplug2_jax.convert.fitting import first_rule
from mplug2_jax.convert.layout import SAME, Layout, Slot, Transform, WeightsError, shorten
from mplug2_jax.convert.weights_file import Tensors
from mplug2_jax.model.config import ModelConfig

VISUAL = "visual_encoder.visual"
TEXT, FUSION, DECODER = "text_encoder", "fusion_encoder", "text_decoder.bert"
HEAD = "text_decoder.cls.predictions"
POSITION = f"{VISUAL}.positional_embedding"
WORDS = f"{TEXT}.embeddings.word_embeddings.weight"
TEXT_POSITIONS = tuple(f"{part}.embeddings.position_embeddings.weight" for part in (TEXT, DECODER))
# Stored twice: the head's output layer is the word embedding, and its bias.
TIED = {f"{HEAD}.decoder.weight": f"{DECODER}.embeddings.word_embeddings.weight",
        f"{HEAD}.decoder.bias": f"{HEAD}.bias"}
# Removed wherever they stand, as the release's loaders do before fine-tuning: they are there where
# an encoder was pretrained inside a model with a head. The decoder keeps its head, and its names.
REMOVED = ("fusion.", "bert.")
KEEPS_NAMES = "decode"
MOMENTUM, MOMENTUM_RULE = r"^[^.]+_m\.", "momentum copies (distillation)"
IGNORED = (
    (MOMENTUM_RULE, MOMENTUM),
    ("queues of momentum features", r"^((image|video|vision|text|idx)_queue|queue_ptr|ptr_queue)$"),
    ("position_ids buffers", r"\.position_ids$"),
    ("CLIP text tower", r"^visual_encoder\.(positional_embedding|text_projection|logit_scale|"
                        r"token_embedding\.weight|ln_final\.(weight|bias)|transformer\..+)$"),
    ("CLIP projection of the image tower", r"^visual_encoder\.visual\.proj$"),
    ("fusion embeddings", r"^fusion_encoder\.embeddings\."),
    ("vision FFN of universal layers",
     r"^text_(encoder|decoder\.bert)\.encoder\.layer\.\d+\.(intermediate|output)_vision\."),
    ("decoder latents", r"^text_decoder\.bert\.encoder\.layer\.\d+\.latents$"),
)
TEMPERATURE = "temp"
# Heads of pretraining. Masked language modelling has one where the text or the fusion encoder was
# pretrained inside a model for it.
MLM = tuple(f"{encoder}.cls.predictions" for encoder in (TEXT, FUSION))
HEADS = {"vtc": rf"^((vision|text)_proj\.|{TEMPERATURE}$)", "vtm": r"^itm_head\.",
         "mlm": rf"^({TEXT}|{FUSION})\.cls\.predictions\."}


MLM_ADVICE = (", as heads/mlm is: --drop='^{name}$' takes the rest of the head, a pattern for all "
              "of it none")


def rewritten_name(name: str) -> str:
    """The name without what the release removes of it."""
    if KEEPS_NAMES not in name.split(".")[0] and ("fusion" in name or "bert" in name):
        for part in REMOVED:
            name = name.replace(part, "")
    return name


def rewritten(tensors: Tensors, source: str) -> Tensors:
    """The tensors by their rewritten names.

    Raises:
      WeightsError: two names become one.
    """
    found: dict[str, str] = {}
    same = []
    for name in tensors:
        other = found.setdefault(rewritten_name(name), name)
        if other != name:
            same.append(f"{other} and {name}")
    if same:
        raise WeightsError(f"{source}: {len(same)} pairs of names are the same without "
                           f"{' and '.join(REMOVED)}: {shorten(same)}")
    return {new: tensors[old] for new, old in found.items()}


def dropped_names(tensors: Tensors, patterns: Iterable[str], source: str) -> dict[str, str]:
    """The names, as they are rewritten, that patterns match, and which pattern it was.

    Args:
      tensors: by the file's names; a pattern may match these, or the rewritten ones.
      patterns: regular expressions, found anywhere in a name.
      source: the file, for messages.

    Raises:
      ConfigError: a pattern is not valid, or matches nothing.
    """
    found: dict[str, str] = {}
    for text in patterns:
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise ConfigError(f"--drop={text}: not a regular expression: {error}") from None
        names = [new for old in tensors if pattern.search(old)
                 or pattern.search(rewritten_name(old)) for new in [rewritten_name(old)]]
        if not names:
            raise ConfigError(f"--drop={text}: matches no name of {source}")
        found |= {name: text for name in names if name not in found}
    return found


def require_unneeded(dropped: Mapping[str, str], needed: Iterable[str]) -> None:
    """Raises ConfigError where a pattern drops what a module, or a head that is used, needs."""
    for name in needed:
        if name in dropped:
            raise ConfigError(f"--drop={dropped[name]}: matches {name}, which the model needs; of "
                              "a head, drop all names or none")


def fusion_place(config: ModelConfig, index: int) -> tuple[str, int | None]:
    """The path of a running fusion layer, and its place in the stack, if they are one."""
    if connected_layers(config):  # whose layers differ
        return f"fusion/layers_{index}", None
    return "fusion/layers/layer", index


def connected_layers(config: ModelConfig) -> tuple[int, ...]:
    """Indices of the connected ones among the running fusion layers."""
    return tuple(i for i in range(1, config.fusion_layers) if i % config.fusion_stride == 0)


def ignored_rule(name: str, config: ModelConfig, stored_fusion: int) -> str | None:
    """The rule by which a name is ignored, or None."""
    if rule := first_rule(IGNORED, name):
        return rule
    match = re.match(rf"{FUSION}\.encoder\.layer\.(\d+)\.(\w+)", name)
    if match:
        place = int(match[1]) - (stored_fusion - config.fusion_layers)
        if place < 0:
            return "fusion layers below the running ones"
        if place in connected_layers(config) and match[2] == "crossattention":
            return "cross-attention of connected fusion layers"
    return None


def heads_of(names: Iterable[str]) -> tuple[str, ...]:
    """The heads of which there is a name."""
    names = list(names)
    return tuple(head for head, pattern in HEADS.items()
                 if any(re.search(pattern, name) for name in names))


def mlm_prefix(names: Iterable[str], source: str) -> str | None:
    """Where the head of masked language modelling is, if there is one.

    Raises:
      WeightsError: there are two.
    """
    names = list(names)
    found = [prefix for prefix in MLM if any(name.startswith(f"{prefix}.") for name in names)]
    if len(found) > 1:
        raise WeightsError(f"{source}: has two heads of masked language modelling, {found[0]} and "
                           f"{found[1]}, the model has one: leave one out, "
                           f"--drop='^{re.escape(found[0])}'")
    return found[0] if found else None


def scalar(shape: tuple[int, ...]) -> Transform:
    """A number that is stored in an axis of its own."""
    return Transform(lambda x: x.reshape(()), lambda x, shape: x.reshape(shape), lambda s: shape)


def heads_layout(tensors: Tensors, source: str) -> Layout:
    """Where the heads go that are there: `heads/vtc`, `heads/vtm` and `heads/mlm`."""
    heads = heads_of(tensors)
    layout: Layout = {}
    if "vtc" in heads:
        layout |= bert_names.dense("vision_proj", "heads/vtc/visual")
        layout |= bert_names.dense("text_proj", "heads/vtc/text")
        single = TEMPERATURE in tensors and tensors[TEMPERATURE].shape == (1,)
        layout[TEMPERATURE] = (Slot("heads/vtc/temperature",
                                    transform=scalar((1,)) if single else SAME),)
    if "vtm" in heads:
        layout |= bert_names.dense("itm_head", "heads/vtm")
    if prefix := mlm_prefix(tensors, source):
        layout |= bert_names.head(prefix, "heads/mlm")
    return layout


def mlm_twins(tensors: Tensors, source: str) -> dict[str, str]:
    """What is stored twice of the head of masked language modelling, where there is one."""
    prefix = mlm_prefix(tensors, source)
    if prefix is None:
        return {}
    return {f"{prefix}.decoder.weight": WORDS, f"{prefix}.decoder.bias": f"{prefix}.bias"}
