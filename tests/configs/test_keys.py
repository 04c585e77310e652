"""The keys of every config: few, each with a comment, and those of its own tasks alone."""

import listing
import pytest

from configs import demo, demo_joint, demo_tasks, demo_zero_shot, keys, pretrain
from mplug2_jax import tasks
from mplug2_jax.contracts import options
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS

MOST = 95  # different keys of a config
CONFIGS = {
    **{name: lambda name=name: listing.make(name, "large") for name in listing.names()},
    **{f"pretrain:{streams}": lambda streams=streams: pretrain.get_config(f"large,{streams}")
       for streams in pretrain.STREAMS},
    **{f"demo:{stage}": lambda stage=stage: demo.get_config(stage) for stage in ("start", "joint")},
    **{f"demo_joint:{arm}": lambda arm=arm: demo_joint.get_config(arm) for arm in demo_joint.ARMS},
    **{f"demo_tasks:{family}": lambda family=family: demo_tasks.get_config(family)
       for family in demo_tasks.FAMILIES},
    "demo_zero_shot": demo_zero_shot.get_config,
}
every_config = pytest.mark.parametrize("name", CONFIGS)


@every_config
def test_keys_are_few_and_have_comments(name):
    config = CONFIGS[name]()
    found, said = keys.keys(config), keys.all_comments(config)
    assert len(found) <= MOST, sorted(found)
    for key in found:
        assert said.get(key), key
    # Nothing of another task.
    own = {"name", *(path for path, _ in options.comments(tasks.load(config.task.name).Options))}
    assert {path.removeprefix("task.") for path in found if path.startswith("task.")} == own


def test_help_names_every_key_and_counts_them():
    config = demo_tasks.get_config("instructions")
    text, found = keys.help_text(config), keys.keys(config)
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert set(found) <= set(lines)
    assert "to which a box's four numbers are rounded" in lines["task.location_bins"]
    assert lines["task.location_bins"].endswith(" 32")
    for key in ("data.streams.*.split.*.weight", "evals.*.stream.views", "evals.*.kind",
                "evals.*.task.caption_prompt"):
        kind = keys.kind_of(key.replace("*", "some"))
        assert lines[kind].strip() != kind  # it may be given, and has a comment
    leaves = sum(map(len, found.values()))
    assert text.splitlines()[-1] == f"{len(found)} different keys, {leaves} leaves"
    assert leaves == len(list(keys.leaves(config))) > len(found)
    assert not any(f"data.streams.*.{key} " in text for key in GIVEN_BY_TASKS)


def test_keys_that_streams_and_evaluations_have_alike_are_of_one_kind():
    assert keys.kind_of("data.streams.video.frames") == keys.kind_of("evals.a.stream.frames")
    assert keys.kind_of("data.streams.train.split.corpus.ask") == "data.streams.*.ask"
    assert keys.kind_of("data.streams.train.split.a.weight") == "data.streams.*.split.*.weight"
    assert keys.kind_of("evals.video_qa.task.name") == "task.name"
    assert keys.kind_of("evals.video_qa.task.beams") == "evals.*.task.beams"
    assert keys.kind_of("optimizer.steps") == "optimizer.steps"
