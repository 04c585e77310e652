"""A training that signals stop: what is left is to the bit what it would have been."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, command, losses, run
from processes import end, start_all, wait_for

from mplug2_jax.contracts import exits

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
stops = __import__("stops")
pytestmark = pytest.mark.slow
STEPS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return stops.prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """A run of one process that nothing stopped."""
    workdir = tmp_path_factory.mktemp("run") / "straight"
    run(*stops.train(data, workdir, f"--config.optimizer.steps={STEPS}"), path=ROOT / "tests")
    return workdir


def test_two_processes_that_are_stopped_end_as_one_that_is_not(data, straight, tmp_path):
    """Once by a signal to one of them; the others need not know of it."""
    more = (f"--config.optimizer.steps={STEPS}",)
    step = stops.stopped_at(data, tmp_path / "run", STEPS // 3, 2, random.Random(1), *more)
    assert STEPS // 3 <= step < STEPS and stops.logged(tmp_path / "run")[-1] == step
    outputs, codes = end(start_all(*stops.train(data, tmp_path / "run", *more), each=({}, {}),
                                   devices=2))
    assert codes == [0, 0], outputs[0][-5000:]
    assert stops.logged(tmp_path / "run") == list(range(1, STEPS + 1))


def test_a_signal_to_the_whole_group_spares_the_data_workers(data, straight, tmp_path):
    """As Ctrl-C is; then the same bits, in a folder that was moved, and each start is known."""
    workdir = tmp_path / "run"
    arguments = stops.train(data, workdir, f"--config.optimizer.steps={STEPS}",
                            "--config.data.workers=1")
    process = subprocess.Popen(**command(*arguments, path=ROOT / "tests"), start_new_session=True)
    wait_for(lambda: len(stops.logged(workdir)) >= STEPS // 4, [process])
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exits.STOPPED, output[-5000:]
    step = stops.logged(workdir)[-1]
    assert STEPS // 4 <= step < STEPS and f"stopped by SIGINT, saved after step {step}" in output

    moved = tmp_path / "moved"
    shutil.move(workdir, moved)
    run(*stops.train(data, moved, f"--config.optimizer.steps={STEPS}"), path=ROOT / "tests")
    assert losses(moved) == losses(straight) and not stops.differing(moved, straight)
    first, second = map(json.loads, (moved / "starts.jsonl").open())
    assert (first["step"], first["before"], second["step"]) == (0, None, step)
    before = second["before"]
    assert (before["code"], before["step"]) == (exits.STOPPED, step) and "SIGINT" in before["why"]
    assert json.loads((moved / "ended.json").read_text())["code"] == exits.DONE
    assert "--config.data.workers=1" in first["command"] and first["seed"] == 0
    assert first["devices"]["count"] == 1 and first["versions"]["jax"] and first["data"]
    for kept in ("config", "code"):
        assert json.loads((moved / first[kept]).read_text())
    assert json.loads((moved / first["config"]).read_text())["data"]["workers"] == 1
    assert json.loads((moved / first["code"]).read_text())["train.py"]
