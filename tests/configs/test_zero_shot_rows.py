"""Configs that train nothing: zero-shot rows and servers' splits, from raw files to the report."""

import csv
import json
import re
from pathlib import Path

import cuts
import pytest
from commands import seen
from forks import finished

from configs import checks, coco_server, common, zero_shot
from data.datasets import DATASETS
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.preprocess.classes import class_prompts

ROOT = Path(__file__).parents[2]
ROWS = {name: f"zero_shot:{name}" for name in zero_shot.NAMES}
SOME = ("msrvtt", "coco", "vqav2", "imagenet", "nocaps")  # of each kind; the others are long
SERVERS = ("coco_server", "glue_classification:cola", "vqav2_qa")
# By row, figures of each that papers have.
FIGURES = {
    "msrvtt": ("text_to_msrvtt_1ka_zero_shot_r1", "dual_text_to_msrvtt_1ka_zero_shot_r1"),
    "didemo": ("text_to_didemo_paragraph_zero_shot_r1",), "lsmdc": ("text_to_lsmdc_zero_shot_r1",),
    "coco": ("coco_karpathy_5k_zero_shot_to_text_r1",),
    "flickr30k": ("flickr30k_karpathy_1k_zero_shot_to_text_r1",),
    **{name: (f"{name}_zero_shot_qa_accuracy",) for name in zero_shot.QUESTIONS},
    **{name: (f"{name}_zero_shot_class_accuracy",) for name in zero_shot.CLASSES},
    "nocaps": tuple(f"nocaps_{part}_zero_shot_caption_cider" for part in ("val",
                                                                        *zero_shot.DOMAINS)),
}


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """Files of two classes, where `data.prepare` would write them."""
    monkeypatch.chdir(tmp_path)
    for dataset, _, _ in zero_shot.CLASSES.values():
        folder = tmp_path / "prepared" / dataset / "1.0.0"
        folder.mkdir(parents=True)
        (folder / "classes.txt").write_text("n01440764\nn01443537\n")
        (folder / "label_words.txt").write_text(
            "n01443537 goldfish, Carassius auratus\nn01440764 tench, Tinca tinca\n")


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("size", ["tiny", "large"])
def test_rows_are_valid_and_need_what_pretraining_has(name, size, classes):
    for words in (f"{name},{size}", f"{size},{name}"):
        config = zero_shot.get_config(words)
        evaluations = checks.validate(config, trains=False).evaluations
    assert evaluations and not config.data.streams
    with pytest.raises(ConfigError, match="data.streams: empty"):
        checks.validate(config)  # which train.py does
    for key, entry in config.evals.items():
        task, options = tasks.read(entry.task)
        modules, heads = task.evaluation_composition(options)
        assert set(modules) <= {"vision", "text", "universal", "fusion", "decoder"}
        assert set(heads) <= {"vtc", "vtm"}
        assert "zero_shot" in entry.kind and entry.stream.image_size == config.model.image_size
        dataset = DATASETS[config.data.root.partition("/")[2]]
        published = set(dataset.published)
        assert not published or set(entry.stream.split.split("+")) <= published, key
        assert dataset.name in zero_shot.__doc__


def test_words_are_a_row_and_a_model(classes):
    for words in ("", "msrvtt,lsmdc", "msvd", "large"):
        with pytest.raises(ValueError, match="expected one of msrvtt, didemo,"):
            zero_shot.get_config(words)
    with pytest.raises(ValueError, match="huge"):
        zero_shot.get_config("msrvtt,huge")
    assert len(zero_shot.KINETICS) == len(set(zero_shot.KINETICS)) == 28


def test_imagenets_numbers_become_words(classes):
    options = zero_shot.get_config("imagenet").evals.imagenet.task
    prompts, owners = class_prompts(options.classes, options.wordings, ("a photo of a {}",))
    assert prompts == ["a photo of a tench", "a photo of a goldfish"]
    assert owners.tolist() == [0, 1]
    with pytest.raises(ConfigError, match="no line begins with the class 'n02'"):
        class_prompts(("n01440764", "n02"), options.wordings, ("{}",))


@pytest.mark.parametrize("size", ["tiny", "large"])
def test_cocos_own_splits_are_captioned_for_its_server(size):
    config = coco_server.get_config(size)
    checks.validate(config, trains=False)
    assert set(config.evals) < set(DATASETS["coco2014"].published)
    for split, entry in config.evals.items():
        assert entry.stream.split == split and not entry.validation
        assert re.fullmatch(rf"captions_{split}_\w+_results.json", entry.submission)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, request):
    """The folder of reports of the rows that are asked for, and of what servers score."""
    folder = tmp_path_factory.mktemp("evaluations")
    rows = (*zero_shot.RETRIEVAL.values(), *zero_shot.CLASSES.values())
    names = {*(row[0] for row in rows), *zero_shot.QUESTIONS, "nocaps", "coco2014", "glue_cola"}
    cuts.write_data(folder, {f"prepared/{name}" for name in names}, cuts.MODEL["vocab_size"])
    (ROOT / ".cache").mkdir(exist_ok=True)
    (folder / ".cache").symlink_to(ROOT / ".cache")  # compilations of the last time
    asked = {item.callspec.params["name"] for item in request.session.items
             if getattr(item, "function", None) is test_rows_have_their_figures_and_every_example}
    asked |= {"msrvtt", "vqav2"}  # which the tests below look at
    done = finished(
        [ROOT / "tests/configs/evaluate_miniatures.py",
         *(row for name, row in ROWS.items() if name in asked), *SERVERS],
        seen(path=ROOT / "tests/configs"), folder, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder / "runs"


def report(runs, name):
    """The report of a config, and its records by evaluation."""
    folder = runs / name
    return json.loads((folder / "report.json").read_text()), {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in folder.glob("*.jsonl")}


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.long] * (name not in SOME)) for name in ROWS])
def test_rows_have_their_figures_and_every_example(name, evaluated):
    found, records = report(evaluated, ROWS[name])
    for figure in FIGURES[name]:
        assert isinstance(found["figures"][figure]["value"], float), figure
    assert all("zero_shot" in figure for figure in found["figures"])
    assert not any(figure.endswith("_skipped") for figure in found)
    assert records and all(records.values())


@pytest.mark.slow
def test_hidden_answers_become_files_for_servers(evaluated):
    """By the rules that `tests/metrics/test_submissions.py` cites, each example once."""
    found, records = report(evaluated, "glue_classification:cola")
    with open(evaluated / "glue_classification:cola/CoLA.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    said = {record["id"]: record["prediction"] for record in records["cola_test"]}
    assert len(rows) == len(said) == len(records["cola_test"]) > 0
    assert [row["index"] for row in rows] == [str(n) for n in range(len(rows))]
    assert all(row["prediction"] == str(int(said[row["index"]] == "acceptable")) for row in rows)
    hidden = f"the labels of all {len(rows)} examples are hidden"
    assert found["absent"]["text_test_class_accuracy"] == hidden
    assert "text_class_accuracy" in found and "text_test_class_accuracy" not in found

    found, records = report(evaluated, "coco_server")
    for split in ("val2014", "test2014"):
        captions = json.loads((evaluated / "coco_server" / (
            f"captions_{split}_mplug2_results.json")).read_text())
        assert captions == [{"image_id": int(record["id"]), "caption": record["prediction"]}
                            for record in records[split]]
    assert [caption["image_id"] for caption in captions] == [2]
    assert found["absent"]["image_test2014_caption_cider"] == (
        "none of 1 examples has a reference")
    assert "image_val2014_caption_cider" in found

    for folder, name, file in (("vqav2_qa", "test", "test_submission.json"),
                               (ROWS["vqav2"], "vqav2_test", "vqav2_test.json")):
        found, records = report(evaluated, folder)
        answers = json.loads((evaluated / folder / file).read_text())
        assert answers == [{"question_id": int(record["id"]), "answer": record["prediction"]}
                           for record in records[name]] != []
    assert found["absent"]["vqav2_test_zero_shot_qa_accuracy"].startswith("the answers to all")


@pytest.mark.slow
def test_a_checkpoint_without_heads_is_an_error_of_one_line(evaluated):
    said = (evaluated / "lacking.txt").read_text()
    assert "\n" not in said and said.endswith(
        "lacks vision, fusion, heads/vtc, heads/vtm, which evaluation 'msrvtt', task 'retrieval', "
        "needs")


def test_rules_of_a_row_may_be_changed_on_the_command_line():
    config = zero_shot.get_config("msrvtt,tiny")
    config.evals.msrvtt.task.update(dict(rerank=0, rerank_by="logit", dual_softmax=True))
    checks.validate(config, trains=False)
    task, options = tasks.read(config.evals.msrvtt.task)
    assert task.evaluation_composition(options) == (("vision", "text", "universal"), ("vtc",))
    assert common.task("retrieval").rerank_by == "similarity_and_odds"
