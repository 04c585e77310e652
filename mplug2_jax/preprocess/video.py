"""Video bytes to a few RGB frames, decoded with PyAV.

Frames are as players show them: turned and mirrored by the display matrix; fields of interlaced
video stay woven into one frame, as FFmpeg decodes them; pixels that are no squares stay as stored.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.frames import Frames
from mplug2_jax.preprocess.opening import MAX_PIXELS, Clock, opened, reading
from mplug2_jax.preprocess.packets import Packets
from mplug2_jax.preprocess.pictures import opened as opened_picture
from mplug2_jax.preprocess.pictures import read_as_picture
from mplug2_jax.preprocess.sampling import dense_indices, frame_indices, within

# Whose frames that nothing refers to can be left out.
_SKIPPING = {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "mpegvideo"}
# Of all frames decoded for a clip; 27 minutes of full HD, if its frames need all before them.
_MAX_DECODED_PIXELS = 100_000_000_000
# Of frames that can be left out, as far as those go that wait for later ones: half are referred to.
_NEEDED = 0.5
# Packets that a decoder may refuse, one at least, before the video counts as broken: what bad
# sectors and lost packets cost. With more of them missing, most frames refer to one that is.
_REFUSED = 0.1
_ROUNDS = 4  # of choosing frames again, where some do not come up
# Whose frames say truly whether they are keyframes, though a container without an index (AVI), or
# without a list of them (MP4), calls every packet one.
_SAYING = {
    "mpeg4", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "wmv1", "wmv2", "h263", "flv", "mpeg1video",
    "mpeg2video",
}  # fmt: skip
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE; 0 is unknown, more are orders of fields

_NO_KEY = {-1}


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
        data: the bytes of a video file (mp4, webm, mkv, avi, gif, ...), or of a WebP, PNG or AVIF
            that moves.
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

    if read_as_picture(data):
        return _decode_picture(data, choose, start, end)
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
        MediaError: as `decode_video`, of which this is the beginning; or a frame of it would take
            too much.
    """
    clock = Clock()
    with reading(data, "video"), opened(data, clock) as (container, stream):
        clip = _Clip(data, container, stream, clock)
        clip.check_work()
        first = clip.frames(lambda length: np.zeros(1, np.int64), None, 0.0, 0.0)
        shown = [number for number in clip.packets.shown or () if number not in clip.absent]
        if len(shown) > 1:
            begin, end = (clip.packets.seconds(shown[place]) or 0.0 for place in (0, -1))
            seconds = (end - begin) * len(shown) / (len(shown) - 1)
        elif stream.duration and stream.time_base:  # the sound may last longer
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / av.time_base
        return VideoFacts(seconds, first.shape[2], first.shape[1], len(shown) or stream.frames)


def _decode_picture(
    data: bytes, choose: Callable[[int], np.ndarray], start: float, end: float
) -> np.ndarray:
    """Frames of a picture that moves, as `_Clip.frames`."""

    def shown(times: list[float]) -> list[int]:
        inside = within(times, start, end)
        return [inside[number] for number in choose(len(inside))]

    with opened_picture(data) as picture:
        return picture.moving(shown, timed=bool(start or end))


class _Clip:
    """Decoding some frames of a container's video stream.

    Attributes:
        packets: of the stream.
        decoded: how many were decoded.
        refused: numbers of those that the decoder refused.
        absent: numbers of those that the file was cut before, so that they show nothing.
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
        self.decoded, self.refused, self.absent = 0, set[int](), set[int]()
        self._work, self._sparing = 0, False
        # Two packets may be the fields of one frame.
        self._fields = self._codec.field_order > _PROGRESSIVE

    def check_work(self) -> None:
        """Raises MediaError where a frame may need more decoded before it than is allowed."""
        spares = self.packets.shown and self._codec.name in _SKIPPING and not self._fields
        share = _NEEDED if spares and self._codec.has_b_frames else 1
        self._count(int(self.packets.longest * share))
        self._work = 0

    def _count(self, frames: int) -> None:
        self._work += frames * self._codec.width * self._codec.height
        if self._work > _MAX_DECODED_PIXELS:
            raise MediaError(f"more than {_MAX_DECODED_PIXELS} pixels to decode")

    def frames(
        self,
        choose: Callable[[int], np.ndarray],
        rng: np.random.Generator | None,
        start: float,
        end: float,
    ) -> np.ndarray:
        """The frames that `choose` picks of so many by `rng`, as RGB, uint8 [T, H, W, 3]."""
        state: Mapping[str, Any] = {} if rng is None else rng.bit_generator.state
        order = self.packets.shown or []
        absent = self.absent = self._cut_off() if order else set()
        for _ in range(_ROUNDS if order else 0):
            if absent:
                order = [number for number in order if number not in absent]
            if rng is not None:
                rng.bit_generator.state = state  # one draw, whichever way the frames are found
            inside = within(self._seconds(order) if start or end else len(order), start, end)
            images = Frames([order[inside[i]] for i in choose(len(inside))])
            absent = self._decode_chosen(images)
            if not images.missing and images.array is not None:
                return images.array
            if not absent:  # the order was a wrong guess
                break
        return self._count_through(choose, rng, state, start, end)

    def _cut_off(self) -> set[int]:
        """The packets at a file's beginning that show nothing, for it was cut before them."""
        end = 0
        while self.packets.leads(end, 0) or self.packets.leads(end + 1, 0):
            end += 1
        if not end:
            return set()
        came = self._run(0, end, set(), Frames([]), spares=False) or set()
        return {number for number in range(end + 1) if self.packets.leads(number, 0)} - came

    def _decode_chosen(self, images: Frames) -> set[int]:
        """Adds the frames wanted; gives the packets that promised one which did not come up."""
        for first, last, wanted in self._runs(self.packets.by_time(images.missing)):
            refused = len(self.refused)
            came = self._run(first, last, wanted, images, spares=True)
            back, after = 0, self.packets.after(last)
            while came is not None and (not wanted <= came or len(self.refused) > refused):
                # Once more, all of the group, and from keyframes before: some do not renew the
                # picture at once, but bit by bit.
                back = 2 * back or 1
                before = self.packets.before(first, back)
                came = self._run(before, after - 1, wanted, images, spares=False)
                if came is not None and (before == 0 or len(self.refused) > refused):
                    if wanted <= came:
                        break
                    return set(range(first, after)) - came
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
        """Decodes packets; gives those whose frames came, or None where they are out of order.

        From an earlier one on where the first turns out to be no keyframe.
        """
        while (came := self._run_from(first, last, wanted, images, spares)) is _NO_KEY:
            self.packets.no_restart(first)
            first = self.packets.before(first)
        return came

    def _run_from(
        self, first: int, last: int, wanted: set[int], images: Frames, spares: bool
    ) -> set[int] | None:
        """`_run`; `_NO_KEY` where the first frame is none, of which others may be made up."""
        came: set[int] = set()
        says = first > 0 and self._codec.name in _SAYING
        skips = spares and not self._fields and self._codec.name in _SKIPPING
        latest, refused, complete = -1, len(self.refused), not wanted
        self._codec.flush_buffers()
        try:
            for number, packet in self._run_packets(first, last):
                if skips and self._sparing != (sparing := number not in wanted):
                    self._codec.skip_frame = "NONREF" if sparing else "DEFAULT"
                    self._sparing = sparing
                for frame in self._decode(number, packet, first):
                    if says and not came and not frame.key_frame:
                        return _NO_KEY
                    name = frame.pts
                    if name is None or (self.packets.guessed and name <= latest):
                        return None
                    latest = name
                    came.add(name)
                    if name in wanted:
                        images.add(name, frame)
                        complete = wanted <= came
                if spares and (complete or len(self.refused) > refused):
                    break
        finally:
            self._codec.skip_frame, self._sparing = "DEFAULT", False
        return came

    def _run_packets(self, first: int, last: int) -> Iterator[tuple[int, av.Packet | None]]:
        drain = (len(self.packets), None)
        return itertools.chain(self.packets.read(first, last + 1 + self._fields), (drain,))

    def _count_through(
        self, choose: Callable[[int], np.ndarray], rng: np.random.Generator | None,
        state: Mapping[str, Any], start: float, end: float,
    ) -> np.ndarray:  # fmt: skip
        """`frames` where only decoding all tells which there are."""
        count = self.packets.showing
        times = self._frame_times(count) if start or end else None
        while True:
            if rng is not None:
                rng.bit_generator.state = state
            inside = within(count if times is None else times[:count], start, end)
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

    def _frame_times(self, count: int) -> list[float]:
        """Seconds of every frame in the order of showing."""
        rate = float(self._stream.average_rate or self._stream.base_rate or 25)
        if self.packets.seconds(0) is None:
            return [number / rate for number in range(count)]
        known = [frame.pts for frame in self._every_frame() if frame.pts is not None]
        return self._seconds(known)

    def _every_frame(self) -> Iterator[av.VideoFrame]:
        self._codec.flush_buffers()
        for number, packet in self._run_packets(0, len(self.packets)):
            yield from self._decode(number, packet, 0)

    def _decode(self, number: int, packet: av.Packet | None, first: int) -> list[av.VideoFrame]:
        """The frames that come up with a packet, one of those from `first` on."""
        self._clock.check()
        if packet is not None:
            self.decoded += 1
        try:
            frames = self._codec.decode(packet)
        except MemoryError:
            raise
        except av.FFmpegError as error:
            self._count(1)
            self._refuse(number, first, error)
            return []
        # What is left out costs nothing; nor does what waits, until it comes.
        if frames or not self._sparing:
            self._count(len(frames) if self._sparing else 1)
        return frames

    def _refuse(self, number: int, first: int, error: av.FFmpegError) -> None:
        """Notes a packet that the decoder does not take, among those from `first` on."""
        if self.packets.leads(number, first):  # refers to what was cut off
            return
        total = len(self.packets)
        self.refused.add(number)
        self.packets.no_restart(number)
        if len(self.refused) > max(1, _REFUSED * total):
            raise MediaError(
                f"{len(self.refused)} of {total} packets are damaged: {error.strerror}"
            ) from error
