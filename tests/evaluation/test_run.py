"""Evaluations of a config: what they read, what they give, and which figures stand in front."""

import dataclasses

import jax
import numpy as np
import pytest
import small

from configs import common
from mplug2_jax import evaluation, tasks
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.metrics.scores import intervals, mean
from mplug2_jax.parallel.mesh import make_mesh, put_batch

CLASSES = ("cat", "dog", "owl")
SECTIONS = {
    "animals": common.evaluation("classification", "test", 8, "tune", options=dict(
        classes=CLASSES), frames=1, image_size=16),
    "near": common.evaluation("knn", "test", 8, "tune", "near", dict(
        classes=CLASSES, reference="train", neighbours=2), frames=1, image_size=16),
}
MESH = make_mesh(1, 1, 1, jax.devices()[:1])


class Reading:
    """Eleven images of a split, in two batches; one of them cannot be used."""

    opened: list[str] = []

    def __init__(self, stream):
        self.opened.append(stream.split)
        rng = np.random.default_rng(len(stream.split))
        self.video = rng.integers(0, 256, (11, 1, 16, 16, 3)).astype(np.uint8)
        self.skipped = 1

    def batches(self, limit=0):
        count = limit or 11
        for start in range(0, count, 8):
            rows = np.arange(start, start + 8)
            real = (rows < count) & (rows != 4)
            yield put_batch({
                "video": self.video[np.minimum(rows, 10)], "example_mask": real,
                "index": rows.astype(np.int32), "item": np.zeros(8, np.int32),
                "label": (rows % 3).astype(np.int32)}, MESH)

    def annotation(self, index):
        return {"id": f"r{index}", "label": CLASSES[index % 3], "texts": [], "questions": []}


def built(validation=False, only=()):
    streams = {}
    for name, entry in SECTIONS.items():
        task, options = tasks.read(entry.task)
        streams[name] = task.stream(options, entry.stream, name)
    return evaluation.build(SECTIONS, streams, small.MODEL, small.tokenizer(), validation, only)


def test_evaluations_run_and_give_figures_and_records():
    Reading.opened = []
    entries = built()
    assert {name: (entry.kind, entry.best_by) for name, entry in entries.items()} == {
        "animals": ("image", "image_class_accuracy"), "near": ("near", "near_class_accuracy")}
    params = jax.jit(lambda: evaluation.create_params(entries, 0))()
    assert set(params) == {"vision", "universal", "heads"}
    figures, records = evaluation.run(entries, Reading, params, MESH, with_intervals=True)
    assert Reading.opened == ["test", "test", "train"]  # k-NN compares with labelled examples
    for name, kind, skipped in (("animals", "image", 1), ("near", "near", 2)):
        assert [record["index"] for record in records[name]] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
        own = [record["scores"][f"{kind}_class_accuracy"] for record in records[name]]
        assert np.mean(own) == pytest.approx(figures[f"{kind}_class_accuracy"])
        low, high = (figures[f"{kind}_class_accuracy_{end}"] for end in ("low", "high"))
        assert low <= figures[f"{kind}_class_accuracy"] <= high
        assert figures[f"{name}_skipped"] == skipped
    said = evaluation.summary(entries, figures)
    assert "image_class_accuracy" in said and "majority" not in said and "_low" not in said


class Asked(Reading):
    """Eleven records of which some are of one photograph, as they name it; read once each."""

    names = ("a", "a", "a", "a", "b", "b", "b", "c", "c", "c", "c")
    read: list[int] = []

    def annotation(self, index):
        self.read.append(index)
        return super().annotation(index) | {"id": self.names[index]}


def test_examples_of_one_medium_are_drawn_together():
    entries = built(only=["animals"])
    params = small.params_of(entries["animals"].task.model)
    Asked.read = []
    figures, records = evaluation.run(entries, Asked, params, MESH, with_intervals=True)
    assert [r["unit"] for r in records["animals"]] == ["a", "a", "a", "a", "b", "b", "c", "c", "c",
                                                       "c"]
    assert sorted(Asked.read) == sorted(r["index"] for r in records["animals"])
    own = [r["scores"]["image_class_accuracy"] for r in records["animals"]]
    expected = intervals({"x": mean(own)}, [r["unit"] for r in records["animals"]])["x"]
    ends = [figures[f"image_class_accuracy_{end}"] for end in ("low", "high")]
    assert ends == pytest.approx(expected)
    alone = evaluation.run(entries, Reading, params, MESH, with_intervals=True)[0]
    assert alone["image_class_accuracy"] == figures["image_class_accuracy"]
    assert ends[1] - ends[0] > 1.2 * (alone["image_class_accuracy_high"]
                                      - alone["image_class_accuracy_low"])
    name, entry = "image_class_accuracy", entries["animals"]
    assert entry.sampled(name, records["animals"]) == {"media": 3, "examples": 10}
    assert entry.sampled(name, records["animals"][4:7]) == {"media": 2, "examples": 3}
    assert entry.sampled("other", records["animals"]) == {"media": 0}


def test_validation_has_its_split_a_limit_and_some_of_them():
    Reading.opened = []
    entries = built(validation=True, only=["animals"])
    assert isinstance(entries["animals"].stream, Stream) and list(entries) == ["animals"]
    params = small.params_of(entries["animals"].task.model)
    figures, records = evaluation.run(entries, Reading, params, MESH, limit=3)
    assert Reading.opened == ["tune"] and len(records["animals"]) == 3
    assert not any(name.endswith("_low") for name in figures)
    with pytest.raises(ValueError, match="evaluation 'birds': the config has animals, near"):
        built(only=["birds"])


def test_what_differs_in_its_name_alone_is_validated_once():
    entries = built(validation=True)
    names = ("animals", "first", "second", "other")
    entries = dict(zip(names, (entries["animals"],) * 4, strict=True)) | {"near": entries["near"]}
    for name in ("first", "second"):
        entries[name] = entries[name]._replace(kind=name)
    entries["other"] = entries["other"]._replace(stream=dataclasses.replace(
        entries["other"].stream, split="train"))
    for figure, kept in (("", "animals"), ("second_class_accuracy", "second"),
                         ("near_class_accuracy", "animals")):
        found = evaluation.distinct(entries, figure)
        assert set(found) == {kept, "other", "near"}
        assert all(found[name] is entries[name] for name in found)


@pytest.mark.parametrize(("task", "stream", "expected"), [
    (common.task("qa"), dict(frames=4, expand="question"), ("media", "questions")),
    (common.task("grounding"), dict(frames=1, expand="box"), ("media", "phrases")),
    (common.task("retrieval"), dict(frames=4), ("media", "captions")),
    (common.task("captioning"), dict(frames=1), ("media", "examples")),
    (common.task("classification", classes=("a", "b"), inputs="text"), {}, ("texts", "examples")),
    (common.task("classification", classes=("a", "b"), inputs="images"), dict(frames=2),
     ("sets of images", "examples")),
])
def test_what_reports_call_units_and_examples(task, stream, expected):
    kind, options = tasks.read(task)
    assert kind.sampled(options, Stream(split="test", batch_size=8, **stream)) == expected
