"""Files to batches ahead, and rows back into the order of the files; nothing is decoded here."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.inference import clips as module
from mplug2_jax.inference.clips import Clips, Shape
from mplug2_jax.inference.parts import cut
from mplug2_jax.inference.predictor import in_order

FILES = [Path(f"{number}.{'jpg' if number % 3 else 'mp4'}") for number in range(23)]
SHAPES = {"image": Shape(4, 1, 24), "video": Shape(2, 8, 24)}


@pytest.fixture
def begun(monkeypatch):
    """Files that were asked for so far; a clip is the file's name and what was asked."""
    found, lock = [], threading.Lock()

    def load(file, frames, size):
        with lock:
            found.append(file)
        if file.name == "4.jpg":
            raise MediaError("damaged")
        return f"{file} {frames} {size}"

    monkeypatch.setattr(module, "load_clip", load)
    return found


@pytest.mark.parametrize("ahead", [1, 5, 100])
def test_rows_come_in_the_order_of_the_files(begun, ahead):
    with ThreadPoolExecutor(3) as pool:
        batches = []
        for batch in Clips(cut(FILES, 10), SHAPES, pool, ahead):
            batches.append(batch)
            # No more is begun than that many, and what fills the last batch and the next.
            assert len(begun) <= sum(len(one.files) for one in batches) + ahead + 8
    assert {(batch.kind, len(batch.files) <= SHAPES[batch.kind].rows) for batch in batches} == {
        ("image", True), ("video", True)}
    rows = list(in_order((batch, batch.clips) for batch in batches))
    assert [row.file for row in rows] == FILES
    assert [row.part for row in rows] == [0] * 10 + [1] * 10 + [2] * 3
    assert [number for number, row in enumerate(rows) if row.last] == [9, 19, 22]
    for row in rows:
        if row.file.name == "4.jpg":
            assert isinstance(row.output, MediaError)
        else:
            assert row.output == f"{row.file} {8 if row.kind == 'video' else 1} 24"
