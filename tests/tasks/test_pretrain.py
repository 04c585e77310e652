"""Pretraining's streams: what feeds an objective, and what nothing feeds is an error."""

import json

import pytest
from ml_collections import ConfigDict

from configs import checks, common, demo, pretrain, stored, text_pretrain
from mplug2_jax import launch
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.planning.shapes import planned

PAIRS = dict(frames=1, text_length=16)
ASKED = dict(prompt_length=8, target_length=8)


def run(streams, inputs="visual", **weights):
    """A config of these streams, by name their keys."""
    config = demo.get_config()
    config.evals = ConfigDict()
    zero = dict.fromkeys(config.task.objectives.keys(), 0.0)
    config.task = common.task("pretrain", inputs=inputs, objectives=zero | weights)
    config.data.streams = ConfigDict({
        name: common.stream("train", 8, **({"image_size": 48} if "frames" in keys else {}), **keys)
        for name, keys in streams.items()})
    return config


@pytest.mark.parametrize("inputs, streams, weights, needs", [
    ("visual", {"a": PAIRS}, dict(vtc=1.0, instruct=1.0), "one with a prompt_length and a target"),
    ("visual", {"a": PAIRS | dict(prompt_length=8)}, dict(mlm=1.0, instruct=0.5),
     "one with a prompt_length and a target"),
    ("visual", {"a": ASKED | dict(frames=1)}, dict(instruct=1.0, mlm=1.0), "one with a text_len"),
    ("visual", {"a": ASKED, "b": dict(text_length=9)}, dict(vtm=1.0, instruct=1.0, mlm=1.0),
     "one with something seen (frames) and a text_length"),
    ("text", {"b": dict(text_length=9)}, dict(vtc=1.0, prefix_lm=1.0), "one with something seen"),
    ("text", {"a": ASKED}, dict(prefix_lm=1.0, instruct=1.0), "one with a text_length"),
    ("text", {"b": dict(text_length=9)}, dict(instruct=1.0, mlm=1.0), "one with a prompt_length"),
])
def test_an_objective_that_nothing_feeds_is_an_error(inputs, streams, weights, needs):
    """In training and in planning; without it the config is right, and evaluation goes on."""
    config = run(streams, inputs, **weights)
    (name,) = [name for name in weights if f"{name} = " in _error(config)]
    said = _error(config)
    assert said.startswith(f"task.objectives.{name} = {weights[name]}: no stream feeds it, it "
                           f"needs {needs}") and "\n" not in said
    assert said.endswith(f"; task.objectives.{name} = 0 leaves it out")
    with pytest.raises(ConfigError, match=f"task.objectives.{name} = "):
        planned(config)
    checks.validate(config, trains=False)
    config.task.objectives[name] = 0.0
    checks.validate(config)


def _error(config):
    with pytest.raises(ConfigError) as raised:
        checks.validate(config)
    return str(raised.value)


@pytest.mark.parametrize("streams, said", [
    ({"a": PAIRS, "b": ASKED}, "data.streams.b: it feeds instruct, whose weights in task.objectiv"),
    ({"a": PAIRS, "b": dict(frames=1)}, "stream b.text_length = 0: task 'pretrain' needs text, or"),
    ({"a": PAIRS, "b": dict(prompt_length=8)}, "stream b.text_length = 0: task 'pretrain' needs t"),
    ({"a": PAIRS | ASKED | dict(ask="box")}, "data.streams.a: ask = 'box' is of task 'instructio"),
])
def test_streams_that_give_nothing_are_errors(streams, said):
    assert _error(run(streams, mlm=1.0)).startswith(said)


def test_a_stream_may_feed_several_or_instructions_alone():
    checks.validate(run({"a": PAIRS | ASKED}, vtc=1.0, vtm=1.0, mlm=1.0, prefix_lm=1.0,
                        instruct=1.0))
    checks.validate(run({"a": ASKED | dict(frames=1), "b": ASKED}, instruct=1.0))
    checks.validate(run({"a": ASKED}, "text", instruct=1.0))


@pytest.mark.parametrize("make", [text_pretrain.get_config, demo.get_config,
                                  lambda: demo.get_config("start")])
def test_the_configs_feed_all_that_they_weigh(make):
    checks.validate(make())


def test_an_older_run_goes_on_as_it_did(caplog):
    """Its unfed objective was left out without a word: now its weight is 0, and the log says so."""
    config = pretrain.get_config("tiny,image")
    old = json.loads(json.dumps(launch.plain(stored.expanded(config))))
    old["task"]["objectives"]["instruct"] = 1.0  # as it stood
    with pytest.raises(ConfigError, match="task.objectives.instruct = 1.0: no stream feeds it"):
        checks.validate(ConfigDict(old))
    with caplog.at_level("INFO"):
        found = stored.completed({"config": old, "format": 2})
    assert "task.objectives.instruct = 0.0" in caplog.text
    checks.validate(found)
    assert found.task.objectives.to_dict() == config.task.objectives.to_dict()
