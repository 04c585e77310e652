"""The demo corpus says what it shows, shows it visibly, repeats itself, keeps its splits apart."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from data_helpers import SIZES

from data.demo import (
    builder as moving_digits_builder,
)
from data.demo import (
    scenes as moving_digits,
)
from data.demo import (
    texts as moving_digits_text,
)
from data.demo.scenes import PARTS, SIDE
from data.demo.texts import COLOURS, DIGITS, MOTIONS, Actor
from data.pipeline import annotation, open_split
from data.prepare import __main__ as prepare
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.image import decode_image
from mplug2_jax.preprocess.video import decode_video

MEDIA_SPLITS = [f"{kind}_{part}" for kind in ("video", "image") for part in PARTS]
# Written out again, so that a mistake in the grammar cannot hide in the test.
MOTION_WORDS = {
    "left": r"\bleft\b",
    "right": r"\bright\b",
    "up": r"\b(up|upwards)\b",
    "down": r"\b(down|downwards)\b",
    "growing": r"\b(grows|growing|bigger|larger)\b",
    "still": r"\b(still|not move|not moving|in its place|where it is)\b",
}


def read(text: str) -> set[tuple[str, str, str]]:
    """(digit, colour, motion) of every digit of a video caption, by its order of words alone."""
    words = re.findall(r"\w+", text)
    digits = [word for word in words if word in DIGITS]
    colours = [word for word in words if word in COLOURS]
    found = [
        (match.start(), way)
        for way, rule in MOTION_WORDS.items()
        for match in re.finditer(rule, text)
    ]
    motions = [way for _, way in sorted(found)]
    assert len(digits) == len(colours) == len(motions), text
    return set(zip(digits, colours, motions, strict=True))


def scene(record: dict) -> set[tuple[str, str, str]]:
    """(digit, colour, motion) of a record, from its number."""
    _, part, number = record["id"].split("_")
    return {(a.digit, a.colour, a.motion) for a in moving_digits.scene_actors(0, part, int(number))}


@pytest.mark.parametrize("split", MEDIA_SPLITS)
def test_records_are_complete(corpus, split):
    source = open_split(corpus, split)
    assert len(source) == getattr(SIZES, split)
    for record in (source[index] for index in range(len(source))):
        kind = split.split("_")[0]
        assert record["kind"] == kind
        actors = scene(record)
        assert len(record["texts"]) == len(set(record["texts"])) == 3
        types = [question["type"] for question in record["questions"]]
        expected = ["digit", "colour", *(["motion"] if kind == "video" else [])] * len(actors) + [
            "count"
        ]
        assert sorted(types) == sorted(expected)
        assert {box["phrase"] for box in record["boxes"]} == {f"{c} {d}" for d, c, _ in actors}
        if kind == "video":
            assert decode_video(record["media"], 16).shape == (16, SIDE, SIDE, 3)
        else:
            assert decode_image(record["media"]).shape == (SIDE, SIDE, 3)


def test_both_sizes_of_scene_occur(corpus):
    source = open_split(corpus, "video_train")
    assert {len(source[index]["boxes"]) for index in range(len(source))} == {1, 2}


def test_groups_are_of_the_same_scene(corpus):
    for split in ("video_test", "image_test"):
        source = open_split(corpus, split)
        seen = {}
        for record in (source[index] for index in range(len(source))):
            shown = frozenset(scene(record) if split.startswith("video") else {
                (digit, colour) for digit, colour, _ in scene(record)})
            assert seen.setdefault(record["group"], shown) == shown
        assert len(set(seen.values())) == len(seen) and "" not in seen


def test_captions_say_what_is_shown(corpus):
    for split in ("video_train", "video_test", "image_train"):
        source = open_split(corpus, split)
        for record in (source[index] for index in range(len(source))):
            for text in record["texts"]:
                if split.startswith("video"):
                    assert read(text) == scene(record), text
                else:
                    assert not any(re.search(rule, text) for rule in MOTION_WORDS.values()), text
                    pairs = re.findall(r"\w+", text)
                    assert {w for w in pairs if w in DIGITS} == {d for d, _, _ in scene(record)}
                    assert {w for w in pairs if w in COLOURS} == {c for _, c, _ in scene(record)}


def test_every_motion_and_template_can_be_read_back():
    rng = np.random.default_rng(0)
    wordings = set()
    for motion, other in itertools.product(MOTIONS, repeat=2):
        one, two = Actor("eight", "red", motion), Actor("two", "blue", other)
        for actors in ([one], [one, two]):
            for text in moving_digits_text.captions(actors, True, 9, rng):
                assert read(text) == {(a.digit, a.colour, a.motion) for a in actors}, text
                assert "a eight" not in text
                wordings.add(re.sub(r"\b(a|an|the|eight|two|red|blue)\b", "", text))
    assert len(wordings) > 400


def test_questions_have_the_right_answer():
    rng = np.random.default_rng(0)
    wordings = {kind: set() for kind in ("digit", "colour", "motion", "count")}
    for motion, other in itertools.product(MOTIONS, repeat=2):
        one, two = Actor("three", "red", motion), Actor("nine", "blue", other)
        for actors, moving in (([one], True), ([one, two], True), ([one, two], False)):
            for item in moving_digits_text.questions(actors, moving, rng):
                question, answer = item["question"], item["answer"]
                wordings[item["type"]].add(question)
                if item["type"] == "count":
                    assert answer == {1: "one", 2: "two"}[len(actors)]
                    continue
                # The actors that fit all that the question says must agree on the answer.
                asks = {"digit": 0, "colour": 1, "motion": 2}[item["type"]]
                fits = [
                    a
                    for a in actors
                    if all(
                        word in (a.digit, a.colour)
                        for word in question[:-1].split()
                        if word in DIGITS + COLOURS
                    )
                    and all(
                        way == a.motion
                        for way, rule in MOTION_WORDS.items()
                        if re.search(rule, question)
                    )
                ]
                assert len(fits) == 1, question
                assert answer == (fits[0].digit, fits[0].colour, fits[0].motion)[asks]
    assert all(len(texts) >= 3 for texts in wordings.values())


@pytest.mark.parametrize("part", ["validation", "test"])
def test_held_out_videos_differ_in_meaning_and_captions(part):
    for seed in (0, 1):
        scenes = [
            frozenset(moving_digits.scene_actors(seed, part, number))
            for number in range(moving_digits.DISTINCT)
        ]
        assert len(set(scenes)) == len(scenes)


@pytest.mark.parametrize("start", [0, 1, 1001, 4007])
def test_neighbours_differ_in_meaning(start):
    """In the order of writing no batch of 256 training clips holds the same scene twice."""
    scenes = {
        frozenset(moving_digits.scene_actors(0, "train", number))
        for number in range(start, start + moving_digits.DISTINCT)
    }
    assert len(scenes) == moving_digits.DISTINCT >= 256


def test_first_captions_of_the_written_test_split_differ(corpus):
    source = open_split(corpus, "video_test")
    texts = {annotation(source, index)["texts"][0] for index in range(len(source))}
    assert len(texts) == len(source)


def test_handwriting_is_held_out_by_sample():
    from sklearn.datasets import load_digits

    parts = moving_digits.handwriting()
    counts = {part: [len(samples) for samples in parts[part]] for part in PARTS}
    assert sum(map(sum, counts.values())) == len(load_digits().target) == 1797
    assert all(min(numbers) >= 20 for numbers in counts.values())
    seen = {part: {sample.tobytes() for digit in parts[part] for sample in digit} for part in PARTS}
    for one, other in itertools.combinations(PARTS, 2):
        assert not seen[one] & seen[other]


def test_records_use_the_handwriting_of_their_part():
    for part in PARTS:
        blank = [np.zeros_like(samples) for samples in moving_digits.handwriting()[part]]
        for digit, samples in enumerate(moving_digits.handwriting()[part]):
            blank[digit] = samples[:1]
        chosen = moving_digits.make_record("image", part, 0, 0, glyphs=blank)
        default = moving_digits.make_record("image", part, 0, 0)
        assert chosen["media"].item() != default["media"].item()


@pytest.mark.parametrize(("motion", "other"), list(itertools.product(MOTIONS, (None, *MOTIONS))))
def test_motions_are_visible_apart_and_inside_the_frame(motion, other):
    actors = [Actor("three", "red", motion)] + ([Actor("zero", "blue", other)] if other else [])
    for seed in range(3):
        sprites = moving_digits.place(
            actors, moving_digits.handwriting()["train"], np.random.default_rng(seed)
        )
        for sprite in sprites:
            track = sprite.track
            assert track.shape == (16, 4) and track.min() >= 0 and track.max() <= SIDE
            centre = (track[:, :2] + track[:, 2:]) / 2
            travel, height = centre[-1] - centre[0], track[:, 3] - track[:, 1]
            direction = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(
                sprite.actor.motion
            )
            if direction:
                along = travel @ np.array(direction)
                assert along >= 15 and abs(travel).sum() == abs(along)
                assert (np.diff(centre @ np.array(direction)) >= 0).all()
                assert len(set(height)) == 1
            else:
                assert abs(travel).max() <= 1
                assert (height[-1] >= 1.6 * height[0]) == (sprite.actor.motion == "growing")
        if other:
            for a, b in zip(sprites[0].track, sprites[1].track, strict=True):
                assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_boxes_are_tight_around_what_is_drawn():
    rng = np.random.default_rng(0)
    for number in range(20):
        actors = moving_digits.scene_actors(0, "train", number)
        sprites = moving_digits.place(actors, moving_digits.handwriting()["train"], rng)
        for sprite in sprites:
            alone = replace(sprite, actor=replace(sprite.actor, colour="white"))
            image = moving_digits.render([alone], 1, rng)[0]
            drawn = image.min(-1) > 150  # the background is darker
            rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert abs(box - sprite.track[0]).max() <= 1


def test_stored_boxes_hold_the_colour_they_name(corpus):
    channels = {
        "red": [0],
        "green": [1],
        "blue": [2],
        "yellow": [0, 1],
        "purple": [0, 2],
        "white": [0, 1, 2],
    }
    for split in ("video_test", "image_test"):
        source = open_split(corpus, split)
        for record in (source[index] for index in range(len(source))):
            video = record["kind"] == "video"
            frame = decode_video(record["media"], 16)[0] if video else decode_image(record["media"])
            for box in record["boxes"]:
                x0, y0, x1, y1 = np.round(np.array(box["box"]) * SIDE).astype(int)
                bright = frame[y0:y1, x0:x1].reshape(-1, 3).astype(float)
                bright = bright[bright.max(-1) > 150]
                assert len(bright) > 20
                strong = np.flatnonzero(bright.mean(0) > 0.6 * bright.mean(0).max())
                assert strong.tolist() == channels[box["phrase"].split()[0]], (record["id"], box)


def every_record(root) -> dict[str, list[dict]]:
    sources = {split: open_split(root, split) for split in [*MEDIA_SPLITS, "text_train"]}
    return {
        split: [source[index] for index in range(len(source))] for split, source in sources.items()
    }


def test_same_seed_same_bytes_other_seed_other_bytes(corpus, other_corpora):
    first, again, other = (every_record(root) for root in (corpus, *other_corpora))
    assert first == again
    vocabularies = [
        (r / moving_digits_builder.VOCABULARY).read_bytes() for r in (corpus, *other_corpora)
    ]
    assert vocabularies[0] == vocabularies[1]
    for split in MEDIA_SPLITS:
        same = sum(
            a["media"] == b["media"] for a, b in zip(first[split], other[split], strict=True)
        )
        assert same == 0
    assert vocabularies[0] != vocabularies[2]


def test_records_do_not_depend_on_the_process_that_makes_them(monkeypatch):
    monkeypatch.setattr(moving_digits_builder, "_WORTH_A_POOL", 1)
    for split in ("image_train", "video_test"):
        alone, shared = (
            [
                (record["id"], record["media"].item(), record["texts"], record["questions"])
                for record in made
            ]
            for made in (
                moving_digits_builder._make_records(split, 5, 0, processes) for processes in (1, 2)
            )
        )
        assert shared == alone


def test_preparing_again_writes_nothing(corpus):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    moving_digits_builder.prepare(corpus, SIZES, processes=1)
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before


def test_preparing_with_other_settings_is_refused(corpus, capsys):
    assert prepare.main(["moving_digits", f"--out={corpus}", "--seed=7", "--video_train=24"]) == 1
    message = capsys.readouterr().err
    assert "seed=0, not 7" in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "message"), [("--video_test=481", "at most 480"), ("--image_train=0", "at least 1")]
)
def test_impossible_sizes_are_refused(tmp_path, capsys, flag, message):
    assert prepare.main(["moving_digits", f"--out={tmp_path}", flag]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_interrupted_write_is_cleaned_and_redone(tmp_path, monkeypatch):
    tiny = moving_digits_builder.Settings(**dict.fromkeys(SIZES.sizes(), 2), seed=0)
    tiny = replace(tiny, text_train=300)
    original, made = moving_digits.make_record, []

    def interrupted(*args, **kwargs):
        made.append(args)
        if len(made) > 5:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(moving_digits, "make_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        moving_digits_builder.prepare(tmp_path, tiny, processes=1)
    with pytest.raises(DataError, match="no finished dataset"):
        open_split(tmp_path, "video_train")
    # What a killed process, which cleans nothing up, leaves behind.
    half = tmp_path / "moving_digits" / "1.1.0.incompleteABC"
    half.mkdir(parents=True)
    (half / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match="no finished dataset"):
        open_split(tmp_path, "video_train")
    monkeypatch.setattr(moving_digits, "make_record", original)
    moving_digits_builder.prepare(tmp_path, tiny, processes=1)
    assert not list(tmp_path.rglob("*incomplete*"))
    assert len(open_split(tmp_path, "video_test")) == 2
    assert (tmp_path / moving_digits_builder.VOCABULARY).exists()


@pytest.mark.parametrize("part, ones", [("train", 1 / 3), ("validation", 3 / 4), ("test", 3 / 4)])
def test_scenes_of_one_digit_and_of_two_take_turns(part, ones):
    """`lone` and `double` count those of each kind, and leave none out."""
    counts = [len(moving_digits.scene_actors(0, part, number)) for number in range(240)]
    assert counts.count(1) == 240 * ones
    for count, numbered in ((1, moving_digits.lone), (2, moving_digits.double)):
        numbers = [numbered(part, n) for n in range(counts.count(count))]
        assert numbers == [n for n, found in enumerate(counts) if found == count]
