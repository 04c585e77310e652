"""Paths of a bucket do what those of files do, as far as objects can."""

import errno
import gc
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from gcs_server import BUCKET

from data.pipeline import SkipLog
from data.pipeline.skips import Report
from mplug2_jax.contracts import buckets, paths
from mplug2_jax.contracts.buckets import Log
from mplug2_jax.contracts.errors import ConfigError, DataError, MediaError, RecordError
from mplug2_jax.contracts.machine import refusal
from mplug2_jax.preprocess.opening import read_file
from mplug2_jax.training.trace import Trace


def refuse(method, name):
    """A store that refuses."""
    raise PermissionError


@pytest.mark.parametrize("text", ["runs/a", "/data/x", "~/a", "a:/b", "file", "."])
def test_what_is_no_address_is_a_path_as_ever(text):
    found = paths.parse(text)
    assert type(found).__name__ == "PosixPath" and str(found) == str(paths.Path(text))
    assert not paths.in_bucket(found)


@pytest.mark.parametrize("text", ["http://host/a", "hdfs://host/a", "gs:/bucket/a", "s3:/b"])
def test_other_addresses_are_refused_in_a_line(text):
    with pytest.raises(ConfigError, match=f"^--out={text}: expected a path of a file system that"):
        paths.parse(text, "--out")


def test_folders_and_files(server, place):
    folder = paths.parse(place)
    assert str(folder / "a" / "b.txt") == f"{place}/a/b.txt" and paths.in_bucket(folder)
    assert (folder / "a").parent == folder and folder.absolute() == folder
    assert not folder.exists() and not folder.is_dir() and not list(folder.iterdir())
    (folder / "a").mkdir(parents=True, exist_ok=True)
    assert not server.below(folder.name)
    (folder / "a" / "b.txt").write_text("né\n")
    (folder / "c.json").write_bytes(b"{}")
    assert (folder / "a").is_dir() and not (folder / "a").is_file() and (folder / "a").exists()
    assert (folder / "a" / "b.txt").is_file() and (folder / "a" / "b.txt").read_text() == "né\n"
    assert [one.name for one in folder.iterdir()] == ["a", "c.json"]
    assert [str(one) for one in folder.glob("*.json")] == [f"{place}/c.json"]
    assert [str(one) for one in folder.rglob("*")] == [f"{place}/a/b.txt", f"{place}/c.json"]
    assert paths.sizes(folder) == {"a/b.txt": 4, "c.json": 2}
    files, inner = folder.listing()
    assert files == {"c.json": (folder / "c.json").stat()} and inner == ["a"]
    assert (folder / "c.json").stat().st_size == 2 and (folder / "c.json").stat().st_mtime > 1e9
    with (folder / "a" / "b.txt").open(encoding="utf-8") as file:
        assert list(file) == ["né\n"]
    again = pickle.loads(pickle.dumps(folder / "c.json"))
    assert again == folder / "c.json" and again.read_bytes() == b"{}"
    folder.copy_tree(paths.parse(f"{place}.other"))
    assert paths.sizes(paths.parse(f"{place}.other")) == paths.sizes(folder)
    (folder / "c.json").unlink()
    (folder / "c.json").unlink(missing_ok=True)
    paths.remove_tree(folder)
    assert not folder.exists() and server.below(f"{folder.name}.other")


def test_a_name_is_no_pattern(server, place):
    names = {"run[12]/a", "run[12]/b[1]/c*", "run1/a", "run2/a", "run?/a", "run/a"}
    for name in names:
        (paths.parse(place) / name).write_text("")
    server.put(f"{paths.parse(place).name}/run[12]/shown/", b"")  # a folder, as consoles show it
    paths.move_tree(paths.parse(f"{place}/run?"), paths.parse(f"{place}/[r]un"))
    paths.remove_tree(paths.parse(f"{place}/run[12]"))
    assert {*paths.sizes(paths.parse(place))} == {"run1/a", "run2/a", "[r]un/a", "run/a"}
    assert not server.below(f"{paths.parse(place).name}/run[12]")
    paths.remove_tree(paths.parse(f"{place}/run[12]"))  # which is not there


def test_an_object_is_there_once_it_is_whole(server, place):
    path = paths.parse(place) / "x"
    with path.open("w") as file:
        file.write("half")
        assert not path.exists()
    assert path.read_text() == "half"
    with pytest.raises(ZeroDivisionError), path.open("w") as file:
        file.write("less")
        file.write(str(1 / 0))
    with pytest.raises(ZeroDivisionError), path.open("wb") as file:
        file.write(b"less")
        file.write(1 / 0)
    assert path.read_text() == "half"


@pytest.mark.parametrize("local", [False, True])
def test_chunks_become_a_whole(server, place, tmp_path, local):
    path = tmp_path / "x" if local else paths.parse(place) / "x"
    chunks = [bytes([number]) * 2**20 for number in range(12)]  # a store takes some at a time

    def fails():
        yield from chunks
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        paths.stream(path, fails())
    gc.collect()
    assert not path.exists() and not list(path.parent.iterdir())
    paths.stream(path, iter(chunks))
    assert path.read_bytes() == b"".join(chunks)
    with pytest.raises(ZeroDivisionError):
        paths.stream(path, fails())
    gc.collect()
    assert path.read_bytes() == b"".join(chunks)
    if not local:
        most = max(one.received for one in server.requests if "upload" in one.path)
        assert most < 8 * 2**20
        server.before = refuse
        with pytest.raises(OSError, match="x") as caught:
            paths.stream(path, [b"less"])
        assert caught.value.errno == errno.EACCES


def test_who_writes_a_file_at_once_does_not_meet(tmp_path):
    path, contents = tmp_path / "said.json", {letter * 200_000 for letter in "abcd"}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda content: paths.write(path, content), [*contents] * 5))
    assert path.read_text() in contents and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError), paths.whole(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() in contents and list(tmp_path.iterdir()) == [path]


def test_a_part_is_read(server, place):
    path, empty, before = paths.parse(place) / "x", paths.parse(place) / "e", len(server.requests)
    path.write_bytes(b"0123456789")
    empty.write_bytes(b"")
    for offset, size, found in ((0, -1, b"0123456789"), (3, 4, b"3456"), (8, -1, b"89"),
                                (10, -1, b""), (10, 0, b"")):
        assert read_file(path, offset, size) == found
    assert read_file(empty) == b""
    assert sum(one.sent for one in server.requests[before:] if "alt=media" in one.path) == 16
    for offset, size, early in ((8, 4, 2), (12, 1, 1)):
        with pytest.raises(MediaError, match=f"^ends {early} bytes too early"):
            read_file(path, offset, size)


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_what_fails_while_it_is_read_is_named(server, place, mode):
    path, asked = paths.parse(place) / "x", []
    path.write_text("a" * 100)

    def refuse(method, name):
        asked.append(name)
        if len(asked) > 1:
            raise PermissionError

    server.reading = refuse
    with pytest.raises(OSError) as caught:
        for _ in range(2):
            with path.open(mode) as file:
                file.read()
    assert caught.value.filename == str(path) and refusal(caught.value) == errno.EACCES
    asked.clear()
    with pytest.raises(MediaError, match="unreadable: "):
        read_file(path)


@pytest.mark.parametrize("mode, content", [("w", "a"), ("wb", b"a")])
def test_what_could_not_be_written_is_not_tried_again(server, place, mode, content):
    path, tried = paths.parse(place) / "x", []

    def refuse(method, name):
        tried.append(name)
        raise PermissionError

    server.before = refuse
    file = path.open(mode)
    file.write(content)
    with pytest.raises(OSError, match="(?i)access"):
        file.close()
    assert file.closed and tried
    tried.clear()
    server.before = lambda method, name: tried.append(name)
    file.close()
    del file
    gc.collect()
    assert not tried and not path.exists()


def test_what_is_not_there_is_named(place):
    path = paths.parse(place) / "nothing"
    for look in (path.read_bytes, path.stat, path.unlink, lambda: path.open("rb")):
        with pytest.raises(FileNotFoundError) as caught:
            look()
        assert caught.value.filename == str(path) and caught.value.strerror


def test_what_the_store_refuses_is_of_the_machine(server, place):
    path = paths.parse("gs://another/run") / "x"
    with pytest.raises(OSError) as caught:
        path.write_text("a")
    assert caught.value.filename == str(path)
    path = paths.parse(place) / "x"
    server.before = refuse
    with pytest.raises(OSError) as caught:
        path.write_text("a")
    assert refusal(caught.value) == errno.EACCES and caught.value.filename == str(path)


def test_a_log_is_written_now_and_then_and_at_its_end(server, place, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(buckets.time, "monotonic", lambda: now[0])
    path = paths.parse(place) / "train.jsonl"
    path.write_text("0\n")
    file = paths.append(path)
    seen = []
    for number in range(1, 8):
        file.write(f"{number}\n")
        file.flush()
        seen.append(path.read_text().split()[-1])
        now[0] += 4
    assert seen == ["1", "1", "1", "4", "4", "4", "7"]
    file.write("8\n")
    paths.settle(file)
    assert path.read_text() == "".join(f"{n}\n" for n in range(9))
    before = len(server.requests)
    file.close()
    assert len(server.requests) == before  # nothing is left
    paths.add(path, "end")
    assert path.read_text().endswith("8\nend\n")


def test_a_log_takes_a_hundredth_of_the_time_at_most(place, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(buckets.time, "monotonic", lambda: now[0])
    written = []

    class Slow:
        exists = staticmethod(lambda: False)

        def write_bytes(self, content):
            written.append(now[0])
            now[0] += 3

    file = Log(Slow())
    for _ in range(100):
        file.write("x")
        file.flush()
        now[0] += 10
    assert written == [0.0, 303.0, 606.0, 909.0]


def test_the_list_of_skipped_records_is_whole_once_it_is_settled(server, place):
    path, report = paths.parse(place) / "skipped.jsonl", Report()
    report.samples["train"] = 1000
    for number in range(50):
        report.skip("train", f"r{number}", RecordError("cut", "r"))
    log = SkipLog(0.01, path)

    log.add(report)
    assert len(path.read_text().splitlines()) == 1  # as of the first, 10 s ago at most
    with pytest.raises(DataError, match="50 of 1000 samples of train could not be used"):
        log.check()
    log.settle()
    assert len(path.read_text().splitlines()) == 50
    report.skip("train", "late", RecordError("cut", "r"))
    log.add(report)
    server.before = refuse
    log.settle()  # which ends no run
    server.before = lambda method, name: None
    log.add(report)
    log.settle()
    assert len(path.read_text().splitlines()) == 50


@pytest.mark.parametrize("stopped, refused", [(False, True), (True, False)])
def test_a_profile_goes_to_the_bucket(server, place, tmp_path, monkeypatch, caplog, stopped,
                                      refused):
    """Its name there is told; of a run that is stopped there is no time for it."""
    caplog.set_level("INFO")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    vigil = SimpleNamespace(during=lambda _: nullcontext(), stopped=stopped, step=4)
    if refused:
        server.before = refuse
    with Trace(9, 0, paths.parse(place), vigil) as taken:
        for step in range(2, 5):
            taken.after(step, {"loss": jnp.ones(2) * step})
    there = [name for name in server.below(f"{paths.parse(place).name}/tensorboard/")
             if name.endswith(".xplane.pb")]
    assert len(there) == (not stopped and not refused) and not list(tmp_path.iterdir())
    assert (f"profile of 2 steps: {place}/tensorboard/plugins/" in caplog.text) == (not stopped)
    assert ("its profile could not be written: " in caplog.text) == refused
    assert str(tmp_path) not in caplog.text


@pytest.mark.parametrize("scheme, package", buckets.EXTRAS.items())
def test_without_the_backend_a_line_says_what_to_install(scheme, package, tmp_path):
    code = ("import sys, importlib.machinery as m; find = m.PathFinder.find_spec\n"
            f"m.PathFinder.find_spec = lambda name, *a: None if name == {package!r} else "
            "find(name, *a)\n"
            "from mplug2_jax.contracts import paths\n"
            f"try: paths.parse('{scheme}://{BUCKET}/run', '--workdir')\n"
            "except ValueError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": os.getcwd()}, check=True)
    assert done.stdout == (f"--workdir={scheme}://{BUCKET}/run: {scheme}:// needs {package}, which "
                           f'is not installed: pip install "mplug2_jax[{scheme}]"\n')
    assert not list(tmp_path.iterdir())
