"""Overlap of boxes, and the accuracy of grounding: right where the overlap is at least a half."""

import numpy as np

THRESHOLD = 0.5


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union, float64 [N] in 0..1, of `boxes` and `others` [N, 4], pair by pair.

    Boxes are (x0, y0, x1, y1), in any one unit, with the area (x1 - x0) * (y1 - y0). A predicted
    box may be empty or turned round (x1 <= x0), as a model may say: it overlaps with nothing.

    Raises:
      ValueError: shapes that differ or are not [N, 4], or a number that is not finite.
    """
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    if boxes.shape != others.shape or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be [N, 4] twice, got {boxes.shape} and {others.shape}")
    for name, part in (("box", boxes), ("other box", others)):
        for row in np.flatnonzero(~np.isfinite(part).all(axis=1)):
            raise ValueError(f"{name} {row} is {part[row].tolist()}: expected finite numbers")
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = _area(boxes) + _area(others) - shared
    return np.divide(shared, union, out=np.zeros(len(boxes)), where=union > 0)


def grounding_accuracy(predictions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """1.0 where the predicted box overlaps with the right one by at least 0.5: float64 [N].

    Exactly 0.5 is right.

    Args:
      predictions, boxes: [N, 4], as those of `iou`.

    Raises:
      ValueError: as `iou`, and a right box without an area, which no prediction could meet.
    """
    overlap = iou(predictions, boxes)
    for row in np.flatnonzero(_area(np.asarray(boxes, np.float64)) <= 0):
        raise ValueError(f"right box {row} is {list(map(float, boxes[row]))}: it has no area")
    return (overlap >= THRESHOLD).astype(np.float64)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
