"""The labelled moving digits: labels that are true of what is shown and said, boxes on the ink."""

import re
from dataclasses import replace

import numpy as np
import pytest
from test_data_moving_digits import read

from configs import common, demo, demo_tasks
from data import media
from data.demo import scenes as moving_digits
from data.demo import tasks_builder as moving_digits_tasks_builder
from data.demo.tasks import CLASSES, FAMILIES, OTHER, SAME
from data.demo.tasks_builder import Settings
from data.demo.texts import COLOURS, DIGITS
from data.pipeline import eval_batches, open_split
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.image import decode_image

SETTINGS = Settings(train=16, validation=2, test=12, gallery=14)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks")
    moving_digits_tasks_builder.prepare(out, SETTINGS)
    return out


def all_of(root, split):
    source = open_split(root, split)
    return [source[number] for number in range(len(source))]


def shown(text: str) -> set[tuple[str, str]]:
    """(colour, digit) of every digit of a sentence on a picture, by its order of words."""
    words = re.findall(r"\w+", text)
    colours = [word for word in words if word in COLOURS]
    digits = [word for word in words if word in DIGITS]
    assert len(colours) == len(digits), text
    return set(zip(colours, digits, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_are_whole_and_repeatable(labelled, family):
    glyphs, gallery = moving_digits.handwriting(), family == "gallery"
    for part in moving_digits.PARTS[gallery:]:
        made = all_of(labelled, f"{family}_{part}")
        assert len(made) == (14 if gallery else getattr(SETTINGS, part))
        assert len({record["id"] for record in made}) == len(made)
        again = FAMILIES[family](0, part, 1, glyphs[part])
        assert made[1]["media"] == again["media"].item() and made[1]["texts"] == again["texts"]
        if family in CLASSES:
            assert {record["label"] for record in made} <= set(CLASSES[family])
            if part == "test":
                assert len({record["label"] for record in made}) > 1


def test_classes_are_those_of_the_captions(labelled):
    for record in all_of(labelled, "image_digit_test"):
        for text in record["texts"]:
            assert shown(text) == {(record["group"], record["label"])}
    splits = {"video_digit_test": 0, "video_motion_test": 2, "text_motion_test": 2}
    for split, place in splits.items():
        for record in all_of(labelled, split):
            (actor,) = read(record["texts"][0])
            assert actor[place] == record["label"]


def test_clips_are_those_of_the_corpus(corpus, labelled):
    by_id = {r["id"]: r["media"] for kind in ("video", "image")
             for r in all_of(corpus, f"{kind}_test")}
    found = 0
    for split in ("image_digit_test", "video_motion_test", "grounding_test", "image_text_test"):
        for record in all_of(labelled, split):
            if record["id"] in by_id:
                assert record["media"] == by_id[record["id"]]
                found += 1
    assert found > 20
    gallery, held_out = all_of(labelled, "gallery_test"), all_of(corpus, "video_test")
    assert len(gallery) > len(held_out)
    assert [r["id"] for r in gallery[:len(held_out)]] == [r["id"] for r in held_out]
    for record, same in zip(gallery, held_out, strict=False):
        assert record["media"] == same["media"] and record["texts"] == same["texts"]


def test_boxes_hold_their_digit(labelled):
    rgb = moving_digits.RGB
    for record in all_of(labelled, "grounding_test"):
        assert len(record["boxes"]) == 2
        frame = decode_image(record["media"]).astype(int)
        for box in record["boxes"]:
            the, colour, digit = box["phrase"].split()
            assert the == "the" and digit in DIGITS
            x0, y0, x1, y1 = np.round(np.array(box["box"]) * moving_digits.SIDE).astype(int)
            near = np.abs(frame - rgb[colour]).sum(-1) < 120
            assert near[y0:y1, x0:x1].sum() > 0.8 * near.sum() > 0


@pytest.mark.parametrize(("split", "of"), [
    ("text_pair_train", read), ("image_text_train", shown), ("image_pair_train", shown)])
def test_pairs_are_true_or_differ_in_one_word(labelled, split, of):
    labels = []
    for record in all_of(labelled, split):
        said = of(record["texts"][-1])
        if split.startswith("text"):
            truth = of(record["texts"][0])
        else:
            number, step = int(record["id"].split("_")[-1]), split.startswith("image_pair")
            actors = moving_digits.scene_actors(
                0, "train", moving_digits.double("train", number) if step else number)
            truth = {(actor.colour, actor.digit) for actor in actors}
        assert (said == truth) == (record["label"] == SAME)
        if record["label"] == OTHER:
            (was,), (now,) = truth - said, said - truth
            assert sum(a != b for a, b in zip(was, now, strict=True)) == 1
        labels.append(record["label"])
    assert set(labels) == {SAME, OTHER}


def test_image_pairs_show_a_digit_each(labelled):
    rgb = moving_digits.RGB
    for record in all_of(labelled, "image_pair_test"):
        number = int(record["id"].split("_")[-1])
        actors = moving_digits.scene_actors(0, "test", moving_digits.double("test", number))
        images = [decode_image(data).astype(int) for data in media.unpack_images(record["media"])]
        counts = np.array([[(np.abs(image - rgb[actor.colour]).sum(-1) < 120).sum()
                            for actor in actors] for image in images])
        assert counts[0, 0] > 5 > counts[0, 1] and counts[1, 1] > 5 > counts[1, 0]


@pytest.mark.parametrize(("family", "options"), [
    ("image_digit", dict(frames=1)), ("video_digit", dict(frames=4)),
    ("video_motion", dict(frames=4)), ("gallery", dict(frames=4, text_length=24)),
    ("text_motion", dict(text_length=24)), ("text_pair", dict(text_length=48, text_pair=True)),
    ("image_text", dict(frames=1, text_length=24)), ("image_pair", dict(frames=2, text_length=24)),
    ("grounding", dict(frames=1, prompt_length=8, ask="box")),
])
def test_every_family_makes_batches(labelled, tokenizer, family, options):
    stream = common.stream(f"{family}_test", 16, image_size=48,
                           classes=CLASSES.get(family, ()), **options)
    stream.expand = "box" if family == "grounding" else "record"
    (batch, *rest) = eval_batches(labelled, stream, tokenizer)
    assert batch["example_mask"][:12].all() and len(rest) == (family == "grounding")
    for field in {"text", "prompt"} & batch.keys():
        assert not (batch[field] == tokenizer.unk_id).any()
    if family in CLASSES:
        labels = [CLASSES[family][label] for label in batch["label"][:12]]
        assert labels == [record["label"] for record in all_of(labelled, f"{family}_test")]


def test_configs_name_splits_that_are_there(corpus, labelled):
    """Every stream of every family of `configs/demo_tasks.py`, under the folder that it names."""
    folders = {demo.DATA: corpus, demo_tasks.LABELLED: labelled}
    for family in demo_tasks.FAMILIES:
        config = demo_tasks.get_config(family)
        streams = [*config.data.streams.values()]
        for entry in config.evals.values():
            streams += [entry.stream, entry.stream.copy_and_resolve_references()]
            streams[-1].split = entry.validation
        for stream in streams:
            root = stream.get("root", "") or config.data.root
            sources = {stream.split: root} if isinstance(stream.split, str) else {
                source.split: source.get("root") or root for source in stream.split.values()}
            for split, folder in sources.items():
                assert len(open_split(folders[folder], split)), (family, split)
    with pytest.raises(DataError, match="no split 'gallery_train'"):
        open_split(labelled, "gallery_train")


def test_other_settings_are_refused(labelled):
    moving_digits_tasks_builder.prepare(labelled, SETTINGS)  # there already
    with pytest.raises(DataError, match="with test=12, not 13"):
        moving_digits_tasks_builder.prepare(labelled, replace(SETTINGS, test=13))
    for wrong, message in ((dict(test=0), "--test=0 must be at least 1"),
                           (dict(gallery=0), "--gallery=0 must be at least 1"),
                           (dict(gallery=481), "--gallery=481 must be at most 480")):
        with pytest.raises(DataError, match=message):
            moving_digits_tasks_builder.prepare(labelled, Settings(**wrong))
