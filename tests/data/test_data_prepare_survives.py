"""Preparing survives: odd records, killed processes, second ones, and what the machine refuses."""

import errno
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import pytest
from raw_media import clip, image, put, put_csv, put_tar
from raw_miniatures import MINIATURES

from data.datasets import DATASETS
from data.datasets.raw import Dataset, Entry, Media, RawFolder
from data.pipeline import SkipLog, eval_batches, examples, open_split
from data.prepare import finish, plan, prepare, problems, workers
from data.prepare.__main__ import main
from data.prepare.lock import locked
from mplug2_jax.contracts.errors import DataError, MediaError, RecordError
from mplug2_jax.contracts.machine import MachineError, machine_error

ROOT = Path(__file__).parents[2]
WEBVID = DATASETS["webvid"]
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


def webvid(raw: Path, names: list[str]) -> None:
    rows = [[name, "1_50", f"clip {name}"] for name in names]
    put_csv(raw / "results_2M_train.csv", [["videoid", "page_dir", "name"], *rows])
    for number, name in enumerate(names):
        put(raw / f"videos/1_50/{name}.mp4", clip(number % 3))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(path: Path) -> list[dict[str, str]]:
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0] == ["file", "line", "record", "reason", "what to do", "split"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


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


def test_a_full_disk_is_named_and_what_is_done_kept(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    webvid(raw, list("012"))
    for name in "012":
        put(raw / f"videos/1_50/{name}.mp4", clip(int(name)) + bytes(700_000))
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(out)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        with pytest.raises(MachineError, match=r"no space left on device: make room there"):
            prepare(WEBVID, raw, out, shard_records=1)
        work, final = plan.folders(out, "webvid")
        assert len(list(work.glob("webvid-train*"))) == 1 and not list(work.rglob(".webvid*"))
        subprocess.run(["mount", "-o", "remount,size=9m", str(out)], check=True)
        assert prepare(WEBVID, raw, out, shard_records=1) == {"train": 3}
        prepare(WEBVID, raw, tmp_path / "straight", shard_records=1)
        assert contents(final) == contents(plan.folders(tmp_path / "straight", "webvid")[1])
    finally:
        subprocess.run(["umount", "--lazy", str(out)], check=True)


@pytest.fixture
def limited():
    """Lowers a limit of this process until the test ends."""
    before = {}

    def lower(kind: int, limit: int) -> None:
        before.setdefault(kind, resource.getrlimit(kind))
        resource.setrlimit(kind, (limit, before[kind][1]))

    yield lower
    for kind, limits in before.items():
        resource.setrlimit(kind, limits)


def test_files_that_may_not_grow_are_named(tmp_path, limited, capsys):
    webvid(tmp_path / "raw", list("01"))
    limited(resource.RLIMIT_FSIZE, 3000)
    assert main(["webvid", f"--raw={tmp_path / 'raw'}", f"--out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "file too large: allow larger files (`ulimit -f" in error


def test_too_many_open_files_are_no_damaged_records(tmp_path, limited, tokenizer, stream):
    webvid(tmp_path / "raw", list("012"))
    prepare(WEBVID, tmp_path / "raw", tmp_path / "out", shard_records=2)
    split = open_split(tmp_path / "out", "train")
    skips = SkipLog()
    batches = eval_batches(tmp_path / "out", stream(split="train", target_length=0, batch_size=2),
                           tokenizer, threads=0, skips=skips)
    limited(resource.RLIMIT_NOFILE, 3)
    for read in (lambda: split[0], lambda: split.annotations[0], lambda: list(batches)):
        with pytest.raises(MachineError, match="too many open files: allow a process more"):
            read()
    assert not skips.counts


def test_what_the_machine_refuses_is_told_from_bad_bytes():
    for number, words in ((errno.EIO, "input/output"), (errno.EDQUOT, "quota"),
                          (errno.EROFS, "read-only"), (errno.ENFILE, "in system"),
                          (errno.ESTALE, "stale"), (errno.EACCES, f"uid {os.geteuid()}")):
        found = machine_error(OSError(number, os.strerror(number)), "/x")
        assert str(found).startswith("/x: ") and words in str(found)
        said = RuntimeError(f"open() failed: {os.strerror(number)}; opening /x")
        assert str(machine_error(said, "/x")) == str(found)
    for error in (OSError("broken data stream"), FileNotFoundError(errno.ENOENT, "x"),
                  RuntimeError("Corrupted: Input/output error"), ValueError("x"),
                  av.error.OSError(errno.EIO, "Input/output error"),
                  av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")):
        assert machine_error(error, "/x") is None


def test_processes_and_threads_that_cannot_be_started_are_of_the_machine():
    for error in (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
                  RuntimeError("can't start new thread")):
        assert "allow more processes (`ulimit -u`" in str(machine_error(error, "/x"))


def test_a_system_has_not_all_names_of_errors(monkeypatch):
    monkeypatch.delattr(errno, "EREMOTEIO")  # as on macOS
    spec = importlib.util.find_spec("mplug2_jax.contracts.machine")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.refusal(OSError(errno.ESTALE, "x")) == errno.ESTALE


def test_a_decoder_that_finds_no_file_descriptor_is_no_bad_medium(monkeypatch, stream):
    """Pillow imports its readers when they are first needed."""

    def fails(data):
        raise MediaError("undecodable image") from cause

    monkeypatch.setattr(examples, "decode_image", fails)
    record = {"id": "x", "kind": "image", "media": b"x"}
    cause = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    with pytest.raises(MachineError, match="decoding 'x': too many open files"):
        examples.decode(record, stream(), None)
    cause = OSError("broken data stream")
    with pytest.raises(RecordError, match="undecodable media"):
        examples.decode(record, stream(), None)


AS_ANOTHER = """
import sys
from pathlib import Path
from data.pipeline import open_split
from data.prepare.__main__ import main
from mplug2_jax.contracts.errors import DataError
from data import media
media.guarded = lambda function, *given: function(*given)  # Python may lie where they may not look
raw, out, closed, hidden, found = sys.argv[1:]
print(main(["msrvtt", "--raw=" + found, "--out=" + out, "--processes=1"]))
print(main(["webvid", "--raw=" + raw, "--out=" + out]))
print(main(["webvid", "--raw=" + raw, "--out=" + closed + "/new"]))
for place in (closed, hidden + "/webvid", hidden):
    try:
        print("read", open_split(place, "train")[0]["id"])
    except DataError as error:
        print(type(error).__name__, error)
"""


@pytest.fixture
def open_path():
    """A folder that other users may look into, as they may not into pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_another_user(open_path):
    tmp_path, other = open_path, ["setpriv", "--reuid=65534", "--clear-groups"]
    if subprocess.run([*other, "test", "-r", __file__], capture_output=True).returncode:
        pytest.skip("another user may not read this repository")
    raw, out, closed, hidden, lost = (
        tmp_path / name for name in ("raw", "out", "closed", "hidden", "lost"))
    webvid(raw, list("01"))
    MINIATURES["msrvtt"](lost)
    (lost / "lost+found").mkdir(mode=0o700)
    (raw / "videos/1_50/1.mp4").chmod(0)
    out.mkdir()
    out.chmod(0o777)
    webvid(tmp_path / "other", list("0"))
    for place in (closed, hidden):
        prepare(WEBVID, tmp_path / "other", place)
    next(closed.rglob("*array_record*")).chmod(0)
    (hidden / "webvid").chmod(0)
    found = subprocess.run(
        [*other, sys.executable, "-c", AS_ANOTHER, *map(str, (raw, out, closed, hidden, lost))],
        cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = found.stdout.splitlines()
    assert found.returncode == 0 and "Traceback" not in found.stderr, found.stderr
    assert f"warning: {lost}/lost+found" in found.stderr and (out / "msrvtt/1.0.0").is_dir()
    (row,) = rows(out / "webvid/1.0.0" / problems.PROBLEMS)
    assert row["reason"].startswith("refused: videos/1_50/1.mp4: permission denied: give this user")
    refused = "permission denied: give this user (uid 65534) the right to it"
    assert f"error: {closed}/new/webvid: {refused}" in found.stderr
    assert lines[-3] == f"MachineError {closed}/webvid/1.0.0, split 'train': {refused}"
    assert lines[-2] == f"MachineError {hidden}/webvid: {refused}"
    assert "has no finished dataset that may be looked into (not into webvid)" in lines[-1]


MEMORY = """
import sys
from pathlib import Path
from data.datasets import DATASETS
from data.prepare import prepare

def peak():
    (line,) = (one for one in open("/proc/self/status") if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

raw, out = map(Path, sys.argv[1:])
prepare(DATASETS["webvid"], raw, out / "small")
before = peak()
with (raw / "videos/1_50/0.mp4").open("r+b") as file:
    file.truncate(2**27)
prepare(DATASETS["webvid"], raw, out / "large")
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_medium_is_held_twice(tmp_path):
    webvid(tmp_path / "raw", list("01"))
    found = subprocess.run([sys.executable, "-c", MEMORY, tmp_path / "raw", tmp_path / "out"],
                           cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert 2**27 < int(found.stdout.splitlines()[-1]) < 2.4 * 2**27
