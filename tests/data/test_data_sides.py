"""Which pictures are mirrored: by what is said of them, in phrases, questions, answers, classes."""

import numpy as np
import pytest

from data.pipeline import augment
from data.pipeline.examples import augmented, train_texts
from data.pipeline.labels import mirrored
from data.pipeline.sides import as_class, names_side
from data.pipeline.streams import resolve

# Phrases of RefCOCO's kinds, captions, questions and answers, one a line.
WRONG_WHEN_MIRRORED = """
left guy
the man on the right
lft guy
rt guy
far rt
person on r
l most chair
bottom r corner
R side
man on L
l
r
3rd from l
2nd guy from r.
on lhs
rhs of pic
leftmost
right-most zebra
left-hand side
righthand man
LEFT
Left.
left2
2ndleft
topleft
bottom-right
upperleft corner
farright person
bottomleft
rgt girl
rght one
letf
rigth elephant
leftt dude
leftguy
leftest
leftish
to the left's left
lefty
tl
br zebra
tr corner
turn rightwards
turning left
turn_right
TurnLeft
Swiping Left
Pushing something from left to right
left-handed batter
a southpaw
clockwise
turn counter-clockwise
counterclockwise
Anticlockwise
rotating ccw
stage left
driver's side
passenger side mirror
starboard bow
port side of ship
se corner
facing east
westbound traffic
northwest corner
guy at 3 o'clock
9 oclock
man at 4 o’clock
what time is it?
10:30
5 pm
half past 5
quarter to 6
which way is the arrow pointing? left
is the cat on the right of the dog?
what does the sign say?
what letter is on the hat
what word is on the bus?
what is written on the wall
what number is on the jersey?
what brand is the phone
player #23
number 5
player 23
bus 12
sign with "stop" on it
sign that reads stop
license plate of the car
what is the speed limit?
her initials
what's the right-most letter
who is left of the dog, you or r&b?
ＬＥＦＴ
rigghtt
guy on the rite
lft most
mid r
guy w/ hat on l
widdershins
mann rechts
der linke stuhl
la femme à droite
silla de la izquierda
a sinistra
à esquerda
мужчина слева
левый кот
左边的人
右の犬
왼쪽 사람
顺时针旋转
""".strip().splitlines()
THE_SAME_WHEN_MIRRORED = """
alright
a bright cleft
a bright light
an upright piano
all right
right now
right away
a right angle
the right of way
right side up
copyright
wright brothers
a playwright in fright
human rights march
righteous man
leftovers
a plate of leftovers
left over pizza
left-over rice
r&b
r & b singer
l.a.
l.a. lakers fan
a u.r.l.
j.r. smith
o.r. nurse
they're here
she'll go
he'll
r2d2
r2-d2 robot
toys r us
how r u
l'oreal bottle
2 l bottle
1.5 l of milk
rt. 66
a brand new car
a number of people
how many digits are there
a red three written in blue ink
kanye west
west virginia
the wild west
western movie
easter eggs
northern lights
what time of day is it?
what time of year is this
yeast
a beast at a feast
a rest
a quest
bread
a lift
a raft
rite aid
light
night
flight
slight
up and down
top bottom
man in front
the middle one
closest to us
a dog runs
three dogs
3
5'10"
a 12" pizza
2 zebras
1st guy
second bus
yes
u.s. army
clocks
clock tower
shipping port
driver
passenger train
how many people are there?
what color is the cat?
red
a rearing horse
mirror
a trt
plum
lrx
a rite of passage
Moving something away from the camera
Pushing something so that it slightly moves
Covering something with something
a lever
правда
a loose leaf
""".strip().splitlines()


def test_lists_are_long_enough():
    assert len(WRONG_WHEN_MIRRORED) + len(THE_SAME_WHEN_MIRRORED) > 160
    assert not set(WRONG_WHEN_MIRRORED) & set(THE_SAME_WHEN_MIRRORED)


@pytest.mark.parametrize("text", WRONG_WHEN_MIRRORED)
def test_what_names_a_side(text):
    assert names_side(text) and augment.mentions_sides(["a dog", text])


@pytest.mark.parametrize("text", THE_SAME_WHEN_MIRRORED)
def test_what_names_none(text):
    assert not names_side(text)


def test_classes_that_are_read_are_named_so():
    for label in (*"0123456789", "12", "seven", "B", "l", "Zero", "é", "digit_7", "number 3",
                  "letter_A", "A_caps", "lowercase b", "capital-Q", "digit7", "class 3", "twelve",
                  "num_10", "б", "あ"):
        assert names_side(as_class(label)), label
    for label in ("cat", "three dogs", "n01440764", "737-800", "up", "", "?", "2012 bmw m3",
                  "small", "class", "small dog", "capital", "a dog", "7 up", "x ray"):
        assert as_class(label) == label and not names_side(label)
    assert not names_side("7") and not names_side("seven")  # as an answer, a count


@pytest.mark.parametrize("label, words, allowed", [
    ("Turning_Left", {}, False), ("clockwise", {}, False), ("7", {}, False), ("b", {}, False),
    ("cat", {}, True), ("7", {"7": "horse"}, True), ("n1", {"n1": "left turn"}, False),
    ("seven", {}, False), ("Pushing something from right to left", {}, False),
])
def test_a_class_decides(label, words, allowed, stream, tokenizer):
    """Both where a head says it and where a decoder does."""
    record = {"kind": "image", "texts": ["a cat"], "label": label, "questions": [], "boxes": []}
    for changes in (dict(classes=(label, "other"), text_length=0, target_length=0),
                    dict(ask="class", text_length=0, target_length=8)):
        if "ask" in changes and words and label not in words:
            continue
        own = resolve(stream(prompt_length=0, flip=True, **changes))
        own.label_words = words
        _, texts = train_texts(record, own, tokenizer, np.random.default_rng(0))
        assert augment.mentions_sides(texts) != allowed, (changes, texts)
        picture = np.zeros((1, 32, 32, 3), np.uint8)
        picture[:, :, :16] = 200
        outs = [augmented(picture, texts, own, np.random.default_rng(seed))[0]
                for seed in range(30)]
        assert {bool(out[0, 16, -1, 0] > 100) for out in outs} == {False, allowed}


def test_an_answer_that_is_a_class_may_be_a_count(stream, tokenizer):
    def texts(question, answer):
        record = {"kind": "image", "texts": [], "label": "", "boxes": [],
                  "questions": [{"question": question, "answer": answer, "type": ""}]}
        own = resolve(stream(prompt_length=0, target_length=0, classes=("3", "left")))
        return train_texts(record, own, tokenizer, np.random.default_rng(0))[1]

    assert not augment.mentions_sides(texts("how many dogs", "3"))
    assert augment.mentions_sides(texts("where does it go", "left"))
    assert augment.mentions_sides(texts("what does it say", "3"))


def test_boxes_are_mirrored_to_the_pixel():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 700, 2)
        x0, y0 = rng.integers(0, width), rng.integers(0, height)
        x1, y1 = rng.integers(x0 + 1, width + 1), rng.integers(y0 + 1, height + 1)
        frame = np.zeros((1, height, width, 3), np.uint8)
        frame[:, y0:y1, x0:x1] = 255
        seen = np.argwhere(augment.flip(frame)[0, :, :, 0])
        box = np.array([x0 / width, y0 / height, x1 / width, y1 / height], np.float32)
        found = mirrored(box) * [width, height, width, height]
        wanted = [seen[:, 1].min(), seen[:, 0].min(), seen[:, 1].max() + 1, seen[:, 0].max() + 1]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        np.testing.assert_allclose(mirrored(mirrored(box)), box, atol=1e-7)
