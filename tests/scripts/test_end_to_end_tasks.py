"""Labelled tasks as a user runs them: prepare, train, go on, evaluate, look at the page."""

import json

import pytest
from commands import losses, run

CONFIG = "tests/e2e_tasks_config.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(miniature, tmp_path_factory):
    """Folders of a small corpus, for its vocabulary, and of labelled examples."""
    tasks = tmp_path_factory.mktemp("tasks")
    run("-m", "data.prepare", "moving_digits_tasks", f"--out={tasks}", "--train=16",
        "--validation=8", "--test=10", "--gallery=1")
    return miniature, tasks


def train(data, family, workdir, *more):
    corpus, tasks = data
    if family == "grounding":  # whose pictures of one digit are the corpus'
        more = (*more, f"--config.data.streams.train.split.corpus.root={corpus}")
    return run("train.py", f"--config={CONFIG}:{family}", f"--config.data.root={tasks}",
               f"--config.data.tokenizer={corpus}/vocab.model", f"--workdir={workdir}", *more)


@pytest.mark.parametrize("family, figures, count, page_says", [
    # Of labels, too, but of texts.
    pytest.param("text_pair", ("text_class_accuracy", "text_class_majority", "text_class_f1",
                               "text_class_matthews"), 10, "label", marks=pytest.mark.long),
    ("image_pair", ("images_class_accuracy", "images_class_majority", "images_class_f1",
                    "images_class_matthews"), 10, "data:image/jpeg"),
    ("grounding", ("image_grounding_accuracy", "image_grounding_iou"), 20, "model, red"),
])
def test_a_task_trains_goes_on_and_is_reported(data, family, figures, count, page_says, tmp_path):
    workdir = tmp_path / "run"
    output = train(data, family, workdir)
    assert "validation at step 2:" in output
    if family == "image_pair":  # with frozen parameters, which have no moments to restore
        assert "going on from step 2" in train(data, family, workdir, "--config.optimizer.steps=3")
        assert list(losses(workdir)) == [1, 2, 3]
    run("eval.py", f"--checkpoint={workdir}", "--cards=3", "--java=False")
    report = json.loads((workdir / "report.json").read_text())
    for name in figures:
        assert -1 <= report[name] <= 1
    assert report["gallery"] == {family: count}
    assert report["figures"][figures[0]].get("majority") == report.get(
        figures[0].replace("accuracy", "majority"))
    records = [json.loads(line) for line in (workdir / f"{family}.jsonl").read_text().splitlines()]
    own = [record["scores"][figures[0]] for record in records]
    assert len(own) == count and sum(own) / count == pytest.approx(report[figures[0]])
    page = (workdir / "report.html").read_text()
    assert page.count("<article") == 3 and page_says in page
