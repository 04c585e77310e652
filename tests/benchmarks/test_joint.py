"""The table of joint and single training: what its numbers are, and that it goes on."""

import json

import pytest

from benchmarks import joint as table
from configs import checks, demo_joint

MOTION = "video_motion_zero_shot_class_accuracy"


def value(arm, seed, name):
    """Told apart by arm, seed and figure."""
    return (list(demo_joint.ARMS).index(arm) + 1) * 0.1 + seed**2 * 0.01 + 0.001 * (name == MOTION)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A work folder in which commands only write what `eval.py` would; the list of what ran."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    commands = []

    def run(command):
        commands.append(command)
        if command[0] == "eval.py":
            folder = tmp_path / command[1].removeprefix("--checkpoint=")
            arm, _, seed = folder.name.rpartition("_")
            config = demo_joint.get_config(arm)
            streams = {name: {"batch_size": s.batch_size} for name, s in
                       config.data.streams.items()}
            folder.mkdir(parents=True)
            (folder / "report.json").write_text(json.dumps({
                **{name: value(arm, int(seed), name) for name in table.FIGURES},
                **{name: 0.05 for name in table.FIGURES.values() if name},
                "seed": int(seed), "step": 360, "run": {"device": "1 x cpu"},
                "config": {"data": {"streams": streams}}}))
        return 2.0

    monkeypatch.setattr(table, "run", run)
    monkeypatch.setattr("sys.argv", ["joint"])
    return commands


def test_an_interrupted_table_goes_on_and_says_mean_and_spread(ran, monkeypatch, capsys):
    real = table.measure

    def stops(arm, seed):
        if (arm, seed) == ("video", 1):
            raise KeyboardInterrupt
        return real(arm, seed)

    monkeypatch.setattr(table, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        table.main()
    assert not table.OUT.exists()  # no table of a part
    before = len(ran)
    monkeypatch.setattr(table, "measure", real)
    table.main()
    again = [command for command in ran[before:] if command[0] == "train.py"]
    runs = [(arm, seed) for seed in table.SEEDS for arm in demo_joint.ARMS]
    assert [command[1:] for command in again] == [
        [f"--config=configs/demo_joint.py:{arm}", f"--config.seed={seed}",
         f"--workdir=runs/joint/{arm}_{seed}"] for arm, seed in runs[runs.index(("video", 1)):]]

    made = json.loads(table.OUT.read_text())
    assert made["seeds"] == [0, 1, 2] and set(made["arms"]) == set(demo_joint.ARMS)
    assert made["seconds"] == 2 * 2.0 * len(runs)
    alone = made["arms"]["image"]
    assert alone["batches"] == {"image": 32} and alone["seconds"] == [4.0, 4.0, 4.0]
    assert alone["commands"][1] == "python eval.py --checkpoint=runs/joint/image_0"
    figure = alone["figures"][MOTION]  # 0.201, 0.211, 0.241
    assert figure["values"] == [0.201, 0.211, 0.241]
    assert figure["mean"] == pytest.approx(0.653 / 3, abs=1e-4)
    # Squared deviations from the mean by two: (0.01667² + 0.00667² + 0.02333²) / 2.
    assert figure["spread"] == pytest.approx(0.02082, abs=1e-4)
    gain = figure["joint_minus_this"]  # of the same seed, so that seeds cancel
    assert gain["values"] == [-0.1, -0.1, -0.1] and gain["spread"] == 0
    assert "joint_minus_this" not in made["arms"]["joint"]["figures"][MOTION]
    assert made["majority"][MOTION] == 0.05

    heads, *rows = [line for line in capsys.readouterr().out.splitlines()
                    if not line.endswith("done")]
    assert heads.split() == [*demo_joint.ARMS, "majority"]
    (row,) = [row for row in rows if row.startswith(MOTION)]
    assert "0.118 ± 0.021" in row and row.endswith("0.050")


def test_runs_that_differ_make_no_table(ran):
    table.main()
    kept = table.RUNS / "done.json"
    done = json.loads(kept.read_text())
    done["image_2"]["steps"] = 90
    kept.write_text(json.dumps(done))
    with pytest.raises(ValueError, match="image: steps of the seeds differ"):
        table.main()


def test_one_seed_has_no_spread(ran, monkeypatch):
    monkeypatch.setattr("sys.argv", ["joint", "--arms", "image", "--seeds", "1"])
    table.main()
    figure = json.loads(table.OUT.read_text())["arms"]["image"]["figures"][MOTION]
    assert figure == {"values": [0.211], "mean": 0.211, "spread": None}


def test_arms_differ_in_their_data_alone():
    configs = {arm: demo_joint.get_config(arm) for arm in demo_joint.ARMS}
    batches = {}
    for arm, config in configs.items():
        checks.validate(config)
        batches[arm] = {name: s.batch_size for name, s in config.data.streams.items()}
        rest = config.to_dict()
        del rest["data"]["streams"]
        expected = configs["joint"].to_dict()
        del expected["data"]["streams"]
        assert rest == expected
        for name, stream in config.data.streams.items():
            whole = configs["joint"].data.streams[name].to_dict()
            assert stream.to_dict() | {"batch_size": whole["batch_size"]} == whole
    assert batches["joint"] == batches["image"] | batches["video"]
    assert sum(batches["joint_half"].values()) == batches["image"]["image"] == 32
    with pytest.raises(ValueError, match="arm 'text': expected one of joint"):
        demo_joint.get_config("text")
