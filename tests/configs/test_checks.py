"""Wrong sections and keys of a config are named with their place, before anything compiles."""

import pytest
import small

from configs import checks, common, demo, demo_tasks, msrvtt_retrieval, pretrain
from mplug2_jax import evaluation
from mplug2_jax.contracts.errors import ConfigError


def changed(path, value, config=None):
    """The demo's config, with a value at a path."""
    config = config or demo.get_config()
    holder = config
    *sections, key = path.split(".")
    for section in sections:
        holder = holder[section]
    holder[key] = value
    return config


@pytest.mark.parametrize("path, value, message", [
    ("evals.x", 1, "evals.x: expected a section with a task and a stream"),
    ("evals.video_qa.task", {}, "evals.video_qa.task.name: missing; expected one of captioning"),
    ("evals.video_qa.validation", "", "evals.video_qa.validation: empty"),
    ("evals.video_qa.other", 1, "evals.video_qa.other: unknown key"),
    ("evals.video_qa.submission", "CoLA.tsv", "evals.video_qa.submission = 'CoLA.tsv': task 'qa' "
     "writes *.json"),
    ("evals.video_retrieval.submission", "a.json", "evals.video_retrieval.submission = 'a.json': "
     "task 'retrieval' writes none"),
    ("evals.video_qa.stream.frmes", 1, "evals.video_qa.stream.frmes: unknown key"),
    ("evals.video_qa.task.beams", "many", "evals.video_qa.task.beams = 'many': expected a whole"),
    ("data.streams.x", 1, "data.streams.x = 1: expected the keys of a stream"),
    ("data.streams.video.classes", "score", "data.streams.video.classes: task 'pretrain' has no"),
    ("data.streams.video.flip", 1, "data.streams.video.flip = 1: expected True or False"),
    ("evals.video_qa.stream.questions", 4, "stream video_qa.questions = 4: task 'qa' asks one at a "
     "time"),
    ("task.modality", "smell", "task.modality = 'smell': expected one of vision, text"),
])
def test_wrong_sections_and_keys_are_named_with_their_place(path, value, message):
    with pytest.raises(ConfigError) as raised:
        checks.validate(changed(path, value))
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


def test_an_evaluation_asks_every_question_apart():
    config = demo.get_config()
    objectives = dict(vtc=0.0, vtm=0.0, mlm=0.0, prefix_lm=0.0, instruct=1.0)
    config.evals.held_out = common.evaluation(
        "pretrain", "video_test", 8, "video_validation", options=dict(objectives=objectives),
        frames=4, image_size=48, prompt_length=14, target_length=4)
    checks.validate(config)
    config.evals.held_out.stream.questions = 2
    with pytest.raises(ConfigError, match="questions = 2: an evaluation asks every question apart"):
        checks.validate(config)


def test_files_for_servers_are_each_of_one_evaluation_which_need_not_be_tuned():
    config = demo.get_config()
    config.evals.video_qa.validation, config.evals.video_qa.submission = "", "answers.json"
    checks.validate(config)  # a server keeps the answers
    evaluations = checks.validate(config).evaluations
    built = evaluation.build(config.evals, evaluations, small.model(vocab_size=32),
                             small.tokenizer(), validation=True, only=["video_qa", "image_qa"])
    assert list(built) == ["image_qa"]
    config.evals.image_qa.submission = "answers.json"
    with pytest.raises(ConfigError, match="evals.video_qa writes it, too|evals.image_qa writes it"):
        checks.validate(config)


def test_sources_of_a_mixture_are_checked():
    config = demo_tasks.get_config("instructions")
    checks.validate(config)
    with pytest.raises(ConfigError, match=r"^data.streams.train.split.qa.flip = 'no': expected"):
        checks.validate(changed("data.streams.train.split.qa.flip", "no", config))


@pytest.mark.parametrize("path", ["evls", "optimizer.frozn", "model.widht", "task.beams", "mesh.x",
                                  "data.workrs", "model.remat.eyes", "task.objectives.vtx"])
def test_keys_that_there_are_not_cannot_be_set(path):
    with pytest.raises((AttributeError, KeyError), match=path.rpartition(".")[2]):
        changed(path, 1)


def test_what_is_not_named_has_its_default():
    stream = common.stream("train", 8, frames=2, text_length=9)
    assert set(stream.keys()) == {"split", "batch_size", "frames", "text_length"}
    config = demo.get_config()
    config.data.streams.video = stream
    found = checks.validate(config).streams["video"]
    assert (found.frames, found.frame_stride, found.crop_area) == (2, 0, (1.0, 1.0))
    assert found.ask == "question" and not found.flip


def test_evaluations_hash_contents_where_they_compute_the_loss_alone():
    """Of retrieval's nobody reads what tells equal texts and equal media; training does."""
    retrieval = checks.validate(msrvtt_retrieval.get_config("tiny"))
    assert all(stream.identified for stream in retrieval.streams.values())
    assert not any(stream.identified for stream in retrieval.evaluations.values())
    from_pairs = checks.validate(pretrain.get_config("tiny,image"))
    assert [name for name, stream in from_pairs.evaluations.items() if stream.contrasts] == [
        name for name, entry in pretrain.get_config("tiny,image").evals.items()
        if entry.task.name == "pretrain"]
