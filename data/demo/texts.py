"""The language of the moving-digits corpus: captions and questions from a small grammar.

No word stands for two things: the digit words name digits only (a caption never counts with them),
and each of the colours and motions has its own words. A caption therefore determines its scene's
digits, colours and motions.
"""

from dataclasses import dataclass

import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
MOTIONS = ("left", "right", "up", "down", "growing", "still")


@dataclass(frozen=True)
class Actor:
    """What the language knows of a sprite: words from `DIGITS`, `COLOURS` and `MOTIONS`."""

    digit: str
    colour: str
    motion: str

    @property
    def phrase(self) -> str:
        """Its shortest name, such as "red three"."""
        return f"{self.colour} {self.digit}"


# For each motion: finite forms ("a red three ...") and participles ("there is a red three ...").
_WAYS = (
    ("left", "to the left"),
    ("right", "to the right"),
    ("up", "upwards"),
    ("down", "downwards"),
)
_VERBS = {
    way: (
        (
            f"moves {way}",
            f"moves {end}",
            f"slides {way}",
            f"slides {end}",
            f"drifts {way}",
            f"goes {way}",
        ),
        (
            f"moving {way}",
            f"moving {end}",
            f"sliding {way}",
            f"drifting {way}",
            f"drifting {end}",
            f"going {way}",
        ),
    )
    for way, end in _WAYS
} | {
    "growing": (
        ("grows", "gets bigger", "becomes larger", "grows in size", "gets larger"),
        ("growing", "getting bigger", "becoming larger", "growing in size", "getting larger"),
    ),
    "still": (
        ("stays still", "does not move", "stands still", "rests in its place", "stays where it is"),
        (
            "staying still",
            "not moving",
            "standing still",
            "resting in its place",
            "staying where it is",
        ),
    ),
}

_NAMES = (
    "a {colour} {digit}",
    "the {colour} {digit}",
    "{article} {digit} in {colour}",
    "a {colour} digit {digit}",
    "a handwritten {colour} {digit}",
    "{article} {digit} written in {colour}",
)

# {a} and {b} are names; {a_does} is a finite verb, {a_doing} a participle.
_VIDEO_ONE = (
    "{a} {a_does}",
    "{a} is {a_doing}",
    "there is {a} {a_doing}",
    "we see {a} that {a_does}",
    "a video of {a} {a_doing}",
    "here {a} {a_does}",
    "in this clip {a} {a_does}",
    "{a} {a_doing} on a dark background",
    "someone filmed {a} {a_doing}",
)
_VIDEO_TWO = (
    "{a} {a_does} and {b} {b_does}",
    "{a} {a_does} while {b} {b_does}",
    "{a} is {a_doing} and {b} is {b_doing}",
    "there is {a} {a_doing} and {b} {b_doing}",
    "we see {a} that {a_does} and {b} that {b_does}",
    "a video of {a} {a_doing} with {b} {b_doing}",
    "as {a} {a_does} {b} {b_does}",
    "in this clip {a} {a_does} but {b} {b_does}",
    "next to {a} {a_doing} {b} {b_does}",
)
_IMAGE_ONE = (
    "{a}",
    "a picture of {a}",
    "an image showing {a}",
    "there is {a}",
    "we see {a} here",
    "{a} on a dark background",
    "someone wrote {a}",
    "this is {a}",
)
_IMAGE_TWO = (
    "{a} and {b}",
    "{a} next to {b}",
    "a picture of {a} and {b}",
    "an image showing {a} with {b}",
    "there is {a} beside {b}",
    "we see {a} and {b} here",
    "{a} together with {b}",
    "someone wrote {a} and {b}",
)

_ASK_DIGIT_OF_COLOUR = (
    "which digit is {colour}",
    "what digit is {colour}",
    "what is the {colour} digit",
)
_ASK_DIGIT_OF_MOTION = (
    "which digit is {doing}",
    "what digit is {doing}",
    "what is the digit that {does}",
)
_ASK_COLOUR_OF_DIGIT = (
    "what colour is the {digit}",
    "which colour does the {digit} have",
    "what is the colour of the {digit}",
)
_ASK_COLOUR_OF_MOTION = (
    "what colour is the digit that {does}",
    "which colour has the digit {doing}",
)
_ASK_MOTION = (
    "which way does the {name} move",
    "how does the {name} move",
    "what is the motion of the {name}",
    "in what way is the {name} moving",
)
_ASK_COUNT = (
    "how many digits are there",
    "how many digits do you see",
    "what is the number of digits",
)
_COUNTS = {1: "one", 2: "two"}


def captions(actors: list[Actor], moving: bool, count: int, rng: np.random.Generator) -> list[str]:
    """`count` different captions, with digit, colour and (if `moving`) motion of all actors."""
    templates = _templates(len(actors), moving)
    chosen = rng.choice(len(templates), count, replace=False)
    return [_fill(templates[number], actors, rng) for number in chosen]


def questions(actors: list[Actor], moving: bool, rng: np.random.Generator) -> list[dict[str, str]]:
    """Questions with one right answer: digit, colour and (if `moving`) motion of each, and count.

    Returns:
        [{'question', 'answer', 'type'}], `type` being digit, colour, motion or count.
    """
    result = []

    def ask(kind: str, wordings: tuple[str, ...], answer: str, **words: str) -> None:
        text = _pick(wordings, rng).format(**words) + "?"
        result.append({"question": text, "answer": answer, "type": kind})

    for actor in actors:
        finite, participles = _VERBS[actor.motion]
        does, doing = _pick(finite, rng), _pick(participles, rng)
        # A motion points out a digit only if no other digit moves like that.
        by_motion = moving and sum(other.motion == actor.motion for other in actors) == 1
        if by_motion and rng.random() < 0.5:
            ask("digit", _ASK_DIGIT_OF_MOTION, actor.digit, does=does, doing=doing)
        else:
            ask("digit", _ASK_DIGIT_OF_COLOUR, actor.digit, colour=actor.colour)
        if by_motion and rng.random() < 0.5:
            ask("colour", _ASK_COLOUR_OF_MOTION, actor.colour, does=does, doing=doing)
        else:
            ask("colour", _ASK_COLOUR_OF_DIGIT, actor.colour, digit=actor.digit)
        if moving:
            name = _pick((actor.phrase, actor.digit, f"{actor.colour} digit"), rng)
            ask("motion", _ASK_MOTION, actor.motion, name=name)
    ask("count", _ASK_COUNT, _COUNTS[len(actors)])
    return result


def _templates(actors: int, moving: bool) -> tuple[str, ...]:
    if moving:
        return _VIDEO_ONE if actors == 1 else _VIDEO_TWO
    return _IMAGE_ONE if actors == 1 else _IMAGE_TWO


def _fill(template: str, actors: list[Actor], rng: np.random.Generator) -> str:
    words = {}
    for key, number in zip("ab", rng.permutation(len(actors)), strict=False):
        actor = actors[number]
        finite, participles = _VERBS[actor.motion]
        words |= {
            key: _pick(_NAMES, rng).format(
                colour=actor.colour,
                digit=actor.digit,
                article="an" if actor.digit == "eight" else "a",
            ),
            f"{key}_does": _pick(finite, rng),
            f"{key}_doing": _pick(participles, rng),
        }
    return template.format(**words)


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]
