"""Video bytes to a few RGB frames: which ones (TSN-style segments, or dense), decoded with PyAV.

Frames are as players show them: turned and mirrored by the display matrix; fields of interlaced
video stay woven into one frame, as FFmpeg decodes them; pixels that are no squares stay as stored.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.frames import Frames
from mplug2_jax.preprocess.opening import MAX_PIXELS, Clock, opened, reading
from mplug2_jax.preprocess.packets import Packets

# Whose frames that nothing refers to can be left out.
_SKIPPING = {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "mpegvideo"}
_MAX_DECODED_PIXELS = 20_000_000_000  # of all frames decoded; five minutes of full HD
# Packets that a decoder may refuse, one at least, before the video counts as broken: what bad
# sectors and lost packets cost. With more of them missing, most frames refer to one that is.
_REFUSED = 0.1
_ROUNDS = 4  # of choosing frames again, where some do not come up
# How much longer or shorter than a segment a file may be that was cut to it: seconds, and a share.
_CUT_SLACK, _CUT_SHARE = 1.0, 0.1
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE; 0 is unknown, more are orders of fields


def frame_indices(
    video_length: int, num_frames: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Frame numbers that represent a video: one in each of `num_frames` equal segments.

    Args:
        video_length: frames in the video, >= 1.
        num_frames: frames wanted, >= 1. A video with fewer frames gives all of them, then repeats
            its last one.
        rng: None takes the middle frame of each segment (evaluation); a generator takes a random
            one (training).

    Returns:
        int64 [num_frames], non-decreasing, each in 0..video_length-1.

    Raises:
        ValueError: if either number is below 1.
    """
    if video_length < 1 or num_frames < 1:
        raise ValueError(f"need at least one frame: {video_length=}, {num_frames=}")
    segments = min(num_frames, video_length)
    edges = np.linspace(0, video_length, segments + 1).astype(np.int64)
    first, last = edges[:-1], edges[1:] - 1
    indices = (first + last) // 2 if rng is None else rng.integers(first, last + 1)
    return np.append(indices, np.full(num_frames - segments, video_length - 1))


def dense_indices(
    video_length: int,
    num_frames: int,
    stride: int,
    rng: np.random.Generator | None = None,
    clips: int = 1,
) -> np.ndarray:
    """Frame numbers of clips whose frames are `stride` apart (dense sampling).

    Args:
        video_length: frames in the video, >= 1.
        num_frames: frames of a clip, >= 1. A video that ends before a clip does repeats its last
            frame.
        stride: frames from one to the next, >= 1.
        rng: a generator starts each clip anywhere (training); None starts a single clip so that it
            lies in the middle, and several ones at equal distances from the first frame to the
            last (evaluation).
        clips: number of clips.

    Returns:
        int64 [num_frames * clips], each in 0..video_length-1: the first frame of each clip, then
        the second of each, and so on.

    Raises:
        ValueError: if any number is below 1.
    """
    if min(video_length, num_frames, stride, clips) < 1:
        raise ValueError(
            f"need at least one frame: {video_length=}, {num_frames=}, {stride=}, {clips=}"
        )
    room = max(video_length - ((num_frames - 1) * stride + 1), 0)  # the last possible start
    if rng is not None:
        starts = rng.integers(0, room + 1, clips)
    elif clips == 1:
        starts = np.array([room // 2])
    else:
        starts = np.linspace(0, room, clips).astype(np.int64)
    offsets = stride * np.arange(num_frames)[:, None]
    return np.minimum(offsets + starts, video_length - 1).ravel()


class VideoFacts(NamedTuple):
    """What is known of a video without decoding more than its first frame.

    Attributes:
        duration: seconds, 0 if unknown.
        width, height: pixels as shown.
        frames: how many there are, 0 if unknown.
    """

    duration: float
    width: int
    height: int
    frames: int


def decode_video(
    data: bytes,
    num_frames: int,
    rng: np.random.Generator | None = None,
    start: float = 0.0,
    end: float = 0.0,
    stride: int = 0,
    clips: int = 1,
    counts: Counter[str] | None = None,
) -> np.ndarray:
    """Decodes `num_frames * clips` frames of an encoded video.

    Which ones `frame_indices` says, or with a stride `dense_indices`. With several clips, the
    frames of one lie between those of the others in either.

    The frames are those of a decode from the beginning, bit for bit, but only what they need is
    decoded: from the keyframe before them, without the frames that nothing refers to; and only
    they are converted to RGB. Frames that the decoder cannot give, of damaged packets, are as if
    they were not there.

    Args:
        data: the bytes of a video file (mp4, webm, mkv, avi, gif, ...).
        num_frames: frames of a clip.
        rng: None for middle frames, a generator for random ones.
        start: seconds at which the part to choose from begins.
        end: seconds at which it ends; 0 is the end of the video. A file as long as the part, where
            the part would not lie in it, is the part.
        stride: frames of the video from one of a clip's to the next; 0 spreads them over all of it.
        clips: number of clips.
        counts: gets what was done added: packets "decoded", and of these "refused" by the decoder.

    Returns:
        uint8 [num_frames * clips, H, W, 3], of the size of the first that is wanted.

    Raises:
        MediaError: the bytes are not a video, hold no video stream or no frame (between `start` and
            `end`), are truncated, more than a tenth of the packets is damaged, or they would take
            absurdly much memory or time.
    """

    def choose(length: int) -> np.ndarray:
        if stride:
            return dense_indices(length, num_frames, stride, rng, clips)
        return frame_indices(length, num_frames * clips, rng)

    clock = Clock()
    with reading(data, "video"), opened(data, clock) as (container, stream):
        clip = _Clip(data, container, stream, clock)
        try:
            return clip.frames(choose, rng, start, end)
        finally:
            if counts is not None:
                counts.update(decoded=clip.decoded, refused=len(clip.refused))


def video_facts(data: bytes) -> VideoFacts:
    """Reads all packets of a video and decodes its first frame.

    Raises:
        MediaError: as `decode_video`, of which this is the beginning.
    """
    clock = Clock()
    with reading(data, "video"), opened(data, clock) as (container, stream):
        clip = _Clip(data, container, stream, clock)
        first = clip.frames(lambda length: np.zeros(1, np.int64), None, 0.0, 0.0)
        packets = clip.packets
        if stream.duration and stream.time_base:  # the sound may last longer
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / av.time_base
        count = stream.frames if packets.shown is None else len(packets.shown)
        return VideoFacts(seconds, first.shape[2], first.shape[1], count)


class _Clip:
    """Decoding some frames of a container's video stream.

    Attributes:
        packets: of the stream.
        decoded: how many were decoded.
        refused: numbers of those that the decoder refused.
    """

    def __init__(self, data: bytes, container: InputContainer, stream: VideoStream, clock: Clock):
        self._stream, self._codec, self._clock = stream, stream.codec_context, clock
        # Clips are short and many are decoded at once: threads inside one clip cost more than
        # they give.
        self._stream.thread_type = "NONE"
        self._codec.options = {"max_pixels": str(MAX_PIXELS)}
        if self._codec.width * self._codec.height > MAX_PIXELS:
            size = f"{self._codec.width} x {self._codec.height}"
            raise MediaError(f"frames of {size} pixels are too large")
        self.packets = Packets(data, container, stream, clock)
        self.decoded, self.refused = 0, set[int]()
        self._work = 0
        # Two packets may be the fields of one frame.
        self._fields = self._codec.field_order > _PROGRESSIVE

    def frames(
        self,
        choose: Callable[[int], np.ndarray],
        rng: np.random.Generator | None,
        start: float,
        end: float,
    ) -> np.ndarray:
        """The frames that `choose` picks of so many by `rng`, as RGB, uint8 [T, H, W, 3]."""
        state = {} if rng is None else rng.bit_generator.state
        order, absent = self.packets.shown, set[int]()
        for _ in range(_ROUNDS if order else 0):
            order = [number for number in order or () if number not in absent]
            if rng is not None:
                rng.bit_generator.state = state  # one draw, whichever way the frames are found
            inside = _within(self._seconds(order) if start or end else len(order), start, end)
            images = Frames([order[inside[i]] for i in choose(len(inside))])
            absent = self._decode_chosen(images)
            if images.array is not None and not images.missing:
                return images.array
            if not absent:  # the order was a wrong guess
                break
        return self._count_through(choose, rng, state, start, end)

    def _decode_chosen(self, images: Frames) -> set[int]:
        """Adds the frames wanted; gives the packets that promised one which did not come up."""
        for first, last, wanted in self._runs(self.packets.by_time(images.missing)):
            back, refused = 0, len(self.refused)
            while (came := self._run(first, last, wanted, images, spares=not back)) is not None:
                if not wanted & images.missing:
                    break
                if back and (first == 0 or len(self.refused) > refused):
                    return set(range(first, last + 1)) - came
                # Once more, all of it, and from keyframes before: some do not renew the picture
                # at once, but bit by bit.
                back = 2 * back or 1
                first = self.packets.before(first, back)
            if came is None:
                return set()
        return set()

    def _runs(self, wanted: list[int]) -> Iterator[tuple[int, int, set[int]]]:
        """Packets to decode in one go: the first, the last, and those of them that are wanted."""
        run: tuple[int, int, set[int]] | None = None
        for number in wanted:
            first = self.packets.restart(number)
            if run is not None and first <= run[1]:
                run = run[0], max(run[1], number), run[2] | {number}
                continue
            if run is not None:
                yield run
            run = first, number, {number}
        if run is not None:
            yield run

    def _run(
        self, first: int, last: int, wanted: set[int], images: Frames, spares: bool
    ) -> set[int] | None:
        """Decodes packets; gives those whose frames came, or None where they are out of order."""
        came: set[int] = set()
        skips = spares and not self._fields and self._codec.name in _SKIPPING
        sparing, latest = False, -1
        self._codec.flush_buffers()
        try:
            for number, packet in self._run_packets(first, last):
                if skips and sparing != (sparing := number not in wanted):
                    self._codec.skip_frame = "NONREF" if sparing else "DEFAULT"
                for frame in self._decode(number, packet):
                    name = frame.pts
                    if name is None or (self.packets.guessed and name <= latest):
                        return None
                    latest = name
                    came.add(name)
                    if name in wanted:
                        images.add(name, frame)
                if spares and wanted <= came:
                    break
        finally:
            self._codec.skip_frame = "DEFAULT"
        return came

    def _run_packets(self, first: int, last: int) -> Iterator[tuple[int, av.Packet | None]]:
        for number, packet in self.packets.read(first):
            if number > last + self._fields:
                break
            packet.pts = number  # its frame has it too, whatever the container said
            yield number, packet
        yield len(self.packets), None  # drains the decoder

    def _count_through(
        self, choose: Callable[[int], np.ndarray], rng: np.random.Generator | None, state: dict,
        start: float, end: float,
    ) -> np.ndarray:  # fmt: skip
        """`frames` where only decoding all tells which there are."""
        count = self.packets.showing
        times = self._frame_times() if start or end else None
        while True:
            if rng is not None:
                rng.bit_generator.state = state
            inside = _within(count if times is None else times[:count], start, end)
            images, seen = Frames([inside[i] for i in choose(len(inside))]), 0
            for frame in self._every_frame():
                if seen in images.missing:
                    images.add(seen, frame)
                seen += 1
                if not images.missing and images.array is not None:
                    return images.array
            if seen == 0:
                raise MediaError("no frame in the video stream")
            if seen >= count:
                raise MediaError("the video gives fewer frames when it is read again")
            count = seen  # it was too high

    def _seconds(self, order: list[int]) -> list[float]:
        return [self.packets.seconds(number) or 0.0 for number in order]

    def _frame_times(self) -> list[float]:
        """Seconds of every frame in the order of showing."""
        times = [None if frame.pts is None else self.packets.seconds(frame.pts)
                 for frame in self._every_frame()]
        known = [time for time in times if time is not None]
        if len(known) == len(times):
            return known
        rate = float(self._stream.average_rate or self._stream.base_rate or 25)
        return [number / rate for number in range(len(times))]

    def _every_frame(self) -> Iterator[av.VideoFrame]:
        self._codec.flush_buffers()
        for number, packet in self._run_packets(0, len(self.packets)):
            yield from self._decode(number, packet)

    def _decode(self, number: int, packet: av.Packet | None) -> list[av.VideoFrame]:
        self._clock.check()
        self.decoded += packet is not None
        self._work += self._codec.width * self._codec.height
        if self._work > _MAX_DECODED_PIXELS:
            raise MediaError(f"more than {_MAX_DECODED_PIXELS} pixels to decode")
        try:
            return self._codec.decode(packet)
        except MemoryError:
            raise
        except av.FFmpegError as error:
            self.refused.add(number)
            total = len(self.packets)
            if len(self.refused) > max(1, _REFUSED * total):
                raise MediaError(
                    f"{len(self.refused)} of {total} packets are damaged: {error.strerror}"
                ) from error
            return []


def _within(times: list[float] | int, start: float, end: float) -> Collection[int]:
    """Numbers of the frames shown from `start` until before `end` (0: all that follow).

    Of a file that was cut to these times beforehand, all: it is as long as they say, and they do
    not lie in it.

    Args:
        times: seconds of each frame; or how many there are, where the times do not matter.
    """
    if isinstance(times, int):
        inside: Collection[int] = range(times)
    elif _is_cut(times, start, end):
        inside = range(len(times))
    else:
        inside = [n for n, time in enumerate(times) if start <= time and (not end or time < end)]
    if not inside:
        raise MediaError(
            f"no frame between {start:.2f} and {end:.2f} s in a video of {times[-1]:.2f} s"
            if not isinstance(times, int) and times
            else "no frame in the video stream"
        )
    return inside


def _is_cut(times: list[float], start: float, end: float) -> bool:
    if not times or not 0 < start < end:
        return False
    between = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    length, wanted = times[-1] - times[0] + between, end - start
    slack = max(_CUT_SLACK, _CUT_SHARE * wanted)
    if length > wanted + slack:
        return False
    return start >= times[-1] + between or (length >= wanted - slack and length < end - slack)
