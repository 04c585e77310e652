"""The best checkpoint of a run: kept where its figure improves, whatever ends the run between."""

import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from mplug2_jax import evaluation
from mplug2_jax.checkpoints import Best, CheckpointError, Checkpoints, open_which
from mplug2_jax.contracts.errors import ConfigError, DataError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.evaluation.validation import lacking
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.training.ledger import Ledger
from mplug2_jax.training.runlog import RunLog

ABOUT = dict(figure="accuracy", root="data", split="val", limit=0, selected_on_test=False)
NAN = float("nan")


def items(value: float) -> dict:
    """The state of a run, told by its numbers."""
    return {"params": {"text": {"kernel": jnp.full(3, value)}},
            "ema": {"text": {"kernel": jnp.full(3, -value)}}, "rest": {"moments": jnp.ones(2)}}


def offered(best: Best, *values: float | None, first: int = 10) -> list[bool]:
    """Values at steps 10, 20, ..., and which became the best."""
    found = [best.offer(value, step, items(step), {"model": {}}, {"video": step})
             for step, value in zip(range(first, 1000, 10), values, strict=False)]
    best.close()
    return found


def stored(workdir) -> tuple[int, float]:
    """Step and value of the best checkpoint; its arrays are those of the step."""
    checkpoints = open_which(workdir, "best")
    meta = checkpoints.meta()
    step = meta["step"]
    assert checkpoints.items() == ["ema", "params"]  # no optimizer
    assert meta["best"].keys() == ABOUT.keys() | {"value"} and meta["samples"] == {"video": step}
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    for averaged, value in ((False, step), (True, -step)):
        params = checkpoints.load_params(checkpoints.shapes(), mesh, averaged=averaged)
        np.testing.assert_array_equal(params["text"]["kernel"], np.full(3, value))
    checkpoints.close()
    assert [path.name for path in (workdir / "best").iterdir() if path.name.isdigit()] == [
        str(checkpoints.latest)]
    return step, meta["best"]["value"]


def test_it_is_kept_where_the_figure_improves_and_the_earlier_of_equal_ones(tmp_path):
    best = Best(tmp_path, "higher", ABOUT, fresh=True)
    with pytest.raises(CheckpointError, match="has no best checkpoint: training keeps one where"):
        open_which(tmp_path, "best")
    assert offered(best, NAN, 0.25, None, 0.25, 0.5, 0.1, float("inf"), NAN, 0.5) == [
        False, True, False, False, True, False, False, False, False]
    assert stored(tmp_path) == (50, 0.5)
    assert Checkpoints(tmp_path / "best").latest == 50  # named by its step


def test_lower_may_be_better(tmp_path):
    best = Best(tmp_path, "lower", ABOUT, fresh=True)
    assert offered(best, 3.0, 3.5, 3.0, 2.5, NAN, 2.75) == [True, False, False, True, False, False]
    assert stored(tmp_path) == (40, 2.5)


def test_a_run_that_goes_on_compares_with_what_is_there(tmp_path):
    third = 1 / 3  # a value that no short decimal is
    offered(Best(tmp_path, "higher", ABOUT, fresh=True), third, 0.1)
    again = Best(tmp_path, "higher", ABOUT | {"root": "moved"}, fresh=False)
    assert again.value == third
    # It goes on from before its best, and does other things than it did.
    assert offered(again, 0.2, third, first=5) == [False, False]
    assert stored(tmp_path) == (10, third)
    again = Best(tmp_path, "higher", ABOUT, fresh=False)
    assert offered(again, 0.4, 0.5, first=4) == [True, True] and stored(tmp_path) == (14, 0.5)
    assert offered(Best(tmp_path, "higher", ABOUT, fresh=False), 0.6, first=14) == [True]
    assert stored(tmp_path) == (14, 0.6)


@pytest.mark.parametrize("change, fresh", [
    ({"figure": "cider"}, False), ({"split": "dev"}, False), ({"limit": 8}, False), ({}, True)])
def test_what_was_chosen_otherwise_stays_until_there_is_another(tmp_path, change, fresh, caplog):
    offered(Best(tmp_path, "higher", ABOUT, fresh=True), 0.9)
    other = Best(tmp_path, "lower", ABOUT | change, fresh)
    assert other.value is None and "it stays until the first validation" in caplog.text
    assert offered(other, NAN) == [False] and stored(tmp_path) == (10, 0.9)
    other = Best(tmp_path, "lower", ABOUT | change, fresh)
    assert offered(other, 0.95, first=5) == [True] and stored(tmp_path) == (5, 0.95)


def test_half_a_checkpoint_never_takes_the_place_of_a_whole_one(tmp_path):
    """As a run leaves it that is killed: while it writes, or before the older one is gone."""
    offered(Best(tmp_path, "higher", ABOUT, fresh=True), 0.5)
    shutil.copytree(tmp_path / "best" / "10", tmp_path / "older")
    # Orbax's name of what is not committed.
    shutil.copytree(tmp_path / "older", tmp_path / "best" / "20.orbax-checkpoint-tmp-0")
    again = Best(tmp_path, "higher", ABOUT, fresh=False)
    assert again.value == 0.5 and offered(again, 0.6, first=20) == [True]
    assert stored(tmp_path) == (20, 0.6)
    shutil.move(tmp_path / "older", tmp_path / "best" / "10")
    again = Best(tmp_path, "higher", ABOUT, fresh=False)
    assert again.value == 0.6 and offered(again, 0.7, first=30) == [True]
    assert stored(tmp_path) == (30, 0.7)


def test_best_and_last_are_told_apart(tmp_path):
    last = Checkpoints(tmp_path / "checkpoints", keep=1)
    last.save(20, items(20), {"model": {}}, {})
    last.close()
    advice = "training keeps one where `best` names a figure of its validation"
    for path in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(CheckpointError, match=f"^{path} has no best checkpoint: {advice}"):
            open_which(path, "best")
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        open_which(tmp_path / "nowhere", "best")
    offered(Best(tmp_path, "higher", ABOUT, fresh=True), 0.5)
    for path, which, step in ((tmp_path, "last", 20), (tmp_path, "best", 10),
                              (tmp_path / "best", "best", 10), (tmp_path / "best", "last", 10),
                              (tmp_path / "checkpoints", "last", 20)):
        found = open_which(path, which)
        assert found.meta()["step"] == step
        found.close()


class Scored:
    """A task that gives what it is told, one value a validation; an error is raised."""

    name, reference = "scored", ""

    def __init__(self, *values):
        task = small.task("captioning", memory="visual")
        self.values, self.model, self.options = list(values), task.model, task.options

    def evaluate(self, *_):
        value = self.values.pop(0)
        if isinstance(value, Exception):
            raise value
        return ({} if value is None else {"accuracy": value}), []

    def figure(self, name, kind):
        return None


class Reading:
    skipped = 0

    def __init__(self, stream):
        self.split = stream.split

    def check(self):
        if self.split == "nowhere":
            raise DataError("no split 'nowhere'")

    def batches(self, limit=0):
        return iter(())

    def first(self, limit=0):
        return {"example_mask": np.ones(1, bool)}

    def examples(self, limit=0, most=0):
        return [(0, 0)]

    def annotation(self, index):
        return {}


def validation(tmp_path, *values, every=10, split="val"):
    entry = evaluation.Evaluation(Scored(*values), Stream(split=split, batch_size=8), "")
    return evaluation.Validation(
        {"one": entry}, Reading, make_mesh(1, 1, 1, jax.devices()[:1]), every, 45, 0,
        Best(tmp_path, "higher", ABOUT, fresh=True), "accuracy", "selected on test")


def test_validation_chooses_and_outlives_what_gives_no_figure(tmp_path, caplog):
    caplog.set_level("INFO")
    found = validation(tmp_path, 0.5, None, ValueError("no example could be used"), NAN, 0.75, 0.6)
    scores = [found.run(evaluation.Moment(step, items(step)["ema"], items(step), {"model": {}},
                                          {"video": step})) for step in range(10, 70, 10)]
    assert [score.get("accuracy") for score in scores][:3] == [0.5, None, None]
    found.close()
    assert stored(tmp_path) == (50, 0.75)
    for said in ("best checkpoint: step 10, accuracy 0.5000 (selected on test)",
                 "best checkpoint: step 50, accuracy 0.7500, before 0.5000 (selected on test)",
                 "validation at step 30: evals.one gives no figures: no example could be used",
                 "validation at step 20: accuracy is missing", "step 40: accuracy is nan"):
        assert said in caplog.text
    broken = validation(tmp_path, DataError("a shard of this host alone is gone"))
    with pytest.raises(DataError):
        broken.run(evaluation.Moment(10, items(10)["ema"], items(10), {}, {}))


def test_validation_is_due_at_its_steps_and_at_the_end(tmp_path):
    found = validation(tmp_path)
    assert [step for step in range(46) if found.due(step)] == [10, 20, 30, 40, 45]
    assert not any(validation(tmp_path, every=0).due(step) for step in range(46))
    trained = small.task("captioning", memory="visual")
    validation(tmp_path, 0.5, 0.5).check(trained)  # a few examples, then some
    with pytest.raises(DataError, match="^evals.one: split 'val': no example has a word$"):
        wordless = [ValueError("no example has a word")] * 3  # of few examples, some and many
        validation(tmp_path, *wordless).check(trained)
    with pytest.raises(DataError, match="nowhere"):  # before the first step
        validation(tmp_path, split="nowhere").check(trained)
    validation(tmp_path, every=0, split="nowhere").check(trained)
    text = small.task("pretrain", inputs="text", objectives=dict(prefix_lm=0.0))
    with pytest.raises(ConfigError, match="evals.one.task: needs vision, which this run"):
        found.check(text)


def test_retrieval_without_reranking_needs_no_matching():
    contrast = dict(vtm=0.0, mlm=0.0, prefix_lm=0.0, instruct=0.0)
    trained = small.task("pretrain", objectives=contrast).model
    assert lacking(small.task("retrieval", rerank=8), trained) == ["fusion", "heads/vtm"]
    assert lacking(small.task("retrieval", rerank=0), trained) == []
    assert lacking(small.task("pretrain"), trained) == ["decoder", "fusion", "heads/mlm",
                                                        "heads/vtm"]
    assert lacking(small.task("pretrain", objectives=contrast), trained) == []


def test_a_validation_that_the_run_did_not_come_to_is_known(tmp_path):
    ledger = Ledger(lambda: 0.0)
    with RunLog(tmp_path, 0, ledger) as log:
        assert not log.validated
        log.validation(10, {"accuracy": 0.5, "loss": NAN})
        log.validation(20, {"accuracy": 0.75})
    with RunLog(tmp_path, 20, ledger) as log:
        assert log.validated
    with RunLog(tmp_path, 15, ledger) as log:  # what comes after comes again
        assert not log.validated
    lines = (tmp_path / "validation.jsonl").read_text().splitlines()
    (line,) = map(json.loads, lines)
    assert abs(line.pop("time") - time.time()) < 600
    assert line == {"step": 10, "accuracy": 0.5, "loss": None}
