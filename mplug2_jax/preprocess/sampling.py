"""Which frames of a video are looked at: TSN-style segments, or dense; of all, or of a part."""

from collections.abc import Sequence

import numpy as np

from mplug2_jax.contracts.errors import MediaError

# How much longer or shorter than a segment a file may be that was cut to it: seconds, and a share.
_CUT_SLACK, _CUT_SHARE = 1.0, 0.1


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


def within(times: list[float] | int, start: float, end: float) -> Sequence[int]:
    """Numbers of the frames shown from `start` until before `end` (0: all that follow).

    Of a file that was cut to these times beforehand, all: it is as long as they say, and they do
    not lie in it.

    Args:
        times: seconds of each frame; or how many there are, where the times do not matter.
    """
    if isinstance(times, int):
        inside: Sequence[int] = range(times)
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
