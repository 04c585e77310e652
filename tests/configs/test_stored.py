"""Configs of checkpoints: keys younger than they are, and what older ones said otherwise."""

import json

from configs import checks, common, demo, demo_zero_shot, snli_ve_classification, stored
from mplug2_jax import launch


def written(config):
    """A config as it comes back from a checkpoint of format 2."""
    return json.loads(json.dumps(launch.plain(stored.expanded(config))))


def test_older_checkpoints_get_the_defaults_of_younger_keys(caplog):
    old, whole = written(demo.get_config()), written(demo.get_config())
    assert json.loads(json.dumps(launch.plain(stored.completed(
        {"config": written(demo.get_config()), "format": 2})))) == whole  # nothing is younger
    assert "older than these keys" not in caplog.text
    for section, key in ((old["task"], "mask_share"), (old["task"]["momentum"], "decay"),
                         (old["model"], "universal_sharing"), (old["optimizer"], "ema_decay"),
                         (old["data"]["streams"]["video"], "frame_stride"),
                         (old["evals"]["video_qa"], "kind"), (old["mesh"], "tensor"),
                         (old["evals"]["video_qa"]["task"], "rank_keep"), (old, "seed"),
                         (old["evals"]["image_qa"]["stream"], "views"),
                         (old["data"], "max_skipped")):
        del section[key]
    with caplog.at_level("INFO"):
        config = stored.completed({"config": old, "format": 2})
    assert json.loads(json.dumps(launch.plain(config))) == whole
    checks.validate(config)
    for said in ("task.mask_share = 0.15", "task.momentum.decay = 0.995",
                 "evals.video_qa.kind = ''", "model.universal_sharing = 'shared'",
                 "data.streams.video.frame_stride = 0", "seed = 0", "mesh.tensor = 1"):
        assert said in caplog.text
    # Converted weights have a model section alone.
    converted = {"model": {key: value for key, value in old["model"].items()
                           if key != "stochastic_depth"}}
    assert json.loads(json.dumps(launch.plain(stored.completed({"config": converted})))) == {
        "model": whole["model"]}


def test_format_1_said_other_tasks_options_and_in_streams_what_tasks_give(caplog):
    config = demo_zero_shot.get_config()
    old, whole = written(config), written(config)
    old["task"] |= dict(mixup=0.0, beams=1)
    old["task"]["objectives"]["other"] = 1.0
    knn = old["evals"]["image_digit_knn"]
    knn["reference"] = knn["task"].pop("reference")
    knn["stream"] |= dict(classes=knn["task"]["classes"], expand="record", text_buckets=[])
    video = old["data"]["streams"]["video"]
    video |= dict(caption_prompt="", classes=[], expand="record", text_buckets=[])
    found = stored.completed({"config": json.loads(json.dumps(old))})  # format 1 does not say so
    assert json.loads(json.dumps(launch.plain(found))) == whole
    checks.validate(found)
    # A record's questions may have the classes: then a stream said so.
    old = written(snli_ve_classification.get_config("tiny"))
    entry = old["evals"]["snli_ve"]
    del old["task"]["expand"], entry["task"]["expand"]
    entry["stream"]["expand"] = "question"
    found = checks.validate(stored.completed({"config": old}))
    assert found.evaluations["snli_ve"].expand == "question"
    old["data"]["streams"]["image"]["text_buckets"] = [8, 24]
    checks.validate(stored.completed({"config": old}))
    assert "data.streams.image.text_buckets = [8, 24]: texts of several" in caplog.text


def test_a_new_config_has_defaults_where_an_older_one_has_what_its_run_did(tmp_path, monkeypatch):
    (tmp_path / "young_task.py").write_text(
        "import dataclasses\n"
        "from mplug2_jax.contracts.options import option\n"
        "from mplug2_jax.tasks.base import Task\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class YoungOptions:\n"
        "    young: bool = option(True, 'of today', older=False)\n"
        "class Young(Task):\n"
        "    Options = YoungOptions\n"
        "    card = 'A task. Not of the paper.'\n"
        "    @classmethod\n"
        "    def composition(cls, options):\n"
        "        return ('text',), ()\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = demo.get_config()
    config.evals.own = common.evaluation("young_task", "test", 8, "tune", text_length=9)
    assert "young" not in config.evals.own.task
    checkpoint = written(config)
    assert checkpoint["evals"]["own"]["task"]["young"] is True  # as the run has it
    del checkpoint["evals"]["own"]["task"]["young"]
    found = stored.completed({"config": checkpoint, "format": 2})
    assert found.evals.own.task.young is False
