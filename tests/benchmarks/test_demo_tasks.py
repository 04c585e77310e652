"""The table of all demo tasks: every family has figures, and an interrupted run goes on."""

import json

import pytest

from benchmarks import demo_tasks as table
from configs import demo_tasks


def report_of(family):
    """As `eval.py` would write it, with numbers that tell families apart."""
    value = 0.1 + 0.01 * table.FAMILIES.index(family)
    names = table.FIGURES[family]
    majorities = {name: 0.05 for name in names.values() if name and name != "chance"}
    return {**{name: value for name in names}, **majorities, "step": 7, "gallery": {family: 3},
            **{f"{name}_{end}": value for name in names for end in ("low", "high")},
            "run": {"device": "1 x cpu"},
            "figures": {name: {"value": value, "chance": 0.01} for name in names}}


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A work folder in which commands only write reports; the list of what ran."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "runs/demo").mkdir(parents=True)
    (tmp_path / "runs/demo/report.json").write_text("{}")
    commands = []

    def run(command):
        commands.append(command)
        if command[0] == "eval.py":
            folder = tmp_path / command[-1].partition("=")[2]
            folder.mkdir(exist_ok=True)
            (folder / "report.json").write_text(json.dumps(report_of(folder.name)))
        return 1.5

    monkeypatch.setattr(table, "run", run)
    monkeypatch.setattr("sys.argv", ["demo_tasks"])
    return commands


def test_every_family_is_measured_once_and_the_table_says_how(ran, monkeypatch):
    real = table.measure

    def stops(family, done):
        if family == "qa":
            raise KeyboardInterrupt
        return real(family, done)

    monkeypatch.setattr(table, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        table.main()
    assert not table.OUT.exists()  # no table of a part
    before = len(ran)
    monkeypatch.setattr(table, "measure", real)
    table.main()
    again = [command[1] for command in ran[before:] if command[0] == "train.py"]
    assert again == [f"--config=configs/demo_tasks.py:{family}"
                     for family in ("qa", "caption_scst", "instructions", "retrieval")]
    made = json.loads(table.OUT.read_text())
    assert set(made["families"]) == {"zero_shot", *demo_tasks.FAMILIES}
    assert made["seconds"] == pytest.approx(3 * len(demo_tasks.FAMILIES) + 1.5)
    zero = made["families"]["zero_shot"]
    assert len(zero["figures"]) == 6 and len(zero["commands"]) == 1  # nothing is trained
    assert zero["figures"]["video_motion_knn_class_accuracy"]["majority"] == 0.05
    scst = made["families"]["caption_scst"]["figures"]["image_caption_cider"]
    caption = made["families"]["caption"]["figures"]["image_caption_cider"]
    assert scst["start"] == caption["value"] != scst["value"]
    assert made["families"]["qa"]["figures"]["image_qa_accuracy"]["majority"] == 0.05
    assert made["families"]["retrieval"]["figures"]["text_to_video_r1"]["chance"] == 0.01
    assert made["families"]["qa"]["commands"][0] == (
        "python train.py --config=configs/demo_tasks.py:qa --workdir=runs/demo/qa")


def test_without_the_demo_it_says_so(ran, tmp_path):
    (tmp_path / "runs/demo/report.json").unlink()
    with pytest.raises(SystemExit, match="make the demo first"):
        table.main()
