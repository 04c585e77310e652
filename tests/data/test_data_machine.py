"""What the machine refuses: it is named, what is done is kept, and no record counts as bad."""

import errno
import importlib.util
import os
import resource
import subprocess
import sys
from pathlib import Path

import av
import pytest
from raw_media import clip, put
from raw_miniatures import MINIATURES
from survivors import contents, rows, webvid

from data.datasets import DATASETS
from data.pipeline import SkipLog, eval_batches, examples, open_split
from data.prepare import plan, prepare, problems
from data.prepare.__main__ import main
from mplug2_jax.contracts.errors import MediaError, RecordError
from mplug2_jax.contracts.machine import MachineError, machine_error

WEBVID = DATASETS["webvid"]
ROOT = Path(__file__).parents[2]


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
