"""What several data tests share: the size of the miniature corpus, and comparing batches."""

import numpy as np

from data.demo.builder import Settings

SIZES = Settings(
    video_train=24,
    video_validation=12,
    video_test=12,
    image_train=24,
    image_validation=12,
    image_test=12,
    text_train=400,
    text_validation=12,
)


def take(iterator, count: int) -> list:
    """The next `count` elements."""
    return [next(iterator) for _ in range(count)]


def assert_same(one, other) -> None:
    """Batches (nested dicts of arrays) are equal in keys, dtypes, shapes and values."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
