"""Pictures as viewers show them: each kind of file against arrays that NumPy computes."""

import importlib
import io
import pickle
import struct
import sys
import tracemalloc
import warnings
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from raw_media import put

from data import media
from data.datasets import DATASETS
from data.pipeline import open_split
from data.prepare import prepare
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess import colours, opening, pictures
from mplug2_jax.preprocess.files import load_clip
from mplug2_jax.preprocess.image import decode_image, resize, stretch
from mplug2_jax.preprocess.pictures import as_annotated
from mplug2_jax.preprocess.video import decode_video

# What each value of the tag does to rows and columns.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 95},
            "AVIF": {"quality": 95}}  # the last two nearly


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, kind, **options)
    return file.getvalue()


def tagged(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", value
    return exif


def blocks(height: int = 32, width: int = 64) -> np.ndarray:
    """Blocks of 16 pixels, each of its own colour, so that every turn and mirror differs."""
    colours = np.random.default_rng(3).integers(0, 256, (height // 16, width // 16, 1))
    return colours.repeat(3, 2).astype(np.uint8).repeat(16, 0).repeat(16, 1)


def over_white(rgba: np.ndarray) -> np.ndarray:
    """To the nearest level, in exact arithmetic."""
    colour, alpha = rgba[..., :3].astype(int), rgba[..., 3:].astype(int)
    return ((colour * alpha + 255 * (255 - alpha)) * 2 + 255) // 510


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, depth: int, colour: int, row: bytes, more: bytes = b"", end: bytes = b""):
    """A PNG of one row, in any depth."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more
            + chunk(b"IDAT", zlib.compress(b"\0" + row)) + end + chunk(b"IEND", b""))


def tiff(width: int, bits: int, samples: int, row: bytes, **tags: int) -> bytes:
    """A TIFF of one row, as no writer of Pillow makes them."""
    entries = {256: width, 257: 1, 258: bits, 259: 1, 262: tags.pop("photometric"), 273: 0,
               277: samples, 278: 1, 279: len(row)} | {int(k[1:]): v for k, v in tags.items()}
    start = 8 + 2 + 12 * len(entries) + 4
    entries[273] = start + (2 * samples if samples > 2 else 0)
    body = b""
    for tag, value in sorted(entries.items()):
        if tag == 258 and samples > 2:
            body += struct.pack("<HHII", tag, 3, samples, start)
        else:
            body += struct.pack("<HHIHH", tag, 3, 1, value, 0)
    words = struct.pack(f"<{samples}H", *[bits] * samples) if samples > 2 else b""
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + b"\0" * 4 + words + row


@pytest.mark.parametrize("value", TURNS)
@pytest.mark.parametrize("kind", LOSSLESS)
def test_exif_turns_a_picture_and_its_stated_size(kind, value):
    shown = TURNS[value](blocks())
    data = encoded(blocks(), kind, exif=tagged(value), **LOSSLESS[kind])
    found = decode_image(data)
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).max() <= (8 if kind in ("JPEG", "AVIF") else 0)
    assert media.probe("image", data)[1:3] == (shown.shape[1], shown.shape[0])


def test_a_tag_after_the_pixels_in_an_odd_type_or_of_no_value_there_is():
    block = b"MM\0*\0\0\0\x08\0\1\x01\x12" + struct.pack(">HII", 4, 1, 6) + b"\0" * 4
    data = png(2, 8, 0, b"\1\2", end=chunk(b"eXIf", block))
    assert decode_image(data)[..., 0].tolist() == [[1], [2]]
    assert media.probe("image", data)[1:3] == (1, 2)
    for value in (0, 9):
        assert decode_image(encoded(blocks(), "JPEG", exif=tagged(value))).shape == (32, 64, 3)
    cut = encoded(blocks(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert decode_image(cut).shape == (32, 64, 3)


def test_phones_pictures_of_several_and_big_tiffs_are_turned():
    image, more = Image.fromarray(blocks()), Image.new("RGB", (64, 32), "blue")
    for data in (encoded(image, "MPO", save_all=True, append_images=[more], exif=tagged(6)),
                 encoded(image, "TIFF", big_tiff=True, exif=tagged(6))):
        assert np.abs(decode_image(data).astype(int) - TURNS[6](blocks())).max() < 10
        assert media.probe("image", data)[1:3] == (32, 64)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_16_bits_of_grey_keep_the_upper_8(kind):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = decode_image(encoded(ramp, kind))
    np.testing.assert_array_equal(found, (ramp >> 8).astype(np.uint8)[..., None].repeat(3, 2))


def test_other_depths():
    words = struct.pack(">6H", 300, 65535, 256, 255, 0, 1)
    assert decode_image(png(2, 16, 2, words)).tolist() == [[[1, 255, 1], [0, 0, 0]]]
    assert decode_image(png(4, 2, 0, b"\x1b"))[0, :, 0].tolist() == [0, 85, 170, 255]
    fax = encoded(Image.new("1", (9, 3), 1), "TIFF", compression="group4")
    assert decode_image(fax).min() == 255
    # TIFF: 12 bits, and 16 of which 0 is white.
    packed = bytes([0xFF, 0xF0, 0x10])
    assert decode_image(tiff(2, 12, 1, packed, photometric=1))[0, :, 0].tolist() == [255, 1]
    row = struct.pack("<2H", 0, 65535)
    assert decode_image(tiff(2, 16, 1, row, photometric=0))[0, :, 0].tolist() == [255, 0]


def test_numbers_without_an_agreed_white_are_made_grey_in_proportion():
    def levels(values, kind=np.float32):
        return decode_image(encoded(np.array([values], kind), "TIFF"))[0, :, 0].tolist()

    assert levels([0, 0.25, 0.5]) == [0, 64, 128]  # of 0..1
    assert levels([-2, 0, 2]) == levels([5, 7.5, 10]) == [0, 128, 255]
    assert levels([np.nan, np.inf, -np.inf, 1, 3]) == [0, 255, 0, 0, 255]
    assert levels([7, 7]) == [0, 0]
    assert levels([0, 500, 1000], np.int32) == [0, 128, 255]


def test_large_pictures_of_floats_are_converted_a_part_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 9, (60, 50)).astype(np.float32)
    values[3, :4] = np.nan, np.inf, -np.inf, 40
    premultiplied = Image.fromarray(rng.integers(0, 256, (60, 50, 4), np.uint8)).convert("RGBa")
    pixels = np.asarray(premultiplied).astype(int)
    monkeypatch.setattr(colours, "_BLOCK", 7)
    finite = values[np.isfinite(values)].astype(float)
    shown = 255 * ((np.nan_to_num(values.astype(float), nan=finite.min()) - finite.min())
                   / (finite.max() - finite.min())).clip(0, 1)
    found = decode_image(encoded(values, "TIFF"))
    np.testing.assert_array_equal(found, np.rint(shown)[..., None].repeat(3, -1))
    np.testing.assert_array_equal(colours.to_rgb(premultiplied),
                                  (pixels[..., :3] + 255 - pixels[..., 3:]).clip(0, 255))
    monkeypatch.undo()
    values = np.zeros((1000, 8000), np.float32)
    tracemalloc.start()
    colours._stretched(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * values.nbytes  # in float64 whole it would be twice as much, several times


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG2000"])
def test_what_is_transparent_lies_over_white(kind):
    rgba = np.random.default_rng(0).integers(0, 256, (20, 30, 4)).astype(np.uint8)
    rgba[:5, :, 3], rgba[5:9, :, 3] = 0, 255
    options = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    np.testing.assert_array_equal(decode_image(encoded(rgba, kind, **options)), over_white(rgba))
    if kind in ("PNG", "JPEG2000"):
        found = decode_image(encoded(rgba[..., 2:], kind))
        np.testing.assert_array_equal(found, over_white(rgba[..., [2, 2, 2, 3]]))


def test_a_transparent_colour_is_given_in_the_files_own_depth():
    def shown(width, depth, colour, row, key):
        return decode_image(png(width, depth, colour, row, chunk(b"tRNS", key))).tolist()[0]

    white, grey = [255] * 3, [170] * 3
    assert shown(4, 2, 0, b"\x1b", b"\0\1") == [[0] * 3, white, grey, white]
    assert shown(2, 4, 0, b"\x12", b"\0\2") == [[17] * 3, white]
    assert shown(2, 8, 0, b"\x00\x07", b"\0\0") == [white, [7] * 3]
    assert shown(2, 16, 0, struct.pack(">2H", 300, 301), struct.pack(">H", 300)) == [white, [1] * 3]
    colours = struct.pack(">6H", 300, 65535, 256, 255, 0, 1)
    assert shown(2, 16, 2, colours, struct.pack(">3H", 300, 65535, 256)) == [white, [0] * 3]
    palette = chunk(b"PLTE", bytes([9, 9, 9, 200, 0, 0])) + chunk(b"tRNS", b"\x80")
    assert decode_image(png(2, 4, 3, b"\x01", palette)).tolist() == [[[132] * 3, [200, 0, 0]]]


def test_colours_that_are_multiplied_by_their_alpha_already():
    row = bytes([100, 50, 0, 128, 0, 0, 0, 0])
    found = decode_image(tiff(2, 8, 4, row, photometric=2, t338=1))
    assert found.tolist() == [[[227, 177, 127], [255] * 3]]
    apart = decode_image(tiff(2, 8, 4, row, photometric=2, t338=2))
    assert apart.tolist() == over_white(np.frombuffer(row, np.uint8).reshape(1, 2, 4)).tolist()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, 8:] = 0, 255, 255, 0  # red
    data = encoded(Image.frombytes("CMYK", (16, 16), ink.tobytes()), kind)
    assert np.abs(decode_image(data)[4, [2, 13]].astype(int) - [[255] * 3, [255, 0, 0]]).max() < 6


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_prepare_training_and_predict_agree_whatever_the_name(kind, tmp_path):
    raw = tmp_path / "raw"
    data = encoded(blocks(), kind)
    put(raw / "train/cat/a.jpg", data)
    put(raw / "train/dog/b.jpg", b"<svg/>")  # for nobody
    prepare(DATASETS["class_folders"], raw, tmp_path / "out")
    split = open_split(tmp_path / "out/class_folders", "train")
    assert len(split) == 1 and split[0]["media"] == data
    np.testing.assert_array_equal(
        load_clip(raw / "train/cat/a.jpg", 1, 32), load_clip(raw / "train/cat/a.jpg", 4, 32))
    assert np.abs(decode_image(split[0]["media"]).astype(int) - blocks()).max() < 12
    for decode in (decode_image, lambda bad: media.probe("image", bad)):
        with pytest.raises(MediaError, match="known format"):
            decode(b"<svg/>")


def clear_frames() -> list[np.ndarray]:
    frames = np.zeros((4, 24, 32, 4), np.uint8)
    for number, frame in enumerate(frames):
        frame[4:12, 4 + 4 * number : 12 + 4 * number] = 200, 40 * number, 0, 255
    return list(frames)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_picture_that_moves_is_a_video_or_its_first_picture(kind):
    first, *others = map(Image.fromarray, clear_frames())
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"},
               "GIF": {"disposal": 2}}.get(kind, {})
    data = encoded(first, kind, save_all=True, append_images=others, duration=100, **options)
    shown = np.stack([over_white(frame) for frame in clear_frames()])
    worst = 12 if kind == "AVIF" else 0
    assert np.abs(decode_video(data, 4) - shown).max() <= worst
    assert np.abs(decode_image(data) - shown[0]).max() <= worst
    assert np.abs(decode_video(data, 2, start=0.1, end=0.3) - shown[1:3]).max() <= worst
    assert media.probe("video", data)[1:] == (32, 24, 4)
    assert media.probe("image", data)[1:] == (32, 24, 1)


def test_a_png_that_moves_may_have_a_picture_of_its_own():
    red, *others = (Image.new("RGB", (8, 8), (255 - 80 * n, 0, 80 * n)) for n in range(3))
    data = encoded(red, "PNG", save_all=True, append_images=others, default_image=True)
    assert decode_image(data)[0, 0].tolist() == [255, 0, 0]
    assert decode_video(data, 2)[:, 0, 0].tolist() == [[175, 0, 80], [95, 0, 160]]
    assert media.probe("video", data).frames == 2


def test_a_png_that_claims_endless_frames_is_refused():
    data = png(1, 8, 0, b"\1", chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)))
    with pytest.raises(MediaError, match="too many"):
        decode_video(data, 2)


@pytest.mark.parametrize("side", [9800, 12000, 20000, 2**30])
def test_pictures_that_claim_enormous_sizes_are_refused_without_a_warning(side):
    data = png(1, 8, 0, b"\1")
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = data[:8] + chunk(b"IHDR", header) + data[33:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (decode_image, lambda data: media.probe("image", data)):
            with pytest.raises(MediaError, match=f"{side} x {side}"):
                read(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "GIF", "BMP"])
def test_a_file_cut_short_is_an_error_of_one_line(kind):
    data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8), kind)
    for end in (len(data) // 2, len(data) * 9 // 10):
        for read in (decode_image, lambda cut: media.probe("image", cut),
                     lambda cut: media.probe("images", media.pack_images([data, cut]))):
            with pytest.raises(MediaError, match="^undecodable image of [^\n]*$"):
                read(data[:end])


@pytest.mark.parametrize("options", [dict(progressive=True), dict(restart_marker_rows=1), {}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_preparing_takes_the_jpegs_that_training_reads_and_no_others(mode, options, monkeypatch):
    """By many cuts and spoilt bytes; the one decodes an eighth of the pixels, the other all."""
    monkeypatch.setattr(media, "guarded", lambda function, *given: function(*given))

    def taken(read, spoilt: bytes) -> bool:
        try:
            read(spoilt)
        except MediaError:
            return False
        return True

    rng = np.random.default_rng(7)
    pixels = Image.fromarray(rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)).resize((90, 60))
    data = encoded(pixels.convert(mode), "JPEG", **options)
    spoilt = [data[:-cut] for cut in (1, 2, 3, 9, *rng.integers(10, len(data), 12))]
    for _ in range(16):
        changed = np.frombuffer(data, np.uint8).copy()
        changed[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        spoilt.append(changed.tobytes())
    found = [taken(decode_image, one) for one in spoilt]
    assert [taken(lambda one: media.probe("image", one), one) for one in spoilt] == found
    assert True in found and False in found


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "AVIF"])
def test_preparing_finds_where_a_picture_that_moves_was_cut(kind):
    first, *others = map(Image.fromarray, clear_frames())
    data = encoded(first, kind, save_all=True, append_images=others, duration=100)
    assert media.probe("video", data).frames == 4
    for end in (len(data) * 3 // 4, len(data) * 9 // 10):
        with pytest.raises(MediaError):
            decode_video(data[:end], 4)
        with pytest.raises(MediaError, match="^[^\n]*$"):
            media.probe("video", data[:end])


def test_heic_without_its_reader_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(media, "guarded", lambda function, *given: function(*given))
    for major in (b"heic", b"heix", b"mif1"):
        data = struct.pack(">I4s4sI4s4s", 24, b"ftyp", major, 0, b"mif1", b"heic") + b"\0" * 64
        for read in (decode_image, lambda data: decode_video(data, 2),
                     lambda data: media.probe("image", data)):
            with pytest.raises(MediaError, match="^a HEIC .* needs the package pillow-heif[^\n]*$"):
                read(data)


def test_heic_of_tiles_is_read_whole_and_turned():
    heif = importlib.import_module("pillow_heif")  # optional to users
    wide = blocks(96, 128)
    for value in (1, 6, 7):
        file = io.BytesIO()
        exif = b"Exif\0\0" + tagged(value).tobytes().removeprefix(b"Exif\0\0")
        heif.from_pillow(Image.fromarray(wide)).save(file, quality=95, exif=exif, tile_size=64)
        data, shown = file.getvalue(), TURNS[value](wide)
        reference = np.asarray(heif.open_heif(io.BytesIO(data)).to_pillow().convert("RGB"))
        np.testing.assert_array_equal(decode_image(data), reference)
        assert np.abs(reference.astype(int) - shown).max() < 30
        assert media.probe("image", data)[1:3] == (shown.shape[1], shown.shape[0])
        np.testing.assert_array_equal(decode_video(data, 2)[1], reference)


def test_boxes_meet_their_pixels_in_pictures_that_exif_turns(tmp_path):
    """The annotation is of 64 x 32 pixels as coded, or of what a viewer shows."""
    coded = np.full((32, 64, 3), 40, np.uint8)
    coded[16:32, 0:16] = 220
    cases = [(value, of) for value in TURNS for of in (1, value) if of in (1, 5, 6, 7, 8)]
    refs, images, annotations, files = [], [], [], {}
    for number, (value, of) in enumerate(cases):
        annotated = TURNS[of](coded)
        rows, columns = np.nonzero(annotated[..., 0] == 220)
        files[number] = encoded(coded, "JPEG", quality=95, exif=tagged(value))
        put(tmp_path / f"raw/train2014/{number}.jpg", files[number])
        refs.append({"ann_id": number, "image_id": number, "split": "train",
                     "sentences": [{"sent": "block", "sent_id": number}]})
        images.append({"id": number, "file_name": f"{number}.jpg",
                       "width": annotated.shape[1], "height": annotated.shape[0]})
        box = [float(columns.min()), float(rows.min()), 16.0, 16.0]
        annotations.append({"id": number, "bbox": box})
    put(tmp_path / "raw/refs(unc).p", pickle.dumps(refs, protocol=0))
    put(tmp_path / "raw/instances.json", {"images": images, "annotations": annotations})
    prepare(DATASETS["refcoco"], tmp_path / "raw", tmp_path / "out")
    split = open_split(tmp_path / "out/refcoco", "train")
    for number, (value, of) in enumerate(cases):
        record, shape = split[number], TURNS[of](coded).shape
        pixels = decode_image(record["media"])
        assert pixels.shape == shape, (value, of)
        sides = np.array(record["boxes"][0]["box"]) * np.array(shape[1::-1] * 2)
        x0, y0, x1, y1 = np.rint(sides).astype(int)
        assert pixels[y0:y1, x0:x1].min() > 200, (value, of)
        assert (pixels > 130).sum() == 3 * 16 * 16
        if value == of:
            assert record["media"] == files[number]


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("value", [1, 3, 6, 7])
def test_as_annotated(kind, value):
    data = encoded(blocks(), kind, exif=tagged(value), **LOSSLESS[kind])
    worst = 8 if kind in ("JPEG", "AVIF") else 0
    lying = decode_image(as_annotated(data, (640, 320)))  # of the photograph before it was reduced
    assert lying.shape == (32, 64, 3) and np.abs(lying.astype(int) - blocks()).max() <= worst
    if value > 4:
        assert as_annotated(data, (32, 64)) == data
    assert as_annotated(data, (0, 0)) == data


def scans(count: int) -> bytes:
    """A progressive JPEG, its last scan again and again."""
    data = encoded(blocks(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


@pytest.mark.parametrize("block", [1, 2, 7, 2**20])
def test_pairs_of_bytes_are_counted_across_blocks(block, monkeypatch):
    monkeypatch.setattr(pictures, "_BLOCK", block)
    for size in range(30):
        data = np.random.default_rng(size).choice([0, 0xDA, 0xFF], size).astype(np.uint8).tobytes()
        assert pictures._count_pairs(data, 0xFF, 0xDA) == data.count(b"\xff\xda")


def test_a_jpeg_of_endless_scans_is_refused():
    assert decode_image(scans(150)).shape == (32, 64, 3)
    for read in (decode_image, lambda data: media.probe("image", data)):
        with pytest.raises(MediaError, match="^a JPEG of 100[0-9] scans, more than 200"):
            read(scans(1000))
    # A video after it, as phones write, or in a segment, is none of its scans.
    data = encoded(blocks(), "JPEG")
    np.testing.assert_array_equal(decode_image(data + b"\xff\xda" * 999), decode_image(data))
    note = b"\xff\xee" + struct.pack(">H", 2 + 2 * 999) + b"\xff\xda" * 999
    np.testing.assert_array_equal(decode_image(data[:2] + note + data[2:]), decode_image(data))


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "AVIF"])
def test_a_picture_that_moves_ends_when_the_time_is_over(kind, monkeypatch):
    first, *others = map(Image.fromarray, clear_frames())
    data = encoded(first, kind, save_all=True, append_images=others, duration=100)
    for limits in ({}, {"start": 0.1, "end": 0.4}):
        whole, looks = decode_video(data, 2, **limits), 0
        for looks in range(3):
            times = iter([0.0] * (1 + looks))  # the first one starts the clock
            time = SimpleNamespace(monotonic=lambda times=times: next(times, 1e6))
            monkeypatch.setattr(opening, "time", time)
            with pytest.raises(MediaError, match="^took longer than 120 s$"):
                decode_video(data, 2, **limits)
        monkeypatch.undo()
        np.testing.assert_array_equal(decode_video(data, 2, **limits), whole)


@pytest.mark.parametrize("shape", [(1, 20000), (20000, 1), (2, 33000)])
def test_strips_that_swscale_refuses_are_resized_by_pillow(shape):
    strip = np.random.default_rng(0).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    np.testing.assert_array_equal(stretch(strip, 224), resize(strip, 224))
