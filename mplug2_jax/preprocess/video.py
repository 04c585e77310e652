"""Video bytes to a few RGB frames: which ones (TSN-style segments, or dense), decoded with PyAV."""

import io
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.pictures import opened, read_as_picture

# A file is called truncated when its packets end before this share of its stated duration.
_COMPLETE = 0.9
# What the bytes may be. Playlists and the like, which open further files, are not among them.
_FORMATS = "mov,matroska,avi,gif,mpegts,mpeg,flv,asf,ogg"
# Codecs whose keyframes restart everything, and whose frames that nothing refers to can be left
# out: for these the tests compare every frame with a decode from the beginning.
_RESTARTING = {"h264", "hevc", "mpeg4", "vp8", "vp9"}
_SKIPPING = {"h264", "hevc", "mpeg4"}
# Limits, so that no file can hold a worker up: damaged headers claim anything.
MAX_PIXELS = 40_000_000  # of a frame; 8K is 33 million
_MAX_PACKETS = 500_000  # of all streams; four hours at 30 frames a second
_MAX_DECODED_PIXELS = 20_000_000_000  # of all frames decoded; five minutes of full HD



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


def decode_video(
    data: bytes,
    num_frames: int,
    rng: np.random.Generator | None = None,
    start: float = 0.0,
    end: float = 0.0,
    stride: int = 0,
    clips: int = 1,
) -> np.ndarray:
    """Decodes `num_frames * clips` frames of an encoded video.

    Which ones `frame_indices` says, or with a stride `dense_indices`. With several clips, the
    frames of one lie between those of the others in either.

    The frames are those of a decode from the beginning, bit for bit, but only what they need is
    decoded: from the keyframe before them, without the frames that nothing refers to; and only
    they are converted to RGB.

    Args:
        data: the bytes of a video file (mp4, webm, mkv, avi, gif, ...), or of a WebP, PNG or AVIF
            that moves.
        num_frames: frames of a clip.
        rng: None for middle frames, a generator for random ones.
        start: seconds at which the part to choose from begins.
        end: seconds at which it ends; 0 is the end of the video.
        stride: frames of the video from one of a clip's to the next; 0 spreads them over all of it.
        clips: number of clips.

    Returns:
        uint8 [num_frames * clips, H, W, 3].

    Raises:
        MediaError: the bytes are not a video, hold no video stream or no frame (between `start` and
            `end`), are truncated, or would take absurdly much memory or time.
    """

    def choose(length: int) -> np.ndarray:
        if stride:
            return dense_indices(length, num_frames, stride, rng, clips)
        return frame_indices(length, num_frames * clips, rng)

    if read_as_picture(data):
        return _decode_picture(data, choose, start, end)
    try:
        with av.open(
            io.BytesIO(data), "r", options={"format_whitelist": _FORMATS}, metadata_errors="replace"
        ) as container:
            if not container.streams.video:
                raise MediaError("no video stream in the file")
            return _Clip(container).frames(choose, rng, start, end)
    except MediaError:
        raise
    # PyAV raises these for bad bytes: its own errors (OSError or ValueError too), and bare ones
    # from the bindings.
    except (av.FFmpegError, OSError, ValueError, IndexError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise MediaError(f"undecodable video of {len(data)} bytes: {reason}") from error


def _decode_picture(
    data: bytes, choose: Callable[[int], np.ndarray], start: float, end: float
) -> np.ndarray:
    """Frames of a picture that moves, as `_Clip.frames`."""

    def shown(times: list[float]) -> list[int]:
        inside = _within(times, start, end)
        return [inside[number] for number in choose(len(inside))]

    with opened(data) as picture:
        return picture.moving(shown, timed=bool(start or end))


class _Clip:
    """The packets of a container's first video stream, and decoding some of their frames."""

    def __init__(self, container: av.container.InputContainer):
        self._stream = container.streams.video[0]
        codec: VideoCodecContext | None = self._stream.codec_context
        if codec is None:
            raise MediaError("a video stream of an unknown codec")
        self._codec = codec
        # Clips are short and many are decoded at once: threads inside one clip cost more than
        # they give.
        self._stream.thread_type = "NONE"
        self._codec.options = {"max_pixels": str(MAX_PIXELS)}
        if self._codec.width * self._codec.height > MAX_PIXELS:
            size = f"{self._codec.width} x {self._codec.height}"
            raise MediaError(f"frames of {size} pixels are too large")
        self._origin = (container.start_time or 0) / av.time_base
        # AVI states no presentation times; those that are given for it are wrong after B-frames.
        self._timed = container.format.name != "avi"
        self._packets = self._read(container)
        self._work = 0

    def _read(self, container: av.container.InputContainer) -> list[av.Packet]:
        """The stream's packets, undecoded, in the order of decoding."""
        packets: list[av.Packet] = []
        ends: dict[int, int] = {}  # of the last packet of each stream, in its own units
        own = self._stream.index
        for total, packet in enumerate(container.demux()):
            if total == _MAX_PACKETS:
                raise MediaError(f"more than {_MAX_PACKETS} packets")
            if packet.size == 0:
                continue
            number = packet.stream_index
            if number == own:
                packets.append(packet)
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None and (end := time + (packet.duration or 0)) > ends.get(number, 0):
                ends[number] = end
        if not packets:
            raise MediaError("no frame in the video stream")
        # A file cut off in the middle raises nothing in some containers.
        duration = (container.duration or 0) / av.time_base
        times = [float(end * _unit(container.streams[n])) for n, end in ends.items()]
        finish = max(times, default=0.0) - self._origin
        if 0 < finish < _COMPLETE * duration:
            raise MediaError(f"truncated video: packets end at {finish:.2f} s of {duration:.2f} s")
        return packets

    def frames(
        self,
        choose: Callable[[int], np.ndarray],
        rng: np.random.Generator | None,
        start: float,
        end: float,
    ) -> np.ndarray:
        """The frames that `choose` picks of so many by `rng`, as RGB, uint8 [T, H, W, 3]."""
        state = {} if rng is None else rng.bit_generator.state
        shown = [packet.pts for packet in self._packets if not packet.is_discard]
        known = sorted(pts for pts in shown if pts is not None)
        if self._timed and len(set(known)) == len(shown):
            scale = float(_unit(self._stream))
            inside = _within([pts * scale - self._origin for pts in known], start, end)
            wanted = [known[inside[i]] for i in choose(len(inside))]
            images = self._decode_times(wanted)
            if images is not None:
                return images
            # Packets that show nothing (alternate references of VP8): the frames must be counted.
        times = self._times(len(shown)) if start or end else [0.0] * len(shown)
        inside = _within(times, start, end)
        while True:
            if rng is not None:
                rng.bit_generator.state = state  # one draw, whichever way the frames are found
            wanted = [inside[i] for i in choose(len(inside))]
            seen, images = self._decode_numbers(wanted)
            if images is not None:
                return images
            if seen == 0:
                raise MediaError("no frame in the video stream")
            if seen >= len(times):
                raise MediaError("the video gives fewer frames when it is read again")
            times = times[:seen]  # the count was too high
            inside = _within(times, start, end)

    def _decode_times(self, wanted: list[int]) -> np.ndarray | None:
        """The frames shown at these times, or None if one does not come up under its time."""
        restarts = self._restarts()
        skipping = self._codec.name in _SKIPPING
        images, sparing = _Images(wanted), False
        for first, last in zip(restarts, [*restarts[1:], len(self._packets)], strict=True):
            group = self._packets[first:last]
            missing = images.missing & {packet.pts for packet in group}
            if not missing:
                continue
            self._codec.flush_buffers()
            for packet in [*group, None]:  # None drains the decoder
                if skipping:
                    shown = packet is not None and packet.pts in images.places
                    if sparing != (sparing := not shown):
                        self._codec.skip_frame = "NONREF" if sparing else "DEFAULT"
                for frame in self._decode(packet):
                    if frame.pts in missing:
                        missing.remove(frame.pts)
                        images.add(frame.pts, frame)
                if not missing:
                    break
            if missing:
                break
        self._codec.skip_frame = "DEFAULT"
        return None if images.missing else images.array

    def _restarts(self) -> list[int]:
        """Numbers of the packets from which on nothing earlier is needed or shown."""
        pts = [packet.pts for packet in self._packets if packet.pts is not None]
        if self._codec.name not in _RESTARTING or len(pts) < len(self._packets):
            return [0]
        latest_before = np.maximum.accumulate(pts)[:-1]
        earliest_from = np.minimum.accumulate(pts[::-1])[::-1]
        return [0] + [
            number
            for number in range(1, len(pts))
            if self._packets[number].is_keyframe
            and latest_before[number - 1] < pts[number] == earliest_from[number]
        ]

    def _decode_numbers(self, wanted: list[int]) -> tuple[int, np.ndarray | None]:
        """How many frames were seen, and those of these numbers, or None if there are fewer."""
        images, seen = _Images(wanted), 0
        for frame in self._every_frame():
            if seen in images.missing:
                images.add(seen, frame)
            seen += 1
            if not images.missing:
                return seen, images.array
        return seen, None

    def _times(self, count: int) -> list[float]:
        """Seconds of every frame in the order of showing."""
        times = [frame.time for frame in self._every_frame()] if self._timed else [None]
        known = [time for time in times if time is not None]
        if len(known) < len(times):
            rate = float(self._stream.average_rate or self._stream.base_rate or 25)
            return [number / rate for number in range(count)]
        return [time - self._origin for time in known]

    def _every_frame(self) -> Iterator[av.VideoFrame]:
        self._codec.flush_buffers()
        for packet in [*self._packets, None]:
            yield from self._decode(packet)

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        self._work += self._codec.width * self._codec.height
        if self._work > _MAX_DECODED_PIXELS:
            raise MediaError(f"more than {_MAX_DECODED_PIXELS} pixels to decode")
        return self._codec.decode(packet)


class _Images:
    """The wanted frames of one clip, as RGB, each written where it belongs as it comes.

    Attributes:
        places: of every wanted frame, by its time or number, its rows of the array: some are shown
            several times.
        missing: those that did not come yet.
        array: uint8 [T, H, W, 3], once the first frame came.
    """

    def __init__(self, wanted: list[int]):
        self.places: dict[int, list[int]] = {}
        for place, name in enumerate(wanted):
            self.places.setdefault(name, []).append(place)
        self.missing = set(wanted)
        self.array: np.ndarray | None = None
        self._count = len(wanted)
        # One converter for the clip, without threads: setting up either costs more than converting
        # a small frame.
        self._reformatter = VideoReformatter()

    def add(self, name: int, frame: av.VideoFrame) -> None:
        """Takes the frame of this time or number.

        Raises:
            MediaError: its size differs from that of the frames before.
        """
        plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        shape = (frame.height, frame.width, 3)
        if self.array is None:
            self.array = np.empty((self._count, *shape), np.uint8)
        elif self.array.shape[1:] != shape:
            raise MediaError("the frame size changes within the video")
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
        pixels = rows[:, : 3 * frame.width].reshape(shape)
        for place in self.places[name]:
            self.array[place] = pixels
        self.missing.remove(name)


def _unit(stream: Stream) -> Fraction:
    """Seconds of one of the units that a stream's times are in."""
    if stream.time_base is None:
        raise MediaError("a stream without a unit of time")
    return stream.time_base


def _within(times: list[float], start: float, end: float) -> list[int]:
    """Numbers of the frames shown from `start` until before `end` (0: all that follow)."""
    inside = [n for n, time in enumerate(times) if start <= time and (not end or time < end)]
    if not inside:
        raise MediaError(
            f"no frame between {start:.2f} and {end:.2f} s in a video of {times[-1]:.2f} s"
            if times
            else "no frame in the video stream"
        )
    return inside
