"""Jobs of predict.py: several processes, kills, other flags; equal to one process that ran through.
"""

import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
from commands import ROOT, seen
from forks import Fork
from predicting import make, predict
from processes import end, start_all, wait_for
from pyarrow import parquet

from mplug2_jax.contracts.lock import locked

pytestmark = pytest.mark.slow
SMALL = ("--part_files=2", "--batch_size=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("jobs"))


def launched(made, *arguments, status=0):
    """What two processes of one device each said."""
    outputs, codes = end(start_all("predict.py", *arguments, devices=1,
                                   checkpoint=made.folder / "run"))
    assert status in codes and (status or not any(codes)), outputs
    return "\n".join(outputs)


def tables(folder):
    """Rows of all tables of a folder, in their order."""
    return [row for path in sorted(folder.glob("embeddings-*.parquet"))
            for row in parquet.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def captions(made):
    """The file of one process, its lines, and what it said."""
    out = made.folder / "one.jsonl"
    lines, output = predict(made, "caption", made.folder / "media", f"--out={out}", *SMALL)
    assert [line["file"] for line in lines] == [
        str(made.folder / "media" / name)
        for name in ("a.mp4", "b.mp4", "c.mp4", "d.png", "e.jpg", "f.mp4")]
    assert re.search(r"part 2 is done: 6 files in [\d.]+ s, [\d.]+ files/s, \d+% of it", output)
    assert not (made.folder / "one.jsonl.parts").exists()
    return out


def test_two_processes_write_what_one_does(made, captions):
    out = made.folder / "two.jsonl"
    output = launched(made, "caption", made.folder / "media", f"--out={out}", *SMALL)
    assert out.read_bytes() == captions.read_bytes()
    assert not re.search(r"^\{", output, re.M)  # the file alone has the lines
    (counts,) = re.findall(r"6 files in .*; process 0 \(.*?\) (\d); process 1 \(.*?\) (\d)", output)
    assert sum(map(int, counts)) == 6
    assert "--out is missing: several processes write" in launched(
        made, "caption", made.folder / "media", status=2)


def test_embeddings_are_retrieval_s(made):
    """Of two processes: as `retrieve` compares them with a query."""
    two = made.folder / "embedded"
    launched(made, "embed", made.folder / "media", f"--out={two}", *SMALL)
    assert len(list(two.glob("*.parquet"))) == 3
    found = tables(two)
    assert [row["file"][-5:] for row in found] == [
        "a.mp4", "b.mp4", "c.mp4", "d.png", "e.jpg", "f.mp4"]
    task = made.task("video_retrieval")
    compute, encode = jax.jit(task.predict), jax.jit(task.encode_queries)
    for row in found:
        if row["file"].endswith("f.mp4"):
            assert row["embedding"] is None and "undecodable" in row["error"]
            continue
        batch = {"video": made.clip(made.folder / "media" / row["file"])}
        expected = compute(made.params, batch | {
            "text": np.zeros((1, 4), np.int32), "text_mask": np.ones((1, 4), bool)})
        np.testing.assert_allclose(row["embedding"], expected["visual_features"][0], atol=1e-6)
    text = "a red three moving left"
    (line,) = predict(made, "embed_text", text)[0]
    ids, mask = (x[None] for x in task.tokenizer.encode_padded(text, 24))
    np.testing.assert_allclose(line["embedding"], encode(
        made.params, ids, mask)["text_features"][0], atol=1e-6)
    assert line["text"] == text and np.linalg.norm(line["embedding"]) == pytest.approx(1)
    # What is done stays as it is.
    before = {path: path.stat().st_mtime_ns for path in two.iterdir()}
    assert "3 of 3 parts are done" in predict(
        made, "embed", made.folder / "media", f"--out={two}", *SMALL)[1]
    assert {path: path.stat().st_mtime_ns for path in two.iterdir()} == before


def test_a_killed_job_goes_on(made, captions, tmp_path):
    """No line twice, none lost, no part done again; by another number of processes, too."""
    media, out = tmp_path / "media", tmp_path / "said.jsonl"
    media.mkdir()
    lines, expected = [json.loads(line) for line in captions.open()], []
    for number in range(60):
        source, line = made.files[3 + number % 2], lines[3 + number % 2]
        copy = shutil.copy(source, media / f"{number:02}{source.suffix}")
        expected.append(json.dumps(line | {"file": str(copy)}) + "\n")
    folder = tmp_path / "said.jsonl.parts"
    process = Fork(["predict.py", "caption", media, f"--out={out}", *SMALL,
                    f"--checkpoint={made.folder / 'run'}"], seen(path=ROOT / "tests"))
    wait_for(lambda: len(list(folder.glob("*.jsonl"))) > 1, [process])
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = {path: path.stat().st_ino for path in folder.glob("*.jsonl")}
    assert 2 <= len(done) < 30 and not out.exists()

    # Another job does not go on with it, nor this one beside itself (`test_parts.py` has more).
    _, output = predict(made, "caption", media, f"--out={out}", *SMALL, "--frames=3", status=2)
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert f"{folder} was begun with video.frames=4, not 3: go on with that" in line
    assert {path: path.stat().st_ino for path in folder.glob("*.jsonl")} == done
    with locked(tmp_path, "said.jsonl"):
        assert f"said.jsonl is being written by process {os.getpid()} on" in predict(
            made, "caption", media, f"--out={out}", *SMALL, status=2)[1]
    output = launched(made, "caption", media, f"--out={out}", *SMALL)
    assert f"{len(done)} of 30 parts are done" in output
    assert sum(map(int, re.findall(r"process \d \(.*?\) (\d+)", output))) == 60 - 2 * len(done)
    assert out.read_text() == "".join(expected) and not folder.exists()
    assert len({json.loads(line)["file"] for line in out.open()}) == 60
