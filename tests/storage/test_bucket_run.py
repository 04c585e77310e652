"""A whole run in a bucket, as a user types it: prepare, train, kill, go on, evaluate, predict."""

import json
import os
import signal

import pytest
from commands import ROOT, losses, run, seen
from forks import Fork
from gcs_server import BUCKET

from data.pipeline.sources import open_split
from data.written import cached
from mplug2_jax.checkpoints.folders import stored
from mplug2_jax.contracts import paths

PLACE = f"gs://{BUCKET}/whole"
RUN = f"{PLACE}/run"
SIZES = {"video_train": 24, "video_validation": 4, "video_test": 8, "image_train": 4,
         "image_validation": 4, "image_test": 4, "text_train": 60, "text_validation": 4}
TRAIN = ("train.py", "--config=tests/bucket_config.py", f"--config.data.root={PLACE}/data",
         f"--config.data.tokenizer={PLACE}/data/vocab.model", f"--workdir={RUN}", "--profile=1",
         "--config.optimizer.steps=6", "--config.optimizer.warmup_steps=2",
         "--config.checkpoint_every=2", "--config.eval_every=6", "--config.eval_limit=4",
         "--config.best=video_caption_cider", "--config.keep_checkpoints=2")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(server, tmp_path_factory):
    """A folder where all that the commands keep of their own accord would lie."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        server.before = server.reading = lambda method, name: None
        patch.setenv(cached.FOLDER, str(folder / "cache"))
        patch.setenv("TMPDIR", str(folder / "tmp"))
        (folder / "tmp").mkdir()
        run("-m", "data.prepare", "moving_digits", f"--out={PLACE}/data", "--processes=1",
            *(f"--{name}={size}" for name, size in SIZES.items()))
        yield folder


@pytest.fixture(scope="module")
def lives(server, home):
    """The log of a run that was killed in the middle of a save, and what its second life printed.
    """
    process, left = Fork(TRAIN, seen(path=ROOT / "tests")), [4]

    def end(method, name):
        left[0] -= "/run/checkpoints/4/" in name
        if not left[0]:
            os.kill(process.pid, signal.SIGKILL)
        if left[0] <= 0:
            raise PermissionError

    server.before = end
    output = process.communicate(timeout=300)[0]
    server.before = lambda method, name: None
    assert process.returncode == -signal.SIGKILL, output[-3000:]
    assert stored(paths.parse(f"{RUN}/checkpoints")) == [2]
    assert any("/checkpoints/4/" in name for name in server.objects)
    return losses(paths.parse(RUN)), run(*TRAIN, path=ROOT / "tests")


def test_a_killed_run_goes_on(server, lives):
    killed, output = lives
    assert f"going on from step 2 of {RUN}/checkpoints" in output
    assert f"{RUN}/checkpoints/4 was not finished, and is removed" in output
    logged = losses(paths.parse(RUN))
    assert list(logged) == [1, 2, 3, 4, 5, 6] and list(killed) == [1, 2, 3, 4]
    assert all(killed[step] == logged[step] for step in killed)  # what came again is the same
    assert stored(paths.parse(f"{RUN}/checkpoints")) == [6, 4]
    assert stored(paths.parse(f"{RUN}/best")) == [6]
    there = {name.split("/")[2] for name in server.below("whole/run/")}
    assert there == {"best", "checkpoints", "ended.json", "starts", "starts.jsonl", "tensorboard",
                     "train.jsonl", "validation.jsonl"}
    first, second = map(json.loads, paths.parse(f"{RUN}/starts.jsonl").read_text().splitlines())
    assert (first["step"], second["step"]) == (0, 2) and "killed" in second["before"]["why"]
    assert any(name.endswith(".xplane.pb") for name in server.objects)
    assert b"video_caption_cider" in b"".join(
        one.content for name, one in server.objects.items() if "/tensorboard/events" in name)


def test_nothing_is_staged_on_a_disk(server, home, lives):
    """By the server's requests: arrays come from TensorStore itself, each once, none is moved."""
    arrays = [one for one in server.requests if one.method == "POST" and "/d/" in one.name
              and one.name.startswith("whole/run/")]
    assert arrays and all("uploadType=media" in one.path for one in arrays)
    assert len({one.name for one in arrays}) == len(arrays)
    # Other tests of this server set damaged steps aside, which moves them.
    assert not [one for one in server.requests if "/o/whole%2F" in one.path
                and ("/rewriteTo/" in one.path or "/copyTo/" in one.path)]
    kept = {path.name for path in home.rglob("*") if path.is_file() and path.parent.name != "tmp"}
    assert all(name.endswith((".json", ".txt", ".arrow", ".lock"))
               or "array_record" in name for name in kept), kept
    assert not (ROOT / "gs:").exists() and not list(ROOT.glob("gs*:*"))


def test_evaluating_and_predicting(server, home, lives):
    output = run("eval.py", f"--checkpoint={RUN}", f"--out={PLACE}/report", "--which=best",
                 "--only=video_caption", "--cards=1")
    report = json.loads(paths.parse(f"{PLACE}/report/report.json").read_text())
    assert report["step"] == 6 and report["gallery"] == {"video_caption": 8}, output[-2000:]
    lines = paths.parse(f"{PLACE}/report/video_caption.jsonl").read_text().splitlines()
    assert len(lines) == 8 and "<html" in paths.parse(f"{PLACE}/report/report.html").read_text()
    for number in range(2):
        record = open_split(f"{PLACE}/data", "video_test")[number]
        (paths.parse(PLACE) / "clips" / f"{number}.mp4").write_bytes(record["media"])
    run("predict.py", "caption", f"{PLACE}/clips", f"--checkpoint={RUN}",
        f"--out={PLACE}/said.jsonl")
    lines = paths.parse(f"{PLACE}/said.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in lines]
    assert [one["file"] for one in said] == [f"{PLACE}/clips/{n}.mp4" for n in range(2)]
    assert all("caption" in one for one in said)
    assert server.below("whole/said.jsonl") == ["whole/said.jsonl"]  # its parts are gone
    run(*TRAIN, f"--workdir={PLACE}/next", f"--config.init_from={RUN}",
        "--config.optimizer.steps=1", "--config.optimizer.warmup_steps=0", "--config.eval_every=0",
        "--config.best=", path=ROOT / "tests")
    assert stored(paths.parse(f"{PLACE}/next/checkpoints")) == [1]
