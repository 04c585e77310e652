"""Tiny real media, the files they go into, and records as they are read back."""

import csv
import functools
import io
import json
import tarfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

from data.datasets import DATASETS, RawFolder
from data.datasets.raw import Entry

# File format and codec by suffix.
_CONTAINERS = {
    ".mp4": ("mp4", "libx264", "yuv420p"),
    ".avi": ("avi", "mpeg4", "yuv420p"),
    ".gif": ("gif", "gif", "rgb8"),
    ".webm": ("webm", "libvpx", "yuv420p"),
    ".mkv": ("matroska", "libx264", "yuv420p"),
}


@functools.cache
def clip(number: int, suffix: str = ".mp4", frames: int = 4) -> bytes:
    """A real video of 32 x 24 pixels, 8 frames a second, another one for each number."""
    container, codec, pixels = _CONTAINERS[suffix]
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 24, pixels
        stream.thread_count = 1
        for _ in range(frames):
            colours = rng.integers(0, 256, (1, 1, 3)).repeat(24, 0).repeat(32, 1)
            frame = av.VideoFrame.from_ndarray(colours.astype(np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


@functools.cache
def image(number: int, kind: str = "JPEG") -> bytes:
    """A real image of 40 x 20 pixels, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (2, 4, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.repeat(10, 0).repeat(10, 1)).save(file, kind)
    return file.getvalue()


def put(path: Path, content) -> None:
    """Writes a file and the folders above it: bytes, text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")


def put_csv(path: Path, rows: list[list], delimiter: str = ",") -> None:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    put(path, file.getvalue())


def put_tar(path: Path, members: dict[str, bytes | str | dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if not isinstance(content, bytes):
                text = content if isinstance(content, str) else json.dumps(content)
                content = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def wanted(id: str, media: bytes, kind: str = "video", **fields) -> dict:
    """A record as `records.parse` gives it."""
    record = {"id": id, "kind": kind, "media": media, "texts": [], "label": "", "group": ""}
    record |= {"start": 0.0, "end": 0.0, "questions": [], "boxes": []} | fields
    defaults = {"type": "", "id": "", "answers": [], "ocr": "", "objects": ""}
    record["questions"] = [defaults | question for question in record["questions"]]
    return record


def read(name: str, raw: Path) -> tuple[dict[str, list[Entry]], list[tuple[str, str, str]]]:
    """The entries of each split, and what was left out."""
    folder = RawFolder(raw)
    found = {split: list(own) for split, own in DATASETS[name].read(folder).items()}
    return found, folder.left_out


def texts(entries: list[Entry]) -> list[list[str]]:
    return [entry.fields.get("texts", []) for entry in entries]
