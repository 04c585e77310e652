"""Processes of one training, by the launcher: they agree, log, and stop together, saved."""

import json
import re
import signal

import pytest
from commands import ROOT, seen
from forks import Fork
from processes import wait_for

from mplug2_jax.contracts import exits
from mplug2_jax.training.ledger import LOST

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.long)])
def test_processes_train_and_stop_together(processes, miniature, tmp_path):
    """Of two what of four is true, too, but that more than one of them follows."""
    workdir = tmp_path / "run"
    launcher = Fork(
        ["-m", "mplug2_jax.launch", f"--processes={processes}", "--devices=1", "--", "train.py",
         "--config=tests/stops_config.py", f"--config.data.root={miniature}",
         f"--config.data.tokenizer={miniature}/vocab.model", f"--workdir={workdir}",
         "--config.optimizer.steps=100000", "--config.mesh.fsdp=-1"], seen(1, ROOT / "tests"))
    log = workdir / "train.jsonl"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > 2, [launcher])
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=120)
    launcher.kill()
    assert launcher.returncode == exits.STOPPED, output[-5000:]
    # One of them tells what all do; all of them that they stop, at the same step.
    assert re.search(r"^\[0\] .* step 2/100000 loss", output, re.M)
    assert not re.search(r"^\[[1-3]\] .* step 2/100000 loss", output, re.M)
    saved = re.findall(r"^\[(\d)\] .*saved after step (\d+)", output, re.M)
    assert [number for number, _ in sorted(saved)] == list("0123"[:processes])
    ((_, step),) = {("", step) for _, step in saved}
    assert (workdir / "checkpoints" / step / "manifest.json").exists()
    lines = [json.loads(line) for line in log.open()]
    assert lines[-1]["goodput"] + sum(lines[-1][f"lost/{cause}"] for cause in LOST) == (
        pytest.approx(1))
    assert lines[-1]["slowest/process"] in range(processes) and lines[-1]["seconds/step"] > 0
    assert re.search(r"first step [\d.]+ s after the start of the process; process \d", output)
