"""Preparing and predicting by the workers of Apache Beam, in the environment that Beam has.

    make test-beam

Commands run there, on DirectRunner with two processes; what they wrote is compared here with what
one process writes without Beam.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import ROOT
from predicting import make
from pyarrow import parquet
from raw_media import clip, put, put_csv

from mplug2_jax.contracts import exits

PYTHON = ROOT / ".venv-beam" / "bin" / "python"
RUNNER = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
PREPARED = "webvid/1.0.0"
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"} | {
    "PYTHONPATH": str(ROOT)}


def start(*arguments):
    """A command in Beam's environment, what it says in one pipe."""
    return subprocess.Popen([PYTHON, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run(*arguments, status=exits.DONE):
    """What it said, to its end."""
    process = start(*arguments)
    try:
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == status, output[-5000:]
    return output


def workers(process):
    """The processes that DirectRunner has started for a command."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            line = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append((int(folder.name), parent, b"sdk_worker_main" in line))
    own = {process.pid}
    for _ in range(2):  # the shell between them
        own |= {pid for pid, parent, _ in found if parent in own}
    return [pid for pid, _, works in found if works and pid in own - {process.pid}]


def killed(folder, pattern, *arguments):
    """Kills a worker once files of that pattern appear in a folder; gives those that were whole."""
    process = start(*arguments)
    try:
        deadline = time.monotonic() + 600
        while len(list(folder.glob(pattern))) < 2:
            assert process.poll() is None, process.communicate()[0][-5000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for worker in workers(process)[-1:]:
            os.kill(worker, signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == exits.LOST, output[-5000:]
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "a worker of Beam was killed" in line and "the same command goes on" in line
    return {path: path.stat().st_ino for path in folder.glob(pattern)}


def contents(folder, pattern="*"):
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


def test_prepares_the_same_though_a_worker_is_killed(tmp_path):
    raw, count = tmp_path / "raw", 80
    put_csv(raw / "results_2M_train.csv", [
        ["videoid", "page_dir", "name"], *([str(n), "1_50", f"clip {n}"] for n in range(count))])
    for number in range(count):
        put(raw / f"videos/1_50/{number}.mp4", clip(number % 3))
    prepare = ("-m", "data.prepare", "webvid", f"--raw={raw}", "--shard_records=2")
    spread = (*prepare, f"--out={tmp_path / 'beam'}", "--beam_runner=DirectRunner", *RUNNER)
    work = tmp_path / "beam" / f"{PREPARED}.incomplete"
    done = killed(work, "webvid-train*", *spread)
    assert 2 <= len(done) < count // 2
    output = run(*spread)
    assert re.search(rf"{len(done)} of {count // 2} shards are written", output)
    final = tmp_path / "beam" / PREPARED
    assert {path.name: inode for path, inode in done.items()}.items() <= {
        path.name: path.stat().st_ino for path in final.iterdir()}.items()  # not written again
    run(*prepare, f"--out={tmp_path / 'here'}")
    assert contents(final) == contents(tmp_path / "here" / PREPARED)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint, and a folder of sixty images and clips, one of them damaged."""
    found = make(tmp_path_factory.mktemp("beam"))
    for number in range(60):
        source = found.files[number % 5]
        shutil.copy(source, found.folder / "media" / f"{number:02}{source.suffix}")
    return found


def test_embeds_the_same_though_a_worker_is_killed(made, tmp_path):
    media = made.folder / "media"
    embed = ("predict.py", "embed", media, f"--checkpoint={made.folder / 'run'}", "--part_files=2",
             "--batch_size=2")
    spread = (*embed, f"--out={tmp_path / 'beam'}", "--beam_runner=DirectRunner",
              f"--beam_options={' '.join(RUNNER)}")
    run(*embed, f"--out={tmp_path / 'here'}")
    files = len(list(media.iterdir()))
    done = killed(tmp_path / "beam", "*.parquet", *spread)
    assert 2 <= len(done) < files // 2
    output = run(*spread)
    assert f"{len(done)} of {files // 2} parts are done" in output
    # Two processes, each of which has loaded the model once.
    assert len(re.findall("the model is loaded", output)) == 2, output[-5000:]
    assert done.items() <= {
        path: path.stat().st_ino for path in (tmp_path / "beam").iterdir()}.items()
    assert contents(tmp_path / "beam", "*.parquet") == contents(tmp_path / "here", "*.parquet")
    rows = [row for path in sorted((tmp_path / "beam").glob("*.parquet"))
            for row in parquet.read_table(path).to_pylist()]
    assert [row["file"] for row in rows] == sorted(str(path) for path in media.iterdir())
    assert [row["file"] for row in rows if row["error"]] == [str(media / "f.mp4")]


def test_a_job_that_fails_is_a_line(made, tmp_path):
    """A checkpoint that is gone when the workers come to load it."""
    gone = tmp_path / "run"
    shutil.copytree(made.folder / "run", gone)
    shutil.rmtree(next((gone / "checkpoints").glob("[0-9]*")) / "params")
    output = run("predict.py", "embed", made.files[0], f"--checkpoint={gone}",
                 f"--out={tmp_path / 'out'}", "--beam_runner=DirectRunner",
                 f"--beam_options={' '.join(RUNNER)}", status=exits.WRONG)
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "damaged" in line or "cannot be read" in line
