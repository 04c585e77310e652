"""Augmentations: each operation against Pillow frame by frame, one choice for a whole clip."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from data.pipeline import augment


def clips() -> list[np.ndarray]:
    """Noise, a smooth picture with flat parts, and a single odd-sized image."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :56]
    smooth = np.stack([4 * x + y, 100 + y, np.full_like(x, 30)], -1).clip(0, 255)
    return [
        rng.integers(0, 256, (3, 40, 56, 3)).astype(np.uint8),
        np.stack([smooth, smooth[::-1], np.full_like(smooth, 77)]).astype(np.uint8),
        rng.normal(120, 20, (1, 33, 31, 3)).clip(0, 255).astype(np.uint8),
    ]


def by_pillow(clip: np.ndarray, function) -> np.ndarray:
    return np.stack([np.asarray(function(Image.fromarray(frame))) for frame in clip])


@pytest.mark.parametrize("clip", clips(), ids=["noise", "smooth", "image"])
@pytest.mark.parametrize("factor", [0.0, 0.1, 0.73, 1.0, 1.36, 1.9])
@pytest.mark.parametrize("name", ["Contrast", "Brightness", "Sharpness"])
def test_enhancements_equal_pillow(clip, factor, name):
    expected = by_pillow(clip, lambda image: getattr(ImageEnhance, name)(image).enhance(factor))
    np.testing.assert_array_equal(getattr(augment, name.lower())(clip, factor), expected)


@pytest.mark.parametrize("clip", clips(), ids=["noise", "smooth", "image"])
@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_histogram_operations_equal_pillow(clip, name):
    np.testing.assert_array_equal(
        getattr(augment, name)(clip), by_pillow(clip, getattr(ImageOps, name))
    )


def moved_by_pillow(image: Image.Image, matrix) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=(128, 128, 128),
    )


@pytest.mark.parametrize("clip", clips(), ids=["noise", "smooth", "image"])
@pytest.mark.parametrize("amount", [-0.3, -0.11, 0.0, 0.15])
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"])
def test_movements_equal_pillow_within_rounding(clip, amount, name):
    if name == "rotate":
        amount *= 100

        def function(image):
            return image.rotate(amount, Image.Resampling.BILINEAR, fillcolor=(128,) * 3)
    else:
        amount *= 20 if "translate" in name else 1
        matrix = {
            "shear_x": (1, amount, 0, 0, 1, 0),
            "shear_y": (1, 0, 0, amount, 1, 0),
            "translate_x": (1, 0, amount, 0, 1, 0),
            "translate_y": (1, 0, 0, 0, 1, amount),
        }[name]

        def function(image):
            return moved_by_pillow(image, matrix)

    difference = np.abs(
        getattr(augment, name)(clip, amount).astype(int) - by_pillow(clip, function).astype(int)
    )
    assert difference.max() <= (2 if name == "rotate" else 1)
    assert np.mean(difference > 1) < 0.01
    if amount == 0:
        np.testing.assert_array_equal(getattr(augment, name)(clip, amount), clip)


@pytest.mark.parametrize("name", sorted(augment.OPERATIONS))
@pytest.mark.parametrize("level", [0, 5, 10])
def test_every_operation_treats_all_frames_alike(name, level):
    frame = clips()[0][:1]
    alone = augment.OPERATIONS[name](frame, level / augment.MAX_LEVEL, 1)
    clip = augment.OPERATIONS[name](np.repeat(frame, 4, 0), level / augment.MAX_LEVEL, 1)
    assert clip.dtype == np.uint8 and clip.shape == (4, *frame.shape[1:])
    np.testing.assert_array_equal(clip, np.repeat(alone, 4, 0))


def test_the_generator_decides_and_strength_matters():
    clip = clips()[1]

    def draw(seed: int, level: float = 7, operations: int = 2) -> np.ndarray:
        return augment.rand_augment(clip, operations, level, np.random.default_rng(seed))

    results = [draw(seed) for seed in range(200)]
    assert all((a == draw(seed)).all() for seed, a in enumerate(results[:40]))
    assert len({result.tobytes() for result in results}) > 35
    # Each operation is left out half of the time, and Identity changes nothing.
    untouched = np.mean([(result == clip).all() for result in results])
    assert 0.2 < untouched < 0.45
    np.testing.assert_array_equal(draw(0, operations=0), clip)

    def change(level):
        return np.mean([np.abs(draw(s, level).astype(int) - clip).mean() for s in range(60)])

    assert change(9) > change(6) * 1.2


def test_lists_of_operations():
    both = {"Identity", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY",
            "Rotate"}  # fmt: skip
    assert set(augment.VIDEO_OPERATIONS) == both | {"Contrast"}
    assert set(augment.IMAGE_OPERATIONS) == both | {"AutoContrast", "Equalize"}


def test_flip_mirrors_and_texts_of_sides_are_found():
    clip = clips()[0]
    np.testing.assert_array_equal(augment.flip(clip), clip[:, :, ::-1])
    assert augment.mentions_sides(["a red three", "it moves to the Left"])
    assert augment.mentions_sides(["rightwards"])
    assert not augment.mentions_sides(["a bright cleft", "up and down"])
