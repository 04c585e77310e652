"""Every config of a dataset: its sizes, its modules, its docstring, its line in the docs."""

import functools
import math
from pathlib import Path

import jax
import listing
import pytest

from configs import checks, recipe
from data.datasets import DATASETS
from mplug2_jax import tasks
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build, init_params

ROOT = Path(__file__).parents[2]
CAPTION = ("vision universal decoder", "")
ANSWER = ("vision text universal fusion decoder", "")
MATCH = ("vision text universal fusion", "vtc vtm")
PAIR = ("vision text universal fusion", "classify")
SENTENCE = ("text universal", "classify")
PICTURE = ("vision universal", "classify")
# Every config, with its modules and heads.
COMPOSITIONS = {
    "msrvtt_caption": CAPTION, "msvd_caption": CAPTION, "coco_caption": CAPTION,
    "nocaps_caption": CAPTION,
    "msrvtt_qa": ANSWER, "msvd_qa": ANSWER, "tgif_qa": ANSWER, "vqav2_qa": ANSWER,
    "msrvtt_retrieval": MATCH, "didemo_retrieval": MATCH, "lsmdc_retrieval": MATCH,
    "coco_retrieval": MATCH, "flickr30k_retrieval": MATCH,
    "refcoco_grounding:refcoco": ANSWER, "refcoco_grounding:refcoco_plus": ANSWER,
    "refcoco_grounding:refcocog": ANSWER,
    "nlvr2_classification": PAIR, "snli_ve_classification": PAIR,
    **{f"glue_classification:{name}": SENTENCE
       for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")},
    "imagenet_classification": PICTURE, "ssv2_classification": PICTURE,
    "kinetics_classification:kinetics400": PICTURE,
    "kinetics_classification:kinetics600": PICTURE,
    "kinetics_classification:kinetics700": PICTURE,
    "text_pretrain": ("text universal decoder", "mlm"),
}
CLASSES = {"class_folders": 1000, "kinetics400": 400, "kinetics600": 600, "kinetics700": 700,
           "ssv2": 174}
# Millions of parameters of the large modules, as README has them.
TEXT_ALONE = {"universal": 25.2}  # no latents, and no cross-attention, which is vision's
LARGE = {"vision": 353.8, "text": 308.9, "universal": 33.6, "fusion": 100.8, "decoder": 234.4}


@pytest.fixture(autouse=True)
def classes(tmp_path, monkeypatch):
    """Files of as many classes as are published, where `data.prepare` would write them."""
    monkeypatch.chdir(tmp_path)
    for dataset, count in CLASSES.items():
        file = tmp_path / recipe.PREPARED / dataset / "1.0.0/classes.txt"
        file.parent.mkdir(parents=True)
        file.write_text("".join(f"class {n}\n" for n in range(count)))


@functools.cache
def large_shapes(model: ModelConfig, modules: tuple, heads: tuple, **sizes) -> dict:
    """Parameters of a model as shapes; equal models are built once."""
    made = build(model, modules, heads, **sizes)
    return jax.eval_shape(lambda: init_params(made, jax.random.key(0)))


def millions(tree) -> float:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) / 1e6


def test_the_list_is_complete():
    assert set(listing.names()) == set(COMPOSITIONS)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_large_has_exactly_its_modules(name):
    config = listing.make(name, "large")
    model, (task, options) = checks.validate(config).model, tasks.read(config.task)
    shapes = large_shapes(model, *task.composition(options), **task.head_sizes(options))
    modules, heads = (set(names.split()) for names in COMPOSITIONS[name])
    assert set(shapes) - {"heads"} == modules
    assert set(shapes.get("heads", ())) == heads
    wanted = LARGE if "vision" in modules else LARGE | TEXT_ALONE
    for module in modules:
        assert millions(shapes[module]) == pytest.approx(wanted[module], abs=0.05)
    if "classify" in heads:
        dataset = listing.dataset(name)
        outputs = jax.tree.leaves(shapes["heads"]["classify"])[-1].shape[-1]
        fixed = {"glue_stsb": 1, "glue_mnli": 3, "snli_ve": 3}
        assert outputs == CLASSES.get(dataset, fixed.get(dataset, 2))
    # What is new beside a pretrained model may be missing from it, and nothing else.
    assert set(config.allow_new) <= {f"heads/{head}" for head in heads}
    for entry in config.evals.values():  # a checkpoint of the training holds what they need
        other, options = tasks.read(entry.task)
        needed, needed_heads = other.composition(options)
        assert set(needed) <= modules and set(needed_heads) <= heads


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_sizes_are_valid_and_read_what_the_docstring_prepares(name):
    text = listing.module(name).__doc__
    assert f"configs/{name.partition(':')[0]}.py" in text
    assert listing.module(name).get_config.__defaults__[0].endswith("large")
    for size in listing.SIZES:
        config = listing.make(name, size)
        checks.validate(config)
        kinds = [(entry.get("kind", ""), entry.task.name) for entry in config.evals.values()]
        assert len(set(kinds)) == len(kinds)  # no figure takes the place of another
    dataset = listing.dataset(name)
    roots = {config.data.root, *(entry.stream.get("root") for entry in config.evals.values())}
    assert dataset in DATASETS and f"{recipe.PREPARED}/{dataset}" in roots
    published = DATASETS[dataset].published
    for entry in config.evals.values():
        assert not published or set(entry.stream.split.split("+")) <= set(published)
        assert not published or set(entry.validation.split("+")) <= set(published)


def test_the_docs_name_every_config():
    table = (ROOT / "docs/configs.md").read_text()
    for name in COMPOSITIONS:
        stem, _, dataset = name.partition(":")
        (line,) = [line for line in table.splitlines()
                   if line.startswith("|") and f"`{stem}.py{':' * bool(dataset)}{dataset}`" in line]
        modules, heads = COMPOSITIONS[name]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[-1] == ", ".join([*modules.split(), *heads.split()])


def test_wrong_choices_are_named():
    for name, options, message in (
            ("refcoco_grounding", "refcocox,tiny", "dataset 'refcocox': expected one of refcoco"),
            ("glue_classification", "wnli", "dataset 'wnli': expected one of cola"),
            ("glue_classification", "rte,huge", "size 'huge': expected one of tiny"),
            ("imagenet_classification", "large,folder", "'large,folder': expected a size")):
        with pytest.raises(ValueError, match=message):
            listing.module(name).get_config(options)
    assert listing.module("glue_classification").get_config("tiny").model.width == 128
