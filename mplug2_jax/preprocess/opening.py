"""The one opening of media: what may be opened, how large it may be, how long it may take.

Probing, preparing, training and predicting all read through here. Bytes of strangers claim
anything: no file is opened but the one given, and whatever is read of it has a limit.
"""

import contextlib
import io
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from mplug2_jax.contracts.buckets import Bucket
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.contracts.paths import in_bucket

# What bytes may be. Playlists, scripts and descriptions of streams (HLS, DASH, ffconcat, SDP,
# image2 patterns), which open further files or connections, are not among them.
FORMATS = (
    "mov,matroska,avi,gif,mpegts,mpeg,mpegvideo,h264,hevc,flv,asf,ogg,mxf,dv,rm,ivf,yuv4mpegpipe"
)
_PROTOCOLS = "none"  # the bytes are at hand; a name of no protocol, for an empty list allows all
MAX_BYTES = 2**31 - 1  # of a file: what a record can hold
MAX_PIXELS = 40_000_000  # of a frame; 8K is 33 million
MAX_STREAMS = 100  # of a file; a transponder's recording has some sixty
MAX_DURATION = 24 * 3600  # seconds
# Of the wall clock, for one medium; the limit of pixels is reached before on an idle machine.
MAX_SECONDS = 120.0
# Titles are in any encoding, and none is read here: PyAV before 19 raises for those that are not
# UTF-8 unless it is told not to, later ones escape the bytes and know no such option.
ANY_TITLE: dict[str, Any] = (
    {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {})
# Pictures beside sound, and pictures of a video's chapters: nothing that plays.
_STILLS = Disposition.attached_pic | Disposition.timed_thumbnails


class Clock:
    """The time that one medium may take.

    Args:
        seconds: of the wall clock, from now.
    """

    def __init__(self, seconds: float | None = None):
        self._seconds = MAX_SECONDS if seconds is None else seconds
        self._end = time.monotonic() + self._seconds

    @property
    def over(self) -> bool:
        """Whether it is over."""
        return time.monotonic() > self._end

    def check(self) -> None:
        """Raises MediaError once it is over."""
        if time.monotonic() > self._end:  # not `over`: this is asked for every packet
            raise MediaError(f"took longer than {self._seconds:g} s")


class _Source(io.BytesIO):
    """Bytes that end when the time is over: whatever loop of a demuxer reads them ends too."""

    def __init__(self, data: bytes, clock: Clock):
        super().__init__(data)
        self._clock = clock

    def read(self, size: int | None = -1, /) -> bytes:
        return b"" if self._clock.over else super().read(size)


def read_file(path: Path, offset: int = 0, size: int = -1) -> bytes:
    """A file's bytes, or a part of them.

    Args:
        path: of a file; a pipe, a device or a folder is none.
        offset: first byte.
        size: number of bytes, -1 for the rest.

    Raises:
        MediaError: there is no such file, it cannot be read, or is too large or too short.
    """
    if in_bucket(path):
        return _from_bucket(path, offset, size)
    try:
        # Opening a pipe that nobody writes to would wait; a device may have no end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise MediaError("unreadable: not a file")
            wanted = found.st_size - offset if size < 0 else size
            if wanted > MAX_BYTES:
                raise MediaError(f"{wanted / 1e9:.1f} GB are more than the limit of "
                                 f"{MAX_BYTES / 1e9:.1f} GB: cut it into parts")  # fmt: skip
            file.seek(offset)
            data = file.read(max(wanted, 0))
    except OSError as error:
        raise MediaError(f"unreadable: {error.strerror or error}") from error
    if len(data) < size:
        raise MediaError(f"ends {size - len(data)} bytes too early")
    return data


def _from_bucket(path: Path, offset: int, size: int) -> bytes:
    try:
        rest = path.stat().st_size - offset
        wanted = rest if size < 0 else size
        if wanted > MAX_BYTES:
            raise MediaError(f"{wanted / 1e9:.1f} GB are more than the limit of "
                             f"{MAX_BYTES / 1e9:.1f} GB: cut it into parts")
        data = cast(Bucket, path).read_range(offset, min(wanted, rest))
    except OSError as error:
        raise MediaError(f"unreadable: {error.strerror or error}") from error
    if len(data) < size:
        raise MediaError(f"ends {size - len(data)} bytes too early")
    return data


@contextlib.contextmanager
def reading(data: bytes, what: str) -> Iterator[None]:
    """Turns whatever PyAV raises of bad bytes into MediaError: "undecodable {what} of N bytes"."""
    try:
        yield
    except MediaError:
        raise
    # Its own errors (OSError or ValueError too), and bare ones from the bindings.
    except (av.FFmpegError, OSError, ValueError, IndexError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise MediaError(f"undecodable {what} of {len(data)} bytes: {reason}") from error


@contextlib.contextmanager
def opened(data: bytes, clock: Clock) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a container as far as its header, and finds its video.

    Of several video streams it is the one that the container marks as the default, else the best
    (`av_find_best_stream`), as players choose; cover art is none.

    Raises:
        MediaError: it has no video stream, or is beyond a limit.
        av.FFmpegError and others: the bytes are of no allowed format; see `reading`.
    """
    if len(data) > MAX_BYTES:
        raise MediaError(f"{len(data)} bytes are more than the limit of {MAX_BYTES}")
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": _PROTOCOLS,
        "max_streams": str(MAX_STREAMS + 1),  # and no more are made
        "max_pixels": str(MAX_PIXELS),  # of the decoders that find out what a stream is
    }
    source = _Source(data, clock)
    try:
        container = av.open(source, "r", options=options, **ANY_TITLE)
    except av.FFmpegError:
        clock.check()
        raise
    with container:
        clock.check()
        if len(container.streams) > MAX_STREAMS:
            raise MediaError(f"more than {MAX_STREAMS} streams")
        # Fragments of a broadcast have the time of day, or since 1970: it does not last that long.
        lasts = (container.duration or 0) - max(container.start_time or 0, 0)
        hours = lasts / av.time_base / 3600
        if hours > MAX_DURATION / 3600:
            raise MediaError(f"lasts {hours:.1f} hours, more than {MAX_DURATION / 3600:.0f}")
        yield container, _video_stream(container)


def _video_stream(container: InputContainer) -> VideoStream:
    found = [one for one in container.streams.video if not one.disposition & _STILLS]
    if not found:
        raise MediaError("no video stream in the file")
    best = container.streams.best("video")
    chosen = next((one for one in found if best is not None and one.index == best.index), None)
    if chosen is None:  # the best one is cover art
        default = [one for one in found if one.disposition & Disposition.default]
        chosen = (default or found)[0]
    if chosen.codec_context is None:
        raise MediaError("a video stream of an unknown codec")
    return chosen
