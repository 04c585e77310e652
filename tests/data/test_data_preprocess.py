"""Frame choice, text cleaning, and decoding and cropping of media."""

import io
import json
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.demo.scenes import encode_video
from data.pipeline import open_split
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.image import decode_image, random_resized_crop, resize
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.video import decode_video, frame_indices

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "preprocess.json").read_text())


def frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames whose grey level is their number times 8, which survives encoding well enough."""
    levels = (8 * np.arange(count) % 256).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def numbers(clip: np.ndarray) -> list[int]:
    """The frame numbers that `frames` wrote into the pixels."""
    return np.round(clip.mean((1, 2, 3)) / 8).astype(int).tolist()


def encode(clip: np.ndarray, container_format: str, codec: str, first_pts: int = 0) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        output = container.add_stream(codec, rate=8)
        output.bit_rate = 4_000_000
        output.height, output.width, output.pix_fmt = *clip.shape[1:3], "yuv420p"
        for number, pixels in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number + first_pts
            container.mux(output.encode(frame))
        container.mux(output.encode())
    return file.getvalue()


@pytest.mark.parametrize(
    "case",
    GOLDEN["frame_indices_middle"],
    ids=lambda case: f"{case['num_frames']}of{case['video_length']}",
)
def test_middle_frames_equal_the_released_model(case):
    result = frame_indices(case["video_length"], case["num_frames"])
    assert result.dtype == np.int64
    assert result.tolist() == case["indices"]


@pytest.mark.parametrize(
    "case", GOLDEN["text_cleaning"], ids=lambda case: f"{case['text'][:12]!r}-{case['max_words']}"
)
def test_text_cleaning_equals_the_released_model(case):
    assert clean_caption(case["text"], case["max_words"]) == case["caption"]
    assert clean_question(case["text"], case["max_words"]) == case["question"]


@pytest.mark.parametrize(("length", "wanted"), [(16, 4), (17, 5), (100, 8), (8, 8), (3, 8), (1, 2)])
def test_random_frames_lie_one_in_each_segment(length, wanted):
    rng = np.random.default_rng(0)
    draws = np.stack([frame_indices(length, wanted, rng) for _ in range(300)])
    segments = min(length, wanted)
    edges = np.linspace(0, length, segments + 1).astype(int)
    for number in range(segments):
        assert set(draws[:, number]) == set(range(edges[number], edges[number + 1]))
    assert (draws[:, segments:] == length - 1).all()


def test_frame_indices_refuse_nothing():
    with pytest.raises(ValueError, match="video_length=0"):
        frame_indices(0, 4)


# mp4 states its number of frames; Matroska, WebM and MPEG-TS do not.
@pytest.mark.parametrize(
    ("container_format", "codec"),
    [
        ("mp4", "libx264"),
        ("avi", "mpeg4"),
        ("matroska", "libx264"),
        ("webm", "libvpx"),
        ("mpegts", "libx264"),
    ],
)
@pytest.mark.parametrize("count", [30, 3])
def test_decodes_the_chosen_frames(container_format, codec, count):
    data = encode(frames(count), container_format, codec)
    clip = decode_video(data, 8)
    assert clip.shape == (8, 48, 64, 3) and clip.dtype == np.uint8
    assert numbers(clip) == frame_indices(count, 8).tolist()
    randomly = decode_video(data, 8, np.random.default_rng(5))
    assert numbers(randomly) == frame_indices(count, 8, np.random.default_rng(5)).tolist()


def test_pixels_equal_a_plain_decode_of_every_frame(corpus):
    data = open_split(corpus, "video_test")[0]["media"]
    with av.open(io.BytesIO(data)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(every) == 16
    np.testing.assert_array_equal(decode_video(data, 16), np.stack(every))
    np.testing.assert_array_equal(decode_video(data, 5), np.stack(every)[frame_indices(16, 5)])


def test_frames_that_an_edit_list_hides_are_not_counted():
    data = encode(frames(30), "mp4", "libx264", first_pts=-10)
    with av.open(io.BytesIO(data)) as container:
        stated = container.streams.video[0].frames
        visible = numbers(
            np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        )
    assert len(visible) < stated == 30  # or this file tests nothing
    clip = decode_video(data, 4)
    assert numbers(clip) == [visible[index] for index in frame_indices(len(visible), 4)]


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"GIF89a", b"not a video " * 50])
def test_garbage_is_a_media_error_of_one_line(data):
    for decode in (lambda: decode_video(data, 4), lambda: decode_image(data)):
        with pytest.raises(MediaError) as caught:
            decode()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("container_format", "codec"), [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx")]
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_truncated_videos_are_media_errors(container_format, codec, share):
    # Noise spreads the bytes evenly, so that a share of the bytes is a share of the clip.
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3)).astype(np.uint8)
    data = encode(noise, container_format, codec)
    assert len(decode_video(data, 4)) == 4
    with pytest.raises(MediaError):
        decode_video(data[: int(share * len(data))], 4)


def test_audio_without_video_is_a_media_error():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        output = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(output.encode(frame))
        container.mux(output.encode())
    with pytest.raises(MediaError, match="no video stream"):
        decode_video(file.getvalue(), 4)


def test_overwritten_clip_is_a_media_error():
    data = bytearray(encode_video(frames(16)))
    middle = data.index(b"mdat") + 4
    data[middle:] = b"\xff" * (len(data) - middle)
    with pytest.raises(MediaError):
        decode_video(bytes(data), 4)


def image_bytes(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def test_images_of_every_mode_become_rgb():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(image_bytes(rgb, "PNG")), rgb)
    grey = decode_image(image_bytes(rgb[..., 0], "PNG"))
    np.testing.assert_array_equal(grey, np.repeat(rgb[..., :1], 3, -1))
    alpha = np.concatenate([rgb, rgb[..., :1]], -1)
    assert decode_image(image_bytes(alpha, "PNG")).shape == (20, 30, 3)


def test_truncated_image_is_a_media_error():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    data = image_bytes(pixels, "JPEG")
    with pytest.raises(MediaError, match="undecodable image"):
        decode_image(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("side", "message"), [(12000, "12000 x 12000"), (20000, "400000000")])
def test_images_that_claim_enormous_sizes_are_media_errors(side, message):
    bomb = bytearray(image_bytes(np.zeros((8, 8, 3), np.uint8), "PNG"))
    bomb[16:24] = side.to_bytes(4, "big") * 2  # width and height in the PNG header, then its sum
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(MediaError, match=message):
        decode_image(bytes(bomb))


def test_resize_keeps_content_and_crop_is_one_box_for_the_clip():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None], (3, 64, 64, 3))
    small = resize(ramp, 32)
    assert small.shape == (3, 32, 32, 3) and small.dtype == np.uint8
    assert abs(small[0, 16, 16, 0].astype(int) - 33) <= 1
    np.testing.assert_array_equal(resize(ramp, 64), ramp)
    crop = random_resized_crop(ramp, 32, (0.2, 0.4), np.random.default_rng(0))
    assert crop.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(crop[0], crop[1])
    np.testing.assert_array_equal(crop[0], crop[2])


def test_crop_areas_stay_in_range_and_differ():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120].astype(np.uint8)
    clip = np.stack([x, y, y], -1)[None]
    areas, corners = [], set()
    for _ in range(200):
        crop = random_resized_crop(clip, 30, (0.3, 0.6), rng)[0].astype(int)
        width = np.ptp(crop[..., 0]) * 30 / 29
        height = np.ptp(crop[..., 1]) * 30 / 29
        areas.append(width * height / (90 * 120))
        corners.add((crop[0, 0, 0] // 8, crop[0, 0, 1] // 8))
        assert 0.68 < width / height < 1.47
    assert 0.25 < min(areas) < 0.36 and 0.54 < max(areas) < 0.66
    assert len(corners) > 10


def test_crop_of_the_whole_frame_is_resize():
    clip = np.random.default_rng(0).integers(0, 255, (2, 40, 60, 3)).astype(np.uint8)
    whole = random_resized_crop(clip, 32, (1.0, 1.0), np.random.default_rng(0))
    np.testing.assert_array_equal(whole, resize(clip, 32))


def test_crop_of_a_narrow_frame_falls_back_to_the_centre():
    clip = np.zeros((1, 20, 400, 3), np.uint8)
    clip[:, :, 184:216] = 255  # the centre, somewhat over 4/3 of the height wide
    crop = random_resized_crop(clip, 16, (0.9, 1.0), np.random.default_rng(0))
    assert crop.shape == (1, 16, 16, 3)
    assert crop.min() > 200
