"""NLVR2, SNLI-VE and RefCOCO as they are reported, on cases worked out by hand."""

import numpy as np
import pytest
import small

from mplug2_jax.evaluation.records import choose
from mplug2_jax.metrics.scores import keep

TINY = small.model(vision_layers=1, decoder_layers=1, fusion_layers=1)


def logits(row, count):
    return {"logits": np.eye(count, dtype=np.float32)[row], "item": 0}


def test_nlvr2_accuracy_and_consistency():
    """Three sentences: one right for both its pairs of images, one for one of two, one wrong."""
    task = small.task("classification", TINY, inputs="images", classes=("False", "True"))
    cases = [("one dog", "True", 1), ("two cats", "True", 1), ("one dog", "False", 0),
             ("two cats", "False", 1), ("a car", "True", 0), ("hidden", "", 0)]
    records = [task.record(logits(said, 2), {"id": str(i), "label": label, "texts": [text],
                                             "questions": []})
               for i, (text, label, said) in enumerate(cases)]
    figures = keep(records, task.score(records, "images"))
    assert figures["images_class_accuracy"] == pytest.approx(3 / 5)
    assert figures["images_class_consistency"] == pytest.approx(1 / 3)
    assert figures["images_class_majority"] == pytest.approx(3 / 5)
    assert figures["images_class_unlabelled"] == 1
    own = [record.get("scores", {}).get("images_class_consistency") for record in records]
    assert own == [1, 0, 1, 0, 0, None]
    assert task.best_by.format(kind="images") == "images_class_accuracy"


def test_nlvr2_draws_sets_of_images():
    """The sentences of a set are judged of its pairs crosswise: none of them is a sample alone."""
    task = small.task("classification", TINY, inputs="images", classes=("False", "True"))
    of = {name: task.unit_of({"id": name}) for name in (
        "test1-0-0-0", "test1-0-1-0", "test1-0-1-1", "test1-10-1-0", "dev-0-0-0",
        "images_test_000012", "7")}
    assert list(of.values()) == ["test1-0", "test1-0", "test1-0", "test1-10", "dev-0",
                                 "images_test_000012", "7"]
    other = small.task("classification", TINY, inputs="both", classes=("False", "True"))
    assert other.unit_of({"id": "test1-0-0-0"}) == "test1-0-0-0"


def test_snli_ve_accuracy():
    """Hypotheses of two images, each judged by itself."""
    names = ("entailment", "neutral", "contradiction")
    task = small.task("classification", TINY, inputs="both", classes=names)
    images = [{"id": "1.jpg", "label": "", "texts": [],
               "questions": [{"question": "a man", "answer": "entailment", "id": "1#0"},
                             {"question": "he sings", "answer": "neutral", "id": "1#1"},
                             {"question": "nobody", "answer": "contradiction", "id": "1#2"}]},
              {"id": "2.jpg", "label": "", "texts": [],
               "questions": [{"question": "a dog", "answer": "entailment", "id": "2#0"}]}]
    said = [(0, 0, 0), (0, 1, 2), (0, 2, 2), (1, 0, 1)]  # image, hypothesis, class
    records = [task.record(logits(row, 3) | {"item": item}, images[image])
               for image, item, row in said]
    assert [r["id"] for r in records] == ["1#0", "1#1", "1#2", "2#0"]
    figures = keep(records, task.score(records, "image"))
    assert figures["image_class_accuracy"] == 0.5 and figures["image_class_majority"] == 0.5
    assert "image_class_f1" not in figures


def test_refcoco_accuracy_and_its_best_and_worst():
    task = small.task("grounding", TINY, location_bins=9)
    box = [0.0, 0.0, 0.5, 0.5]
    said = [(box, 1.0), ([0.0, 0.0, 0.5, 0.25], 0.5), ([0.0, 0.0, 0.25, 0.25], 0.25),
            ([0.5, 0.5, 1.0, 1.0], 0.0), ([0.0, 0.0, 1.0, 0.5], 0.5)]
    records = [{"index": i} | task.record(
        {"box": np.float32(one), "item": 0},
        {"id": "7", "boxes": [{"phrase": "p", "box": box, "id": ""}]})
        for i, (one, _) in enumerate(said)]
    figures = keep(records, task.score(records, "image"))
    assert figures["image_grounding_accuracy"] == pytest.approx(3 / 5)  # a half is enough
    assert figures["image_grounding_iou"] == pytest.approx(np.mean([iou for _, iou in said]))
    chosen = choose(records, task.best_by.format(kind="image"), 3)
    assert [r["index"] for r in chosen["best"] + chosen["worst"]] == [0, 3]
