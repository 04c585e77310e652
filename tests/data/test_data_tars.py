"""Damaged tar files: what their headers claim is not believed, and what came before is used."""

import tarfile

import pytest
from raw_media import image, put, put_csv, put_tar

from data.datasets import DATASETS, Missing, RawFolder, own, tars

WHOLE = image(0)


def header(kind: bytes, size: int) -> bytes:
    """Of a member, with a right checksum; a negative size as GNU's tar would write it."""
    made = bytearray(tarfile.TarInfo("b.jpg").tobuf(tarfile.GNU_FORMAT))
    made[156:157] = kind
    if size < 0 or size >= 8**11:
        made[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11, "big")
    else:
        made[124:136] = b"%011o\0" % size
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def damaged(folder, kind: bytes, size: int, copies: int = 1):
    """A tar of an image with its caption, and such headers behind; gives its path."""
    put_tar(folder / "0.tar", {"a.txt": "one", "a.jpg": WHOLE})
    before = (folder / "0.tar").read_bytes()
    with tarfile.open(folder / "0.tar") as tar:
        end = tar.getmembers()[-1].offset_data + len(WHOLE)
    put(folder / "0.tar", before[:end + -end % 512] + header(kind, size) * copies + b"\0" * 1024)
    return folder / "0.tar", end + -end % 512


@pytest.mark.parametrize("kind, size, copies", [
    (b"0", -1, 1), (b"0", -512, 1), (b"0", -10**6, 1), (b"0", 2**80, 1), (b"x", 2**63, 1),
    (b"x", 2**33, 1), (b"g", 2**40, 1), (b"L", 2**33, 1), (b"L", -1, 1), (b"x", -1536, 1),
    (b"x", 0, 3000)])
def test_what_a_header_claims_ends_no_more_than_its_tar(kind, size, copies, tmp_path):
    path, _ = damaged(tmp_path / "raw", kind, size, copies)
    found = []
    with pytest.raises(tarfile.TarError, match="header"):
        for member in tars.members(path):
            found.append(member.name)
    assert found[:2] == ["a.txt", "a.jpg"]
    raw = RawFolder(tmp_path / "raw")
    first, *_, last = DATASETS["webdataset"].read(raw)["train"]
    assert first.fields["texts"] == ["one"] and first.media.size == len(WHOLE)
    assert isinstance(last.media, Missing) and "the rest of 0.tar" in last.media.expected
    put_csv(tmp_path / "t.csv", [["path", "caption"], ["0.tar/a.jpg", "x"], ["0.tar/c.jpg", "y"]])
    told = own.dataset(own.Options((str(tmp_path / "t.csv"),))).read(raw)["train"]
    assert [isinstance(entry.media, Missing) for entry in told] == [False, True]


def test_a_size_that_leads_back_to_an_earlier_header_is_no_ring(tmp_path):
    path, at = damaged(tmp_path, b"0", 0)
    put(path, path.read_bytes()[:at] + header(b"0", -(at + 512 - 1024)) + b"\0" * 1024)
    with pytest.raises(tarfile.TarError, match="a size below zero"):
        assert len(list(tars.members(path))) < 3
