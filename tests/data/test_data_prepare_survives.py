"""Preparing survives: odd records, killed processes, and second ones."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from raw_media import image, put, put_tar
from survivors import contents, rows, webvid

from data.datasets import DATASETS
from data.datasets.raw import Dataset, Entry, Media, RawFolder
from data.pipeline import open_split
from data.prepare import finish, plan, prepare, problems, workers
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.lock import locked

WEBVID = DATASETS["webvid"]
ROOT = Path(__file__).parents[2]


# Found by every process that starts: opening a file named "wait" says so, and takes for ever.
WAITS = """
import os, pathlib, time
real = os.open
def waits(path, *rest, **options):
    if str(path).endswith("wait.mp4"):
        pathlib.Path(os.environ["WAITING"]).write_text(str(os.getpid()))
        time.sleep(600)
    return real(path, *rest, **options)
os.open = waits
"""


def await_file(path: Path, process: subprocess.Popen) -> str:
    for _ in range(1200):
        if path.exists() and path.read_text() or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    return path.read_text()


@pytest.fixture
def waiting(tmp_path):
    """Starts preparing WebVid; waits until it reads the record "wait", gives that process too."""
    started = []

    def start(raw: Path, out: Path, *options: str) -> tuple[subprocess.Popen, int]:
        put(tmp_path / "site/sitecustomize.py", WAITS)
        mark = tmp_path / "waiting"
        started.append(subprocess.Popen(
            [sys.executable, "-m", "data.prepare", "webvid", f"--raw={raw}", f"--out={out}",
             "--shard_records=2", *options],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "WAITING": str(mark)}))
        return started[-1], int(await_file(mark, started[-1]))

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_worker_is_an_error_and_the_next_run_goes_on(tmp_path, waiting):
    raw, out = tmp_path / "raw", tmp_path / "out"
    names = ["0", "1", "bad", "3", "4", "wait"]
    webvid(raw, names)
    put(raw / "videos/1_50/bad.mp4", b"junk")
    process, worker = waiting(raw, out, "--processes=2")
    work, final = plan.folders(out, "webvid")
    for _ in range(1200):
        if len(list(work.glob("webvid-train*"))) == 2:
            break
        time.sleep(0.05)
    assert worker != process.pid
    # A second one into the same folder is told by whom it is being written.
    holder = f"is being written by process {process.pid} on {os.uname().nodename} since 20"
    with pytest.raises(DataError, match=holder):
        prepare(WEBVID, raw, out, shard_records=2)
    # What is known of what is left out is there already.
    (listed,) = rows(work / problems.PROBLEMS)
    assert (listed["file"], listed["record"]) == ("videos/1_50/bad.mp4", "bad")
    done = {path: path.stat().st_ino for path in work.glob("webvid-train*")}

    start = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and time.monotonic() - start < 20
    assert error.count("\n") == 1
    assert error.startswith(f"error: process {worker}, at record 'wait',")
    assert "number 1 of shard 2 of split 'train'" in error and "SIGKILL" in error
    assert "what is done is kept" in error and not final.exists()

    assert prepare(WEBVID, raw, out, shard_records=2) == {"train": 5}
    assert len(done) == 2
    assert all((final / path.name).stat().st_ino == number for path, number in done.items())
    prepare(WEBVID, raw, tmp_path / "straight", shard_records=2)
    assert contents(final) == contents(plan.folders(tmp_path / "straight", "webvid")[1])


def test_a_killed_run_goes_on_without_rewriting_shards(tmp_path, waiting, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    webvid(raw, ["0", "1", "2", "wait"])
    process, _ = waiting(raw, out, "--processes=1")
    process.kill()
    process.communicate()
    work, final = plan.folders(out, "webvid")
    # It leaves its lock, which holds nothing, and half a shard.
    assert (final.parent / ".1.0.0.lock").exists() and list(work.glob(".webvid*"))
    (kept,) = work.glob("webvid-train*")
    before = kept.stat()
    with pytest.raises(DataError, match="does not hold|no finished dataset"):
        open_split(out, "train")
    assert prepare(WEBVID, raw, out, shard_records=2) == {"train": 4}
    assert "1 of 2 shards are written" in capsys.readouterr().out
    after = (final / kept.name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    prepare(WEBVID, raw, tmp_path / "straight", shard_records=2)
    assert contents(final) == contents(plan.folders(tmp_path / "straight", "webvid")[1])
    assert not work.exists() and len(list(final.parent.iterdir())) == 1


def test_ended_by_a_signal_it_says_so_and_leaves_nothing_half(tmp_path, waiting):
    raw, out = tmp_path / "raw", tmp_path / "out"
    webvid(raw, ["0", "1", "2", "wait"])
    process, _ = waiting(raw, out, "--processes=1")
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "interrupted: what is done is kept, the same command goes on\n"
    work, _ = plan.folders(out, "webvid")
    assert not list(work.rglob(".*")) and not list(work.parent.glob(".*"))
    assert len(list(work.glob("webvid-train*"))) == 1


def _does(job: int, progress: workers.Progress) -> int:
    progress.at(job)
    if job < 0:
        raise DataError(f"job {job}")
    return job


def test_workers_keep_the_order_and_hand_on_errors():
    def describe(job: int, at: int) -> str:
        return f"job {job} at {at}"

    results = workers.run(_does, [1, 0, -1], 2, describe, ordered=True)
    with pytest.raises(DataError, match="^job -1$"):
        list(results)
    assert list(workers.run(_does, [1, 0], 1, describe)) == [1, 0]
    assert list(workers._in_order(iter(((1, "b"), (2, "c"), (0, "a"), (3, "d"))))) == list("abcd")


_own: list[tempfile.TemporaryDirectory] = []  # of a process


def _holds(job: int, progress: workers.Progress) -> str:
    """What is there until the process ends, as copies of a bucket's files are."""
    if not _own:
        _own.append(tempfile.TemporaryDirectory())
        Path(_own[0].name, "tar").write_bytes(b"0")
    return _own[0].name


def test_processes_remove_their_temporary_files(monkeypatch):
    monkeypatch.setattr(workers, "_LEAVE", 60.0)  # for a busy machine
    held = {*workers.run(_holds, [0, 1, 2], 2, str)}
    assert held and not any(map(os.path.exists, held))


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "x/.1.0.0.lock"
    held = json.dumps({"pid": 1, "host": "elsewhere", "since": "2026-01-01 00:00:00"})
    put(path, held)  # of one that was killed: it holds nothing
    with locked(tmp_path / "x", "1.0.0"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with (pytest.raises(DataError, match=f"by process {os.getpid()} on "),
              locked(tmp_path / "x", "1.0.0")):
            pass
        with locked(tmp_path / "x", "2.0.0"):
            pass
        assert path.exists()
    assert not list((tmp_path / "x").iterdir())
    # One that has just been taken says nothing of itself yet.
    with locked(tmp_path / "x", "1.0.0"):
        path.write_text("")
        with pytest.raises(DataError, match="by another process"), locked(tmp_path / "x", "1.0.0"):
            pass


def test_without_locks_it_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def none(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    with locked(tmp_path, "1.0.0"):
        assert "has no locks (no locks available): nothing keeps a second" in caplog.text


def odd_entries(raw: Path) -> list[Entry]:
    put(raw / "good.jpg", image(1))
    os.mkfifo(raw / "pipe.jpg")
    (raw / "null.jpg").symlink_to("/dev/zero")
    (raw / "gone.jpg").symlink_to("nowhere.jpg")
    (raw / "ring.jpg").symlink_to("ring.jpg")
    (raw / "folder.jpg").mkdir()
    with (raw / "large.jpg").open("wb") as file:
        file.truncate(2**30 + 1)
    good = {"texts": ["fine"]}
    question = {"question": "what?", "answer": "this"}
    media = {name: Media(f"{name}.jpg") for name in
             ("pipe", "null", "gone", "ring", "folder", "large")}
    said = {
        "none": {"texts": [None]}, "list": {"texts": [["x", 3]]}, "no list": {"texts": 7},
        "surrogate": {"texts": ["cut \ud83d"]}, "label": {"label": ["a"]},
        "three": {"boxes": [{"phrase": "x", "box": [0, 0, 1]}]},
        "word": {"boxes": [{"phrase": "x", "box": ["a", 0, 1, 1]}]},
        "unanswered": {"questions": [{"question": "what?"}]},
        "answers": {"questions": [question | {"answers": [3]}]},
        "start": {"start": "soon"}, "keyword": {"captions": ["x"]}, "set": {"texts": {"x"}},
        "much": {"texts": ["x" * 2**24]}, "bytes": {"texts": [b"x"]},
    }  # fmt: skip
    return [
        Entry("first", "image", Media("good.jpg"), good),
        *(Entry(name, "image", place, good) for name, place in media.items()),
        *(Entry(name, "image", Media("good.jpg"), fields) for name, fields in said.items()),
        Entry("kind", "sculpture", Media("good.jpg"), good),
        Entry("beyond", "image", Media("good.jpg", 10**9, 10), good),
        Entry("last", "image", Media("good.jpg"), good),
    ]  # fmt: skip


def test_an_odd_record_costs_itself(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    entries = odd_entries(raw)

    def read(folder: RawFolder):
        folder.left_out += [("a.json", "line 7", "no image")]
        return {"train": iter(entries)}

    assert prepare(Dataset("odd", "odd ones", "image", read), raw, tmp_path / "out") == {"train": 5}
    final = plan.folders(tmp_path / "out", "odd")[1]
    split = open_split(final, "train")
    found = {split[n]["id"]: split[n] for n in range(5)}
    assert list(found) == ["first", "surrogate", "answers", "set", "last"]
    assert found["surrogate"]["texts"] == ["cut \ufffd"] and found["set"]["texts"] == ["x"]
    assert found["answers"]["questions"][0]["answers"] == ["3"]
    listed = {row["record"]: row for row in rows(final / problems.PROBLEMS)}
    assert listed.keys() == {"", *(entry.id for entry in entries)} - found.keys()
    assert all(row["what to do"] and row["split"] == "train" for row in listed.values())
    assert (listed[""]["file"], listed[""]["line"]) == ("a.json", "7")
    reasons = {name: row["reason"] for name, row in listed.items()}
    assert reasons["pipe"] == "unreadable: pipe.jpg is a pipe, a socket or a device, not a file"
    assert "a device" in reasons["null"] and "a folder" in reasons["folder"]
    assert "No such file" in reasons["gone"] and "levels of symbolic" in reasons["ring"]
    assert reasons["large"] == ("large: large.jpg has 1,073,741,825 bytes: a record may have "
                                "1,073,741,824")
    assert reasons["beyond"] == "unreadable: good.jpg ends 10 bytes too early"
    assert reasons["much"].startswith("large: 16,777,")
    assert sum(reason.startswith("odd: ") for reason in reasons.values()) == 11


def test_a_list_beside_an_image_costs_one_record(tmp_path):
    members = {"e.jpg": image(4), "e.txt": "fine"}
    for number, said in enumerate(([1, 2], {"caption": ["x", 3]}, {"caption": {"a": 1}}, "{")):
        members |= {f"{number}.jpg": image(1), f"{number}.json": said if said == "{" else
                    json.dumps(said)}
    members |= {"n.jpg": image(2), "n.json": {"caption": 2}}
    put_tar(tmp_path / "raw/0.tar", members)
    assert prepare(DATASETS["webdataset"], tmp_path / "raw", tmp_path / "out") == {"train": 3}
    final = plan.folders(tmp_path / "out", "webdataset")[1]
    assert [row["record"] for row in rows(final / problems.PROBLEMS)] == ["0", "2", "3"]
    assert [open_split(final, "train")[n]["texts"] for n in (1, 2)] == [["x", "3"], ["2"]]


def test_a_reader_that_fails_is_an_error_of_one_line(tmp_path):
    def read(error):
        def entries():
            yield Entry("a", "text", [], {"texts": ["x"]})
            raise error

        return lambda raw: {"train": entries()}

    for error, said in (
        (KeyError("sentence"), "split 'train', after record 'a', cannot be read: KeyError: 'sent"),
        (RecursionError("deep"), "after record 'a', cannot be read: RecursionError: deep"),
        (OSError(errno.EMFILE, "x"), "after record 'a',: too many open files: allow"),
        (MemoryError(), "after record 'a',: cannot allocate memory: use fewer"),
        (DataError("its own"), "^its own$"),
    ):
        with pytest.raises(DataError, match=said):
            prepare(Dataset("odd", "", "text", read(error)), tmp_path, tmp_path / "out")


def test_a_shard_that_a_crash_emptied_is_written_again(tmp_path, monkeypatch):
    webvid(tmp_path / "raw", list("0123"))
    arguments = WEBVID, tmp_path / "raw", tmp_path / "out"

    def stop(*rest):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finish, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(*arguments, shard_records=1)
    work, final = plan.folders(tmp_path / "out", "webvid")
    next(work.glob("*record-00000-*")).write_bytes(b"")
    (work / "done/train-00001.json").write_bytes(b"")
    (work / "done/train-00002.arrow").unlink()
    assert prepare(*arguments, shard_records=1) == {"train": 4}
    prepare(WEBVID, tmp_path / "raw", tmp_path / "straight", shard_records=1)
    assert contents(final) == contents(plan.folders(tmp_path / "straight", "webvid")[1])


def test_the_list_of_problems_is_bounded_and_plain(tmp_path, monkeypatch):
    monkeypatch.setattr(problems, "LISTED", 2)
    found = problems.Problem("train", "a\tb\nc\x1b[31m", "odd: " + "x" * 10**6, "\udce9.jpg")
    assert problems.loads(found.dumps()) == found.cut() and len(found.dumps()) < 1000
    problems.write(tmp_path / "p.tsv", [found] * 5)
    listed = (tmp_path / "p.tsv").read_text().splitlines()
    assert len(listed) == 4 and listed[3] == "\t\t\tand 3 more that are not listed"
    cells = listed[1].split("\t")
    assert cells[:3] == ["\\udce9.jpg", "", "a b c\\x1b[31m"] and len(cells[3]) == 300
    assert [path.name for path in tmp_path.iterdir()] == ["p.tsv"]
