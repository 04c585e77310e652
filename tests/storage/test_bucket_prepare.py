"""Preparing into a bucket, and the raw files, lists and media that lie in one."""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bucket_corpus import SIZES, downloads
from commands import ROOT

from data import stores
from data.pipeline.sources import open_split
from data.prepare import remote
from data.prepare.__main__ import main as prepare
from data.written import cached
from mplug2_jax.checkpoints import located
from mplug2_jax.contracts import buckets, paths
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import MachineError
from mplug2_jax.preprocess.classes import read_lines
from mplug2_jax.preprocess.files import find_media, load_clip
from mplug2_jax.preprocess.lists import listed


def test_prepare_writes_to_a_bucket(server, on_disk, place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(cached.FOLDER, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    command = ["moving_digits", f"--out={place}", "--processes=1",
               *(f"--{name}={size}" for name, size in SIZES.items())]
    assert prepare(command) == 0
    here, there = paths.sizes(on_disk), paths.sizes(paths.parse(place))
    assert {name for name in here if "array_record" in name} <= there.keys()
    assert here.keys() == there.keys()
    last = max(server.below(f"{paths.parse(place).name}/"),
               key=lambda name: server.objects[name].generation)
    assert last.endswith("/dataset_info.json")
    assert not list((tmp_path / "cache" / "prepared").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]  # and no folder `gs:`
    capsys.readouterr()
    before = dict(server.objects)
    assert prepare(command) == 0  # as on a disk
    assert f"{place}/moving_digits/1.1.0 is there already\n" in (told := capsys.readouterr().out)
    assert told.splitlines()[1].split() == ["video_train", "6", "records"]
    assert server.objects == before
    assert prepare([*command, "--seed=1"]) == 1
    assert f"{place} holds moving_digits with seed=0, not 1" in capsys.readouterr().err


def test_datasets_that_go_to_one_place_do_not_meet(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(cached.FOLDER, str(tmp_path))
    staged, put, stop = tmp_path / "prepared", paths.put, [True]
    tasks = ["moving_digits_tasks", f"--out={place}", "--train=1", "--validation=1", "--test=1",
             "--gallery=1"]
    digits = ["moving_digits", f"--out={place}", "--processes=1",
              *(f"--{name}={size}" for name, size in SIZES.items())]

    def stopped(file, to):
        if stop and to.name == "dataset_info.json":
            raise KeyboardInterrupt
        put(file, to)

    def left(folder):
        raise KeyboardInterrupt  # before anything is removed

    monkeypatch.setattr(paths, "put", stopped)
    assert prepare(digits) == 130 and len(list(staged.iterdir())) == 1
    stop.clear()
    assert prepare(tasks) == 0
    assert {one.parent.parent.name for one in paths.parse(place).rglob("dataset_info.json")} == {
        "moving_digits_tasks"}
    assert len(list(staged.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(remote.shutil, "rmtree", left)
        assert prepare(digits) == 130
    assert (paths.parse(place) / "moving_digits" / "1.1.0" / "dataset_info.json").is_file()
    assert len(list(staged.iterdir())) == 1
    capsys.readouterr()
    assert prepare(digits) == 0 and "is there already" in capsys.readouterr().out
    assert not list(staged.iterdir())


def test_what_a_moved_run_names_is_found_in_the_bucket(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no demo was made
    work = paths.parse(place) / "runs" / "moved"
    (work / "data" / "dataset_info.json").write_text("{}")
    (work.parent / "vocab.model").write_text("")
    for stated, found in [("runs/demo/data", work / "data"), ("vocab.model", work.parent /
                          "vocab.model"), ("nowhere", None), (f"{place}/x", None)]:
        assert located.find(stated, located.work_folder(f"{work}/best"), [Path("runs/demo")]
                            ) == found


def test_copies_of_a_killed_process_are_removed_by_the_next(tmp_path, monkeypatch):
    """Those of one that lives are not."""
    code = ("import sys\nfrom data import stores\ncopies = stores._copies()\n"
            "open(f'{copies._folder.name}/1', 'w').close()\n"
            "print(copies._folder.name, flush=True)\nsys.stdin.read()")
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    one, other = (subprocess.Popen([sys.executable, "-c", code], env=environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in "ab")
    folders = [Path(process.stdout.readline().strip()) for process in (one, other)]
    one.kill()
    one.wait()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = stores._Copies()
    assert [(folder / "1").exists() for folder in folders] == [False, True]
    other.communicate("")
    assert sorted(tmp_path.iterdir()) == [Path(mine._folder.name)]


def test_raw_files_are_reached_as_all_of_a_bucket_is(server, place, monkeypatch):
    path = paths.parse(place) / "a" / "0.tar"
    path.write_bytes(b"0123456789")
    also = place.replace("gs://", "gcs://")
    assert stores.listed(place) == ([], ["a"]) and stores.listed(f"{also}/a") == (["0.tar"], [])
    (path.parent / "1.tar").write_bytes(b"")
    assert stores.listed(f"{also}/a")[0] == ["0.tar", "1.tar"]  # not as it was
    assert stores.read_range(f"{also}/a/0.tar", 3, 4) == b"3456"
    (path.parent / "2.tar").write_bytes(b"987")

    def content(address):
        with stores.local(address) as copy:
            return copy.read_bytes()

    stores._own_copies.cache_clear()  # the threads are the first that ask
    with ThreadPoolExecutor(4) as pool:
        assert {*pool.map(content, [f"{place}/a/2.tar"] * 4)} == {b"987"}
    assert downloads(server).count("2.tar") == 1
    monkeypatch.setattr(stores.time, "sleep", lambda seconds: pytest.fail("asked again"))

    def refuse(method, name):
        raise PermissionError

    server.reading = refuse
    with pytest.raises(MachineError, match=f"^{path}: .*keys of its store"):
        stores.read_range(str(path), 0, 1)
    monkeypatch.setitem(buckets.EXTRAS, "gs", "no_such_package")
    buckets._prepare.cache_clear()
    said = r'gs:// needs no_such_package, which is not installed: pip install "mplug2_jax\[gs\]"'
    for ask in (stores.check_store, content, lambda one: stores.read_range(one, 0, 1)):
        with pytest.raises(DataError, match=rf"^{also}/b: {said}$"):
            ask(f"{also}/b")
    monkeypatch.undo()
    buckets._prepare.cache_clear()


def test_media_and_lists_of_a_bucket(server, on_disk, place, tmp_path):
    record = open_split(on_disk, "image_train")[0]
    folder = paths.parse(place)
    (folder / "a" / "one.png").write_bytes(record["media"])
    (folder / "two.png").write_bytes(record["media"])
    (folder / "list.txt").write_text(f"a/one.png\n{place}/two.png\n")
    (folder / "names.txt").write_text("red\nblue\n")
    (tmp_path / "one.png").write_bytes(record["media"])
    assert [str(one) for one in find_media([place])] == [f"{place}/a/one.png", f"{place}/two.png"]
    assert find_media([f"{place}/list.txt"]) == find_media([place])
    assert np.array_equal(load_clip(folder / "two.png", 1, 16),
                          load_clip(tmp_path / "one.png", 1, 16))
    assert read_lines("classes", f"{place}/names.txt") == ("red", "blue")
    with pytest.raises(ValueError, match="no such file or folder"):
        find_media([f"{place}/nothing.png"])
    shutil.rmtree(tmp_path)


def test_parts_of_an_object_end_with_it(server, place):
    (paths.parse(place) / "parts").write_bytes(b"0123")
    assert [stores.read_range(f"{place}/parts", at, 3) for at in (0, 2, 4, 9)] == [
        b"012", b"23", b"", b""]


def test_a_list_in_a_bucket_is_read_as_one_on_a_disk(server, place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folders = tmp_path / "set", paths.parse(place)
    for folder in (*folders, tmp_path / "home"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("a b.mp4", "#1.mp4", "'q'", "h.mp4"):
            (folder / name).write_text("")
    lines = ["a b.mp4", "'a b.mp4'", '  "a b.mp4" ', "#1.mp4", "# 2.mp4", "'q'", "'gone.mp4'",
             "gone.mp4", "./h.mp4", "~/h.mp4", f'"{tmp_path}/set/h.mp4"', f"{tmp_path}/gone.mp4",
             f"'{place}/a b.mp4'"]
    on_disk, there = (
        [str(found).replace(str(folder), "FOLDER") for found in listed(folder / "list.txt")]
        for folder in folders if (folder / "list.txt").write_text("\n".join(lines)))
    assert there[:8] == on_disk[:8] == [f"FOLDER/{name}" for name in (
        "a b.mp4", "a b.mp4", "a b.mp4", "#1.mp4", "'q'", "'gone.mp4'", "gone.mp4", "h.mp4")]
    assert there[8:] == [str(tmp_path / name) for name in ("home/h.mp4", "set/h.mp4", "gone.mp4")
                         ] + ["FOLDER/a b.mp4"]
    before = len(server.requests)
    (paths.parse(place) / "plain.txt").write_text("a b.mp4\n" * 9)
    assert len(listed(paths.parse(place) / "plain.txt")) == 9
    assert len(server.requests) - before <= 3  # none for each line
