"""The table of pretraining with and without instructions: what runs, and what of it is taken."""

import json

import pytest

from benchmarks import instructions as table
from configs import checks, demo


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A work folder in which commands only write what `eval.py` would; the list of what ran."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    commands = []

    def run(command):
        commands.append(command)
        if command[0] == "eval.py":
            checkpoint, which, out = (word.partition("=")[2] for word in command[1:])
            arm, _, seed = checkpoint.rpartition("/")[2].rpartition("_")
            folder = tmp_path / out
            folder.mkdir(parents=True)
            value = 0.5 * (arm == "instructed") + 0.1 * (which == "best") + 0.01 * int(seed)
            streams = demo.get_config().data.streams
            (folder / "report.json").write_text(json.dumps({
                **dict.fromkeys(table.FIGURES, value),
                **{name: 0.3 for name in table.FIGURES.values() if name},
                "seed": int(seed), "step": 660 if which == "last" else 110 * (1 + int(seed)),
                "run": {"device": "1 x cpu"}, "config": {"data": {"streams": {
                    name: {"batch_size": stream.batch_size} for name, stream in
                    streams.items()}}}}))
        return 2.0

    monkeypatch.setattr(table, "run", run)
    monkeypatch.setattr("sys.argv", ["instructions"])
    return commands


def test_every_arm_has_a_start_and_both_checkpoints_are_evaluated(ran, capsys):
    table.main()
    made = json.loads(table.OUT.read_text())
    assert set(made["arms"]) == {"instructed", "uninstructed"} and made["seeds"] == [0, 1, 2]
    without = made["arms"]["uninstructed"]
    assert [command.split(" --")[0] for command in without["commands"]] == [
        "python train.py", "python train.py", "python eval.py", "python eval.py"]
    start, joint, last, best = without["commands"]
    assert "demo.py:start,uninstructed" in start and "demo.py:joint,uninstructed" in joint
    assert "--config.init_from=runs/instructions/uninstructed_0/start" in joint
    assert "--config.best=text_to_video_r1" in joint
    assert "--which=last" in last and "--which=best" in best
    assert without["figures"]["last video_qa_accuracy"]["values"] == [0.0, 0.01, 0.02]
    assert without["figures"]["best video_qa_accuracy"]["values"] == [0.1, 0.11, 0.12]
    gain = without["figures"]["best video_qa_accuracy"]["instructed_minus_this"]
    assert gain == {"values": [0.5, 0.5, 0.5], "mean": 0.5, "spread": 0.0}
    assert without["steps"] == 660 and without["best_steps"] == [110, 220, 330]
    assert made["majority"]["last image_qa_accuracy"] == 0.3 and made["seconds"] == 2 * 3 * 4 * 2.0
    before = len(ran)
    table.main()
    assert len(ran) == before + 1  # the corpus: what is done is not run again
    assert "best video_qa_accuracy" in capsys.readouterr().out


def test_arms_differ_in_the_weights_alone():
    """So they see the same batches; and the decoder learns from captions from the start on."""
    for stage in ("start", "joint"):
        one, other = (demo.get_config(f"{stage}{arm}") for arm in table.ARMS.values())
        weights = []
        for config in (one, other):
            checks.validate(config)
            weights.append(config.task.objectives.to_dict())
            config.task.objectives = {}
        assert one == other
        assert weights[0]["instruct"] and not weights[1]["instruct"] and weights[1]["prefix_lm"]
        assert all(weights[0][name] == weights[1][name] for name in ("vtc", "vtm", "mlm"))
    with pytest.raises(ValueError, match="stage 'start,other': expected one of start joint"):
        demo.get_config("start,other")
