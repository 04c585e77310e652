"""A training whose loss is no number in some steps: they change nothing, and are explained."""

import json

import numpy as np
import pytest
from commands import ROOT, losses, run
from test_stops import stops

from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.contracts import exits

pytestmark = pytest.mark.slow


def command(data, workdir, *more):
    return ("train.py", "--config=tests/bad_config.py", f"--config.data.root={data}",
            f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}", *more)


def test_bad_steps_change_nothing_are_listed_end_the_run_and_are_explained(miniature, tmp_path):
    """Steps 3, 6, 7 and so on are bad, and of these three in a row may be."""
    data, workdir = miniature, tmp_path / "run"
    output = run(*command(data, workdir), status=exits.SKIPPED, path=ROOT / "tests")
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: step 9: the last 4 steps changed nothing")
    assert f"{workdir}/bad_steps.jsonl" in line and "`train.py --replay=6`" in line

    bad = [json.loads(line) for line in (workdir / "bad_steps.jsonl").open()]
    assert [(one["step"], one["skipped_in_a_row"]) for one in bad] == [
        (3, 1), (6, 1), (7, 2), (8, 3), (9, 4)]
    # Of steps 8 and 9 the gradient of one array alone is no number.
    assert [one["loss"] for one in bad[:3]] == ["inf", "nan", "inf"]
    assert np.isfinite([one["loss"] for one in bad[3:]]).all()
    assert [one["grad_norm"] for one in bad[3:]] == ["nan", "inf"]
    for one in bad:
        assert set(one["records"]) == {"text"}
        names = one["records"]["text"]
        assert len(names) == 8 and all(name.startswith("text_train:text_train_0")
                                       for name in names)
    logged = {step: values for step, values in losses(workdir).items() if step < 10}  # one ahead
    assert [step for step, values in logged.items() if values["loss"] is None] == [3, 6, 7]
    assert [values["skipped_steps"] for values in logged.values()] == [0, 0, 1, 1, 1, 2, 3, 4, 5]
    # For the schedule those steps count that changed something.
    assert logged[3]["learning_rate"] == logged[2]["learning_rate"] != logged[4]["learning_rate"]
    for step in (2, 4, 6, 8):
        with Checkpoints(workdir / "checkpoints", most=step) as checkpoints:
            assert checkpoints.latest == step
    assert all(np.isfinite(x).all() for x in stops.parameters(workdir).values()
               if np.issubdtype(x.dtype, np.floating))
    assert json.loads((workdir / "ended.json").read_text())["code"] == exits.SKIPPED

    before = sorted(path.name for path in workdir.rglob("*"))
    said = run(*command(data, workdir, "--replay=6"), path=ROOT / "tests").splitlines()
    assert [line for line in said if line.startswith("step 6: ")] == [
        said[-1]] and said[-1].startswith("step 6: planted: log at ")
    assert sorted(path.name for path in workdir.rglob("*")) == before
    said = run(*command(data, workdir, "--replay=5"), path=ROOT / "tests")
    assert "step 5: all its values are finite" in said
