"""Boxes: where they may be, and that crops, flips and augmentations keep them on what they show."""

import numpy as np
import pytest
from data_helpers import tries
from hypothesis import given
from hypothesis import strategies as st

from configs import common
from data.pipeline import augment, resolve
from data.pipeline.examples import augmented
from data.pipeline.labels import box_field, mirrored
from mplug2_jax.contracts.errors import RecordError
from mplug2_jax.preprocess.image import random_resized_crop_around

HEIGHT, WIDTH = 90, 140  # of a picture

seeds = st.integers(0, 2**32 - 1)


@st.composite
def rectangles(draw, least: int = 1, most: int = 140) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) in pixels of a picture, of these sides, which the picture may cut."""
    x0, y0 = draw(st.integers(0, WIDTH - least)), draw(st.integers(0, HEIGHT - least))
    return (x0, y0, draw(st.integers(x0 + least, min(WIDTH, x0 + most))),
            draw(st.integers(y0 + least, min(HEIGHT, y0 + most))))  # fmt: skip


def shares(rectangle: tuple[int, int, int, int]) -> np.ndarray:
    """The rectangle as a box: float32 [4] in 0..1."""
    return (np.array(rectangle) / [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)


def box_stream(**options):
    return resolve(common.stream("s", 4, frames=1, prompt_length=8, ask="box", **options))


corners = st.integers(0, 1000).map(lambda n: n / 1000) | st.sampled_from((-0.009, 1.009))
outside = st.sampled_from((-0.011, 1.011, float("nan"), float("inf"), float("-inf")))


@tries(300)
@given(st.lists(corners, min_size=4, max_size=4), st.none() | outside, st.integers(0, 3))
def test_a_box_is_within_the_image_and_has_an_area_or_is_refused(box, wrong, place):
    """Annotators' boxes that end hardly outside are cut off."""
    if wrong is not None:
        box[place] = wrong
    x0, y0, x1, y1 = (min(max(np.float32(corner), 0), 1) for corner in box)
    if wrong is None and x0 < x1 and y0 < y1:
        found = box_field({"phrase": "dog", "box": box})["box"]
        assert found.dtype == np.float32 and found.tolist() == [x0, y0, x1, y1]
    else:
        with pytest.raises(RecordError) as caught:
            box_field({"phrase": "dog", "box": box})
        assert caught.value.reason == ("empty box" if wrong is None else "box outside")
        assert "of 'dog'" in str(caught.value) and "\n" not in str(caught.value)


@tries(200)
@given(rectangles())
def test_mirroring_twice_is_the_identity(rectangle):
    box = shares(rectangle)
    x0, y0, x1, y1 = once = mirrored(box)
    assert once.dtype == np.float32 and 0 <= x0 < x1 <= 1
    assert (y0, y1) == (box[1], box[3])
    np.testing.assert_allclose(mirrored(once), box, atol=1e-7)
    left, top, right, bottom = rectangle
    other = shares((WIDTH - right, top, WIDTH - left, bottom))
    np.testing.assert_allclose(once, other, atol=1e-7)


intervals = st.tuples(st.floats(0, 0.99), st.floats(0.01, 1)).map(
    lambda drawn: (drawn[0], min(1.0, drawn[0] + drawn[1]))
)


@tries(200)
@given(intervals, intervals, st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted), seeds)
def test_a_crop_around_a_box_keeps_it_whole(across, down, area, seed):
    box = np.float32([across[0], down[0], across[1], down[1]])
    picture, rng = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), np.random.default_rng(seed)
    crop, now = random_resized_crop_around(picture, 16, area, rng, box)
    assert crop.shape == (2, 16, 16, 3) and now.dtype == np.float32
    assert (now >= 0).all() and (now <= 1).all()
    # Nothing of it is cut off, for it takes at least as large a share of the crop.
    assert (now[2:] - now[:2] >= box[2:] - box[:2] - 1e-6).all()


def bright_box(frame: np.ndarray) -> np.ndarray:
    """Where a picture is brighter than the middle of its range: (x0, y0, x1, y1) in 0..1."""
    grey = frame.mean(-1)
    bright = grey > (grey.min() + grey.max()) / 2
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    height, width = grey.shape
    return np.array([columns[0] / width, rows[0] / height,
                     (columns[-1] + 1) / width, (rows[-1] + 1) / height])


@pytest.mark.parametrize("augmentation", [
    dict(), dict(flip=True), dict(crop_area=(0.1, 0.6)),
    dict(flip=True, crop_area=(0.1, 0.6), rand_augment=(3, 9)),
], ids=str)
def test_boxes_stay_on_what_they_show(augmentation, monkeypatch):
    # Equalize makes the edges, which resizing blurs, as bright as what they surround.
    operations = [name for name in augment.IMAGE_OPERATIONS if name != "Equalize"]
    monkeypatch.setattr(augment, "IMAGE_OPERATIONS", operations)
    stream = box_stream(image_size=96, **augmentation)
    moved = set()

    @tries(60)
    @given(rectangles(least=8, most=40), st.integers(0, 29), seeds)
    def check(rectangle, dark, seed):
        picture, box = np.full((1, HEIGHT, WIDTH, 3), dark, np.uint8), shares(rectangle)
        x0, y0, x1, y1 = rectangle
        picture[:, y0:y1, x0:x1] = 220
        rng = np.random.default_rng(seed)
        out, now = augmented(picture, ["the thing"], stream, rng, box)
        assert out.shape == (1, 96, 96, 3) and now.dtype == np.float32
        np.testing.assert_allclose(now, bright_box(out[0]), atol=1.6 / 96)
        moved.add(bool(np.abs(now - box).max() > 1e-6))

    check()
    assert moved == ({False} if not augmentation else moved | {True})


def test_no_flip_where_the_phrase_has_sides():
    stream = box_stream(image_size=16, flip=True)
    rng, box = np.random.default_rng(0), np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    picture = np.zeros((1, 20, 20, 3), np.uint8)
    for _ in range(20):
        _, now = augmented(picture, ["the left one"], stream, rng, box)
        np.testing.assert_array_equal(now, box)


def test_rand_augment_without_movements_moves_nothing():
    picture = np.zeros((1, 40, 40, 3), np.uint8)
    picture[:, 10:20, 15:30] = 200
    rng = np.random.default_rng(0)
    with_moves = 0
    for _ in range(40):
        still = augment.rand_augment(picture, 3, 9, rng, moves=False)
        np.testing.assert_array_equal(bright_box(still[0]), bright_box(picture[0]))
        other = augment.rand_augment(picture, 3, 9, rng)
        with_moves += not np.array_equal(bright_box(other[0]), bright_box(picture[0]))
    assert with_moves > 10
