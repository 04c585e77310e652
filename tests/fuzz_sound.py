"""Small sound files of each kind, which `fuzz_files` damages."""

import csv
import functools
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from convert import torch_files
from PIL import Image
from preprocess.clips import encode, moving, remux, with_cover

Sound = dict[str, bytes]  # files by name; the suffix says what they are


def picture(kind: str, mode: str = "RGB", frames: int = 1, **options) -> bytes:
    """A picture of 48 x 48 pixels."""
    images = [Image.fromarray(one).convert(mode) for one in moving(frames, 48, 48)]
    file = io.BytesIO()
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(file, kind, **more, **options)
    return file.getvalue()


def videos() -> Sound:
    """Clips of ten frames in the containers that people have."""
    pixels, one = moving(10, 48, 48), {"threads": "1"}
    h264 = encode("libx264", "mp4", pixels, g="4", bf="2", **one)
    return {
        "h264.mp4": h264,
        "turned.mov": encode("libx264", "mov", pixels, sound=0.2, title="x", **one,
                             matrix=(0, 65536, 0, -65536, 0, 0, 0, 0, 2**30)),
        "fragments.mp4": encode("libx264", "mp4", pixels, g="5", **one, container_options={
            "movflags": "frag_keyframe+empty_moov"}),
        "h264.mkv": remux(h264, "matroska"),
        "h264.ts": remux(h264, "mpegts"),
        "vp8.webm": encode("libvpx", "webm", pixels, **one),
        "mpeg4.avi": encode("mpeg4", "avi", pixels, **one),
        "moves.gif": encode("gif", "gif", pixels, pix_fmt="rgb8"),
        "cover.mp4": with_cover("mp4", pixels[:4]),
        "moves.webp": picture("WEBP", frames=4),
        "moves.png": picture("PNG", frames=4),
        "moves.avif": picture("AVIF", frames=2, speed=10, max_threads=1),
    }


def pictures() -> Sound:
    """A picture of each format, and of the modes that are converted in their own ways."""
    turned = Image.Exif()
    turned[0x112] = 6
    return {
        "plain.jpg": picture("JPEG", exif=turned), "scans.jpg": picture("JPEG", progressive=True),
        "cmyk.jpg": picture("JPEG", "CMYK"), "plain.png": picture("PNG"),
        "alpha.png": picture("PNG", "RGBA", exif=turned), "palette.png": picture("PNG", "P"),
        "deep.png": picture("PNG", "I;16"), "plain.webp": picture("WEBP", exif=turned),
        "moves.gif": picture("GIF", frames=3), "plain.tif": picture("TIFF", exif=turned),
        "lzw.tif": picture("TIFF", "LA", compression="tiff_lzw"),
        "float.tif": picture("TIFF", "F"), "plain.bmp": picture("BMP"),
        "palette.bmp": picture("BMP", "P"), "plain.avif": picture("AVIF", speed=10, max_threads=1),
        "plain.jp2": picture("JPEG2000"),
    }


def tar_of(members: list[tuple[str, bytes]], **options) -> bytes:
    """A tar of these."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def tars() -> Sound:
    """Shards of webdataset."""
    jpeg, png = picture("JPEG"), picture("PNG")
    samples = [(f"s{n}.{suffix}", data) for n in range(3) for suffix, data in (
        ("jpg", jpeg), ("txt", f"a red {n}".encode()), ("cls", b"3"))]
    told = [(f"d/{n:05d}.{suffix}", data) for n in range(2) for suffix, data in (
        ("json", json.dumps({"caption": [f"a {n}", "b"], "url": "x", "key": n}).encode()),
        ("png", png))]
    clip = encode("mpeg4", "mp4", moving(4, 48, 48), threads="1")
    long = [(f"{'long/' * 40}{n}.{suffix}", data) for n in range(2)
            for suffix, data in (("jpg", jpeg), ("txt", b"caption"))]
    return {"plain.tar": tar_of(samples), "told.tar": tar_of(told, format=tarfile.GNU_FORMAT),
            "clips.tar": tar_of([("a.mp4", clip), ("a.txt", b"moves")],
                                format=tarfile.USTAR_FORMAT),
            "pax.tar": tar_of(long, format=tarfile.PAX_FORMAT),
            "gnu.tar": tar_of(long, format=tarfile.GNU_FORMAT),
            "sparse.tar": sparse([(0, len(jpeg)), *[(len(jpeg), 0)] * 29], jpeg, len(jpeg),
                                 "s0.jpg")
            + tar_of(samples[1:], format=tarfile.GNU_FORMAT)}


def sparse(extents: list[tuple[int, int]], data: bytes, size: int, name: str = "s.jpg") -> bytes:
    """A member as `tar -S --format=gnu` writes it; an extent is its offset and its length."""
    made = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    numbers = [b"%011o\0%011o\0" % extent for extent in extents]
    made[124:136], made[483:495] = b"%011o\0" % len(data), b"%011o\0" % size
    made[156:157], made[482] = b"S", len(numbers) > 4
    made[386:482] = b"".join(numbers[:4]).ljust(96, b"\0")
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    for at in range(4, len(numbers), 21):
        made += b"".join(numbers[at:at + 21]).ljust(504, b"\0")
        made += bytes([at + 21 < len(numbers)]).ljust(8, b"\0")
    return bytes(made) + data + b"\0" * (-len(data) % 512)


def rows(form: str) -> list[dict]:
    """Rows of a table that says captions, questions, boxes or classes."""
    media = ["a.jpg", "b.png", "c.mp4", "t.tar/s0.jpg", "sub/d.png", "a.jpg"]
    said: dict[str, Callable[[int], dict]] = {
        "captions": lambda n: {"caption": f'a "red", {n}\nline', "split": ("train", "val")[n % 2]},
        "questions": lambda n: {"question": "how many?", "answer": str(n), "question_id": n},
        "boxes": lambda n: {"phrase": "it", "box": [n, 2, 30, 40], "width": 48, "height": 48},
        "classes": lambda n: {"label": ("cat", "dog")[n % 5 % 2]},
        "parts": lambda n: {"caption": [f"one {n}", "two"], "start": 0.1, "end": 0.3},
    }
    return [{"path": one} | said[form](n) for n, one in enumerate(media)
            if form != "parts" or one == "c.mp4"]


def lines() -> Sound:
    """JSON lines, and the other forms of JSON that are read as tables."""
    found = {f"{form}.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows(form))
             for form in ("captions", "questions", "boxes", "classes", "parts")}
    boxes = rows("boxes")
    found["list.json"] = json.dumps(boxes)
    found["columns.json"] = json.dumps({name: [row[name] for row in boxes] for name in boxes[0]})
    found["splits.json"] = json.dumps({"train": boxes, "val": boxes[:2]})
    return {name: text.encode() for name, text in found.items()}


def separated(table: list[list[str]], separator: str = ",") -> bytes:
    """A CSV file of cells."""
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows(table)
    return file.getvalue().encode("utf-8", "surrogatepass")


def cells(form: str) -> list[list[str]]:
    """The cells of such a table, its names first."""
    table = rows(form)
    return [list(table[0])] + [[json.dumps(one) if isinstance(one, list) else str(one)
                                for one in row.values()] for row in table]


def csvs() -> Sound:
    """Tables of cells."""
    found = {f"{form}.csv": separated(cells(form))
             for form in ("captions", "questions", "boxes", "classes", "parts")}
    four = [["image", "x0", "y0", "x1", "y1", "label"], ["a.jpg", "1", "2", "30", "40", "cat"]]
    return found | {"captions.tsv": separated(cells("captions"), "\t"),
                    "excel.csv": separated(cells("boxes"), ";").decode().encode("utf-16"),
                    "four.csv": separated(four)}


def weights() -> Sound:
    """Checkpoints of PyTorch, of both formats, wrapped, and of a program."""
    rng = np.random.default_rng(0)
    state = {name: rng.standard_normal(shape).astype(dtype) for name, shape, dtype in (
        ("a.weight", (4, 3), "float32"), ("a.bias", (3,), "float16"), ("b", (), "float64"),
        ("empty", (0, 2), "float32"), ("visual_encoder.visual.conv1.weight", (4, 3, 3, 2, 2),
                                       "float32"))}
    pickles, storages = torch_files.tables(model=state)
    plain, held = torch_files.tables(x=state)
    attributes = {name.replace(".", "_"): torch_files.tensor(
        str(n), array.dtype.name, array.size, 0, array.shape, torch_files.contiguous(array.shape))
        for n, (name, array) in enumerate(state.items())}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        made = {
            "model.pth": lambda: torch_files.write(
                path, torch_files.table(pickles | {"epoch": torch_files.number(3)}), storages),
            "plain.pth": lambda: torch_files.write(path, plain["x"], held, order="big"),
            "program.pth": lambda: torch_files.write(
                path, torch_files.program("Net", attributes), storages, members=["constants.pkl"]),
            "legacy.pth": lambda: torch_files.write_legacy(
                path, torch_files.table(pickles), storages),
        }
        found = {}
        for name, make in made.items():
            make()
            found[name] = path.read_bytes()
    return found


SOUND: dict[str, Callable[[], Sound]] = {
    kind: functools.cache(make) for kind, make in {
        "video": videos, "image": pictures, "tar": tars, "jsonl": lines, "csv": csvs,
        "pth": weights}.items()}
