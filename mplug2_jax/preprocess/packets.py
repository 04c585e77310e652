"""The packets of a video stream: when each is shown, where to start decoding, if all are there."""

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import cast

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.opening import Clock, opened

# A file is called truncated when its packets end before this share of its stated duration.
_COMPLETE = 0.9
# Containers whose duration is written down; of others it is guessed from what is there.
_STATING = {"mov", "matroska", "avi", "asf", "flv"}
# Codecs whose keyframes restart everything that is shown after them: for these the tests compare
# frames with a decode from the beginning (of wmv3, vc1 and theora PyAV has no encoder). Those
# without references (MJPEG, ProRes, DNxHD) need not be named.
_RESTARTING = {
    "h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg1video",
    "mpeg2video", "mpegvideo", "mpeg4", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2", "wmv3", "vc1",
    "h263", "flv", "theora", "ffv1",
}  # fmt: skip
_MAX_PACKETS = 2_000_000  # of all streams; nine hours at 30 frames a second, with sound
# Of packets that are kept; of a longer clip those are read again that are decoded.
_KEPT_BYTES = 64_000_000
# Called by `map`: what Python does for every packet of a clip takes longer than reading it.
_PTS, _DTS, _SIZE, _DURATION, _IS_KEY, _IS_DISCARD = map(
    operator.attrgetter, ("pts", "dts", "size", "duration", "is_keyframe", "is_discard")
)
_BREAK = 0.5  # seconds: times that go back by more begin another part, as of files put together


class Packets:
    """What the packets of a video stream say, by their numbers in the order of decoding.

    Attributes:
        shown: numbers of those that show a frame, in the order of showing; None where only
            decoding tells that order.
        guessed: whether `shown` rests on the stream having no frames out of order.

    Args:
        data: the file.
        container: opened, at its beginning.
        stream: one of its streams.
        clock: the time that is left.

    Raises:
        MediaError: there are no packets, or too many, or the file is truncated.
    """

    def __init__(self, data: bytes, container: InputContainer, stream: VideoStream, clock: Clock):
        self._data, self._container, self._stream, self._clock = data, container, stream, clock
        self._format = container.format.name.split(",")[0]
        self._pts: list[int | None] = []
        self._dts: list[int | None] = []
        self._sizes: list[int] = []
        self._is_key: list[bool] = []
        self._is_shown: list[bool] = []
        self._kept: list[av.Packet] | None = []
        self._numbers: dict[tuple[int | None, int | None, int], int] = {}
        start, finish = self._read()
        origin = start if container.start_time is None else container.start_time / av.time_base
        self._unit, self._origin = float(stream.time_base or 0), origin
        self._check_whole(finish)
        self._times = self._known_times()
        self.guessed = False
        if self._times is None:
            self._times, self.guessed = self._counted_times(), True
        self.shown = self._order()
        self._keys = self._restarts()

    def __len__(self) -> int:
        return len(self._pts)

    @property
    def showing(self) -> int:
        """How many show a frame, as far as they say."""
        return sum(self._is_shown)

    @property
    def longest(self) -> int:
        """Most packets that may have to be decoded for one frame; all without their order."""
        if self.shown is None:
            return len(self)
        starts = [0, *self._keys, len(self)]
        return max(end - start for start, end in zip(starts, starts[1:], strict=False))

    def seconds(self, number: int) -> float | None:
        """When a packet's frame is shown, from the start of the file."""
        return None if self._times is None else self._times[number] * self._unit - self._origin

    def by_time(self, numbers: Iterable[int]) -> list[int]:
        """Numbers in the order in which their frames are shown."""
        return sorted(numbers, key=None if self._times is None else self._times.__getitem__)

    def restart(self, number: int) -> int:
        """The packet to decode from for the frame of this one to be as in a whole decode.

        The last keyframe that is not shown later: frames that are decoded after a keyframe and
        shown before it need what was before it.
        """
        place = bisect.bisect_right(self._keys, number) - 1
        times = self._times
        while place >= 0 and times is not None and times[self._keys[place]] > times[number]:
            place -= 1
        return self._keys[place] if place >= 0 else 0

    def before(self, restart: int, keyframes: int = 1) -> int:
        """The packet to decode from so many keyframes earlier than a `restart`."""
        place = bisect.bisect_left(self._keys, restart) - keyframes
        return self._keys[place] if place >= 0 else 0

    def after(self, number: int) -> int:
        """The end of the packets that may need this one: the next keyframe and what leads it."""
        place = bisect.bisect_right(self._keys, number)
        if place == len(self._keys):
            return len(self)
        end = self._keys[place] + 1
        while end < len(self) and self.leads(end, self._keys[place]):
            end += 1
        return end

    def leads(self, number: int, first: int) -> bool:
        """Whether a packet comes before the first keyframe from `first` on.

        Before it in the order of decoding, or of showing: where decoding starts at `first`, or the
        file was cut there, what it refers to is missing.
        """
        place = bisect.bisect_left(self._keys, first)
        if place == len(self._keys) or number >= len(self):
            return False
        key = self._keys[place]
        return number < key or (self._times is not None and self._times[number] < self._times[key])

    def no_restart(self, number: int) -> None:
        """Takes back that a packet is a keyframe: it is damaged, or called so and is none."""
        place = bisect.bisect_left(self._keys, number)
        if self._keys[place : place + 1] == [number]:
            del self._keys[place]

    def read(self, first: int, end: int) -> Iterator[tuple[int, av.Packet]]:
        """The packets from one on until before another, with their numbers.

        These are their times too, for a frame has its packet's, whatever the container said.
        """
        if self._kept is not None:
            return enumerate(itertools.islice(self._kept, first, end), first)
        return self._read_again(first, min(end, len(self)))

    def _read_again(self, first: int, end: int) -> Iterator[tuple[int, av.Packet]]:
        earliest, packets = self._found(first)
        for number, packet in enumerate(packets, earliest):
            self._clock.check()
            if number >= end:
                break
            if number >= first:
                packet.pts = number
                yield number, packet

    def _read(self) -> tuple[float, float]:
        """Reads all packets once; gives the seconds where the first begins and the last ends."""
        packets: list[av.Packet] = []
        spans = _Spans()
        try:
            self._read_all(packets, spans)
        except av.FFmpegError:
            if not self._ends_early(len(self) + len(packets)):
                raise
        self._clock.check()  # for then the file seems to end
        self._note(packets, spans)
        if self._kept is not None:
            self._kept = packets
            for number, packet in enumerate(packets):
                packet.pts = number
        if not len(self):
            raise MediaError("no frame in the video stream")
        return spans.seconds(self._container)

    def _read_all(self, packets: list[av.Packet], spans: "_Spans") -> None:
        """Adds the stream's packets to a list, which is noted and emptied when it is too large."""
        own, read, size, total = self._stream.index, self._streams_read(), 0, 0
        for packet in self._container.demux(*read):
            length = packet.size
            if not length:
                continue
            total += 1
            if total > _MAX_PACKETS:
                raise MediaError(f"more than {_MAX_PACKETS} packets")
            if not read and (number := packet.stream_index) != own:
                time = packet.dts if packet.pts is None else packet.pts
                if time is not None:
                    spans.add(number, time, time + (packet.duration or 0))
                continue
            packets.append(packet)
            size += length
            if size > _KEPT_BYTES:
                self._clock.check()
                self._kept, size = None, 0
                self._note(packets, spans)
                packets.clear()

    def _note(self, packets: list[av.Packet], spans: "_Spans") -> None:
        """Adds what the stream's next packets say."""
        pts, dts, lasting = (list(map(which, packets)) for which in (_PTS, _DTS, _DURATION))
        times = pts
        if None in pts:
            times = [d if p is None else p for p, d in zip(pts, dts, strict=True)]
        ends = [time + (lasts or 0) for time, lasts in zip(times, lasting, strict=True)
                if time is not None]
        if ends:
            spans.add(self._stream.index, min(_known(times)), max(ends))
        self._pts += pts
        self._dts += dts
        if self._kept is None:  # to know them by, when they are read again
            self._sizes += map(_SIZE, packets)
        self._is_key += map(_IS_KEY, packets)
        # VP8 says in its first byte whether a frame is shown; others hide theirs in packets of
        # ones that are.
        if self._stream.codec_context.name in ("vp8", "libvpx"):
            self._is_shown += [
                not one.is_discard and bool(memoryview(one)[0] & 0x10) for one in packets
            ]
        else:
            self._is_shown += map(operator.not_, map(_IS_DISCARD, packets))

    def _streams_read(self) -> tuple[VideoStream, ...]:
        """The streams whose packets are wanted, of none: all; others are not even read."""
        if not self._stream.duration or self._format == "matroska":
            return ()
        # Its own duration is stated: nothing of the sound need be read.
        for other in self._container.streams:
            if other.index != self._stream.index:
                other.discard = Discard.all
        return (self._stream,)

    def _ends_early(self, count: int) -> bool:
        """Whether what cannot be read after so many packets is as the end of the file.

        That is too early where most of it is missing.
        """
        self._clock.check()
        return bool(count and self._stated())

    def _stated(self) -> float:
        """Seconds that the container says it lasts; 0 where it does not say."""
        if self._format not in _STATING:
            return 0.0
        return (self._container.duration or 0) / av.time_base

    def _check_whole(self, finish: float) -> None:
        """A file cut off in the middle raises nothing in some containers."""
        stream, duration = self._stream, self._stated()
        if duration and stream.duration and self._format != "matroska":
            duration = stream.duration * self._unit
        length = finish - self._origin
        length += length / len(self)  # some say nothing of how long the last frame lasts
        if not 0 < length < _COMPLETE * duration:
            return
        # But for this one, unless it is in fragments of which earlier ones may have been left out,
        # they count the duration from 0, wherever the first packet is.
        from_0 = self._format != "mov" or b"moof" in self._data
        if from_0 and 0 < self._origin < duration:
            duration -= self._origin
        if length < _COMPLETE * duration:
            raise MediaError(f"truncated video: packets end at {length:.2f} s of {duration:.2f} s")

    def _known_times(self) -> list[int] | None:
        """When each packet is shown, as the container says; None where it does not."""
        # AVI states no presentation times; those that are given for it are wrong after B-frames.
        if self._format == "avi":
            return None
        times = _known(self._pts)
        if len(times) < len(self):
            return None
        decoded = _known(self._dts)
        return times if decoded == sorted(decoded) else self._joined_times(times)

    def _joined_times(self, times: list[int]) -> list[int]:
        """Times that go on where those of files put together begin anew."""
        joined: list[int] = []
        last: int | None = None
        shift = top = 0
        step = _BREAK / self._unit if self._unit else 0
        for pts, dts, is_key in zip(times, self._dts, self._is_key, strict=True):
            if is_key and last is not None and dts is not None and dts < last - step:
                shift = top - pts  # it goes on where the part before ends
            if dts is not None:
                last = dts
            joined.append(pts + shift)
            top = max(top, joined[-1] + 1)
        return joined

    def _counted_times(self) -> list[int] | None:
        """Times of packets that are shown in the order of decoding; None where they may not be."""
        codec = self._stream.codec_context
        if codec.codec.reorder and codec.has_b_frames:
            return None
        times = _known(self._dts)
        if len(times) == len(self) and all(a < b for a, b in zip(times, times[1:], strict=False)):
            return times
        self._unit = 1 / float(self._stream.average_rate or self._stream.base_rate or 25)
        self._origin = 0.0
        return list(range(len(self)))

    def _order(self) -> list[int] | None:
        if self._times is None:
            return None
        shown = self.by_time(itertools.compress(range(len(self)), self._is_shown))
        # Two frames at a time: nothing tells which is the first.
        return shown if len(set(map(self._times.__getitem__, shown))) == len(shown) else None

    def _restarts(self) -> list[int]:
        """Numbers of the packets from which on the frames shown later need nothing earlier."""
        codec = self._stream.codec_context
        if codec.codec.intra_only:
            return list(range(len(self)))
        if codec.name not in _RESTARTING:
            return []
        return list(itertools.compress(range(len(self)), self._is_key))

    def _found(self, first: int) -> tuple[int, Iterator[av.Packet]]:
        """Some number up to `first`, and the packets from that one on, read again."""
        if not self._numbers:
            marks = zip(self._pts, self._dts, self._sizes, strict=True)
            self._numbers = {mark: number for number, mark in enumerate(marks)}
        known = _known([self._pts[first], self._dts[first]])
        try:
            if known:
                self._container.seek(min(known), stream=self._stream)
                packets = self._sought()
                packet = next(packets)
                number = self._numbers.get((packet.pts, packet.dts, packet.size), len(self))
                if number <= first:
                    return number, itertools.chain([packet], packets)
        except (av.FFmpegError, StopIteration):
            pass
        return 0, self._reopened()

    def _sought(self) -> Iterator[av.Packet]:
        """The stream's packets from where the container is, up to an unreadable one."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except av.FFmpegError:
            if not self._ends_early(len(self)):
                raise

    def _reopened(self) -> Iterator[av.Packet]:
        with opened(self._data, self._clock) as (container, stream):
            for packet in container.demux(stream):
                if packet.size:
                    yield packet


def _known(times: list[int | None]) -> list[int]:
    """Those of some times that are stated."""
    if None not in times:
        return cast(list[int], times)
    return [time for time in times if time is not None]


class _Spans:
    """When the packets of each stream begin and end, in units of the stream."""

    def __init__(self) -> None:
        self._begins: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    def add(self, stream: int, begin: int, end: int) -> None:
        """Takes a packet of a stream, or several."""
        self._begins[stream] = min(self._begins.get(stream, begin), begin)
        self._ends[stream] = max(self._ends.get(stream, end), end)

    def seconds(self, container: InputContainer) -> tuple[float, float]:
        """Where the first of all streams begins, and where the last ends."""
        units = {one.index: float(one.time_base or 0) for one in container.streams}
        begins = (begin * units[stream] for stream, begin in self._begins.items())
        ends = (end * units[stream] for stream, end in self._ends.items())
        return min(begins, default=0.0), max(ends, default=0.0)
