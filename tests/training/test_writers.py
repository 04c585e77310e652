"""Where a run's figures go beside its own files."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from commands import ROOT
from tensorboardX.event_file_writer import EventsWriter

from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.training import writers
from mplug2_jax.training.ledger import Ledger
from mplug2_jax.training.runlog import RunLog


class Kept:
    """A writer that keeps what it gets."""

    def __init__(self):
        self.calls, self.closed = [], False

    def scalars(self, step, values):
        self.calls.append((step, dict(values)))

    def close(self):
        self.closed = True


def test_every_writer_gets_all_figures(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(EventsWriter, "write_event", lambda _, event: shown.extend(
        (value.tag, value.simple_value, event.step) for value in event.summary.value))
    kept = Kept()
    with RunLog(tmp_path, 0, Ledger(lambda: 0.0), [kept]) as log:
        log.step(1, {"loss": 2.0, "mfu": 0.25})
        log.validation(1, {"accuracy": 0.5})
    assert kept.calls == [(1, {"loss": 2.0, "mfu": 0.25}), (1, {"validation/accuracy": 0.5})]
    assert kept.closed
    assert shown == [("loss", 2.0, 1), ("mfu", 0.25, 1), ("validation/accuracy", 0.5, 1)]
    for name, values in (("train", {"loss": 2.0, "mfu": 0.25}), ("validation", {"accuracy": 0.5})):
        (line,) = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert values.items() <= json.loads(line).items()


def test_wandb_has_one_run_for_all_starts(tmp_path, monkeypatch):
    """By a module in its place that notes what is asked of it."""
    asked = []
    run = SimpleNamespace(define_metric=lambda *_, **__: None, finish=lambda: asked.append("end"),
                          log=lambda values: asked.append(values))
    online = SimpleNamespace(settings=SimpleNamespace(mode="online"))
    fake = SimpleNamespace(init=lambda **given: asked.append(given) or run, setup=lambda: online,
                           Error=RuntimeError)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    starts = tmp_path / "starts.jsonl"
    for line in ("first\n", "second\n"):
        with starts.open("a") as file:
            file.write(line)
        writer = writers.WandB("videos", tmp_path, starts, {"seed": 3})
        writer.scalars(5, {"loss": 1.0})
        writer.close()
    first, values, end, second, *_ = asked
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert first["project"] == "videos" and first["config"] == {"seed": 3}
    assert values == {"step": 5, "loss": 1.0} and end == "end"


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_wandb_s_files_stay_in_no_bucket(tmp_path, monkeypatch, mode):
    """Which is said before anything compiles."""
    fake = ModuleType("wandb")
    fake.__spec__ = ModuleSpec("wandb", None)
    fake.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode=mode))
    fake.login, fake.Error = lambda: True, RuntimeError
    monkeypatch.setitem(sys.modules, "wandb", fake)
    writers.require_wandb(tmp_path)
    bucket = paths.parse("s3://bucket/run")  # of Google's, credentials would be looked for: 15 s
    if mode == "online":
        writers.require_wandb(bucket)
    else:
        with pytest.raises(ConfigError, match="--wandb: offline, its files would stay in s3://bu"):
            writers.require_wandb(bucket)


def test_a_user_whom_wandb_does_not_know_is_one_line(tmp_path, monkeypatch):
    """As it says it (0.31.0), before anything is read; or later, where it cannot be reached."""
    class Refused(Exception):
        pass

    def refuse(**_):
        raise Refused("No API key configured.\nUse `wandb login` to log in.")

    fake = ModuleType("wandb")
    fake.__spec__ = ModuleSpec("wandb", None)
    fake.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode="online"))
    fake.login, fake.init, fake.Error = refuse, refuse, Refused
    monkeypatch.setitem(sys.modules, "wandb", fake)
    said = "^--wandb: No API key configured. Use `wandb login` to log in.; WANDB_MODE=offline"
    with pytest.raises(ConfigError, match=said):
        writers.require_wandb(tmp_path)
    (tmp_path / "starts.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=said):
        writers.WandB("videos", tmp_path, tmp_path / "starts.jsonl", {})


def test_wandb_s_files_of_a_bucket_s_run_are_gone_with_it(tmp_path, monkeypatch):
    asked = []
    run = SimpleNamespace(define_metric=lambda *_, **__: None, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(
        init=lambda **given: asked.append(given["dir"]) or run, Error=RuntimeError,
        setup=lambda: SimpleNamespace(settings=SimpleNamespace(mode="online"))))
    monkeypatch.setattr(writers.paths, "in_bucket", lambda path: True)
    (tmp_path / "starts.jsonl").write_text("{}\n")
    writer = writers.WandB("videos", tmp_path, tmp_path / "starts.jsonl", {})
    assert Path(asked[0]).is_dir()
    writer.close()
    assert not Path(asked[0]).exists()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is there")
def test_wandb_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="--wandb: the package is not installed; pip install"):
        writers.require_wandb(tmp_path)


# In a process of its own: it reads WANDB_MODE once, when it is first asked for anything.
OFFLINE = """
import sys
from pathlib import Path
from mplug2_jax.training import writers
folder = Path(sys.argv[1])
writers.require_wandb(folder)
writer = writers.WandB("videos", folder, folder / "starts.jsonl", {"seed": 3})
writer.scalars(1, {"loss": 2.0})
writer.scalars(1, {"validation/accuracy": 0.5})
writer.close()
"""


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_offline(tmp_path):
    """The package itself, without a network."""
    (tmp_path / "starts.jsonl").write_text("{}\n")
    subprocess.run([sys.executable, "-c", OFFLINE, tmp_path], cwd=ROOT, check=True,
                   env=os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"})
    (file,) = tmp_path.rglob("*.wandb")
    content = file.read_bytes()
    assert b"validation/accuracy" in content and b"loss" in content
