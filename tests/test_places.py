"""Whether what a command writes can be written is known before it works for it."""

import os
import shutil

import pytest

from mplug2_jax import places
from mplug2_jax.contracts.errors import ConfigError

OUT = "--out"


def test_a_folder_is_made_and_what_is_in_it_stays(tmp_path):
    folder = tmp_path / "a" / "b"
    assert places.check_folder(OUT, folder, ["report.json"], ["checkpoints"]) == folder
    assert folder.is_dir() and not [*folder.iterdir()]
    (folder / "report.json").write_text("kept")
    (folder / "checkpoints").mkdir()
    places.check_folder(OUT, folder, ["report.json"], ["checkpoints"])
    assert (folder / "report.json").read_text() == "kept"


def test_what_stands_in_the_way_of_a_folder_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "report.json").mkdir()
    for given, more, said in [
            (file, {}, f"{file} is a file, not a folder"),
            (file / "in" / "it", {}, f"{file} is a file, not a folder"),
            ("/proc/nowhere/out", {}, "no such file or directory; give a folder that can be wri"),
            ("http://host/run", {}, "expected a path of a file system that is mounted here, gs://"),
            (tmp_path, dict(files=["report.json"]), "report.json, which will be written there, is"),
            (tmp_path, dict(folders=["file"]), "file, a folder that will be written there, is a f"),
    ]:
        with pytest.raises(ConfigError) as caught:
            places.check_folder(OUT, given, **more)
        assert str(caught.value).startswith(f"--out={given}: {said}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "report.json"]


def test_what_may_not_be_written_is_named(tmp_path, monkeypatch):
    """As of a user who may not: root may write anywhere."""
    (tmp_path / "report.json").write_text("")
    monkeypatch.setattr(places.os, "access", lambda path, _: path.name != "report.json")
    with pytest.raises(ConfigError, match="report.json is there and cannot be written to"):
        places.check_folder(OUT, tmp_path, ["report.json"])

    def refuse(**_):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(places.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ConfigError, match=f"^--out={tmp_path}: permission denied; give a folder"):
        places.check_folder(OUT, tmp_path)


def test_a_file_is_left_as_it_is(tmp_path):
    file = tmp_path / "lines.jsonl"
    assert places.check_file(OUT, file) == file and not file.exists()
    file.write_text("kept")
    places.check_file(OUT, file)
    assert file.read_text() == "kept"
    for given, said in [(tmp_path, "is a folder"), (tmp_path / "no" / "x", "does not exist; make"),
                        (file / "x", "is no folder"), ("http://host/x", "expected a path"),
                        ("/proc/nothing", "no such file or directory; give another place")]:
        with pytest.raises(ConfigError, match=f"^--out={given}: .*{said}"):
            places.check_file(OUT, given)


def test_little_room_is_warned_of(tmp_path, monkeypatch, caplog):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").write_bytes(b"12345")
    assert places.size(tmp_path) == 5 and places.size(tmp_path / "none") == 0
    used = shutil.disk_usage(tmp_path)._replace(free=2 << 30)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: used)
    places.warn_of_room("--workdir", tmp_path, 2 << 30, "checkpoints")
    assert not caplog.text
    places.warn_of_room("--workdir", tmp_path, 3 << 30, "keep_checkpoints = 3")
    assert "2.0 GiB free, and 3.0 GiB may be written: keep_checkpoints = 3" in caplog.text
