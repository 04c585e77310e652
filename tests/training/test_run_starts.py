"""What a work folder says of the starts of its run."""

import json
from types import SimpleNamespace

from mplug2_jax.contracts import exits
from mplug2_jax.parallel import ending
from mplug2_jax.training import starts


def record(folder, step):
    starts.record(folder, step, {"seed": 3, "model": {}}, {"tokenizer": "1a"}, {"data": 1},
                  SimpleNamespace(step=step + 5))


def test_each_start_knows_how_the_one_before_it_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "hidden-from-all")
    record(tmp_path, 0)
    ending.note(exits.STUCK, "waited for data")
    ending.note(exits.LOST, "what came of that")  # the first counts
    record(tmp_path, 4)  # and its end is never written
    record(tmp_path, 4)
    ending.note(exits.by_signal(9), "")
    ending.keep(lambda *_: None)
    lines = [json.loads(line) for line in (tmp_path / starts.STARTS).open()]
    assert [line["step"] for line in lines] == [0, 4, 4] and lines[0]["before"] is None
    stuck = lines[1]["before"]
    assert (stuck["code"], stuck["why"], stuck["step"]) == (exits.STUCK, "waited for data", 5)
    assert "killed" in lines[2]["before"]["why"]
    assert "without a save" in json.loads((tmp_path / starts.ENDED).read_text())["meaning"]
    assert lines[0]["seed"] == 3 and lines[0]["data"] == {"tokenizer": "1a"}
    # Each content once, found by its place in the folder.
    assert lines[0]["config"] == lines[2]["config"]
    assert json.loads((tmp_path / lines[0]["config"]).read_text())["seed"] == 3
    assert json.loads((tmp_path / lines[0]["code"]).read_text())["mplug2_jax/launch.py"]
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hidden-from-all" not in path.read_bytes(), path


def test_what_git_does_not_know_is_kept_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(starts, "ROOT", tmp_path)
    record(tmp_path, 0)
    ending.keep(lambda *_: None)
    (line,) = [json.loads(line) for line in (tmp_path / starts.STARTS).open()]
    assert line["commit"] is None and "diff" not in line and line["code"]


def test_every_exit_code_is_in_the_docs():
    page = (starts.ROOT / "docs" / "reliability.md").read_text()
    for code in exits.MEANING:
        assert f"\n| {code} |" in page, code
