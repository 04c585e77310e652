"""Checkpoints that were written before options were the tasks' own, before `task_state`.

Each holds step 3 of a run on the miniature corpus; beside them lie the losses of its next steps and
the figures of its evaluation, as the code that wrote them gave them. They are pretraining with a
teacher and its queue (in two micro-batches, the vision encoder frozen), captioning as released, and
classification with an average of the weights, layer decay and mixup.
"""

import json
import tarfile

import numpy as np
import pytest
from commands import ROOT, losses, run

from mplug2_jax.checkpoints import Checkpoints

FOLDER = ROOT / "tests" / "golden" / "checkpoints"
LOSSES, FIGURES = (json.loads((FOLDER / f"{name}.json").read_text())
                   for name in ("losses", "figures"))
STEP, LAST = 3, 8
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of the corpora that the runs were trained on, of version 1.0.0."""
    folder = tmp_path_factory.mktemp("data")
    with tarfile.open(FOLDER / "data.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "corpus", folder / "labelled"


def unpacked(name, data, workdir):
    """The old checkpoint in a work folder; the flags of its own config, on the corpora here."""
    corpus, labelled = data
    with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
        archive.extractall(workdir / "checkpoints", filter="data")
    root = labelled if name == "classification" else corpus
    return (f"--config=tests/stored_config.py:{workdir / 'checkpoints'}",
            f"--config.data.root={root}", f"--config.data.tokenizer={corpus}/vocab.model")


@pytest.mark.parametrize("name", FIGURES)
def test_it_is_evaluated_as_it_was(name, data, tmp_path):
    run("eval.py", *unpacked(name, data, tmp_path), f"--checkpoint={tmp_path}")
    report = json.loads((tmp_path / "report.json").read_text())
    for figure, value in FIGURES[name]["figures"].items():
        if figure.endswith(("_low", "_high")):  # intervals draw media now, not examples
            assert figure in report
            continue
        assert report[figure] == pytest.approx(value, rel=1e-4, abs=1e-6), figure
    rows = {figure: {key: value for key, value in row.items() if key != "interval"}
            for figure, row in report["figures"].items()}
    assert rows == {figure: pytest.approx(row, rel=1e-4, abs=1e-6)
                    for figure, row in FIGURES[name]["headline"].items()}


@pytest.mark.parametrize("name", LOSSES)
def test_a_run_goes_on_as_it_did(name, data, tmp_path):
    workdir = tmp_path / name
    # New runs of captioning go over captions: an old one goes on over media, whatever it is told.
    media = name == "captioning"
    said = run("train.py", *unpacked(name, data, workdir), f"--workdir={workdir}",
               *["--config.data.epoch_over="] * media)
    if media:
        assert "data.epoch_over = 'media', as the run began" in said
        assert "an epoch goes over 24 records" in said
    assert f"going on from step {STEP}" in said and "starts afresh" not in said
    assert "is dropped" not in said
    logged = losses(workdir)
    assert list(logged) == list(range(STEP + 1, LAST + 1))
    for step, values in LOSSES[name].items():
        for figure, value in values.items():
            np.testing.assert_allclose(logged[int(step)][figure], value, rtol=1e-5, atol=1e-6,
                                       err_msg=f"step {step}, {figure}")
    checkpoints = Checkpoints(workdir / "checkpoints")
    assert checkpoints.meta()["format"] == 3
    assert not media or checkpoints.meta()["config"]["data"]["epoch_over"] == "media"
    kept = {"pretrain": {"task_state"}, "classification": {"ema"}}
    assert set(checkpoints.items()) == {"params", "rest", "guard", *kept.get(name, ())}
