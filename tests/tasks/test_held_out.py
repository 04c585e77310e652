"""Held-out losses of pretraining: those of training, of each example once, on any mesh."""

import dataclasses

import jax
import numpy as np
import pytest
import small

from mplug2_jax import evaluation, tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.parallel.mesh import make_mesh, put_batch

pytestmark = pytest.mark.slow
TINY = small.model(vision_layers=1, universal_layers=1, fusion_layers=1, decoder_layers=1)
PAIRED = {"vtc", "vtc_v2t", "vtc_t2v", "vtm", "vtm_hits", "mlm", "mlm_hits", "prefix_lm",
          "prefix_lm_hits", "loss"}
INSTRUCTED = PAIRED | {"instruct", "instruct_hits"}


def numbered(*batches):
    """Batches of an evaluation: with the number of each record, and of its caption."""
    made, first = [], 0
    for batch in batches:
        rows = len(batch["pair_id"])
        made.append(batch | {"index": np.arange(first, first + rows, dtype=np.int32),
                             "item": np.zeros(rows, np.int32)})
        first += rows
    return made


BATCHES = numbered(small.pairs(8, 2, 0), small.pairs(8, 2, 1), small.pairs(8, 2, 2, padding=5))


@pytest.fixture(scope="module")
def pretrain():
    """The task, its parameters, and its figures on `BATCHES`."""
    task = small.task("pretrain", TINY)
    params = small.params_of(task.model)
    return task, params, task.evaluate(params, BATCHES, None, "video")


def test_figures_are_the_losses_of_training_each_example_once(pretrain):
    task, params, (scores, records) = pretrain
    loss, expected = jax.jit(task.loss), {}
    for number, batch in enumerate(BATCHES):
        key = jax.random.fold_in(jax.random.key(0), number)
        total, (metrics, _) = loss(params, {"v": batch}, key)
        share = batch["example_mask"].sum() / (8 + 8 + 3)
        for name, value in {**metrics, "v/loss": total}.items():
            name = f"video_held_out_{name[2:]}"
            expected[name] = expected.get(name, 0.0) + float(value) * share
    assert scores.keys() == {f"video_held_out_{name}" for name in INSTRUCTED}
    assert scores == pytest.approx(expected, rel=1e-6)
    assert [record["index"] for record in records] == list(range(19))
    for name in scores:
        figure = task.figure(name, "video")
        assert figure.better == ("higher" if "hits" in name or "2" in name else "lower"), name
        assert figure.headline == (figure.better == "lower") and figure.low <= scores[name]


def test_what_fills_a_batch_counts_for_nothing(pretrain):
    task, params, (scores, _) = pretrain
    other = BATCHES[2] | {name: BATCHES[2][name].copy() for name in ("video", "text", "pair_id")}
    other["video"][3:] = 255
    other["text"][3:, 1:4] = 9
    other["pair_id"][3:] = 0  # of the first pair, if they were any
    empty = BATCHES[1] | {"example_mask": np.zeros(8, bool)}
    same, records = task.evaluate(params, [*BATCHES[:2], other, empty], None, "video")
    assert same == pytest.approx(scores, rel=1e-6) and len(records) == 19
    with pytest.raises(ValueError, match="'pretrain' has no loss to tell: no example"):
        task.evaluate(params, [empty], None, "video")
    with pytest.raises(ValueError, match="no example could be used"):
        task.evaluate(params, [], None, "video")


def test_dropout_and_micro_batches_change_nothing(pretrain):
    _, params, (scores, _) = pretrain
    model = dataclasses.replace(TINY, dropout=0.5)
    other = small.task("pretrain", model, accumulation=3, momentum=dict(teacher=True, queue=True))
    assert other.evaluate(params, BATCHES, None, "video")[0] == pytest.approx(scores, rel=1e-6)
    assert other.options.accumulation == 3  # of training


def test_it_is_an_evaluation_as_any_other_and_eight_devices_give_the_same_figures(pretrain):
    task, params, (scores, _) = pretrain
    mesh = make_mesh(2, 2, 2)

    class Reading:
        skipped = 2
        annotation = None

        def __init__(self, stream):
            assert stream.split == "train[held_out]"

        def batches(self, limit=0):
            return (put_batch(batch, mesh) for batch in BATCHES)

    stream = Stream(split="train[held_out]", batch_size=8, frames=2, text_length=10)
    entries = {"held": evaluation.Evaluation(task, stream, "video")}
    figures, records = evaluation.run(entries, Reading, params, mesh, with_intervals=True)
    assert figures == pytest.approx(scores | {"held_skipped": 2}, rel=1e-4)
    assert len(records["held"]) == 19
    assert "video_held_out_vtc" in evaluation.summary(entries, figures)
    assert evaluation.choose(records["held"], entries["held"].best_by, 6)["random"]


def test_each_stream_tells_what_it_feeds(pretrain):
    task, params, _ = pretrain
    asked = {key: value for key, value in BATCHES[0].items() if key[:6] not in ("prompt", "target")}
    assert task.evaluate(params, [asked], None, "video")[0].keys() == {
        f"video_held_out_{name}" for name in PAIRED}
    (text,) = numbered(small.batch()["text"])
    assert task.evaluate(params, [text], None, "text")[0].keys() == {
        f"text_held_out_{name}" for name in PAIRED if "lm" in name or name == "loss"}
    alone = small.task("pretrain", TINY, objectives=dict(mlm=0.0, prefix_lm=0.0, instruct=0.0))
    with pytest.raises(ValueError, match="the stream feeds none of its objectives"):
        alone.evaluate(params, [text], None, "text")


def test_figures_are_named_by_what_the_stream_has():
    kinds = {}
    for frames in (0, 1, 4):
        section = dict(split="val", batch_size=8, frames=frames, text_length=9)
        task, options = tasks.read({"name": "pretrain", "negative_block": 3})
        if frames:  # a batch that its blocks of negatives do not divide
            with pytest.raises(ConfigError, match="batch_size = 8: expected a multiple of task.ne"):
                tasks.streams(task, options, {"one": section})
            section["batch_size"] = 6
        (stream,) = tasks.streams(task, options, {"one": section}).values()
        kinds[frames] = task.kind_of(options, stream)
    assert kinds == {0: "text", 1: "image", 4: "video"}
