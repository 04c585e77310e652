"""Decoding only what is needed gives the frames of a decode from the beginning, bit for bit."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from data.pipeline import resolve
from data.pipeline.examples import decode
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess import packets, video
from mplug2_jax.preprocess.image import _resize_box
from mplug2_jax.preprocess.video import decode_video, dense_indices, frame_indices

COUNT = 60


def moving() -> np.ndarray:
    """Texture that moves under noise, so that every frame differs: uint8 [60, 64, 96, 3]."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (8, 12, 3)).repeat(8, 0).repeat(8, 1)
    shifted = np.stack([np.roll(base, (t, 2 * t), (0, 1)) for t in range(COUNT)])
    return (shifted + rng.normal(0, 6, shifted.shape)).clip(0, 255).astype(np.uint8)


def encode(codec: str, container_format: str, **options: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        output = container.add_stream(codec, rate=25, options=options)
        output.height, output.width, output.pix_fmt = 64, 96, "yuv420p"
        for pixels in moving():
            container.mux(output.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(output.encode())
    return file.getvalue()


def gif() -> bytes:
    frames, file = [Image.fromarray(pixels) for pixels in moving()], io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=40)
    return file.getvalue()


QUIET = {"x265-params": "log-level=none"}
FILES = {
    "one group": ("libx264", "mp4", {}),
    "groups": ("libx264", "mp4", {"g": "12"}),
    "open groups": ("libx264", "mp4", {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
    "no keyframes": ("libx264", "matroska", {"x264-params": "intra-refresh=1:keyint=12"}),
    "transport stream": ("libx264", "mpegts", {"g": "10"}),
    "h264 avi": ("libx264", "avi", {"g": "10"}),
    "hevc": ("libx265", "mp4", {"g": "12"} | QUIET),
    "hevc open groups": ("libx265", "mkv", {"x265-params": "keyint=12:open-gop=1:log-level=none"}),
    "vp8": ("libvpx", "webm", {"g": "12"}),
    "vp8 hidden": ("libvpx", "webm", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "30"}),
    "vp9": ("libvpx-vp9", "webm", {"g": "12", "cpu-used": "8"}),
    "mpeg4": ("mpeg4", "mp4", {"bf": "2"}),
    "mpeg4 avi": ("mpeg4", "avi", {"bf": "2"}),
    "gif": None,
}


@pytest.mark.parametrize("name", FILES)
def test_chosen_frames_equal_a_decode_of_every_frame(name, monkeypatch):
    made = FILES[name]
    if made and made[1] == "mkv":
        made = (made[0], "matroska", made[2])
    data = encode(made[0], made[1], **made[2]) if made else gif()
    with av.open(io.BytesIO(data)) as container:
        every = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert len(every) == COUNT and len({frame.tobytes() for frame in every}) == COUNT
    for count in (1, 4, 16, 70):
        expected = every[frame_indices(COUNT, count)]
        np.testing.assert_array_equal(decode_video(data, count), expected)
        chosen = frame_indices(COUNT, count, np.random.default_rng(count))
        found = decode_video(data, count, np.random.default_rng(count))
        np.testing.assert_array_equal(found, every[chosen])
    # Frames 25 to 49 lie from 1.0 s to before 2.0 s.
    found = decode_video(data, 4, start=0.999, end=1.999)
    np.testing.assert_array_equal(found, every[25:50][frame_indices(25, 4)])
    found = decode_video(data, 3, start=1.999)
    np.testing.assert_array_equal(found, every[50:][frame_indices(10, 3)])
    with pytest.raises(MediaError, match="no frame between 9.00 and 10.00 s in a video of 2"):
        decode_video(data, 3, start=9, end=10)


def test_groups_without_a_chosen_frame_are_not_decoded(monkeypatch):
    sent = []
    original = video._Clip._decode
    monkeypatch.setattr(
        video._Clip, "_decode", lambda clip, *given: sent.append(given) or original(clip, *given)
    )
    data = encode("libx264", "mp4", g="10")
    decode_video(data, 2, start=2.0)  # the last 10 frames are a group of their own
    assert 2 <= len(sent) <= 12
    sent.clear()
    decode_video(data, 3)
    assert len(sent) <= 33


def test_a_record_says_which_part_of_its_clip_it_is_about(stream):
    data = encode("libx264", "mp4", g="10")
    plain = resolve(stream(frames=4))
    record = {"kind": "video", "media": data}
    np.testing.assert_array_equal(decode(record, plain, None), decode_video(data, 4))
    part = decode(record | {"start": 1.0, "end": 2.0}, plain, None)
    np.testing.assert_array_equal(part, decode_video(data, 4, start=1.0, end=2.0))
    assert (part != decode_video(data, 4)).any()


def test_work_is_bounded(monkeypatch):
    data = encode("libx264", "mp4")
    for module, name, limit, message in (
        (video, "MAX_PIXELS", 5000, "96 x 64 pixels are too large"),
        (packets, "_MAX_PACKETS", 50, "more than 50 packets"),
        (video, "_MAX_DECODED_PIXELS", 96 * 64 * 10, "pixels to decode"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, limit)
            with pytest.raises(MediaError, match=message):
                decode_video(data, 4)
    assert len(decode_video(data, 4)) == 4


@pytest.mark.parametrize("box", [(0, 0, 96, 64), (7, 3, 60, 50), (10, 10, 11, 12), (0, 0, 96, 1)])
@pytest.mark.parametrize("size", [24, 80])
def test_quick_resizing_is_near_pillow_and_the_same_for_all_frames(box, size):
    y, x = np.mgrid[:64, :96]
    wave = np.stack([127 + 100 * np.sin(x / 9), 127 + 90 * np.cos(y / 7), x + y], -1)
    clip = np.repeat(wave.astype(np.uint8)[None], 3, 0)
    expected = Image.fromarray(clip[0]).resize((size, size), Image.Resampling.BICUBIC, box)
    found = _resize_box(clip, size, box)
    tolerance = 8 if box[2] - box[0] == 1 else 3  # filters differ most where all is border
    assert np.abs(found[0].astype(int) - np.asarray(expected)).max() <= tolerance
    assert (found == found[:1]).all()


def test_dense_clips_keep_their_stride():
    np.testing.assert_array_equal(dense_indices(20, 4, 3), [5, 8, 11, 14])  # in the middle
    np.testing.assert_array_equal(dense_indices(5, 4, 3), [0, 3, 4, 4])  # the last one again
    views = dense_indices(20, 4, 3, clips=3).reshape(4, 3).T
    np.testing.assert_array_equal(views, [[0, 3, 6, 9], [5, 8, 11, 14], [10, 13, 16, 19]])
    rng = np.random.default_rng(0)
    drawn = np.stack([dense_indices(20, 4, 3, rng) for _ in range(300)])
    assert (np.diff(drawn, axis=1) == 3).all()
    assert set(drawn[:, 0]) == set(range(11)) and drawn.max() == 19
    with pytest.raises(ValueError, match="stride=0"):
        dense_indices(20, 4, 0)


def test_a_dense_stream_reads_the_frames_it_names():
    data = encode("libx264", "mp4", g="12", bf="2")
    every = decode_video(data, COUNT)
    np.testing.assert_array_equal(
        decode_video(data, 4, stride=5), every[dense_indices(COUNT, 4, 5)])
    record = {"kind": "video", "media": data, "start": 0.0, "end": 0.0}
    stream = resolve(dict(split="train", frames=4, frame_stride=7, image_size=16))
    expected = every[dense_indices(COUNT, 4, 7, np.random.default_rng(3))]
    np.testing.assert_array_equal(decode(record, stream, np.random.default_rng(3)), expected)
    views = decode(record, stream, None, clips=3)
    for number, start in enumerate((0, 19, 38)):
        np.testing.assert_array_equal(views[number::3], every[start:start + 22:7])
