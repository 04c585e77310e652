"""Overlap of boxes against counted pixels, grounding accuracy by hand."""

import numpy as np
import pytest

from mplug2_jax.metrics.boxes import grounding_accuracy, iou
from mplug2_jax.metrics.scores import by_group

RIGHT = [0, 0, 10, 10]
CASES = [  # predicted box, its overlap with RIGHT
    ([0, 0, 10, 10], 1.0),
    ([0, 0, 5, 10], 0.5),
    ([0, 0, 10, 4], 0.4),
    ([5, 0, 15, 10], 50 / 150),
    ([2, 2, 12, 12], 64 / 136),
    ([1, 1, 11, 10], 81 / 109),
    ([0, 0, 20, 10], 0.5),
    ([0, 0, 20, 11], 100 / 220),
    ([2, 3, 4, 5], 4 / 100),
    ([10, 0, 20, 10], 0.0),  # they touch
    ([30, 30, 40, 40], 0.0),
    ([5, 5, 5, 9], 0.0),  # empty
    ([10, 10, 0, 0], 0.0),  # turned round
    ([-5, -5, 10, 10], 100 / 225),  # outside the image
]


def test_by_hand():
    boxes = np.array([box for box, _ in CASES])
    right = np.array([RIGHT] * len(CASES))
    expected = [overlap for _, overlap in CASES]
    np.testing.assert_allclose(iou(boxes, right), expected)
    np.testing.assert_allclose(iou(right, boxes), expected)
    np.testing.assert_allclose(iou(boxes / 7, right / 7), expected)  # any unit
    np.testing.assert_array_equal(grounding_accuracy(boxes, right), [o >= 0.5 for o in expected])


def test_against_counted_pixels():
    rng = np.random.default_rng(0)
    low, size = rng.integers(0, 12, (2, 60, 2)), rng.integers(1, 9, (2, 60, 2))
    boxes, others = np.concatenate([low, low + size], axis=2)

    def pixels(box):
        mask = np.zeros((24, 24), bool)
        mask[box[1]:box[3], box[0]:box[2]] = True
        return mask

    expected = [(pixels(a) & pixels(b)).sum() / (pixels(a) | pixels(b)).sum()
                for a, b in zip(boxes, others, strict=True)]
    np.testing.assert_allclose(iou(boxes, others), expected)


def test_refcoco_splits():
    right = grounding_accuracy([[0, 0, 10, 10], [0, 0, 4, 10], [0, 0, 5, 10], [9, 9, 10, 10]],
                               [RIGHT] * 4)
    splits = by_group(right, ["val", "val", "testA", "testB"])
    assert {name: score.value for name, score in splits.items()} == {
        "val": 0.5, "testA": 1.0, "testB": 0.0}


@pytest.mark.parametrize(("boxes", "others", "message"), [
    (np.zeros((2, 4)), np.zeros((3, 4)), r"\(2, 4\) and \(3, 4\)"),
    (np.zeros(4), np.zeros(4), r"must be \[N, 4\]"),
    ([RIGHT, [0, 0, np.nan, 1]], [RIGHT] * 2, "box 1 is .*nan"),
    ([RIGHT] * 2, [RIGHT, [4, 4, 4, 9]], "right box 1 is .* no area"),
])
def test_errors_name_the_box(boxes, others, message):
    with pytest.raises(ValueError, match=message):
        grounding_accuracy(boxes, others)
