"""Tiny video files as people have them, and what a plain decode from the beginning gives."""

import io
from collections.abc import Callable, Iterable

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from mplug2_jax.preprocess.opening import ANY_TITLE

UNIT = 65536  # of a display matrix
HEIGHT, WIDTH = 48, 64


def moving(count: int, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Texture that moves under noise, so that every frame differs: uint8 [count, H, W, 3]."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    shifted = np.stack([np.roll(base, (t, 2 * t), (0, 1)) for t in range(count)])
    return (shifted + rng.normal(0, 6, shifted.shape)).clip(0, 255).astype(np.uint8)


def encode(
    codec: str,
    container_format: str,
    pixels: np.ndarray,
    *,
    times: Iterable[float] | None = None,
    title: str = "",
    sound: float = 0.0,
    matrix: Iterable[int] | None = None,
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    change: Callable[[av.Packet, int], av.Packet | None] = lambda packet, number: packet,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """A file of one video stream.

    Args:
        pixels: uint8 [T, H, W, 3].
        times: of the frames, in milliseconds; None for equal distances.
        title: in the container's metadata.
        sound: seconds of silence beside it.
        matrix: 9 numbers of its display matrix.
        change: what becomes of each packet, by its number.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container_format, options=container_options or {}) as container:
        if title:
            container.metadata["title"] = title
        output = container.add_stream(codec, rate=1000 if times else rate, options=options)
        output.height, output.width, output.pix_fmt = *pixels.shape[1:3], pix_fmt
        if matrix is not None:
            output.set_display_matrix(list(matrix))
        heard = container.add_stream("aac", rate=8000) if sound else None
        frames = [av.VideoFrame.from_ndarray(one, format="rgb24") for one in pixels]
        for frame, time in zip(frames, times or (), strict=False):
            frame.pts = int(time)
        number = 0
        for frame in [*frames, None]:
            for packet in output.encode(frame):
                packet = change(packet, number)
                number += 1
                if packet is not None:
                    container.mux(packet)
        if heard is not None:
            silence = np.zeros((1, int(8000 * sound)), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux([*heard.encode(frame), *heard.encode(None)])
    return file.getvalue()


def remux(data: bytes, container_format: str, first: int = 0, last: int | None = None,
          shift: float = 0.0, rebase: bool = False) -> bytes:
    """A stream copy into another container: some packets, shifted by seconds, or from time 0."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as given, av.open(file, "w", format=container_format) as made:
        source = given.streams.video[0]
        target = made.add_stream_from_template(source)
        packets = [p for p in given.demux(source) if p.size][first:last]
        base = packets[0].dts if rebase else 0
        for packet in packets:
            offset = round(shift / packet.time_base) - base
            packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
            packet.stream = target
            made.mux(packet)
    return file.getvalue()


def with_cover(container_format: str, video: np.ndarray | None = None) -> bytes:
    """Sound, perhaps video, and a picture attached to it."""
    file, picture = io.BytesIO(), io.BytesIO()
    Image.fromarray(moving(1, 96, 128)[0]).save(picture, "JPEG")
    with av.open(file, "w", format=container_format) as made:
        cover = made.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 96, 128, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        shown = made.add_stream("libx264", rate=25) if video is not None else None
        if shown is not None:
            shown.height, shown.width, shown.pix_fmt = *video.shape[1:3], "yuv420p"
        heard = made.add_stream("aac", rate=8000)
        made.start_encoding()
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = cover, 0, 0, True
        made.mux(packet)
        for pixels in () if video is None else video:
            made.mux(shown.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if shown is not None:
            made.mux(shown.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        made.mux([*heard.encode(frame), *heard.encode(None)])
    return file.getvalue()


def two_streams(default: int) -> bytes:
    """Videos of 64 x 48 and of 96 x 72 in one file; one of them is the default."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as made:
        outputs = []
        for number, (height, width) in enumerate(((48, 64), (72, 96))):
            output = made.add_stream("libx264", rate=25)
            output.height, output.width, output.pix_fmt = height, width, "yuv420p"
            output.disposition = Disposition.default if number == default else Disposition(0)
            outputs.append(output)
        made.start_encoding()
        for output in outputs:
            for pixels in moving(10, output.height, output.width):
                made.mux(output.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            made.mux(output.encode())
    return file.getvalue()


def damaged(data: bytes, numbers: Iterable[int]) -> bytes:
    """A file of H.264 in which the length of some packets' first NAL unit is 0x7fffffff."""
    with av.open(io.BytesIO(data)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    spoilt = bytearray(data)
    for number in numbers:
        place = data.index(packets[number])
        spoilt[place : place + 4] = b"\x7f\xff\xff\xff"
    return bytes(spoilt)


def plain(data: bytes, stream: int = 0) -> list[np.ndarray]:
    """Every frame that PyAV gives of a whole decode, unturned; refused packets are left out."""
    found = []
    with av.open(io.BytesIO(data), **ANY_TITLE) as container:
        video = container.streams.video[stream]
        for packet in container.demux(video):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            found += [frame.to_ndarray(format="rgb24") for frame in frames]
    return found
