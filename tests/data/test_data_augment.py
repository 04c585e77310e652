"""Augmentations: each operation against Pillow frame by frame, one choice for a whole clip."""

import types
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from data.pipeline import augment, train_batches
from data.pipeline.examples import augmented
from mplug2_jax.contracts.errors import DataError


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
    np.testing.assert_array_equal(draw(0, operations=0), clip)

    def change(level):
        return np.mean([np.abs(draw(s, level).astype(int) - clip).mean() for s in range(60)])

    assert change(9) > change(6) * 1.2


def drawn(monkeypatch, clip: np.ndarray, count: int, draws: int, **options) -> list[list[str]]:
    """Which operations were applied, in each of so many draws."""
    applied: list[list[str]] = []
    for name in augment.OPERATIONS:
        def note(clip, strength, sign, name=name):
            applied[-1].append(name)
            return clip

        monkeypatch.setitem(augment.OPERATIONS, name, note)
    for seed in range(draws):
        applied.append([])
        augment.rand_augment(clip, count, 5, np.random.default_rng(seed), **options)
    return applied


def test_a_clip_gets_different_operations_each_of_them_an_image_any_with_half_a_chance(monkeypatch):
    clip, image = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)
    videos = drawn(monkeypatch, clip, 2, 400)
    assert all(len(set(names)) == 2 for names in videos)
    seen = Counter(name for names in videos for name in names)
    assert set(seen) == set(augment.VIDEO_OPERATIONS)
    assert max(seen.values()) < 2 * min(seen.values())
    assert [len(names) for names in drawn(monkeypatch, clip, 40, 2)] == [9, 9]
    images = drawn(monkeypatch, image, 2, 400)
    sizes = Counter(map(len, images))
    assert 70 < sizes[0] < 130 and 70 < sizes[2] < 130
    assert any(len(names) == 2 and names[0] == names[1] for names in images)


def test_mirroring_is_an_operation_only_where_it_may_be(monkeypatch):
    clip = np.zeros((2, 4, 4, 3), np.uint8)
    for flips in (False, True):
        names = {name for names in drawn(monkeypatch, clip, 3, 60, flips=flips) for name in names}
        assert names == {*augment.VIDEO_OPERATIONS, *["HorizontalFlip"] * flips}


def video_stream(**options):
    given = dict(image_size=24, crop_area=(1.0, 1.0), resize=1.14, flip=True, rand_augment=(2, 5))
    return types.SimpleNamespace(**given | options)


def test_a_pretraining_clip_is_stretched_augmented_and_then_cut_as_pillow_would():
    """int(24 * 1.14) = 27 pixels a side; the crop's corner is one of 4 x 4."""
    y, x = np.mgrid[:60, :100]
    clip = np.stack([np.stack([2 * x + t, 3 * y, x + y + t], -1) for t in range(3)])
    clip = clip.astype(np.uint8)
    corners, operations = set(), set()
    for seed in range(40):
        out, box = augmented(clip, ["a cat"], video_stream(), np.random.default_rng(seed))
        assert out.shape == (3, 24, 24, 3) and box is None
        square = by_pillow(clip, lambda frame: frame.resize((27, 27), Image.Resampling.BICUBIC))
        rng = np.random.default_rng(seed)  # the same draws, in the same order
        for name in rng.choice([*augment.VIDEO_OPERATIONS, "HorizontalFlip"], 2, replace=False):
            rng.random()
            sign = int(rng.choice((-1, 1)))
            square = augment.OPERATIONS[name](square, 0.5, sign)
            operations.add(name)
        top, left = (int(rng.integers(4)) for _ in range(2))
        corners.add((top, left))
        expected = square[:, top:top + 24, left:left + 24].astype(int)
        # Pillow's and swscale's bicubic filters differ by a level, which contrast makes two of.
        assert np.abs(out.astype(int) - expected).mean() < 1.0
        assert np.abs(out.astype(int) - expected)[:, 3:-3, 3:-3].max() <= 8
    assert len(corners) > 10 and "HorizontalFlip" in operations


def test_texts_of_sides_keep_the_flip_out_of_the_operations():
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8)[None, None, :, None],
                           (2, 60, 60, 3))

    def mirrored(text: str, **options) -> set[bool]:
        outs = (augmented(ramp, [text], video_stream(rand_augment=(10, 0), **options),
                          np.random.default_rng(seed))[0] for seed in range(40))
        return {bool(out[0, 12, 0, 0] > out[0, 12, -1, 0]) for out in outs}

    assert mirrored("a cat runs") == {True}  # all ten operations are drawn
    assert mirrored("it runs to the left") == {False}
    assert mirrored("a cat runs", flip=False) == {False}


@pytest.mark.parametrize(("changes", "message"), [
    (dict(resize=0.5), "resize=0.5 must be 0, or a factor from 1 on"),
    (dict(resize=1.14, crop_area=(0.5, 1.0)), "takes the place of crop_area=(0.5, 1.0)"),
    (dict(resize=1.14, crop_area=(1.0, 1.0), flip=True), "rand_augment's operations"),
    (dict(resize=1.14, crop_area=(1.0, 1.0), ask="box", target_length=6), "use crop_area"),
    (dict(split={"a": dict(split="video_train", weight=1.0, resize=1.14)}), "crop_area"),
    (dict(tags="words"), "tags='words' must be empty, ocr, objects or ocr+objects"),
])
def test_ways_to_crop_that_exclude_each_other_are_refused(
        changes, message, corpus, stream, tokenizer):
    with pytest.raises(DataError) as caught:
        train_batches(corpus, {"v": stream(**changes)}, tokenizer, 0)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_stream_stretches_clips_of_any_shape(corpus, stream, tokenizer):
    options = dict(resize=1.14, crop_area=(1.0, 1.0), flip=True, rand_augment=(2, 5))
    batches = train_batches(corpus, {"v": stream(**options)}, tokenizer, 0, threads=0)
    assert next(batches)["v"]["video"].shape == (8, 3, 32, 32, 3)


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
