"""Files to clips of batches of one shape, decoded ahead by threads, across the parts of a job."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.files import File, load_clip, media_kind

Part = tuple[int, Sequence[File]]  # its number, and its files
_T = TypeVar("_T")


def chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """So many at a time."""
    return (items[start:start + size] for start in range(0, len(items), size))


class Shape(NamedTuple):
    """Of the batches of a kind of file: rows, and of a clip its frames and their side in pixels."""

    rows: int
    frames: int
    image_size: int


class Batch(NamedTuple):
    """Files of one kind and part, at most as many as a batch has rows.

    Attributes:
      part: number of the part; `size` is how many files it has.
      kind: of `media_kind`.
      places: of each file its place in the part.
      files: likewise.
      clips: uint8 `[T, H, W, 3]` of each, or why there is none.
    """

    part: int
    size: int
    kind: str
    places: Sequence[int]
    files: Sequence[File]
    clips: list[np.ndarray | MediaError]


class Clips:
    """The batches of parts, in their order.

    Args:
      parts: taken as they are needed.
      shapes: by kind of file.
      pool: decodes.
      ahead: files that are decoded, or wait for it, while a batch is used; at least the next batch.

    Attributes:
      waited: seconds for which the batches were waited for so far.
    """

    def __init__(self, parts: Iterable[Part], shapes: Mapping[str, Shape],
                 pool: ThreadPoolExecutor, ahead: int):
        self.waited = 0.0
        self._parts, self._shapes, self._pool, self._ahead = parts, shapes, pool, ahead

    def __iter__(self) -> Iterator[Batch]:
        coming: deque[tuple[Batch, list[Future[np.ndarray]]]] = deque()
        begun = 0  # files of batches after the first that is coming
        for batch in self._divided():
            _, frames, size = self._shapes[batch.kind]
            begun += len(batch.files) * bool(coming)
            coming.append((batch, [self._pool.submit(load_clip, file, frames, size)
                                   for file in batch.files]))
            if begun >= self._ahead:
                yield self._read(*coming.popleft())
                begun -= len(coming[0][1])
        while coming:
            yield self._read(*coming.popleft())

    def _divided(self) -> Iterator[Batch]:
        """Batches without clips; the kinds of a part one after the other."""
        for number, files in self._parts:
            kinds: dict[str, list[int]] = {}
            for place, file in enumerate(files):
                kinds.setdefault(media_kind(file), []).append(place)
            for kind, places in kinds.items():
                for some in chunks(places, self._shapes[kind].rows):
                    yield Batch(number, len(files), kind, some,
                                [files[place] for place in some], [])

    def _read(self, batch: Batch, clips: list[Future[np.ndarray]]) -> Batch:
        start = time.monotonic()
        for clip in clips:
            try:
                batch.clips.append(clip.result())
            except MediaError as error:
                batch.clips.append(error)
        self.waited += time.monotonic() - start
        return batch
