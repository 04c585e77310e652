"""A training that signals stop: what is left is to the bit what it would have been."""

import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from commands import ROOT, losses, run, seen
from forks import Fork
from processes import end, start_all, wait_for

from mplug2_jax.checkpoints import Best, LocalCheckpoints
from mplug2_jax.contracts import exits

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
stops = __import__("stops")
pytestmark = pytest.mark.slow
STEPS = 40


@pytest.fixture(scope="module")
def straight(miniature, tmp_path_factory):
    """A run of one process that nothing stopped."""
    workdir = tmp_path_factory.mktemp("run") / "straight"
    run(*stops.train(miniature, workdir, f"--config.optimizer.steps={STEPS}"), path=ROOT / "tests")
    return workdir


@pytest.mark.long
def test_two_processes_that_are_stopped_end_as_one_that_is_not(miniature, tmp_path):
    """Once by a signal to one of them; the others need not know of it.

    That two stop together is `test_launch_together.py`'s; that bits are those of a run that nothing
    stopped is shown of one process below.
    """
    more = (f"--config.optimizer.steps={STEPS}",)
    step, _ = stops.stopped_at(miniature, tmp_path / "run", STEPS // 3, 2, signal.SIGTERM,
                               random.Random(1), *more)
    assert STEPS // 3 <= step < STEPS and stops.logged(tmp_path / "run")[-1] == step
    outputs, codes = end(start_all(*stops.train(miniature, tmp_path / "run", *more),
                                   each=({}, {}), devices=2))
    assert codes == [0, 0], outputs[0][-5000:]
    assert stops.logged(tmp_path / "run") == list(range(1, STEPS + 1))


def test_a_run_that_is_killed_goes_on_from_its_own_disk(miniature, straight, tmp_path):
    """Its shared checkpoints are too rare; the bits are those of a run that has no local ones."""
    workdir = tmp_path / "run"
    arguments = stops.train(miniature, workdir, f"--config.optimizer.steps={STEPS}",
                            f"--local={tmp_path / 'disk'}", "--local_every=2")
    process = Fork(arguments, seen(path=ROOT / "tests"))
    wait_for(lambda: len(stops.logged(workdir)) >= STEPS // 2, [process])
    process.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output[-5000:]
    assert not list((workdir / "checkpoints").glob("[0-9]*"))
    (own,) = (tmp_path / "disk").glob("run-*/host-0")
    newest = max(int(path.name) for path in own.iterdir() if path.name.isdigit())

    output = run(*arguments, path=ROOT / "tests")
    assert f"going on from step {newest} of {own}" in output and newest > 2
    assert losses(workdir) == losses(straight) and not stops.differing(workdir, straight)
    assert not list((tmp_path / "disk").iterdir())  # the shared one of the last step has all
    assert [json.loads(line)["step"] for line in (workdir / "starts.jsonl").open()] == [0, newest]


def test_a_run_that_begins_anew_compares_with_no_earlier_best(miniature, tmp_path):
    """Though there is a local checkpoint: of other arrays, so that it does not fit."""
    workdir, arrays = tmp_path / "run", {"params": {"text": {"kernel": jnp.ones(3)}}}
    (workdir / "checkpoints").mkdir(parents=True)
    with Best(workdir, "lower", {"figure": "text_held_out_loss"}, fresh=True) as best:
        assert best.offer(-1e9, 2, arrays, {"model": {}}, {})
    local = LocalCheckpoints(workdir, str(tmp_path / "disk"), 1)
    local.save(2, arrays, {"model": {}}, {})
    local._pending.result()
    output = run(*stops.train(
        miniature, workdir, "--config.optimizer.steps=2", "--config.optimizer.warmup_steps=1",
        f"--local={tmp_path / 'disk'}", "--local_every=50", config=f"{stops.CONFIG}:validated"),
        path=ROOT / "tests")
    assert "2 is of another mesh or of other arrays: it is not used" in output
    assert "-1000000000.0, of an earlier run: it stays until the first validation" in output
    assert json.loads((workdir / "starts.jsonl").read_text())["step"] == 0


def test_a_signal_to_the_whole_group_spares_the_data_workers(miniature, straight, tmp_path):
    """As Ctrl-C is; then the same bits, in a folder that was moved, and each start is known."""
    workdir = tmp_path / "run"
    arguments = stops.train(miniature, workdir, f"--config.optimizer.steps={STEPS}",
                            "--config.data.workers=1")
    process = Fork(arguments, seen(path=ROOT / "tests"), group=True)
    wait_for(lambda: len(stops.logged(workdir)) >= STEPS // 4, [process])
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exits.STOPPED, output[-5000:]
    step = stops.logged(workdir)[-1]
    assert STEPS // 4 <= step < STEPS and f"stopped by SIGINT, saved after step {step}" in output

    moved = tmp_path / "moved"
    shutil.move(workdir, moved)
    run(*stops.train(miniature, moved, f"--config.optimizer.steps={STEPS}"), path=ROOT / "tests")
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
