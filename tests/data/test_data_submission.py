"""A server's file has every example of the split, also those that could not be used."""

import csv
import json
from types import SimpleNamespace

import pytest
import small
from data_helpers import good

from data import pipeline
from mplug2_jax import evaluation
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import Stream


@pytest.fixture
def reading(write_records, tokenizer):
    """A split of three records, the second one's video being no video, open."""

    def open_split(expand, **lengths):
        def asked(number):
            return [{"question": "what", "answer": "", "type": "", "id": str(10 * number + item)}
                    for item in range(2)]

        made = [good(f"{number}", questions=asked(number), texts=["a red three"],
                     **({"media": b"no video"} if number == 7 else {}))
                for number in (5, 7, 2)]
        stream = read(Stream, dict(split="test", batch_size=2, frames=1, image_size=16,
                                   expand=expand, text_optional=True, **lengths), "stream")
        return pipeline.Reading(str(write_records({"test": made})), stream, tokenizer, (0, 1),
                                lambda batch: batch)

    return open_split


def records_of(split, task, said):
    """Records of the examples that can be used, with a prediction each."""
    found = []
    for batch in split.batches():
        for index, item, used in zip(*(batch[key] for key in ("index", "item", "example_mask")),
                                     strict=True):
            if used:
                annotation = split.annotation(int(index))
                found.append({"index": int(index), "item": int(item), "prediction": next(said),
                              "id": task.example_id(annotation, int(item))})
    return found


def test_vqav2_has_every_question_also_those_of_a_skipped_image(reading, tmp_path):
    split, task = reading("question", prompt_length=8, target_length=4), small.task("qa")
    records = records_of(split, task, iter(["no", "yes", "yes", "2"]))
    assert split.skipped == 1 and [record["id"] for record in records] == ["50", "51", "20", "21"]
    made = evaluation.submit(task, tmp_path / "test.json", records, split, skipped=True)
    assert json.loads((tmp_path / "test.json").read_text()) == [
        {"question_id": number, "answer": answer} for number, answer in (
            (50, "no"), (51, "yes"), (70, "yes"), (71, "yes"), (20, "yes"), (21, "2"))]
    assert made.filled == ("70", "71")
    assert made.facts() == {"with": "yes", "of": 6, "ids": ["70", "71"]}


def test_captions_have_every_image(reading, tmp_path):
    split, task = reading("record", text_length=8), small.task("captioning", memory="visual")
    records = records_of(split, task, iter(["a dog", "a cat"]))
    made = evaluation.submit(task, tmp_path / "captions.json", records, split, skipped=True)
    assert json.loads((tmp_path / "captions.json").read_text()) == [
        {"image_id": 5, "caption": "a dog"}, {"image_id": 7, "caption": "a cat"},
        {"image_id": 2, "caption": "a cat"}]
    assert made.filled == ("7",)


@pytest.mark.parametrize("name, classes, said, expected", [
    ("CoLA.tsv", ("unacceptable", "acceptable"), ["acceptable", "unacceptable", "acceptable"],
     ["1", "0", "1", "1"]),
    ("STS-B.tsv", "score", [1.0, 4.5, 2.0], ["1.000", "4.500", "2.000", "2.000"]),
])
def test_glue_has_every_row(tmp_path, name, classes, said, expected):
    task = small.task("classification", inputs="text", classes=classes)
    records = [{"index": row, "item": 0, "id": str(row), "prediction": one}
               for row, one in zip((0, 1, 2), said, strict=True)]
    split = SimpleNamespace(examples=lambda: [(row, 0) for row in range(4)], annotation=lambda row:
                            {"id": str(row), "questions": [], "label": ""})
    made = evaluation.submit(task, tmp_path / name, records, split, skipped=True)
    with open(tmp_path / name, encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["index"], row["prediction"]) for row in rows] == [
        (str(row), one) for row, one in enumerate(expected)]
    assert made.filled == ("3",)


def test_why_there_is_no_file(reading, tmp_path):
    split, task, path = reading("record", text_length=8), small.task("captioning"), tmp_path / "c"
    records = [{"index": 0, "item": 0, "id": "video7", "prediction": "a dog"}]
    assert evaluation.submit(task, path, records, split, False).reason == (
        "the records have no numbers of their own as ids")

    def damaged(index):
        raise pipeline.sources.RecordError("damaged record", f"number {index}")

    broken = SimpleNamespace(examples=split.examples, annotation=damaged)
    made = evaluation.submit(task, path, [records[0] | {"id": "5"}], broken, True)
    assert made == (0, "damaged record: number 1", (), "") and not path.exists()
    # What the server would refuse ends no evaluation either.
    glue = small.task("classification", inputs="text", classes=("no", "yes"))
    rows = [{"index": 0, "item": 0, "id": "1", "prediction": "no"}]
    made = evaluation.submit(glue, tmp_path / "MRPC.tsv", rows, split, False)
    assert made.reason.startswith("MRPC.tsv: row 0 is missing")
