"""What a task's records score: captions, answers and labels, hidden ones too; files for servers."""

import json

import numpy as np
import pytest
import small

from mplug2_jax.metrics.scores import keep
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED, load_tokenizer


def test_captioning_and_answers_are_scored_by_their_records():
    task = small.task("captioning", memory="visual")
    tokens = task.tokenizer
    ids = np.array([tokens.cls_id, *tokens.encode("w1 w2"), tokens.sep_id, 0], np.int32)
    record = task.record({"ids": ids}, {"texts": ["w1 w2", "w3"]})
    assert record == {"prediction": "w1 w2", "references": ["w1 w2", "w3"]}
    records = [record | {"index": 0},
               {"prediction": "w4", "references": ["w5"], "index": 1}]
    figures = keep(records, task.score(records, "image"))
    assert figures["image_caption_bleu1"] == pytest.approx(2 / 3)
    assert [round(r["scores"]["image_caption_bleu1"], 6) for r in records] == [1, 0]

    qa = small.task("qa")
    questions = [{"question": "q", "answer": "w1", "type": "a"},
                 {"question": "q", "answer": "w2", "type": "a"}]
    rows = [qa.record({"ids": ids[[0, 1, 3]], "item": i}, {"questions": questions})
            for i in (0, 1)]
    scores = keep(rows, qa.score(rows, "video"))
    assert scores["video_qa_accuracy"] == scores["video_qa_majority"] == 0.5
    assert scores["video_qa_a_accuracy"] == 0.5
    assert [r["scores"]["video_qa_accuracy"] for r in rows] == [1, 0]


def test_hidden_answers_are_counted_and_several_peoples_scored_as_vqav2_does():
    qa = small.task("qa")

    def record(prediction, answer, answers=()):
        return {"prediction": prediction, "answer": answer, "type": "a", "id": "7",
                "answers": list(answers)}

    many = ["dog"] * 8 + ["cat"] * 2
    rows = [record("a dog", "dog", many), record("cat", "dog", many), record("dog", "")]
    scores = keep(rows, qa.score(rows, "image"))
    assert scores["image_qa_unanswered"] == 1 and scores["image_qa_accuracy"] == 0
    # Two of ten say cat: for eight of the ten, two thirds of three votes; for the two, one third.
    assert scores["image_qa_vqa_accuracy"] == pytest.approx((1 + 0.6) / 2)
    assert rows[0]["scores"]["image_qa_vqa_accuracy"] == 1 and not rows[2]["scores"]
    assert qa.score(rows[2:], "image") == {"image_qa_unanswered": 1.0}


def test_hidden_captions_have_no_figures_but_a_submission(tmp_path):
    task = small.task("captioning", memory="visual")
    ids = np.array([task.tokenizer.cls_id, *task.tokenizer.encode("w1 w2"), 0], np.int32)

    def record(number, *references):
        return task.record({"ids": ids}, {"id": number, "texts": list(references)})

    rows = [record("12"), record("3", "", " ")]
    assert task.score(rows, "image") == {"image_caption_unreferenced": 2.0}
    reason = "none of 2 examples has a reference"
    assert task.absent(rows, "image") == {"image_caption_cider": reason}
    assert task.slow_scores(rows, "image") == ({}, {
        "image_caption_meteor": reason, "image_caption_spice": reason})
    path = tmp_path / "any.json"
    assert task.write_submission(path, rows) and json.loads(path.read_text()) == [
        {"image_id": 12, "caption": "w1 w2"}, {"image_id": 3, "caption": "w1 w2"}]
    assert not task.write_submission(tmp_path / "no.json", [*rows, record("video7")])
    # Some of them hidden: figures of the others.
    rows = [row | {"index": number} for number, row in enumerate(
        (record("1"), record("2", "w1 w2"), record("3", "w5")))]
    scores = keep(rows, task.score(rows, "image"))
    assert scores["image_caption_unreferenced"] == 1 and not task.absent(rows, "image")
    assert not rows[0]["scores"] and rows[1]["scores"]["image_caption_bleu1"] == pytest.approx(1)
    assert scores == keep(rows[1:], task.score(rows[1:], "image")) | {
        "image_caption_unreferenced": 1}


def test_hidden_labels_have_no_figures_but_a_submission(tmp_path):
    task = small.task("classification", inputs="text", classes=("no", "yes"))
    rows = [{"id": number, "label": "", "prediction": said, "best": [said]}
            for number, said in (("1", "no"), ("0", "yes"))]
    assert task.score(rows, "text") == {"text_class_unlabelled": 2.0}
    assert task.absent(rows, "text") == {
        "text_class_accuracy": "the labels of all 2 examples are hidden"}
    assert task.absent([rows[0] | {"label": "no"}, rows[1]], "text") == {}
    assert task.write_submission(tmp_path / "MRPC.tsv", rows)
    assert (tmp_path / "MRPC.tsv").read_text() == "index\tprediction\n0\t1\n1\t0\n"
    assert not task.write_submission(tmp_path / "mrpc_test_submission.json", rows)
    scored = small.task("classification", inputs="text", classes="score")
    assert list(scored.absent(rows, "text")) == ["text_score_pearson"]
    qa = small.task("qa")
    assert qa.absent([{"answer": ""}], "image") == {
        "image_qa_accuracy": "the answers to all 1 questions are hidden"}


def test_vqav2_by_question_type_and_its_submission(tmp_path):
    qa, many = small.task("qa"), ["dog"] * 10
    rows = [{"prediction": said, "answer": "dog", "type": kind, "id": number, "answers": many}
            for said, kind, number in (("dog", "what", "12"), ("cat", "what", "3"),
                                       ("dog", "who", "7"))]
    scores = keep(rows, qa.score(rows, "image"))
    assert scores["image_qa_what_vqa_accuracy"] == 0.5 and scores["image_qa_who_vqa_accuracy"] == 1
    path = tmp_path / "submission.json"
    assert qa.write_submission(path, rows)
    assert json.loads(path.read_text()) == [{"question_id": 12, "answer": "dog"},
                                            {"question_id": 3, "answer": "cat"},
                                            {"question_id": 7, "answer": "dog"}]
    for number in ("7", "q3"):  # twice, or not a number: no such file
        assert not qa.write_submission(tmp_path / "no.json", [*rows, rows[0] | {"id": number}])
    assert not (tmp_path / "no.json").exists()


def test_who_generates_exactly_the_answer_is_right():
    """In the form that the vocabulary can say; VQAv2's figure stays that of its server."""
    qa = small.task("qa")
    qa.tokenizer = bert = load_tokenizer(BERT_UNCASED)
    answers = ["10:30", "$5", "U.S.", "1,000", "Café", "8 - 9", "New York", "it’s"]
    rows = [{"prediction": bert.decode(bert.encode(answer)), "answer": answer, "type": "what",
             "answers": [answer] * 10} for answer in answers]
    figures = qa.score(rows, "image")
    assert figures["image_qa_accuracy"].each.tolist() == [1] * 8
    # All ten agree, so nothing is normalised: its server would compare the spaces. An accent is
    # folded, for the vocabulary has none.
    assert figures["image_qa_vqa_accuracy"].each.tolist() == [1, 1, 1, 1, 1, 0, 1, 1]
    assert all(qa.example(row | {"index": 0, "question": "?"}, lambda _: None).correct
               for row in rows)
    wrong = [row | {"prediction": said} for row, said in zip(rows, ["10.30", "5", "us"],
                                                             strict=False)]
    assert qa.score(wrong, "image")["image_qa_accuracy"].each.tolist() == [0] * 3
    # A list's own spelling is given back; it counts as what it would be generated as.
    listed = [row | {"prediction": row["answer"]} for row in rows]
    assert qa.score(listed, "image")["image_qa_accuracy"].value == 1
    assert qa.score(listed, "image")["image_qa_vqa_accuracy"].value == 1
    # Some say it with its accent, some without; one is to be told from another word either way.
    people = ["caf\u00e9"] * 5 + ["cafe", "Caf\u00e9", "bar", "bar", "bar"]
    for said, expected in (("caf\u00e9", 1), ("cafe", 1), ("na\u00efve", 0)):
        row = rows[0] | {"prediction": said, "answer": "caf\u00e9", "answers": people}
        assert qa.score([row], "image")["image_qa_vqa_accuracy"].value == expected
