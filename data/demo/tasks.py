"""The moving digits as examples of tasks: classes, boxes, pairs and galleries.

Scenes are those of the demo corpus: a record of a part is made of the scene of that part and
number, so that what is tested here was not seen in pretraining. Each family is a function from
(seed, part, number) to a record; its split is named `<family>_<part>`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from data import media, records
from data.demo import scenes as moving_digits
from data.demo.scenes import PARTS, double, lone, scene_actors
from data.demo.texts import COLOURS, DIGITS, MOTIONS, Actor, captions

SAME, OTHER = "same", "different"  # the classes of pairs
CLASSES = {
    "image_digit": DIGITS,
    "video_digit": DIGITS,
    "video_motion": MOTIONS,
    "text_motion": MOTIONS,
    "text_pair": (SAME, OTHER),
    "image_text": (SAME, OTHER),
    "image_pair": (SAME, OTHER),
}
_OPTIONS = {"digit": DIGITS, "colour": COLOURS, "motion": MOTIONS}
# Beside the corpus' own random numbers, whose second is the number of a kind.
_STREAM = 100


def _random(family: str, seed: int, part: str, number: int) -> np.random.Generator:
    place = list(FAMILIES).index(family)
    return np.random.default_rng([seed, _STREAM + place, PARTS.index(part), number])


def _changed(actors: list[Actor], rng: np.random.Generator, moving: bool) -> list[Actor]:
    """The same actors but for one word of one of them."""
    which = int(rng.integers(len(actors)))
    names = [name for name in _OPTIONS if moving or name != "motion"]
    name = names[rng.integers(len(names))]
    # No word that stands for the other actor, so that none of both can be mistaken for it.
    taken = {getattr(actor, name) for actor in actors}
    options = [option for option in _OPTIONS[name] if option not in taken]
    new = replace(actors[which], **{name: options[rng.integers(len(options))]})
    return [new if place == which else actor for place, actor in enumerate(actors)]


def image_digit(seed: int, part: str, number: int, glyphs: list) -> dict:
    """A picture of one digit; its class is the digit, its group the colour."""
    actor = scene_actors(seed, part, lone(part, number))[0]
    made = moving_digits.make_record("image", part, seed, lone(part, number), glyphs)
    return _labelled(made, actor.digit, actor.colour)


def video_digit(seed: int, part: str, number: int, glyphs: list) -> dict:
    """A clip of one digit; its class is the digit, its group the motion."""
    actor = scene_actors(seed, part, lone(part, number))[0]
    made = moving_digits.make_record("video", part, seed, lone(part, number), glyphs)
    return _labelled(made, actor.digit, actor.motion)


def video_motion(seed: int, part: str, number: int, glyphs: list) -> dict:
    """A clip of one digit; its class is the motion, its group the digit."""
    actor = scene_actors(seed, part, lone(part, number))[0]
    made = moving_digits.make_record("video", part, seed, lone(part, number), glyphs)
    return _labelled(made, actor.motion, actor.digit)


def grounding(seed: int, part: str, number: int, glyphs: list) -> dict:
    """A picture of two digits, with the phrase and the box of both: "the red three"."""
    made = moving_digits.make_record("image", part, seed, double(part, number), glyphs)
    boxes = [box | {"phrase": f"the {box['phrase']}"} for box in made["boxes"]]
    return records.record(made["id"], "image", made["media"].item(), boxes=boxes)


def text_motion(seed: int, part: str, number: int, glyphs: list) -> dict:
    """A sentence on one digit; its class is the motion."""
    del glyphs
    rng = _random("text_motion", seed, part, number)
    actors = scene_actors(seed, part, lone(part, number))
    return records.record(
        _name("text", part, number), "text", texts=captions(actors, True, 1, rng),
        label=actors[0].motion,
    )


def text_pair(seed: int, part: str, number: int, glyphs: list) -> dict:
    """Two sentences: of the same scene, or of two that differ in a digit, colour or motion."""
    del glyphs
    rng = _random("text_pair", seed, part, number)
    actors = scene_actors(seed, part, number)
    same = bool(rng.integers(2))
    others = actors if same else _changed(actors, rng, moving=True)
    texts = [captions(scene, True, 1, rng)[0] for scene in (actors, others)]
    return records.record(
        _name("text", part, number), "text", texts=texts, label=SAME if same else OTHER
    )


def image_text(seed: int, part: str, number: int, glyphs: list) -> dict:
    """A picture, and a sentence on it or on a scene that differs in a digit or colour."""
    rng = _random("image_text", seed, part, number)
    made = moving_digits.make_record("image", part, seed, number, glyphs)
    actors = scene_actors(seed, part, number)
    same = bool(rng.integers(2))
    said = actors if same else _changed(actors, rng, moving=False)
    return records.record(
        made["id"], "image", made["media"].item(), texts=captions(said, False, 1, rng),
        label=SAME if same else OTHER,
    )


def image_pair(seed: int, part: str, number: int, glyphs: list) -> dict:
    """Two pictures of a digit each, and a sentence on both of them or with one word changed."""
    rng = _random("image_pair", seed, part, number)
    # Two digits of one scene differ in digit and colour: one goes into either picture.
    actors = [replace(a, motion="still") for a in scene_actors(seed, part, double(part, number))]
    images = []
    for actor in actors:
        sprites = moving_digits.place([actor], glyphs, rng)
        images.append(moving_digits.encode_image(moving_digits.render(sprites, 1, rng)[0]))
    same = bool(rng.integers(2))
    said = actors if same else _changed(actors, rng, moving=False)
    return records.record(
        _name("images", part, number), "images", media.pack_images(images),
        texts=captions(said, False, 1, rng), label=SAME if same else OTHER,
    )


def gallery(seed: int, part: str, number: int, glyphs: list) -> dict:
    """A clip of the corpus with its captions, to be found among more than the corpus holds out."""
    return moving_digits.make_record("video", part, seed, number, glyphs)


def _name(kind: str, part: str, number: int) -> str:
    return f"{kind}_{part}_{number:06d}"


def _labelled(made: dict, label: str, group: str) -> dict:
    return made | {"label": label, "group": group}


# The order is part of the random numbers: add at the end.
FAMILIES: dict[str, Callable[[int, str, int, list], dict]] = {
    function.__name__: function
    for function in (
        image_digit,
        video_digit,
        video_motion,
        grounding,
        text_motion,
        text_pair,
        image_text,
        image_pair,
        gallery,
    )
}
