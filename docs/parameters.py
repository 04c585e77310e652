"""The page of presets and parameters: what differs, and how many there are, by counting."""

import functools
import math
import re
from collections.abc import Callable, Iterator

import jax

from configs import sizes
from mplug2_jax.contracts.options import comments
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.mplug2 import HEADS, build, init_params
from mplug2_jax.parallel.sharding import path_name

COLUMNS = tuple((size, preset) for size in ("large", "base") for preset in sizes.PRESETS)
# What parameters' paths are of: each counts where it matches first.
PARTS = (
    ("vision: local temporal modules", r"^vision/.*/temporal_\d/"),
    ("vision: the ViT, as CLIP's", r"^vision/"),
    ("text: embeddings", r"^text/embeddings/"),
    ("text: layers", r"^text/"),
    ("universal: cross-attention, latents, norm", r"^universal/(.*/cross|latents|norm)"),
    ("universal: self-attention and MLP", r"^universal/"),
    ("fusion: layers, with cross-attention", r"^fusion/"),
    ("decoder: embeddings", r"^decoder/embeddings/"),
    ("decoder: head, but for the tied embedding", r"^decoder/head/"),
    ("decoder: layers, with cross-attention", r"^decoder/"),
    ("heads of pretraining: vtc, vtm, mlm", r"^heads/"),
)
LOCAL, SECOND = "vision: local temporal modules", "decoder: embeddings"
# Of what `release` and `paper` do otherwise.
DIFFERENCES = {
    "local_temporal":
        "release: before attention and again before the MLP, of images too; D to D/2, a depthwise "
        "convolution, D/2 to D. paper: once, before attention, of videos alone; a whole "
        "convolution in each group of channels, then a projection",
    "universal_variant":
        "release: the queries attend to themselves first, then to what is seen; text comes out of "
        "the layers as it is. paper: they attend to what is seen first; text is added to itself "
        "(W0 + WS)",
}


@functools.cache
def counted(size: str, preset: str) -> dict[str, int]:
    """How many parameters each of `PARTS` has."""
    model = build(ModelConfig.from_mapping(sizes.model(size, preset)), MODULES, tuple(HEADS))
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    counts = dict.fromkeys((part for part, _ in PARTS), 0)
    for path, x in jax.tree_util.tree_leaves_with_path(shapes):
        name = path_name(path)
        part = next(part for part, pattern in PARTS if re.search(pattern, name))
        counts[part] += math.prod(x.shape)
    return counts


def total(size: str, preset: str, *without: str) -> int:
    """Of the five modules, but for some parts."""
    return sum(count for part, count in counted(size, preset).items()
               if not part.startswith("heads") and part not in without)


def clip_text(width: int = 768, layers: int = 12, vocabulary: int = 49_408,
              positions: int = 77) -> int:
    """Of the text tower beside CLIP's ViT-L/14, with its projection and the temperature."""
    layer = 12 * width * width + 13 * width  # attention, an MLP of 4 widths, two norms
    return (vocabulary + positions) * width + layers * layer + 2 * width + width * width + 1


def millions(count: int) -> str:
    """One digit of millions."""
    return f"{count / 1e6:,.1f}"


def preset_rows() -> Iterator[tuple[str, ...]]:
    """A row a key in which the presets differ."""
    said = dict(comments(ModelConfig))
    first, second = sizes.PRESETS.values()
    for key in first:
        if first[key] != second[key]:
            yield f"`model.{key}`", f"`{first[key]}`", f"`{second[key]}`", DIFFERENCES.get(
                key, said[key])


def sums() -> Iterator[tuple[str, ...]]:
    """Ways to count the large model of the release."""
    for what, without in (
            ("the five modules", ()),
            ("the same, one table of embeddings for text and decoder", (SECOND,)),
            ("the same, without local temporal modules", (LOCAL,)),
            ("the same, without both", (LOCAL, SECOND))):
        count = total("large", "release", *without)
        yield what, millions(count), f"{count / 1e9:.1f} B"


def page(table: Callable[..., str], prose: Callable[[str], str], note: str) -> str:
    """`docs/reference/parameters.md`; `table` and `prose` write Markdown."""
    heads = [f"{size}, {preset}" for size, preset in COLUMNS]
    rows = [(part, *(millions(counted(*column)[part]) for column in COLUMNS)) for part, _ in PARTS]
    rows.append(("**the five modules**", *(f"**{millions(total(*column))}**"
                                           for column in COLUMNS)))
    large = counted("large", "release")
    bert = large["text: embeddings"] + large["text: layers"] + large[
        "universal: self-attention and MLP"]
    vit, fusion = large["vision: the ViT, as CLIP's"], large["fusion: layers, with cross-attention"]
    decoder = sum(count for part, count in large.items() if part.startswith("decoder"))
    mlp = large["universal: self-attention and MLP"] * 2 // 3
    return "\n\n".join([
        "# Presets and parameters", note, "## Presets", prose(
            "`release` (the default) is what the released code computes, `paper` is Figure 2; each "
            "is a word of every config, `configs/msrvtt_caption.py:large,paper`. They differ in "
            "the keys below and in nothing else; how many groups of channels the paper has is not "
            "said (`temporal_groups`, 4 here). Released weights load into `release` alone: the "
            "other has other parameters, and `python -m mplug2_jax.convert official` refuses it."),
        table(("key", "release", "paper", "what differs"), preset_rows()),
        "## Parameters", prose(
            "Millions, counted on the shapes that the modules have (`jax.eval_shape`). A layer of "
            "BERT has four projections of self-attention and two of the MLP; cross-attention adds "
            "four."),
        table(("part", *heads), rows),
        "## Against the release's 0.9 B", prose(
            "The release's README says 0.9 B of a model with ViT-L/14, 24 text layers, of which 2 "
            "are universal, 6 of fusion and 12 of the decoder: the same as here. How it was "
            "counted is not said. By counting:"),
        table(("what is counted", "millions", "rounded"), sums()),
        prose(f"- The sum of the models that it starts from gives nearly the same: BERT-large "
              f"without its pooler {millions(bert)}, which are the text layers, the embeddings and "
              f"the universal layers but for what is new in them; CLIP's ViT-L/14 {millions(vit)}; "
              f"6 layers of fusion {millions(fusion)}; the decoder with its embeddings "
              f"{millions(decoder)}: together {millions(bert + vit + fusion + decoder)}. The "
              "decoder's head shares its word embedding, which is counted once."),
        prose("- What released checkpoints store and nothing uses only adds to it: CLIP's text "
              f"tower {millions(clip_text())}, its projection of the image {millions(1024 * 768)}, "
              f"a second MLP in each universal layer {millions(mlp)}, layers of fusion below those "
              "that run, and a momentum copy of every module."),
        prose("- The predecessor's README says 1.1 B of mPLUG-huge: ViT-L/14, 24 text layers, 6 of "
              "fusion and 12 of the decoder. That is this model without local temporal modules and "
              "without what is new in the universal layers, and so a smaller one with the larger "
              "number: the two cannot have been counted in the same way."),
        prose("- So 0.9 B is reached without local temporal modules and with the embeddings "
              "counted once, or where of 999.8 or 980.9 the first digit is kept and nothing is "
              "rounded. What was meant cannot be known."),
    ]) + "\n"
