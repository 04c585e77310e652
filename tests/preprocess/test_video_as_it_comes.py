"""Video in the containers, codecs and states that people have: the frames of a plain decode."""

import gc
import io
import shutil
import subprocess
from collections import Counter

import av
import numpy as np
import pytest
from clips import HEIGHT, UNIT, WIDTH, damaged, encode, moving, plain, remux

from data.media import probe
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess import frames, packets, video
from mplug2_jax.preprocess.frames import _NUMBERED, Turning
from mplug2_jax.preprocess.sampling import within
from mplug2_jax.preprocess.video import decode_video, frame_indices, video_facts

COUNT = 40
av.logging.set_level(av.logging.PANIC)


def assert_as_plain(data: bytes, counts: tuple[int, ...] = (3, 16, COUNT)) -> list[np.ndarray]:
    every = plain(data)
    for count in counts:
        expected = np.stack([every[n] for n in frame_indices(len(every), count)])
        np.testing.assert_array_equal(decode_video(data, count), expected)
    return every


# By name: codec, container, pixel format, options; packets decoded for two frames of the last
# eight, where the groups of ten begin anew.
CODECS = {
    "av1 mp4": ("libsvtav1", "mp4", "yuv420p", dict(preset="12", g="10"), 10),
    "av1 mkv": ("libsvtav1", "matroska", "yuv420p", dict(preset="12", g="10"), 10),
    "mpeg2 ts, open groups": ("mpeg2video", "mpegts", "yuv420p", dict(g="10", bf="2"), 13),
    "mpeg2 ps": ("mpeg2video", "vob", "yuv420p", dict(g="10"), 10),
    "mpeg2 elementary": ("mpeg2video", "mpeg2video", "yuv420p", dict(g="10"), 10),
    "mpeg1": ("mpeg1video", "mpeg", "yuv420p", dict(g="10", bf="2"), 13),
    "mpeg2 interlaced": ("mpeg2video", "mpegts", "yuv420p", dict(g="10", flags="+ilme+ildct"), 10),
    "wmv2": ("wmv2", "asf", "yuv420p", dict(g="10"), 10),
    "wmv1": ("wmv1", "asf", "yuv420p", dict(g="10"), 10),
    "msmpeg4 avi": ("msmpeg4", "avi", "yuv420p", dict(g="10"), 10),
    "mjpeg avi": ("mjpeg", "avi", "yuvj420p", {}, 2),
    "mjpeg mov": ("mjpeg", "mov", "yuvj420p", {}, 2),
    "mpeg4 avi": ("mpeg4", "avi", "yuv420p", dict(g="10"), 10),
    "mpeg4 avi, frames out of order": ("mpeg4", "avi", "yuv420p", dict(g="10", bf="2"), COUNT),
    "mpeg4 mp4": ("mpeg4", "mp4", "yuv420p", dict(g="10", bf="2"), 13),
    "h264 avi": ("libx264", "avi", "yuv420p", dict(g="10", bf="0"), 10),
    "h264 ts, open groups": (
        "libx264", "mpegts", "yuv420p", {"x264-params": "keyint=10:open-gop=1:bframes=3"}, 14),
    "h264 interlaced": (
        "libx264", "mpegts", "yuv420p", {"g": "10", "flags": "+ilme", "x264-params": "tff=1"}, 11),
    "h264 elementary": ("libx264", "h264", "yuv420p", dict(g="10"), COUNT),
    "hevc, open groups": (
        "libx265", "mp4", "yuv420p", {"x265-params": "keyint=10:open-gop=1:log-level=none"}, 14),
    "vp8 ogg": ("libvpx", "ogg", "yuv420p", dict(g="10"), 10),
    "vp9": ("libvpx-vp9", "webm", "yuv420p", {"g": "10", "cpu-used": "8"}, 10),
    "flv": ("flv", "flv", "yuv420p", dict(g="10"), 10),
    "prores": ("prores", "mov", "yuv422p10le", {}, 2),
    "ffv1": ("ffv1", "matroska", "yuv420p", dict(g="10"), 10),
    "raw": ("rawvideo", "yuv4mpegpipe", "yuv420p", {}, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_is_decoded_from_its_keyframes(name, monkeypatch):
    codec, container_format, pix_fmt, options, most = CODECS[name]
    data = encode(codec, container_format, moving(COUNT), pix_fmt=pix_fmt, **options)
    assert_from_keyframes(data, most, monkeypatch)


@pytest.mark.parametrize("suffix", ["ogv", "mkv"])
def test_theora_is_decoded_from_its_keyframes(suffix, tmp_path, monkeypatch):
    """PyAV has no encoder of it; of VC-1 and WMV3 FFmpeg has none either."""
    program = shutil.which("ffmpeg") or pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    made = subprocess.run(
        [program, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}",
         "-r", "25", "-i", "-", "-c:v", "libtheora", "-g", "10", str(tmp_path / f"x.{suffix}")],
        input=moving(COUNT).tobytes(), capture_output=True)
    if b"libtheora" in made.stderr:
        pytest.skip("this ffmpeg has no encoder of Theora")
    assert made.returncode == 0, made.stderr
    assert_from_keyframes((tmp_path / f"x.{suffix}").read_bytes(), 10, monkeypatch)


def assert_from_keyframes(data: bytes, most: int, monkeypatch) -> None:
    """Its frames are those of a plain decode, and few packets are decoded for the last ones."""
    every = assert_as_plain(data)
    assert len(every) == COUNT
    rng = np.random.default_rng
    expected = np.stack([every[n] for n in frame_indices(COUNT, 5, rng(1))])
    np.testing.assert_array_equal(decode_video(data, 5, rng(1)), expected)
    counts = Counter()
    last = decode_video(data, 2, start=31.5 / 25, counts=counts)
    np.testing.assert_array_equal(last, [every[33], every[37]])
    assert counts["decoded"] <= most and counts["refused"] == 0
    part = decode_video(data, 3, start=19.5 / 25, end=34.5 / 25)
    np.testing.assert_array_equal(part, [every[20 + n] for n in frame_indices(15, 3)])
    # A file of many hours, whose packets are not kept but read again; and of large frames, of
    # which few wait to be converted.
    monkeypatch.setattr(packets, "_KEPT_BYTES", 0)
    monkeypatch.setattr(frames, "_WAITING_PIXELS", 2 * HEIGHT * WIDTH)
    assert_as_plain(data, (3, COUNT))
    np.testing.assert_array_equal(decode_video(data, 2, start=31.5 / 25), last)


MATRICES = {  # a, b, c, d: (p, q) goes to (a p + c q, b p + d q)
    "as stored": (1, 0, 0, 1), "90": (0, 1, -1, 0), "180": (-1, 0, 0, -1), "270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1), "upside down": (1, 0, 0, -1), "transposed": (0, 1, 1, 0),
    "transposed and turned": (0, -1, -1, 0),
}  # fmt: skip


def turned(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Every pixel taken to where the matrix says."""
    height, width = image.shape[:2]
    q, p = np.mgrid[:height, :width]
    x, y = a * p + c * q, b * p + d * q
    x, y = x - x.min(), y - y.min()
    out = np.empty((y.max() + 1, x.max() + 1, 3), np.uint8)
    out[y, x] = image
    return out


@pytest.mark.parametrize("container_format", ["mp4", "matroska"])
@pytest.mark.parametrize("name", MATRICES)
def test_video_is_turned_as_players_show_it(name, container_format):
    a, b, c, d = MATRICES[name]
    matrix = [a * UNIT, b * UNIT, 0, c * UNIT, d * UNIT, 0, 0, 0, 1 << 30]
    data = encode("libx264", container_format, moving(6), matrix=matrix)
    expected = np.stack([turned(image, a, b, c, d) for image in plain(data)])
    found = decode_video(data, 6)
    np.testing.assert_array_equal(found, expected)
    assert probe("video", data)[1:3] == (found.shape[2], found.shape[1])


def test_a_phones_portrait_video_stands_upright():
    turn = int(UNIT * 1.001)  # some write neither exact numbers nor places
    data = encode("libx264", "mp4", moving(6, 64, 96),
                  matrix=[3, turn, 0, -turn, -2, 0, 64 << 16, 0, 1 << 30])  # fmt: skip
    found = decode_video(data, 6)
    assert found.shape == (6, 96, 64, 3)
    np.testing.assert_array_equal(found, [np.rot90(image, -1) for image in plain(data)])
    skew = [46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30]  # 45 degrees: nobody turns that
    assert decode_video(encode("libx264", "mp4", moving(6), matrix=skew), 2).shape[1:3] == (48, 64)


def test_decoded_frames_do_not_wait_for_garbage_collection():
    data = encode("libx264", "mp4", moving(6))
    decode_video(data, 6)
    gc.collect()
    gc.disable()
    try:
        decode_video(data, 6)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_degrees_say_the_same_as_matrices():
    image = moving(1)[0]
    for degrees, turn in _NUMBERED.items():
        shown = image.swapaxes(0, 1) if turn.transposed else image
        shown = shown[:, ::-1] if turn.left_right else shown
        shown = shown[::-1] if turn.up_down else shown
        np.testing.assert_array_equal(shown, np.rot90(image, degrees // 90))
    assert Turning() == (False, False, False)


@pytest.fixture(scope="module")
def groups() -> bytes:
    """Four groups of 20 frames, in them frames out of order."""
    return encode("libx264", "mp4", moving(80), g="20", bf="3")


@pytest.mark.parametrize("container_format", ["matroska", "mpegts", "mp4", "mov", "flv"])
def test_copies_of_a_part_are_read_whatever_their_times(groups, container_format):
    for change, least in (
        (dict(first=40), 40),  # times go on from 1.6 s
        (dict(first=40, rebase=True), 40),  # or from 0, and below
        (dict(first=47), 20),  # in the middle of a group: up to the next keyframe all is lost
        (dict(last=65), 62),
        (dict(shift=100.0), 80),
        (dict(shift=-0.4), 70),
    ):
        data = remux(groups, container_format, **change)
        every = assert_as_plain(data, (4, 16))
        assert len(every) >= least
        facts = probe("video", data)
        assert facts[1:] == (64, 48, len(every))
        assert facts.duration == pytest.approx(len(every) / 25, abs=0.02)


@pytest.mark.parametrize(("container_format", "codec"), [
    ("matroska", "libx264"), ("webm", "libvpx"), ("asf", "wmv2"), ("mp4", "libx264"),
    ("mpegts", "libx264"), ("flv", "libx264"), ("mov", "libx264"), ("ogg", "libvpx"),
])  # fmt: skip
@pytest.mark.parametrize("late", [0.5, 30.0])
def test_files_that_start_late_are_no_truncated_ones(container_format, codec, late):
    times = [1000 * late + 40 * n for n in range(COUNT)]
    data = encode(codec, container_format, moving(COUNT), times=times)
    every = assert_as_plain(data, (4,))
    assert len(every) == COUNT and probe("video", data).frames == COUNT
    if container_format == "ogg":  # PyAV rounds its times
        return
    # The first frame is at 0, as players show it.
    part = decode_video(data, 2, start=0.795, end=1.195)
    np.testing.assert_array_equal(part, [every[22], every[27]])
    if container_format in ("matroska", "webm"):
        with pytest.raises(MediaError, match="truncated video|undecodable"):
            decode_video(data[: len(data) // 2], 4)


def test_open_groups_that_were_cut_lose_what_leads_them():
    # Half of it, so that what comes first refers to frames that are gone.
    data = encode("libx265", "mp4", moving(80),
                  **{"x265-params": "keyint=20:open-gop=1:bframes=3:log-level=none"})  # fmt: skip
    for first in range(36, 46):
        assert_as_plain(remux(data, "matroska", first=first), (4, 30))
    data = encode("mpeg2video", "mpegts", moving(COUNT), g="10", bf="2")
    for first in range(9, 14):
        assert_as_plain(remux(data, "mpegts", first=first), (4, 30))


@pytest.mark.parametrize(("container_format", "codec"), [
    ("matroska", "libx264"), ("mp4", "libx264"), ("webm", "libvpx"),
])  # fmt: skip
def test_frames_at_uneven_distances(container_format, codec):
    times = np.cumsum(np.random.default_rng(1).integers(5, 200, COUNT)).tolist()
    data = encode(codec, container_format, moving(COUNT), times=times, g="10")
    every = assert_as_plain(data)
    begin, end = 1.0, 3.0
    inside = [n for n, time in enumerate(times) if begin <= (time - times[0]) / 1000 < end]
    expected = [every[inside[n]] for n in frame_indices(len(inside), 5)]
    np.testing.assert_array_equal(decode_video(data, 5, start=begin, end=end), expected)


@pytest.mark.parametrize("container_format", ["mp4", "matroska"])
def test_damaged_packets_cost_their_frames(container_format):
    whole = encode("libx264", container_format, moving(100), g="25")
    for numbers in ([60], [60, 61, 62], [0], [99]):
        data, counts = damaged(whole, numbers), Counter()
        every = plain(data)
        names = {image.tobytes(): n for n, image in enumerate(every)}
        found = [names[image.tobytes()] for image in decode_video(data, 16)]  # bit for bit
        assert found == sorted(set(found)) and len(found) == 16
        # All of them are wanted, so that all that is missing is missed.
        found = decode_video(data, 100, counts=counts)
        np.testing.assert_array_equal(
            found, np.stack([every[n] for n in frame_indices(len(every), 100)]))
        # A keyframe at the beginning is no more known as one: all before the next is as if cut off.
        assert counts["refused"] == (0 if numbers == [0] else len(numbers))
    assert probe("video", data).width == 64
    for numbers in ([50], range(51, 56)):  # what the decoder makes up after them is its matter
        data, counts = damaged(whole, numbers), Counter()
        found = decode_video(data, 100, counts=counts)
        np.testing.assert_array_equal(found[:50], plain(data)[:50])
        assert counts["refused"] == len(numbers)
    with pytest.raises(MediaError, match="11 of 100 packets are damaged"):
        decode_video(damaged(whole, range(30, 50)), 100)


def test_one_damaged_packet_of_a_single_group():
    data = damaged(encode("libx264", "mp4", moving(100)), [60])
    every = plain(data)
    assert len(every) == 99
    names = {image.tobytes() for image in every}
    assert all(image.tobytes() in names for image in decode_video(data, 16))
    np.testing.assert_array_equal(decode_video(data, 120)[:99], every)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_frames_of_another_size_are_resized(codec):
    small = encode(codec, "mpegts", moving(20, 64, 96), g="10")
    large = encode(codec, "mpegts", moving(20, 96, 128, seed=1), g="10")
    for data, shape in ((small + large, (64, 96)), (large + small, (96, 128))):
        every = plain(data)
        found = decode_video(data, 8)
        assert found.shape == (8, *shape, 3) and probe("video", data)[1:3] == shape[::-1]
        kept = [image for image in every if image.shape[:2] == shape]
        np.testing.assert_array_equal(found[:4], [kept[n] for n in frame_indices(20, 4)])
        for image in found[4:]:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            assert frame.to_ndarray(format="rgb24").std() > 20
    # Of one size: as if it were one file, in time too.
    again = encode(codec, "mpegts", moving(20, 64, 96, seed=2), g="10")
    every = assert_as_plain(small + again)
    if codec == "libx264":
        later = decode_video(small + again, 4, start=0.81)
        names = {image.tobytes(): n for n, image in enumerate(every)}
        assert [names[image.tobytes()] >= 20 for image in later] == [True] * 4


def test_a_file_as_long_as_its_segment_is_the_segment():
    ten, many = [n / 5 for n in range(50)], [n / 5 for n in range(600)]
    whole = range(50)
    for start, end in ((84, 94), (84, 94.6), (84.3, 93.8), (5, 15), (20, 29.5)):
        assert list(within(ten, start, end)) == list(whole)
    assert list(within(ten[:40], 84, 94)) == list(range(40))  # the video ended before
    # Where the part lies in the file, it is cut.
    assert list(within(many, 84, 94)) == list(range(420, 470))
    assert list(within(ten, 0.4, 10)) == list(range(2, 50))
    assert list(within(ten, 0, 10)) == list(whole)
    assert list(within(ten, 6, 8)) == list(range(30, 40))
    assert list(within(ten, 6, 0)) == list(range(30, 50))
    with pytest.raises(MediaError, match="no frame between 84.00 and 86.00 s"):
        within(ten, 84, 86)
    data = encode("libx264", "mp4", moving(50), rate=5)
    np.testing.assert_array_equal(decode_video(data, 4, start=84, end=94), decode_video(data, 4))


def test_sound_that_lasts_longer_is_no_truncation():
    data = encode("libx264", "matroska", moving(25), sound=3.0)
    assert_as_plain(data, (4,))
    assert probe("video", data).duration == pytest.approx(1.0, abs=0.05)


def test_hours_cost_what_minutes_cost(monkeypatch):
    """Packets decoded of a long file, and none of them kept."""
    monkeypatch.setattr(packets, "_KEPT_BYTES", 0)
    data = encode("libx264", "mp4", moving(30), rate=1, g="10", bf="2")
    long = remux(data, "matroska")
    for one in (data, long):
        counts = Counter()
        decode_video(one, 2, counts=counts)
        assert counts["decoded"] <= 22


@pytest.mark.parametrize("codec", ["mpeg4", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2", "flv"])
def test_without_an_index_every_packet_is_called_a_keyframe_and_most_are_none(codec):
    data = encode(codec, "avi", moving(COUNT), g="10", bf="0")
    cut, counts = data.replace(b"idx1", b"JUNK"), Counter()
    assert cut != data
    assert_as_plain(cut)
    np.testing.assert_array_equal(assert_as_plain(data, (5,)), plain(cut))
    last = decode_video(cut, 2, start=31.5 / 25, counts=counts)
    np.testing.assert_array_equal(last, decode_video(data, 2, start=31.5 / 25))
    assert counts["decoded"] <= 20  # each earlier one until the keyframe, not from the beginning


def test_an_mp4_without_its_list_of_keyframes():
    data = encode("mpeg4", "mp4", moving(COUNT), g="10", bf="2")
    cut = data.replace(b"stss", b"free")
    assert cut != data
    every = assert_as_plain(cut)
    found = decode_video(cut, 2, start=31.5 / 25)
    np.testing.assert_array_equal(found, [every[33], every[37]])


def boxes(data: bytes) -> list[bytes]:
    """The boxes of an MP4 file, one after another."""
    found, at = [], 0
    while at < len(data):
        found.append(data[at : at + int.from_bytes(data[at : at + 4], "big")])
        at += len(found[-1])
    return found


def later(data: bytes, seconds: float) -> bytes:
    """An MP4 in fragments whose times (tfdt, version 1) are later."""
    with av.open(io.BytesIO(data)) as container:
        ticks = int(seconds / container.streams.video[0].time_base)
    changed, at = bytearray(data), 0
    while (at := changed.find(b"tfdt\1", at) + 4) > 3:
        time = int.from_bytes(changed[at + 4 : at + 12], "big") + ticks
        changed[at + 4 : at + 12] = time.to_bytes(8, "big")
    return bytes(changed)


@pytest.mark.parametrize("flags", ["", "+dash"])
@pytest.mark.parametrize("sound", [0.0, 3.0])
def test_fragments_may_be_later_ones_and_have_the_time_of_day(flags, sound):
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof" + flags}
    data = encode("libx264", "mp4", moving(80), g="10", sound=sound, container_options=fragments)
    whole = plain(data)
    parts = boxes(data)
    first = next(n for n, box in enumerate(parts) if box[4:8] == b"moof")
    media = [box for box in parts[first:] if box[4:8] in (b"moof", b"mdat")]
    for left_out in (1, 4, 6):
        some = b"".join(parts[:first] + media[2 * left_out :])
        np.testing.assert_array_equal(assert_as_plain(some, (4, 20)), whole[10 * left_out :])
        assert probe("video", some).duration == pytest.approx(3.2 - 0.4 * left_out, abs=0.02)
    if not sound:
        for seconds in (100, 100 * 3600, 1.7e9):
            assert_as_plain(later(data, seconds), (4, 20))
            part = decode_video(later(data, seconds), 2, start=1.58, end=1.66)
            np.testing.assert_array_equal(part, whole[40:42])


def test_only_what_is_decoded_counts_for_the_limit(monkeypatch):
    """H.264 of one group, two of three frames of which nothing refers to."""
    area = 48 * 64
    data = encode("libx264", "mp4", moving(91), g="1000",
                  **{"x264-params": "bframes=2:b-adapt=0:b-pyramid=0:scenecut=0"})  # fmt: skip
    last = decode_video(data, 1, start=90 / 25)
    monkeypatch.setattr(video, "_MAX_DECODED_PIXELS", 50 * area)
    np.testing.assert_array_equal(decode_video(data, 1, start=90 / 25), last)
    assert video_facts(data).frames == 91
    with pytest.raises(MediaError, match=f"more than {50 * area} pixels to decode"):
        decode_video(data, 91)


@pytest.mark.parametrize(("codec", "container_format", "group", "most"), [
    ("mpeg4", "mp4", 100, 59), ("libx264", "mp4", 100, 29), ("libx264", "h264", 10, 59),
    ("libvpx", "webm", 100, 59),
])  # fmt: skip
def test_what_would_be_over_the_limit_is_refused_when_it_is_prepared(
        codec, container_format, group, most, monkeypatch):  # fmt: skip
    data = encode(codec, container_format, moving(60), g=str(group))
    assert video_facts(data).width == 64
    monkeypatch.setattr(video, "_MAX_DECODED_PIXELS", most * 48 * 64)
    with pytest.raises(MediaError, match="pixels to decode"):
        video_facts(data)
    if group == 100:
        parts = encode(codec, container_format, moving(60), g="10")
        assert video_facts(parts).width == 64
