"""The plans of all configs: which are the same program, and that an interrupted table goes on."""

import json

import pytest

from benchmarks import plans

FITS = {"fits": True, "used_gib": 2.0, "of_gib": 15.75, "step_seconds_at_least": 0.36}
FULL = {"fits": False, "used_gib": 20.0, "of_gib": 15.75}


@pytest.fixture
def planned():
    return plans.planned()


def test_every_config_that_trains_on_real_data_has_a_program(planned):
    made = {name: plans.program(name, plans.with_classes(config))
            for name, config in planned.items()}
    assert not any(name.startswith(("demo", "zero_shot")) for name in made)
    alike = {name: made[name] for name in ("msrvtt_caption.py", "msvd_caption.py")}
    assert len(set(alike.values())) == 1  # names of data alone differ
    for one, other in (("msrvtt_caption.py", "msrvtt_caption.py:scst"),
                       ("kinetics_classification.py:kinetics400",
                        "kinetics_classification.py:kinetics600"),
                       ("pretrain.py:joint", "pretrain.py:uninstructed")):
        assert made[one] != made[other]
    assert plans.topology("pretrain.py:joint") == "v5e:16x16" != plans.topology("msvd_qa.py")


def test_a_file_of_classes_is_replaced_by_as_many_names(planned):
    config = planned["kinetics_classification.py:kinetics700"]
    assert isinstance(config.task.classes, str)
    assert len(plans.with_classes(config).task.classes) == 700


def test_an_interrupted_table_goes_on(tmp_path, monkeypatch, planned, capsys):
    names = ["msrvtt_caption.py", "msvd_caption.py", "msvd_qa.py", "pretrain.py:image"]
    monkeypatch.setattr(plans, "planned", lambda: {
        name: config for name, config in planned.items() if name in names})
    asked = []

    def separate(name):
        asked.append(name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return FULL if name == "pretrain.py:image" else FITS

    monkeypatch.setattr(plans, "separate", separate)
    out = tmp_path / "plans.json"
    monkeypatch.setattr("sys.argv", ["plans", f"--out={out}"])
    with pytest.raises(KeyboardInterrupt):
        plans.main()
    assert set(json.loads(out.read_text())["configs"]) == set(names[:2])
    plans.main()
    assert asked == ["msrvtt_caption.py", "msvd_qa.py", "msvd_qa.py", "pretrain.py:image"]
    found = json.loads(out.read_text())["configs"]
    assert [found[name]["plan"] for name in names] == [FITS, FITS, FITS, FULL]
    steps = planned["msvd_caption.py"].optimizer.steps
    assert found["msvd_caption.py"]["hours_at_least"] == round(steps * 0.36 / 3600, 2)
    assert found["pretrain.py:image"]["hours_at_least"] is None
