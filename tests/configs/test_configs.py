"""Every config of a dataset: its sizes, its modules, its docstring, its line in the docs."""

import functools
import itertools
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
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED

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
    "refcoco_grounding:refcoco_union": ANSWER,
    "imagenet_classification": PICTURE, "ssv2_classification": PICTURE,
    "class_folder:flowers102": PICTURE, "class_folder:class_folders": PICTURE,
    **{f"kinetics_classification:kinetics{number}": PICTURE for number in (400, 600, 700, 710)},
    "text_pretrain": ("text universal decoder", "mlm"),
}
CLASSES = {"class_folders": 1000, "kinetics400": 400, "kinetics600": 600, "kinetics700": 700,
           "kinetics710": 710, "ssv2": 174, "flowers102": 102}
TFDS = {"imagenet2012/5.1.0": 1000, "oxford_flowers102/2.1.1": 102}
# Millions of parameters of the large modules, as README has them.
TEXT_ALONE = {"universal": 25.2}  # no latents, and no cross-attention, which is vision's
LARGE = {"vision": 353.8, "text": 308.9, "universal": 33.6, "fusion": 100.8, "decoder": 234.4}


@pytest.fixture(autouse=True)
def classes(tmp_path, monkeypatch):
    """Files of as many classes as are published, where `data.prepare` would write them."""
    monkeypatch.chdir(tmp_path)
    files = {f"{dataset}/1.0.0/classes.txt": count for dataset, count in CLASSES.items()}
    files |= {f"{folder}/label.labels.txt": count for folder, count in TFDS.items()}
    for path, count in files.items():
        file = tmp_path / recipe.PREPARED / path
        file.parent.mkdir(parents=True)
        file.write_text("".join(f"class {n}\n" for n in range(count)))


@functools.cache
def large_shapes(model: ModelConfig, modules: tuple, heads: tuple, **sizes) -> dict:
    """Parameters of a model as shapes; equal models are built once."""
    made = build(model, modules, heads, **sizes)
    return jax.eval_shape(lambda: init_params(made, jax.random.key(0)))


def millions(tree) -> float:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) / 1e6


@pytest.mark.parametrize("name", [*COMPOSITIONS, "pretrain", "zero_shot:coco"])
def test_berts_vocabulary_needs_no_file(name):
    module, _, words = name.partition(":")
    config = (listing.module(module).get_config(words) if module == "zero_shot" else
              listing.make(name, "tiny"))
    assert config.model.vocab_size == 30_522 and config.data.tokenizer == BERT_UNCASED


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
    # What CLIP and BERT lack may be new, and what no pretraining has, and nothing else.
    assert set(config.allow_new) == {f"heads/{head}" for head in heads}
    for entry in config.evals.values():  # a checkpoint of the training holds what they need
        other, options = tasks.read(entry.task)
        needed, needed_heads = other.composition(options)
        assert set(needed) <= modules and set(needed_heads) <= heads


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_sizes_are_valid_and_read_what_the_docstring_prepares(name):
    text = listing.module(name).__doc__
    assert f"configs/{name.partition(':')[0]}.py" in text
    assert listing.module(name).get_config.__defaults__[0].endswith("large")
    for words in (*itertools.product(listing.SIZES, ("release",)), ("paper", "tiny")):
        config = listing.make(name, *words)
        assert (checks.validate(config).model.universal_variant == "figure") == ("paper" in words)
        kinds = [(entry.get("kind", ""), entry.task.name) for entry in config.evals.values()]
        assert len(set(kinds)) == len(kinds)  # no figure takes the place of another
    dataset = listing.dataset(name)
    roots = {config.data.root, *(entry.stream.get("root") for entry in config.evals.values())}
    assert dataset in DATASETS and f"{recipe.PREPARED}/{dataset}" in roots
    published = DATASETS[dataset].published
    for entry in config.evals.values():
        for split in (entry.stream.split, entry.validation):
            assert not published or not split or names(split) <= set(published)


def names(split: str) -> set[str]:
    """The splits that "train[rest]+val" names."""
    return {term.partition("[")[0] for term in split.split("+")}


def shared(one: str, other: str) -> bool:
    """Whether two splits have records in common."""
    return any(a == b or (names(a) == names(b) and not ("[" in a and "[" in b))
               for a in one.split("+") for b in other.split("+"))


@pytest.mark.parametrize("name", [name for name in COMPOSITIONS if name != "text_pretrain"])
def test_the_best_is_chosen_every_epoch_and_not_on_the_test(name):
    config = listing.make(name, "large")
    if name == "nocaps_caption":  # it is not trained
        assert not config.best and not config.eval_every
        return
    assert config.optimizer.steps % config.eval_every == 0  # the last step is validated, too
    assert 0 < config.eval_limit <= recipe.LIMIT and not config.select_on_test
    assert config.optimizer.warmup_steps < config.optimizer.steps
    for entry in config.evals.values():
        for stream in config.data.streams.values():
            assert not shared(stream.split, entry.validation)
    chosen = []
    for entry in config.evals.values():
        task, options = tasks.read(entry.task)
        kind = entry.get("kind") or task.kind_of(options, entry.stream)
        figure = task.figure(config.best, kind)
        if figure and "{kind}" in figure.name and kind in config.best:
            chosen.append((figure, entry))
    ((figure, entry),) = chosen
    assert figure.better == "higher" and not figure.slow
    assert not shared(entry.stream.split, entry.validation)


@pytest.mark.parametrize("name", listing.variants())
def test_variants_are_valid(name):
    for size in listing.SIZES:
        config = listing.make(name, size)
        checks.validate(config)
        assert config.optimizer.steps % config.eval_every == 0


def test_what_start_lacks_may_be_new():
    """The weights of CLIP and BERT are a start for every config, without a flag."""
    given = {"vision", "text", "universal", "fusion", "decoder"}  # see `convert/hugging_face.py`
    for name, (modules, heads) in COMPOSITIONS.items():
        missing = (set(modules.split()) - given) | {f"heads/{head}" for head in heads.split()}
        assert missing <= set(listing.make(name, "tiny").allow_new), name


def test_the_docs_name_every_config():
    table = (ROOT / "docs/configs.md").read_text()
    for name in COMPOSITIONS:
        stem, _, dataset = name.partition(":")
        (line,) = [line for line in table.splitlines()
                   if line.startswith("|") and f"`{stem}.py{':' * bool(dataset)}{dataset}`" in line]
        modules, heads = COMPOSITIONS[name]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[-1] == ", ".join([*modules.split(), *heads.split()])


def test_words_stand_in_any_order():
    made = {words: recipe.words(words, dataset=("cola", "rte"), stage=("", "scst")) for words in (
        "", "base,paper,rte,scst", "scst, rte,paper ,base")}
    assert made[""] == {"size": "large", "preset": "release", "dataset": "cola", "stage": ""}
    assert made["base,paper,rte,scst"] == made["scst, rte,paper ,base"] == {
        "size": "base", "preset": "paper", "dataset": "rte", "stage": "scst"}
    config = listing.module("msrvtt_caption").get_config("paper,tiny")
    assert config.model.local_temporal == "grouped" and config.model.width == 128
    assert listing.module("glue_classification").get_config("tiny").model.width == 128


def test_wrong_words_are_named():
    for name, options, message in (
            ("refcoco_grounding", "refcocox,tiny", "'refcocox' of 'refcocox,tiny': expected a size "
             r"\(large, base, tiny\), a preset \(release, paper\), a dataset \(refcoco, "),
            ("glue_classification", "rte,huge", "'huge' of 'rte,huge': expected a size"),
            ("msrvtt_caption", "base,large", "'base' and 'large' are both a size; give one"),
            ("didemo_retrieval", "paper,release", "'paper' and 'release' are both a preset"),
            ("glue_classification", "rte,cola", "'rte' and 'cola' are both a dataset"),
            ("nocaps_caption", "scst", "'scst' of 'scst': expected a size"),
            ("kinetics_classification", "kinetics710,from710", "kinetics710 is what from710 "),
            ("class_folder", "class_folders,tfds", "TFDS prepares flowers102"),
            ("imagenet_classification", "large,folder", "'folder' of 'large,folder': expected")):
        with pytest.raises(ValueError, match=message) as error:
            listing.module(name).get_config(options)
        assert "\n" not in str(error.value)


def test_a_part_leaves_the_rest():
    assert [recipe.rest(records) for records in (2, 100, 9_000, 1_281_167)] == [
        1, 95, 8_550, 1_276_167]
