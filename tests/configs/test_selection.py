"""What the best checkpoint may be chosen by, and what validation may not see."""

import pytest

from configs import checks, common, demo, demo_zero_shot, selection
from configs.selection import Selection
from mplug2_jax.contracts.errors import ConfigError


def config(best="video_qa_accuracy", **more):
    made = demo.get_config()
    made.best, made.eval_every = best, 100
    for path, value in more.items():
        holder = made
        *sections, key = path.split("__")
        for section in sections:
            holder = holder[section]
        with holder.ignore_type():
            holder[key] = value
    return made


def refused(made) -> str:
    """The one line by which a config is refused."""
    with pytest.raises(ConfigError) as caught:
        checks.validate(made)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_figure_says_the_evaluation_its_split_and_which_way_is_better():
    assert checks.validate(config("")).selection is None
    assert checks.validate(config()).selection == Selection(
        "video_qa_accuracy", "higher", "runs/demo/data", "video_validation", 64, False)
    found = checks.validate(config("text_to_image_mean_rank")).selection
    assert found.better == "lower" and found.split == "image_validation"
    named = config("other_qa_accuracy", evals__video_qa__kind="other",
                   evals__video_qa__stream__root="elsewhere")
    assert checks.validate(named).selection.root == "elsewhere"
    made = config("video_held_out_vtc")
    made.evals.held = common.evaluation(
        "pretrain", "video_test", 8, "video_train[held_out]", frames=4, text_length=24)
    made.data.streams.video.split = "video_train[rest]"
    assert checks.validate(made).selection.better == "lower"


@pytest.mark.parametrize("best, message", [
    ("accuracy", "best = 'accuracy': no evaluation gives this figure; expected one such as "),
    ("video/vtc", "no evaluation gives this figure"),  # of training
    ("video_qa_*_accuracy", "no evaluation gives this figure"),
    ("video_qa_majority", "of evals.video_qa does not depend on the model; expected one such as "
                          "video_qa_accuracy"),
    ("video_qa_unanswered", "of evals.video_qa is neither better higher nor lower"),
    ("image_caption_spice", "of evals.image_caption is computed by another program, too slowly"),
])
def test_figures_that_cannot_choose_are_refused(best, message):
    assert message in refused(config(best))


def test_nothing_is_chosen_without_validation():
    assert "nothing is validated with eval_every = 0" in refused(config(eval_every=0))
    assert "eval_every = -1: expected at least 0" in refused(config(eval_every=-1))
    assert "no evaluation gives this figure; expected one such as those of evals, which is empty" \
        in refused(config(evals={}))


@pytest.mark.parametrize("split, validation", [
    ("video_test", "video_test"), ("video_test", "video_test[held_out]"),
    ("a+video_test[rest]", "b+video_test"), ("video_test[rest]", "video_test[rest]")])
def test_choosing_on_the_test_split_needs_a_key_of_its_own(split, validation):
    changes = dict(evals__video_qa__stream__split=split, evals__video_qa__validation=validation)
    message = refused(config(**changes))
    assert f"best = 'video_qa_accuracy' would be chosen on the test split '{split}'" in message
    assert "select_on_test = True" in message
    assert checks.validate(config(**changes, select_on_test=True)).selection.on_test
    checks.validate(config("", **changes))  # nothing is chosen
    checks.validate(config("image_qa_accuracy", **changes))  # nor by this one
    apart = dict(evals__video_qa__stream__split="video_test[rest]",
                 evals__video_qa__validation="video_test[held_out]")
    assert not checks.validate(config(**apart, select_on_test=True)).selection.on_test


def test_what_is_validated_is_not_trained_on():
    for trained in ("video_validation", "video_train+video_validation[rest]"):
        message = refused(config(data__streams__video__split=trained))
        assert f"data.streams.video.split = '{trained}' trains on these examples" in message
        assert "train on video_validation[rest] and validate on video_validation[held_o" in message
        checks.validate(config("", data__streams__video__split=trained))  # nothing is chosen
    elsewhere = dict(data__streams__video__split="video_validation",
                     data__streams__video__root="elsewhere")
    checks.validate(config(**elsewhere))
    checks.validate(config(**elsewhere | dict(evals__video_qa__stream__root="third")))
    mixed = {"own": common.source("video_train", 1.0),
             "other": common.source("video_validation", 1.0, root="runs/demo/../demo/data")}
    message = refused(config(data__streams__video__split=mixed))
    assert "data.streams.video.split.other.split = 'video_validation' trains on" in message


def test_a_held_out_part_is_never_trained_on():
    held = dict(evals__image_qa__validation="image_train[held_out]")
    for best in ("", "video_qa_accuracy", "image_qa_accuracy"):
        assert refused(config(best, **held)) == (
            "evals.image_qa.validation = 'image_train[held_out]': data.streams.image.split = "
            "'image_train' trains on these examples; train on image_train[rest]")
        checks.validate(config(best, **held, data__streams__image__split="image_train[rest]"))
    assert "evals.image_qa.stream.split = 'image_train[held_out]'" in refused(
        config("", evals__image_qa__stream__split="image_train[held_out]"))


def test_training_on_what_is_validated_is_said_where_nothing_is_chosen():
    made = config("", data__streams__video__split="video_train+video_validation")
    checked = checks.validate(made)
    splits = {name: entry.validation for name, entry in made.evals.items()}
    found = selection.trained_on(made.data.root, checked.streams, checked.evaluations, splits)
    assert sorted(found) == ["video_caption", "video_qa", "video_retrieval"]


def test_neighbours_are_not_the_examples_themselves():
    made = demo_zero_shot.get_config()
    name = next(name for name in made.evals if name.endswith("knn"))
    made.evals[name].task.reference = "some+image_digit_validation"
    assert f"evals.{name}.task.reference = 'some+image_digit_validation': holds examples of " \
        f"evals.{name}.validation = 'image_digit_validation'" in refused(made)


@pytest.mark.parametrize("path, value, message", [
    ("data__streams__video__split", "video_train[hold]",
     "data.streams.video.split: split 'video_train[hold]': there is no part 'hold'"),
    ("data__streams__video__split", 3, "data.streams.video.split = 3: expected the name of a spl"),
    ("evals__video_qa__validation", "a[", "evals.video_qa.validation: split 'a[': expected a name"),
    ("evals__video_qa__stream__split", "", "evals.video_qa.stream.split: split '': expected a na"),
    ("evals__video_qa__stream__split", {"a": {"split": "a", "weight": 1.0}},
     "evals.video_qa.stream.split: an evaluation reads one split"),
    ("data__streams__video__split", {"a": {"split": "a[b]", "weight": 1.0}},
     "data.streams.video.split.a.split: split 'a[b]': there is no part 'b'"),
])
def test_wrong_names_of_splits_are_named_with_their_place(path, value, message):
    assert refused(config("", **{path: value})).startswith(message)
