"""What an epoch goes over: of each task, of a run, of its pace, of runs that go on."""

import importlib

import listing
import pytest
from ml_collections import ConfigDict

from configs import checks, common, demo, demo_tasks, msrvtt_caption, msrvtt_qa, pretrain, recipe
from configs import stored as stored_configs
from docs import make, recipes
from mplug2_jax import launch, tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import ITEMS, MEDIA

# As the code of the release, of its predecessor and of LAVIS has it.
OVER = {"captioning": ITEMS, "classification": ITEMS, "grounding": ITEMS, "instructions": ITEMS,
        "pretrain": MEDIA, "qa": ITEMS, "retrieval": ITEMS}


def test_every_task_that_is_trained_says_over_what_and_where_that_is_from():
    found = {name: task for name in tasks.names() if (task := tasks.load(name)).epoch_source}
    assert {name: task.epoch_over for name, task in found.items()} == OVER
    assert set(tasks.names()) - set(OVER) == {"knn", "zero_shot"}  # they have no loss
    table = make.epochs_table()
    for name, task in found.items():
        reference, _, where = task.epoch_source.partition(":")
        assert reference in recipe.REFERENCES and where.strip()
        assert f"| `{name}` | {task.epoch_over} | {task.epoch_source} |" in table


def test_a_run_says_otherwise_for_all_of_its_streams():
    config = msrvtt_qa.get_config("tiny")
    assert checks.validate(config).streams["video"].epoch_unit == ITEMS
    config.data.epoch_over = MEDIA
    assert checks.validate(config).streams["video"].epoch_unit == MEDIA
    joint = demo.get_config()
    assert {one.epoch_unit for one in checks.validate(joint).streams.values()} == {MEDIA}
    joint.data.epoch_over = ITEMS
    assert {one.epoch_unit for one in checks.validate(joint).streams.values()} == {ITEMS}


@pytest.mark.parametrize("change, message", [
    (lambda config: config.data.update(epoch_over="clips"),
     "data.epoch_over = 'clips': expected 'items', 'media', or '' for the task's own"),
    (lambda config: config.data.update(epoch_over="Items"), "data.epoch_over = 'Items': expected"),
    (lambda config: config.data.streams.video.update(epoch_unit=ITEMS),
     "data.streams.video.epoch_unit: task 'qa' gives it to its streams"),
    (lambda config: config.data.streams.video.update(weights_of="files"),
     "data.streams.video.weights_of = 'files': expected 'sources', 'items' or 'media'"),
])
def test_other_words_are_refused_in_a_line(change, message):
    config = msrvtt_qa.get_config("tiny")
    with config.unlocked():
        change(config)
    with pytest.raises(ConfigError) as error:
        checks.validate(config)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*listing.names(), *listing.variants()])
def test_the_pace_follows_what_an_epoch_goes_over(name):
    """Steps and validations are of so many examples as the table of recipes says, of the unit."""
    config = listing.make(name, "tiny")
    unit = tasks.load(config.task.name).epoch_over
    assert config.data.epoch_over is None  # the task's own
    if config.eval_every:
        row = recipes.numbers(config, "tiny")["examples"]
        assert row.endswith(f" {unit}") and row.startswith(f"{config.eval_every:,} steps of ")
        assert config.optimizer.steps % config.eval_every == 0
    asked = listing.module(name)
    counted = next((found for found in vars(asked).values()
                    if isinstance(found, dict) and set(found) <= {ITEMS, MEDIA} and found), None)
    if not counted or not config.eval_every:
        return
    batch = next(iter(config.data.streams.values())).batch_size
    for other in (ITEMS, MEDIA):
        words = ",".join(filter(None, [name.partition(":")[2], "tiny", other]))
        if other not in counted:
            with pytest.raises(ValueError, match=f"'{other}': how many {other} an epoch has"):
                asked.get_config(words)
            continue
        made = asked.get_config(words)
        assert made.data.epoch_over == other
        assert made.eval_every == counted[other] // batch
        assert (made.optimizer.steps / made.eval_every
                == config.optimizer.steps / config.eval_every)


def test_captions_are_twenty_times_as_many_as_their_clips():
    items, media = (msrvtt_caption.get_config(f"tiny,{unit}") for unit in (ITEMS, MEDIA))
    assert items.eval_every == 6_513 * 20 // 64 and media.eval_every == 6_513 // 64
    assert items.optimizer.steps == 10 * items.eval_every
    assert pretrain.get_config("tiny,image,items").data.epoch_over == ITEMS


def test_sources_of_joined_files_weigh_by_question():
    config = importlib.import_module("configs.vqav2_qa").get_config("tiny,vg_gqa")
    stream = config.data.streams.image
    assert stream.weights_of == "items"
    assert {name: one.weight for name, one in stream.split.items()} == {
        "vqav2": 1.0, "visual_genome": 0.5, "gqa": 0.5}
    assert demo_tasks.get_config("retrieval").data.epoch_over == MEDIA  # clips in a row


def meta(config, **changes):
    """Of a checkpoint of a run with this config."""
    written = launch.plain(stored_configs.expanded(config))
    for key, value in changes.items():
        written["data"][key] = value
    return {"config": written, "format": 2}


def test_checkpoints_say_what_the_run_went_over_and_older_ones_went_over_media():
    config = msrvtt_qa.get_config("tiny")
    written = meta(config)
    assert written["config"]["data"]["epoch_over"] == ITEMS  # not "": the default may change
    assert stored_configs.completed(written).data.epoch_over == ITEMS
    del written["config"]["data"]["epoch_over"]
    assert stored_configs.completed(written).data.epoch_over == MEDIA
    assert common.Data().epoch_over == ""


def test_a_run_goes_on_over_what_it_began_with_unless_the_config_says_otherwise(caplog):
    config = msrvtt_qa.get_config("tiny")
    same = stored_configs.gone_on(config, stored_configs.completed(meta(config)))
    assert same is config and not caplog.records
    older = meta(config)
    del older["config"]["data"]["epoch_over"]
    older = stored_configs.completed(older)
    with caplog.at_level("INFO"):
        found = stored_configs.gone_on(config, older)
    assert found.data.epoch_over == MEDIA and config.data.epoch_over is None
    assert "data.epoch_over = 'media', as the run began" in caplog.text
    caplog.clear()
    config.data.epoch_over = ITEMS
    assert stored_configs.gone_on(config, older).data.epoch_over == ITEMS
    assert "the run went over media so far" in caplog.text
    config.seed = 3
    assert stored_configs.gone_on(config, older).seed == 3
    assert "seed = 3: the run drew by 0 so far" in caplog.text
    # Converted weights have no run.
    assert stored_configs.gone_on(config, ConfigDict({"model": older.model})) is config


def test_a_run_goes_on_without_what_is_younger_than_it():
    """Duplicates were negatives, and weights those of whole sources, until a config says other."""
    config = listing.make("msrvtt_retrieval", "tiny")
    older = stored_configs.completed(meta(config))
    older.data.streams.video.duplicates = False
    assert stored_configs.gone_on(config, older).data.streams.video.duplicates is False
    config.data.streams.video.duplicates = True
    assert stored_configs.gone_on(config, older).data.streams.video.duplicates is True
    config = listing.make("vqav2_qa:vg_gqa", "tiny")
    older = stored_configs.completed(meta(config))
    older.data.streams.image.weights_of = "sources"
    for number, source in enumerate(older.data.streams.image.split.values()):
        source.weight = 1.0 + number
    went = stored_configs.gone_on(config, older).data.streams.image
    assert went.weights_of == "sources"
    assert went.split.to_dict() == older.data.streams.image.split.to_dict()
