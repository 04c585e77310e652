"""Files for `fuzz.py`: two ways of damaging those of `fuzz_sound`.

`torn` knows nothing of a file. Those of `VALID` change what stands in a container that stays whole:
packets, fields of boxes, pixels behind right checksums, values of JSON that parses, cells, pickles.
"""

import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from fuzz_sound import SOUND, cells, separated

Rng = np.random.Generator
ODD = ("", "-1", "0", "1e999", "nan", "-0.5", "99999999999999999999", "\ud800", "\x1b[31m", "a\nb",
       "\r", '"', "/etc/passwd", "../secret.jpg", "out.jpg", "file:///etc/passwd", "a.jpg",
       "b.png", "c.mp4", "t.tar/s0.jpg", "t.tar::../secret.jpg", "sub", "data:image/png;base64,AAA",
       "cell:image:table.csv", "\0", "x" * 5000, "[1, 2, 3, 4]", "[[[[", "{}", "null", "train",
       "val", "é", "１２", "0 0 5 5", "[NaN, 0, 1, 1]", "sftp://x/y.jpg", "%2e%2e/secret.jpg")
VALUES = (None, True, False, 0, -1, 2**31, 2**63, 10**400, 1.5, -0.0, float("nan"), float("inf"),
          [], {}, [[]], [None], {"bytes": "x", "path": None}, {"": 1}, [0, 0, 5, 5], [1, 2],
          [1e308] * 4,
          *ODD)
NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def pick(rng: Rng, several):
    """One of them."""
    return several[int(rng.integers(len(several)))]


def flipped(data: bytes, rng: Rng, first: int = 0, last: int | None = None,
            most: int = 12) -> bytes:
    """Some bytes between two places are others."""
    spoilt, last = bytearray(data), len(data) if last is None else last
    for place in rng.integers(first, max(last, first + 1), int(rng.integers(1, most + 1))):
        if place < len(spoilt):
            spoilt[place] ^= int(rng.integers(1, 256))
    return bytes(spoilt)


def torn(data: bytes, rng: Rng, others: list[bytes]) -> bytes:
    """Bytes flipped, cut, missing, doubled, zeroed, put in, or of another file behind."""
    way, at = int(rng.integers(9)), int(rng.integers(max(len(data), 1)))
    size, other = int(rng.integers(1, 400)), pick(rng, others)
    if way <= 1:
        return flipped(data, rng)
    if way == 2:  # where sizes and counts are
        return flipped(data, rng, 0, min(200, len(data)), 4)
    if way == 3:
        return data[:at]
    if way == 4:
        return data[:at] + data[at + size:]
    if way == 5:
        return data[:at] + data[at:at + size] + data[at:]
    if way == 6:
        return data[:at] + bytes([pick(rng, (0, 255))]) * min(size, len(data) - at) + data[
            at + size:]
    if way == 7:
        return data[:at] + rng.bytes(size) + data[at:]
    return data[:at] + other[int(rng.integers(max(len(other), 1))):]


def leaves(data: bytes, first: int, last: int) -> Iterator[tuple[int, int]]:
    """First byte and end of what each box of an MP4, AVIF or JPEG 2000 file holds."""
    inner = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"edts": 0, b"moof": 0,
             b"traf": 0, b"mvex": 0, b"udta": 0, b"dinf": 0, b"stsd": 8, b"meta": 4, b"iprp": 0,
             b"ipco": 0, b"jp2h": 0, b"avc1": 78, b"iinf": 6}
    while first + 8 <= last:
        size, kind = struct.unpack_from(">I4s", data, first)
        end = last if size == 0 else min(first + size, last)
        if kind in inner:
            yield from leaves(data, first + 8 + inner[kind], end)
        elif kind != b"mdat" and end > first + 8:
            yield first + 8, end
        if end <= first:
            return
        first = end


def renumbered(data: bytes, rng: Rng, places: list[tuple[int, int]], order: str = "big") -> bytes:
    """Some numbers within some of these places are extreme, or others."""
    spoilt = bytearray(data)
    for _ in range(int(rng.integers(1, 4)) if places else 0):
        first, end = pick(rng, places)
        width = min(pick(rng, (1, 2, 4)), end - first)
        at = first + int(rng.integers(max((end - first) // width, 1))) * width
        value = pick(rng, NUMBERS) if rng.integers(2) else int(rng.integers(2**31))
        spoilt[at:at + width] = (value % 256**width).to_bytes(width, order)
    return bytes(spoilt)


def packets(data: bytes) -> list[tuple[int, int]]:
    """Where the packets of a container lie, as far as they are there in one piece."""
    found, at = [], 0
    with av.open(io.BytesIO(data)) as container:
        for packet in container.demux():
            place = data.find(bytes(packet), at) if packet.size else -1
            if place >= 0:
                found.append((place, place + packet.size))
                at = place
    return found


def retimed(data: bytes, container: str, rng: Rng) -> bytes:
    """The same packets at other times, some missing, some no keyframes."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as given, av.open(file, "w", format=container) as made:
        source = given.streams.video[0]
        target, last = made.add_stream_from_template(source), -(2**31)
        for packet in given.demux(source):
            if not packet.size or rng.integers(8) == 0:
                continue
            packet.dts = last = max(last + 1, (packet.dts or 0) + int(rng.integers(-999, 5000)))
            packet.pts = last + int(rng.integers(0, 4000))
            packet.is_keyframe = packet.is_keyframe != (rng.integers(6) == 0)
            packet.stream = target
            made.mux(packet)
    return file.getvalue()


def valid_video(name: str, data: bytes, rng: Rng) -> bytes:
    """Flips within packets, fields of boxes, times; of a picture that moves as `valid_image`."""
    suffix = Path(name).suffix
    if suffix in (".webp", ".png", ".avif"):
        return valid_image(name, data, rng)
    way = int(rng.integers(3))
    if suffix in (".mp4", ".mov") and way == 0:
        return renumbered(data, rng, list(leaves(data, 0, len(data))))
    formats = {".mp4": "mp4", ".mkv": "matroska", ".ts": "mpegts", ".avi": "avi"}
    if suffix in formats and way == 1:
        return retimed(data, formats[suffix], rng)
    if suffix == ".ts":
        at = 188 * int(rng.integers(len(data) // 188))
        return flipped(data, rng, at + 4, at + 188)
    first, end = pick(rng, packets(data) or [(0, len(data))])
    return flipped(data, rng, first, end, pick(rng, (1, 12, 100)))


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of each chunk."""
    found, at = [], 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        found.append((data[at + 4:at + 8], data[at + 8:at + 8 + size]))
        at += 12 + size
    return found


def valid_png(data: bytes, rng: Rng) -> bytes:
    """Other chunks with right checksums, other pixels that inflate."""
    chunks = png_chunks(data)
    at = int(rng.integers(len(chunks)))
    name, content = chunks[at]
    way = int(rng.integers(4))
    if name == b"IDAT" and way < 3:
        content = zlib.compress(flipped(zlib.decompress(content), rng) + b"x" * pick(
            rng, (0, 0, 1, 999)))
    elif way == 3:
        chunks.insert(int(rng.integers(len(chunks))), chunks[at])
    elif content:
        content = renumbered(content, rng, [(0, len(content))])
    chunks[chunks.index((name, chunks[at][1])) if (name, chunks[at][1]) in chunks else at] = (
        name, content)
    return data[:8] + b"".join(
        len(one).to_bytes(4, "big") + kind + one + zlib.crc32(kind + one).to_bytes(4, "big")
        for kind, one in chunks)


def segments(data: bytes) -> list[tuple[int, int]]:
    """What the segments of a JPEG hold, and its coded pixels."""
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2:at + 4], "big")
        found.append((at + 4, end))
        at = end
    return [*found, (at + 2, len(data) - 2)]


def riff(data: bytes) -> list[tuple[int, int]]:
    """What the chunks of a WebP hold."""
    found, at = [], 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4:at + 8], "little")
        found.append((at + 8, at + 8 + size))
        at += 8 + size + size % 2
    return found


def entries(data: bytes) -> list[tuple[int, int]]:
    """The entries of a TIFF's first directory, and their values that lie elsewhere."""
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first:first + 2], "little")
    return [(first + 2 + 12 * n, first + 14 + 12 * n) for n in range(count)]


def valid_image(name: str, data: bytes, rng: Rng) -> bytes:
    """Other fields and pixels, in blocks that are as long as they say."""
    suffix = Path(name).suffix
    if suffix == ".png":
        return valid_png(data, rng)
    if suffix in (".avif", ".jp2") and rng.integers(2):
        return renumbered(data, rng, list(leaves(data, 0, len(data))))
    if suffix in (".avif", ".jp2"):
        return flipped(data, rng, len(data) // 2)
    if suffix == ".tif":
        return renumbered(data, rng, entries(data), "little")
    places = {".jpg": segments, ".webp": riff}.get(suffix)
    if places:
        first, end = pick(rng, places(data))
        return (renumbered(data, rng, [(first, end)]) if rng.integers(2)
                else flipped(data, rng, first, end))
    head = 54 if suffix == ".bmp" else 800  # a GIF's palette ends there
    return (renumbered(data, rng, [(2, head)], "little") if rng.integers(2)
            else flipped(data, rng, head))


def valid_tar(name: str, data: bytes, rng: Rng) -> bytes:
    """A member's header is another with a right checksum, or what it holds is."""
    del name
    headers, at, spoilt = [], 0, bytearray(data)
    while data[at + 257:at + 262] == b"ustar":  # behind a sparse one there is none
        size = int(data[at + 124:at + 135].strip(b" \0") or b"0", 8)
        headers.append((at, size))
        at += 512 + (size + 511) // 512 * 512
    at, size = pick(rng, headers)
    way = int(rng.integers(6))
    if way == 0 and size:  # a medium, a text or a pax header
        return flipped(data, rng, at + 512, at + 512 + size)
    field = {1: (124, 12), 2: (156, 1), 3: (0, 100), 4: (157, 100)}.get(way, (345, 155))
    values = {
        124: (b"0", b"77777777777", b"1", b"\x80" + b"\0" * 6 + b"\x01\0\0\0\0", b"00000001000",
              b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"-1", b"9",
              b"\x80\0\0\0\0\0\0\0\x7f\xff\xff\xff"),
        156: tuple(bytes([one]) for one in b"0123456789gxLKSDVN\0\xff"),
    }.get(field[0], (b"../secret.jpg", b"/etc/passwd", b"a.jpg", b"\xff\xfe.jpg", b".", b"..jpg",
                     b"s0.JPG", b"\x1b[31m\n.txt", b"x" * 155, b"._a.jpg", b"d/../../x.jpg"))
    spoilt[at + field[0]:at + sum(field)] = pick(rng, values)[:field[1]].ljust(field[1], b"\0")
    spoilt[at + 148:at + 156] = b" " * 8
    spoilt[at + 148:at + 156] = b"%06o\0 " % sum(spoilt[at:at + 512])
    return bytes(spoilt)


def changed(value, rng: Rng):
    """A JSON value, of which one part is another."""
    if isinstance(value, dict) and value and rng.integers(5):
        key = pick(rng, list(value))
        if rng.integers(8) == 0:
            return {pick(rng, ODD) if one == key else one: had for one, had in value.items()}
        return value | {key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.integers(5):
        at = int(rng.integers(len(value)))
        return [*value[:at], changed(value[at], rng), *value[at + int(rng.integers(2)):]]
    return pick(rng, VALUES)


def valid_jsonl(name: str, data: bytes, rng: Rng) -> bytes:
    """Some values are others."""
    if name.endswith(".json"):
        found = json.loads(data)
        return json.dumps(changed(found, rng)).encode()
    table = [json.loads(line) for line in data.decode().splitlines()]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(table)))
        table[at] = changed(table[at], rng)
    return "".join(f"{json.dumps(row)}\n" for row in table).encode()


def valid_csv(name: str, data: bytes, rng: Rng) -> bytes:
    """Some cells are others; sometimes a name of a column, a row's length, the separator."""
    form = name.partition(".")[0]
    table = cells(form if form not in ("excel", "four") else "boxes")
    for _ in range(int(rng.integers(1, 5))):
        row = table[int(rng.integers(rng.integers(2), len(table)))]
        way, at = int(rng.integers(8)), int(rng.integers(max(len(row), 1)))
        if way == 0 and row:
            del row[at]
        elif way == 1 or not row:
            row.append(str(pick(rng, ODD)))
        else:
            row[at] = str(pick(rng, ODD))
    return separated(table, pick(rng, ",;\t|") if name.endswith(".csv") else "\t")


def repickled(data: bytes, rng: Rng) -> bytes:
    """Some operations have other arguments, are missing, doubled or swapped; it still parses."""
    for _ in range(20):
        steps = list(pickletools.genops(data))
        ends = [place for _, _, place in steps[1:]] + [len(data)]
        parts = [data[place:end] for (_, _, place), end in zip(steps, ends, strict=True)]
        for _ in range(int(rng.integers(1, 4))):
            at, way = 1 + int(rng.integers(len(parts) - 2)), int(rng.integers(7))
            other = 1 + int(rng.integers(len(parts) - 2))
            if way == 0:
                parts[at] = b""
            elif way == 1:
                parts[at] *= pick(rng, (2, 3, 2000 if len(parts[at]) < 1000 else 2))
            elif way == 2:
                parts[at], parts[other] = parts[other], parts[at]
            elif way == 3:
                parts[at] = pick(rng, (b"N", b"}", b"]", b")", b"(", b"0", b"2", b"\x88", b"1",
                                       b"K\xff", b"J\xff\xff\xff\xff", b"G\x7f\xf0" + b"\0" * 6,
                                       b"\x8a\x09" + b"\xff" * 8 + b"\0", b"cos\nsystem\n", b"R",
                                       b"h\0", b"Q", b"b", b"s", b"u", b"e", b"a", b"\x85", b"t",
                                       b"\x8f", b"\x91", b"\x90", b"\x93", b"\x81", b"l", b"d"))
            elif parts[at][:1] in (b"K", b"M", b"J", b"\x8a") and len(parts[at]) > 1:
                parts[at] = parts[at][:1 + (parts[at][:1] == b"\x8a")] + rng.bytes(
                    len(parts[at]) - 1 - (parts[at][:1] == b"\x8a"))
            elif parts[at][:1] == b"X" and len(parts[at]) > 5:
                parts[at] = flipped(parts[at], rng, 5, len(parts[at]), 2)
        try:
            made = b"".join(parts)
            if list(pickletools.genops(made))[-1][2] == len(made) - 1:
                return made
        except ValueError:
            continue
    return data


def valid_pth(name: str, data: bytes, rng: Rng) -> bytes:
    """Other members with right checksums, and other pickles; most often the one of the tensors."""
    if name == "legacy.pth":
        file, parts = io.BytesIO(data), []
        for _ in range(5):
            first = file.tell()
            list(pickletools.genops(file))
            parts.append(data[first:file.tell()])
        at = int(pick(rng, (3, 3, 3, 0, 1, 2, 4)))
        parts[at] = repickled(parts[at], rng)
        return b"".join(parts) + data[file.tell():]
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(file, "w") as made:
        names = given.namelist()
        main = next(one for one in names if one.endswith("data.pkl"))
        at = main if rng.integers(4) else pick(rng, names)
        for one in names:
            content, own = given.read(one), one
            if one == at and one == main:
                content = repickled(content, rng)
            elif one == at:
                way = int(rng.integers(5))
                content = flipped(content, rng) if way < 2 else content[:-1] if way == 2 else (
                    content + b"0")
                own = pick(rng, (one, "archive/data/../0", "/etc/passwd")) if way == 4 else one
            made.writestr(zipfile.ZipInfo(own), content,
                          pick(rng, (0, 0, 0, 0, 0, 0, 0, zipfile.ZIP_DEFLATED)))
    return file.getvalue()


VALID: dict[str, Callable[[str, bytes, Rng], bytes]] = {
    "video": valid_video, "image": valid_image, "tar": valid_tar, "jsonl": valid_jsonl,
    "csv": valid_csv, "pth": valid_pth}


def damaged(kind: str, seed: int, number: int) -> tuple[str, bytes]:
    """A file of a kind by its number: its name and bytes; every second one stays whole."""
    sound = SOUND[kind]()
    rng = np.random.default_rng([seed, list(SOUND).index(kind), number])
    name = list(sound)[number // 2 % len(sound)]
    if number % 2:
        return name, VALID[kind](name, sound[name], rng)
    return name, torn(sound[name], rng, list(sound.values()))
