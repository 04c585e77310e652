"""What every task keeps to: its card, its comments, its options, what it says of its figures."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import small
from ml_collections import ConfigDict

from mplug2_jax import tasks
from mplug2_jax.contracts import options
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS, Source, Stream
from mplug2_jax.metrics.ranking import search
from mplug2_jax.metrics.scores import keep
from mplug2_jax.tasks import retrieval

TINY = small.model(vision_layers=1, universal_layers=1, fusion_layers=1, decoder_layers=1)
KEY = jax.random.key(0)
CLASSES = ("a", "b", "c", "d", "e", "f")
NEEDED = {  # what a task cannot do without, or is small by
    "classification": dict(classes=CLASSES), "knn": dict(classes=CLASSES, reference="train"),
    "zero_shot": dict(classes=CLASSES, templates=("w1 {}",)), "grounding": dict(location_bins=9),
    "instructions": dict(location_bins=9),
}
PLACE = "evals.one.task"
every_task = pytest.mark.parametrize("name", tasks.names())


def section_of(name, **more):
    return tasks.section(name, **NEEDED.get(name, {}) | more)


@every_task
def test_a_task_has_a_name_a_card_and_comments(name):
    task = tasks.load(name)
    assert task.name == name
    assert len(re.findall(r"[a-z0-9)]\.(?= [A-Z]|$)", task.card)) >= 2, "two sentences"
    assert "\n" not in task.card and "  " not in task.card
    assert task.card.strip() == task.card and re.search(r"Paper: .*\.$|[Nn]ot of the paper",
                                                        task.card)
    for key, comment in options.comments(task.Options):
        assert comment and "\n" not in comment, key
    for figure in task.figures:
        assert figure.meaning and figure.low < figure.high, figure.name
        assert figure.better in ("", "higher", "lower"), figure.name


def test_streams_and_their_sources_have_comments():
    for cls in (Stream, Source):
        assert all(comment for _, comment in options.comments(cls))
    assert set(GIVEN_BY_TASKS) < {field.name for field in dataclasses.fields(Stream)}


def assert_spoken_of(task, figures, kind=""):
    """Each of `figures` is of one meaning of the task's, and within its range."""
    assert figures
    for key, value in figures.items():
        found = task.figure(key, kind)
        assert found is not None, key
        assert found.low <= value <= found.high, (key, float(value), found)


def images(**more):
    rows = small.pairs(6, 1, padding=1)
    return {"s": {key: rows[key] for key in ("video", "pair_id", "example_mask")} | more}


LABELS = np.arange(6, dtype=np.int32)
BOXES = np.tile(np.float32([0.1, 0.2, 0.6, 0.9]), (6, 1))


def asked(**more):
    rows = small.pairs(6, 1, padding=1)
    kept = ("video", "prompt", "prompt_mask", "example_mask")
    return {"s": {key: rows[key] for key in kept} | more}


def answered(**more):
    ids, mask = small.texts(np.random.default_rng(0), 6, 8)
    return asked(target=ids, target_mask=mask, **more)


LEARNED = [  # (task, options, a batch)
    ("pretrain", dict(objectives=dict(vtc=0.5, mlm=2.0)), small.batch(padding=1)),
    ("retrieval", {}, {"s": small.pairs(padding=1)}),
    ("captioning", dict(memory="visual"), {"s": small.pairs(padding=1)}),
    ("captioning", dict(memory="visual", samples=2), {"s": small.pairs(padding=1)}),
    ("qa", {}, answered()),
    ("grounding", dict(box_weight=0.5), asked(box=BOXES)),
    ("instructions", dict(box_weight=2.0), answered(box=np.where(LABELS[:, None] % 2, BOXES, 0))),
    ("classification", {}, images(label=LABELS)),
    ("classification", dict(classes="score"), images(label=LABELS.astype(np.float32))),
]


@pytest.mark.slow
@pytest.mark.parametrize("name, more, batch", LEARNED, ids=[
    f"{name}-{'-'.join(more)}" for name, more, _ in LEARNED])
def test_what_a_loss_logs_is_spoken_of(name, more, batch):
    task = small.task(name, TINY, **NEEDED.get(name, {}) | more)
    task.prepare(lambda: {"s": [["w1 w2"], ["w3"]] * 4})
    params = small.params_of(task.model)
    value, (metrics, carry) = jax.jit(task.loss)(params, batch, KEY)
    assert value.shape == () and all(metric.shape == () for metric in metrics.values())
    assert_spoken_of(task, metrics)
    assert {key.partition("/")[0] for key in metrics} == set(batch)
    # The loss is the sum of its parts by their weights, and each part is logged.
    parts = [task.weights[part] * float(part_value) for key, part_value in metrics.items()
             if (part := key.partition("/")[2]) in task.weights]
    assert len(parts) >= len(batch)
    np.testing.assert_allclose(sum(parts), value, rtol=1e-5, atol=1e-6)
    # What is kept across steps stays of one form, whatever the task keeps.
    state = task.init_state(params)
    assert jax.tree.structure(task.next_state(state, params, carry)) == jax.tree.structure(state)


def test_every_task_is_tried_by_its_loss_or_says_that_it_has_none():
    learned = {name for name, _, _ in LEARNED}
    for name in set(tasks.names()) - learned:
        with pytest.raises(ConfigError, match=f"task.name = '{name}': it evaluates and has no los"):
            small.task(name, TINY, **NEEDED[name]).loss(None, None, KEY)


def labelled(said, true, texts=("x",)):
    rows = [{"prediction": p, "label": t, "texts": list(texts), "best": [p]}
            for p, t in zip(said, true, strict=True)]
    return [row | {"index": i, "id": str(i)} for i, row in enumerate(rows)]


SAYS = labelled("abca", ["a", "c", "c", ""])
TWO = dict(classes=("no", "yes"), inputs="images")
SCORED = [  # (task, options, kind, records)
    ("captioning", dict(memory="visual"), "video", [
        {"prediction": "a man sings", "references": ["a man sings", "he sings"], "index": 0},
        {"prediction": "a dog", "references": ["two cats"], "index": 1}]),
    ("qa", {}, "image", [
        {"prediction": said, "answer": answer, "question": "q", "type": kind, "id": "",
         "answers": ["dog"] * 10, "index": i} for i, (said, answer, kind) in enumerate(
             [("dog", "dog", "what is"), ("cat", "dog", "who"), ("dog", "", "who")])]),
    ("grounding", {}, "image", [
        {"prediction": [0.0, 0.0, x, 1.0], "box": [0.0, 0.0, 1.0, 1.0], "phrase": "p", "id": "1",
         "index": i} for i, x in enumerate((0.2, 0.9))]),
    ("classification", {}, "image", SAYS),
    ("classification", TWO, "images", labelled(["yes", "no", "yes"], ["yes", "no", "no"])),
    ("classification", dict(classes="score", inputs="text"), "text",
     labelled([1.0, 2.0, 4.5], ["2.5", "0", ""])),
    ("classification", dict(classes="score", inputs="text"), "text",
     labelled([1.0, 2.0, 4.5], ["2.5", "0", "5.0"])),
    ("knn", {}, "video_knn", SAYS),
    ("zero_shot", {}, "video", SAYS),
]


@pytest.mark.parametrize("name, more, kind, records", SCORED, ids=[
    f"{name}-{'-'.join(more)}" for name, more, _, _ in SCORED])
def test_what_is_scored_is_spoken_of_and_each_example_can_be_seen(name, more, kind, records):
    task = small.task(name, TINY, **NEEDED.get(name, {}) | more)
    records = json.loads(json.dumps(records))
    figures = keep(records, task.score(records, kind))
    assert_spoken_of(task, figures, kind)
    assert any(task.figure(key, kind).headline for key in figures)
    best = task.best_by.removeprefix("-").format(kind=kind)
    assert task.figure(best, kind) is not None
    for key in figures:
        if (baseline := task.figure(key, kind).baseline_of(key)) in figures:
            assert task.figure(baseline, kind) and not task.figure(baseline, kind).headline
    for record in records:
        for key in record["scores"]:
            assert task.figure(key, kind) is not None, key
        example = task.example(record, lambda index: None)
        assert example.frames is None and example.rows
        assert all(isinstance(text, str) for row in example.rows for text in row)


def test_what_retrieval_scores_is_spoken_of():
    task = small.task("retrieval", TINY)
    owner, clips = np.array([0, 1, 1, 2, 3, 4, 4]), np.arange(5)
    matrix = np.random.default_rng(0).standard_normal((7, 5))
    ways = [([(slice(0, len(block)), block)], *owners) for block, *owners in (
        (matrix, owner, clips), (matrix.T, clips, owner))]
    for prefix in ("", "dual_"):
        scores = retrieval.score_ways(ways, [search(*way, 5) for way in ways], [(), ()], "video",
                                      prefix)
        assert_spoken_of(task, {key: score.value for key, score in scores.items()}, "video")
    assert_spoken_of(task, {"text_to_video_wordless": 3.0}, "video")
    assert task.figure(task.best_by.removeprefix("-").format(kind="video"), "video")
    example = task.example({"query": "q", "rank": 2, "index": 4, "top": [3, 4]},
                           lambda index: np.full((1, 2, 2, 3), index, np.uint8))
    assert [(int(clip[0, 0, 0, 0]), match) for clip, _, match in example.thumbnails] == [
        (3, False), (4, True)]
    assert task.chance("text_to_video_r1", [{"index": i // 2} for i in range(10)]) == (
        pytest.approx(0.2))
    assert task.chance("text_to_video_r5", []) is None


@every_task
def test_options_go_through_a_config_and_back(name):
    section = section_of(name)
    task, found = tasks.read(section)
    assert task is tasks.load(name) and section == {"name": name, **options.section(found)}
    for other in (ConfigDict(section), json.loads(json.dumps(section)), {"name": name, **NEEDED.get(
            name, {})}):  # with attributes, with lists, and without what has its default
        assert tasks.read(other)[1] == found
    assert dataclasses.is_dataclass(found) and found.__dataclass_params__.frozen


@every_task
def test_wrong_options_are_one_line_that_names_the_place(name):
    section = section_of(name)

    def error(**changes):
        with pytest.raises(ConfigError) as caught:
            tasks.read(section | changes, PLACE)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    known = [key for key in section if key != "name"]
    assert error(nonsense=1) == (
        f"{PLACE}.nonsense: unknown key; known: {', '.join(sorted(known))}")
    for key in known:
        assert re.match(rf"{PLACE}\.{key} = <object.*>: expected ", error(**{key: object()}))
        if isinstance(section[key], dict):
            for inner in section[key]:
                said = error(**{key: section[key] | {inner: object()}})
                assert said.startswith(f"{PLACE}.{key}.{inner} = <object")
            assert error(**{key: section[key] | {"more": 1}}).startswith(
                f"{PLACE}.{key}.more: unknown key; known: ")
        if type(section[key]) in (int, float):
            assert error(**{key: True}) == f"{PLACE}.{key} = True: expected " + (
                "a whole number" if type(section[key]) is int else "a number")
    with pytest.raises(ConfigError, match="task.nonsense: unknown key"):
        tasks.section(name, nonsense=1)


@pytest.mark.parametrize("name, changes, message", [
    ("pretrain", dict(momentum=dict(decay=1.0)), f"{PLACE}.momentum.decay = 1.0, "),
    ("pretrain", dict(objectives=dict(vtm=-1.0)), f"{PLACE}.objectives: weights must be at"),
    ("pretrain", dict(momentum=dict(queue=True)), f"{PLACE}.momentum.queue = True: "),
    ("retrieval", dict(objectives=dict(vtc=0, vtm=0.0)), f"{PLACE}.objectives: vtc and vtm"),
    ("captioning", dict(samples=1), f"{PLACE}.samples = 1: "),
    ("qa", dict(answers=("a", "b"), rank_keep=0), f"{PLACE}.rank_keep = 0"),
    ("knn", dict(neighbours=0), f"{PLACE}.neighbours = 0: "),
    ("knn", dict(reference=""), f"{PLACE}.reference = '': expected the split"),
    ("qa", dict(memory="visual"), f"{PLACE}.memory = 'visual': task 'qa' reads its prompt"),
])
def test_values_that_make_no_sense_are_named_where_they_stand(name, changes, message):
    with pytest.raises(ConfigError) as caught:
        tasks.read(section_of(name) | changes, PLACE)
    assert str(caught.value).startswith(message)


@dataclasses.dataclass(frozen=True)
class Inner:
    old: int = options.option(1, "there from the start")
    young: float = options.option(0.5, "of today", older=0.0)


@dataclasses.dataclass(frozen=True)
class Outer:
    split: str = options.required("always given")
    kept: int = options.option(2, "as it always was")
    young: bool = options.option(True, "of today", older=False)
    same: tuple = options.option((1, 2), "of today, and what runs did before")
    inner: Inner = options.option(Inner, "a section")


def test_a_checkpoint_s_young_keys_get_what_its_run_did():
    values, filled = options.complete(
        Outer, {"split": "a", "kept": 7, "inner": {"old": 3}}, "task")
    assert values == {"split": "a", "kept": 7, "young": False, "same": (1, 2),
                      "inner": {"old": 3, "young": 0.0}}
    assert filled == ["task.young = False", "task.same = (1, 2)", "task.inner.young = 0.0"]
    assert options.read(Outer, values, "task") == Outer("a", 7, False, (1, 2), Inner(3, 0.0))
    assert options.complete(Outer, values, "task") == (values, [])
    assert options.read(Outer, {"split": "a"}, "task").young  # a new config's own default
    with pytest.raises(ConfigError, match="^task.split: missing; it must be given$"):
        options.read(Outer, {}, "task")


OWN = '''
"""A task of somebody's own."""
from mplug2_jax.tasks.base import Task


class {name}(Task):
    """Of the encoder alone."""

    card = "A task. Not of the paper."

    @classmethod
    def composition(cls, options):
        return ("text",), ()
'''


def test_a_task_may_be_any_module_that_python_finds(tmp_path, monkeypatch):
    (tmp_path / "own_task.py").write_text(OWN.format(name="Own"))
    (tmp_path / "two_tasks.py").write_text(OWN.format(name="One") + OWN.format(name="Two"))
    monkeypatch.syspath_prepend(tmp_path)
    task = tasks.make({"name": "own_task"}, TINY, small.tokenizer())
    assert task.name == "own_task" and set(small.params_of(task.model)) == {"text"}
    assert task.init_state({}) == {} and task.reference == ""
    for name, said in (("two_tasks", "two_tasks.py has 2 tasks; expected one of captioning, "),
                       ("json", "has 0 tasks; expected"), ("no_such", "expected one of capt"),
                       ("", "expected one of captioning")):
        with pytest.raises(ConfigError) as caught:
            tasks.read({"name": name}, PLACE)
        assert str(caught.value).startswith(f"{PLACE}.name = {name!r}: ")
        assert said in str(caught.value) and "\n" not in str(caught.value)
