"""What could be known of an evaluation is an error before anything is trained or loaded."""

import shutil
import sys
from pathlib import Path

import jax
import made_records
import numpy as np
import pytest
import small
from made_records import CLASSES, plain, question, record

from configs import common
from data import pipeline, records
from mplug2_jax import evaluation, tasks
from mplug2_jax.contracts.errors import ConfigError, DataError
from mplug2_jax.evaluation import room
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, Tokenizer
from mplug2_jax.tasks.base.gallery import recall_by_chance
from mplug2_jax.tasks.base.rows import Kept
from mplug2_jax.tasks.qa import QuestionAnswering

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
LENGTHS = {"qa": dict(prompt_length=8, target_length=4), "captioning": dict(text_length=8),
           "retrieval": dict(text_length=8), "pretrain": dict(text_length=8),
           "grounding": dict(prompt_length=8, ask="box")}


@pytest.fixture
def check():
    """Checks the evaluation of a task on records: `check("qa", [record, ...], best="...")`."""

    def checked(name, made, labelled=None, stream=None, best="", limit=0, trained=None,
                files=None, kind="image", model=small.MODEL, index=True, **options):
        splits = {"val": made} | ({"train": labelled} if labelled else {})
        folder = made_records.written(splits, index)
        if name in ("captioning", "qa"):
            options = {"max_length": 6} | options
        given = {"frames": 1, "image_size": 16} | LENGTHS.get(name, {}) | (stream or {})
        section = common.evaluation(name, "test", given.pop("batch_size", 8), "val", kind, options,
                                    **given)
        task, found = tasks.read(section.task)
        streams = {"one": task.stream(found, section.stream, "evals.one.stream")}
        tokenizer = small.tokenizer(options.get("location_bins", 0))
        built = evaluation.build({"one": section}, streams, model, tokenizer, True)
        params = small.shapes((trained or built["one"].task).model)
        evaluation.check(
            built, lambda one: pipeline.Reading(str(folder), one, tokenizer, (0, 1), None),
            params, make_mesh(1, 1, 1, jax.devices()[:1]), limit, best, trained,
            None if files is None else {"one": files})

    return checked


@pytest.mark.parametrize("name, options, best", [
    ("captioning", dict(memory="visual"), "image_caption_bleu4"),
    ("captioning", dict(memory="visual", beams=2), "image_caption_cider"),
    ("qa", {}, "image_qa_accuracy"),
    ("qa", {}, "image_qa_plain_accuracy"),
    ("qa", dict(answers=("w1", "w2 w3"), rank_keep=2), "image_qa_accuracy"),
    ("classification", dict(classes=CLASSES), "image_class_accuracy"),
    ("zero_shot", dict(classes=CLASSES, templates=("w7 {}",)), "image_class_accuracy"),
    ("retrieval", dict(rerank=2), "text_to_image_r10"),
    ("retrieval", dict(rerank=0), "dual_image_to_text_mean_rank"),
    ("retrieval", dict(rerank=2, rerank_by="logit", dual_softmax=True),
     "dual_softmax_by_logit_text_to_image_r1"),
    ("pretrain", dict(objectives=dict(instruct=0.0)), "image_held_out_vtm"),
    ("grounding", dict(location_bins=9), "image_grounding_iou"),
])
def test_what_can_be_evaluated_passes(check, name, options, best):
    check(name, plain(), best=best, **options)


def test_nearest_neighbours_pass_with_labels_to_vote(check):
    options = dict(classes=CLASSES, reference="train", neighbours=2)
    check("knn", plain(), plain(), best="image_class_accuracy", **options)
    with pytest.raises(ConfigError, match="^evals.one.task.reference = 'train': expected a split "
                                          "of labelled examples"):
        check("knn", plain(), plain(label="", questions=[]), **options)


NO_TEXT, NO_ANSWER = dict(texts=[]), dict(questions=[question("w4", "")])


@pytest.mark.parametrize("name, changes, options, said", [
    ("captioning", NO_TEXT, dict(memory="visual"), "none of 12 examples has a reference"),
    ("qa", NO_ANSWER, {}, "the answers to all 12 questions are hidden"),
    ("classification", dict(label=""), dict(classes=CLASSES),
     "the labels of all 12 examples are hidden"),
])
def test_a_split_whose_truth_is_hidden_validates_nothing_but_can_be_predicted(
        check, name, changes, options, said, caplog):
    task = small.task(name, **options)
    with pytest.raises(ConfigError) as caught:
        check(name, plain(**changes), trained=task, **options)
    assert str(caught.value) == (
        f"evals.one.validation = 'val': {said}; name a split whose truth is known, or leave this "
        "evaluation out (eval_every = 0 leaves out all)")
    check(name, plain(**changes), files="", **options)
    assert said in caplog.text and "it gives predictions alone" in caplog.text
    check(name, [*plain(11, **changes), record(11)], trained=task, **options)


@pytest.mark.parametrize("name, best, said, options", [
    ("retrieval", "text_to_image_r20", "is no figure of it; there are dual_text_to_image_r1", {}),
    ("retrieval", "text_to_image_rank", "is no figure of it", {}),
    ("retrieval", "dual_softmax_text_to_image_r1", "is no figure of it", {}),
    ("retrieval", "text_to_image_r1", "is no figure of it", dict(rerank=0)),
    ("retrieval", "by_logit_text_to_image_r1", "is no figure of it", {}),
    ("captioning", "image_caption_bleu5", "is no figure of it; there are image_caption_",
     dict(memory="visual")),
    ("captioning", "image_caption_bleu4_low", "is no figure of it", dict(memory="visual")),
    ("qa", "image_qa_colour_accuracy", "is no figure of it; there are image_qa_accuracy", {}),
    ("qa", "image_qa_vqa_accuracy", "is no figure of it", {}),
    ("classification", "image_class_top5", "is no figure", dict(classes=CLASSES)),
    ("classification", "image_class_f1", "is no figure", dict(classes=CLASSES)),
    ("classification", "image_score_pearson", "is no figure", dict(classes=CLASSES)),
    ("pretrain", "image_held_out_mlm", "is no figure",
     dict(objectives=dict(mlm=0.0, instruct=0.0))),
    ("retrieval", "image_to_text_r10", "is 1 whatever the model says, of 5 examples",
     dict(limit=5)),
    ("retrieval", "text_to_image_r5", "is 1 whatever the model says, of 5 examples",
     dict(limit=5)),
])
def test_the_figure_of_the_best_must_come_and_depend_on_the_model(check, name, best, said,
                                                                  options):
    with pytest.raises(ConfigError) as caught:
        check(name, plain(), best=best, **options)
    assert str(caught.value).startswith(f"evals.one.stream.split = 'val': best = '{best}' {said}")


def test_a_figure_of_one_example_among_many_is_found(check):
    made = plain(70)
    made[41] = record(41, questions=[question("w4", "w1", "rare")])
    check("qa", made, best="image_qa_rare_accuracy")
    with pytest.raises(ConfigError, match="best = 'image_qa_rare_accuracy' is no figure of it"):
        check("qa", made, best="image_qa_rare_accuracy", limit=30)


def test_a_correlation_needs_labels_that_differ(check):
    options = dict(classes="score", inputs="text")
    stream = dict(frames=0, text_length=8)
    made = [record(n, kind="text", media=b"", label=label, questions=[], boxes=[])
            for n, label in enumerate(("1.5", "1.5", "2"))]
    check("classification", made, stream=stream, best="text_score_pearson", kind="text", **options)
    with pytest.raises(ConfigError, match="best = 'text_score_pearson' is no figure of it"):
        check("classification", made, stream=stream, best="text_score_pearson", limit=2,
              kind="text", **options)


def test_a_class_that_the_task_does_not_have_is_found_anywhere(check, caplog):
    """Examples of some may be skipped, as of rare answers; a split of no class of these is wrong.
    """
    made = [*plain(60), record(60, label="w9"), record(61, label="w8"), *plain(3)]
    check("classification", made, classes=CLASSES)
    assert ("2 of its 5 different labels have no place in task.classes, the first: unknown class: "
            "'w8' is none of the 3; their examples are skipped and counted") in caplog.text
    caplog.clear()
    check("classification", made, classes=(*CLASSES, "w8", "w9"))
    check("classification", made, classes=CLASSES, index=False)  # each would be read
    assert "different labels" not in caplog.text
    answers = [record(n, label="", questions=[question("w4", one)])
               for n, one in enumerate((*CLASSES, "w9"))]
    asked = dict(stream=dict(text_length=8), inputs="both", expand="question")
    check("classification", answers, classes=CLASSES, **asked)
    assert "1 of its 4 different labels" in caplog.text
    for name, made, more in (("classification", plain(), {}), ("classification", answers, asked)):
        with pytest.raises(DataError) as caught:
            check(name, made, classes=("w17", "w18"), **more)
        assert str(caught.value).startswith("evals.one: split 'val' in ")
        assert str(caught.value).endswith("; name the classes that the split has")


def test_a_few_examples_without_truth_are_not_all(check):
    """Of twelve the first, fourth, seventh and tenth are rehearsed before the others."""
    wordless = [record(n, texts=[] if n % 3 == 0 else ["w1 w2"]) for n in range(12)]
    check("retrieval", wordless, rerank=2, best="text_to_image_r1")
    dots = [record(n, texts=["!?"] if n % 3 == 0 else ["w1 w2"]) for n in range(12)]
    check("captioning", dots, memory="visual", best="image_caption_cider")


def test_scores_of_batches_of_one_differ(check):
    made = [record(n, label=str(n % 5)) for n in range(12)]
    check("classification", made, stream=dict(batch_size=1), classes="score",
          best="image_score_pearson")


def test_classes_are_those_that_the_head_learned(check, caplog):
    def trained(*classes):
        return small.task("classification", classes=classes)

    check("classification", plain(), trained=trained(*CLASSES), classes=CLASSES)
    with pytest.raises(ConfigError, match=r"^evals.one.task.classes and inputs: heads/classify/"
                                          r".* is \[.*3\] in this evaluation, and \[.*4\]"):
        check("classification", plain(), trained=trained(*CLASSES, "w9"), classes=CLASSES)
    with pytest.raises(ConfigError, match="^evals.one.task.classes: number 1 is 'w2', and 'w3' "
                                          "where the head learned it; put them in the order"):
        check("classification", plain(), trained=trained("w1", "w3", "w2"), classes=CLASSES)
    assert "count as the same" not in caplog.text
    check("classification", plain(), trained=trained("w1", "w2", "w4"), classes=CLASSES)
    assert "number 2 is 'w3', and 'w4' where the head learned it" in caplog.text


@pytest.mark.parametrize("name, options, stream, said", [
    ("zero_shot", dict(classes=CLASSES, templates=("w1 " * 15 + "{}",)), {},
     "^evals.one.task.templates: a prompt has 18 tokens; expected at most "
     "model.max_positions = 16"),
    ("captioning", dict(memory="visual", max_length=17), {},
     "^evals.one: its model cannot compute .* a batch with .*video .*: text of 1. tokens, but "
     "model.max_positions is 16: generate fewer"),
    ("qa", dict(answers=("w1", "w1 " * 17)), {}, "^evals.one: its model cannot compute .* text of"),
    ("qa", {}, dict(views=(1, 3)), r"^evals.one: its model cannot .* video \[8, 3, 1, 16, 16, 3\]"),
])
def test_what_the_model_cannot_compute_is_told(check, name, options, stream, said):
    with pytest.raises(ConfigError, match=said):
        check(name, plain(), stream=stream, **options)


def test_media_that_cannot_be_used_are_told_where_none_can(check):
    broken = plain(media=b"no picture")
    with pytest.raises(DataError, match=r"^evals.one: split 'val' in .* of 12 examples all over "
                                        r"it none can be used, the first for record 'r0': undecod"):
        check("qa", broken)
    check("qa", [*broken, record(50)])
    check("retrieval", [*plain(20, texts=["..."]), *plain(20)], rerank=1)


def test_media_of_another_kind_are_found_anywhere(check, caplog):
    made = [*plain(30), record(30, kind="text", media=b"", boxes=[])]
    check("captioning", made, memory="visual")
    assert "1 of its 31 records have no media and are skipped" in caplog.text
    with pytest.raises(DataError, match="^evals.one: stream 'eval': split 'val' has no media"):
        check("captioning", made[-1:], memory="visual")
    made[-1] = record(30, kind="images")
    with pytest.raises(DataError, match="^evals.one: 1 of its 31 records are of kind 'images': "):
        check("captioning", made, memory="visual")


def test_a_task_of_ones_own_meets_what_it_does_not_know(check, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    known = [record(n, questions=[question("w4", word)]) for n, word in enumerate(("one", "two"))]
    try:
        monkeypatch.setattr(small, "tokenizer", lambda *_: counting_tokenizer())
        check("counting", known, stream=LENGTHS["qa"], best="image_count_accuracy", max_length=3)
        made = [*known, record(2, questions=[question("w4", "three")])]
        with pytest.raises(ConfigError) as caught:
            check("counting", made, stream=LENGTHS["qa"], max_length=3)
    finally:
        sys.modules.pop("counting", None)
    assert str(caught.value).startswith(
        "evals.one: task 'counting' cannot score what split 'val' says of its records: KeyError "
        "'three' (counting.py:")


def counting_tokenizer():
    pieces = [*SPECIAL_TOKENS, "one", "two", "three", *small.WORDS][:32]
    return Tokenizer(pieces, [True] * 32,
                     encode=lambda text: [pieces.index(word) for word in text.split()],
                     decode=lambda ids: " ".join(pieces[i] for i in ids))


def test_a_task_that_computes_with_parameters_by_itself_is_left(check, monkeypatch, caplog):
    monkeypatch.setattr(QuestionAnswering, "finish", lambda self, params, records, kind: (
        jax.tree.leaves(params)[0] + 1, self.score(records, kind))[1])
    check("qa", plain(), best="image_qa_accuracy")
    assert "task 'qa' cannot be tried before its first evaluation" in caplog.text


def test_rows_that_find_no_room_on_the_disk_or_in_memory(monkeypatch, tmp_path, caplog):
    used = shutil.disk_usage(tmp_path)._replace(free=3 << 30)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: used)
    monkeypatch.setattr(room, "memory", lambda: (8 << 30, 2 << 30))
    room.check_host("evals.one", Kept((2 << 30, 1 << 20), 1 << 30))
    assert not caplog.text
    with pytest.raises(ConfigError, match=r"^evals.one: 4.0 GiB of its examples' tokens go into "
                                          r"files below .*, where 3.0 GiB are free; name a larger "
                                          r"place by TMPDIR$"):
        room.check_host("evals.one", Kept((2 << 30, 2 << 30), 0))
    room.check_host("evals.one", Kept((), 3 << 30))
    assert "3.0 GiB of its examples' features are held in memory, and this host has 8.0 GiB, 2.0 " \
        "GiB of them free" in caplog.text
    with pytest.raises(ConfigError, match="9.0 GiB .* evaluate fewer examples"):
        room.check_host("evals.one", Kept((), 9 << 30))


def test_memory_is_what_this_host_says():
    total, left = room.memory()
    assert 0 < left <= total


def test_a_gallery_s_room_is_counted_of_all_examples(check, monkeypatch):
    seen = []
    monkeypatch.setattr(room, "check_host", lambda place, kept: seen.append(kept))
    check("retrieval", [record(n, texts=["w1"] * (1 + n % 2)) for n in range(40)], rerank=2)
    config = small.MODEL
    (kept,) = seen
    patches = (16 // config.patch_size) ** 2 + 1
    assert kept.rows[0] % (40 * config.width * 4) == 0 and kept.rows[0] >= 40 * config.width * 4
    assert kept.rows[1] == 60 * 8 * config.width * 4 and patches
    assert kept.memory == (40 + 60) * config.contrastive_dim * 4 + 60 * 8 + 32 * 100 * 2


def test_a_batch_that_no_device_holds(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1 << 30}

    monkeypatch.setattr(room.jax, "local_devices", lambda: [Device()])
    batch = {"video": jax.ShapeDtypeStruct((8, 1 << 28), np.uint8)}
    room.check_device("evals.one", batch, 2)
    with pytest.raises(ConfigError, match=r"^evals.one.stream.batch_size: .* 2.0 GiB of a device "
                                          r"with 1.0 GiB; make it smaller"):
        room.check_device("evals.one", batch, 1)


def test_a_servers_file_needs_its_numbers(check):
    def asked(*ids):
        return [record(n, questions=[question("w4", "", id=one)]) for n, one in enumerate(ids)]

    check("qa", asked("3", "1", "2"), files="x.json")
    for ids, odd in ((("1", "b", "2"), "'b'"), (("1", "2", "1"), "'one twice'")):
        with pytest.raises(ConfigError, match=f"^evals.one: submission = 'x.json': .* has {odd}"):
            check("qa", asked(*ids), files="x.json")


@pytest.mark.parametrize("classes, ids, said", [
    (("no", "yes"), "012", ""),
    (("no", "yes"), "013", "expected every row of the test file from 0 on"),
    (("a", "b", "c"), "012", "cannot write what it says of split 'val': SST-2.tsv: '.' is "
     "no label"),
])
def test_a_table_of_glue_needs_its_rows_and_labels(check, classes, ids, said):
    made = [records.record(id=one, kind="text", media=b"", texts=["w1 w2"], label="",
                           questions=[], boxes=[]) for one in ids]

    def checked():
        check("classification", made, stream=dict(frames=0, text_length=8), classes=classes,
              inputs="text", files="SST-2.tsv", kind="text")

    if not said:
        return checked()
    with pytest.raises(ConfigError, match=said):
        checked()


def test_recall_by_chance_is_that_of_drawn_orders():
    rng, texts = np.random.default_rng(0), [1, 2, 3, 2]
    owner = np.repeat(np.arange(4), texts)
    drawn = np.stack([rng.permutation(owner) for _ in range(20_000)])
    for k in (1, 2, 5, 6, 7, 8, 9):
        found = np.mean([(drawn[:, :k] == visual).any(axis=1) for visual in range(4)])
        assert recall_by_chance(k, texts, 8) == pytest.approx(found, abs=0.01)
        assert recall_by_chance(k, [1] * 8, 4) == pytest.approx(min(1, k / 4))
    assert recall_by_chance(8, texts, 8) == 1 and recall_by_chance(7, texts, 8) < 1.0

