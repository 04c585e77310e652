"""Video bytes to a few RGB frames: which ones (TSN-style segments), and decoding with PyAV."""

import io

import av
import numpy as np
from av.video.reformatter import VideoReformatter

# A container without a frame count is called truncated when its packets end before this share of
# its stated duration.
_COMPLETE = 0.9


class MediaError(ValueError):
    """Bytes that are not a readable image or video; the message is one line."""


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


def decode_video(
    data: bytes, num_frames: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Decodes `num_frames` frames of an encoded video, chosen by `frame_indices`.

    Frames are decoded in order (seeking is inexact in many codecs) up to the last one wanted, and
    only those wanted are converted to RGB.

    Args:
        data: the bytes of a video file (mp4, webm, mkv, avi, ...).
        num_frames: frames wanted.
        rng: None for middle frames, a generator for random ones.

    Returns:
        uint8 [num_frames, H, W, 3].

    Raises:
        MediaError: the bytes are not a video, hold no video stream or no frame, or are truncated.
    """
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise MediaError("no video stream in the file")
            stream = container.streams.video[0]
            # Clips are short and many are decoded at once: threads inside one clip cost more than
            # they give.
            stream.thread_type = "NONE"
            length = stream.frames or _count_frames(container, stream)
            decoded, frames = _decode(container, stream, frame_indices(length, num_frames, rng))
            if frames is None:
                # The count in the header was too high (edit lists hide frames): decode again with
                # the true one.
                if decoded == 0:
                    raise MediaError("no frame in the video stream")
                container.seek(0)
                _, frames = _decode(container, stream, frame_indices(decoded, num_frames, rng))
            if frames is None:
                raise MediaError("the video gives fewer frames when it is read again")
            return frames
    except MediaError:
        raise
    # PyAV raises these for bad bytes: its own errors (OSError or ValueError too), and bare ones
    # from the bindings.
    except (av.FFmpegError, OSError, ValueError, IndexError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise MediaError(f"undecodable video of {len(data)} bytes: {reason}") from error


def _count_frames(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Frames of a container that states no count (webm, mkv), by reading packets undecoded."""
    frames, end = 0, 0.0  # end of the last packet in seconds
    start = (container.start_time or 0) / av.time_base
    for packet in container.demux():
        if packet.size == 0:
            continue
        frames += packet.stream_index == stream.index
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start)
    if frames == 0:
        raise MediaError("no frame in the video stream")
    duration = (container.duration or 0) / av.time_base
    if end < _COMPLETE * duration:
        raise MediaError(f"truncated video: packets end at {end:.2f} s of {duration:.2f} s")
    container.seek(0)
    return frames


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, indices: np.ndarray
) -> tuple[int, np.ndarray | None]:
    """Decodes up to the last index: frames seen, and uint8 [T, H, W, 3] or None if it has fewer."""
    wanted = set(indices.tolist())
    # One converter for the clip, without threads: setting up either costs more than converting a
    # small frame.
    reformatter = VideoReformatter()
    pixels: dict[int, np.ndarray] = {}
    seen = 0
    for frame in container.decode(stream):
        if seen in wanted:
            pixels[seen] = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            if len(pixels) == len(wanted):
                shape = pixels[seen].shape
                if any(image.shape != shape for image in pixels.values()):
                    raise MediaError("the frame size changes within the video")
                return seen + 1, np.stack([pixels[index] for index in indices.tolist()])
        seen += 1
    return seen, None
